"""Make every network that mien ships, stage by stage: detector, faces, generator, encoder, directions.

    python scripts/bundle.py --data ../shared/data --runs runs                    # whatever is not up to date
    python scripts/bundle.py --data ../shared/data --runs runs --stage encoder    # this stage and those that follow
    python scripts/bundle.py --data ../shared/data --runs runs --generator faces-128 --device cuda
    python scripts/bundle.py --data ../shared/data --runs runs --stage encoder --set num_steps=500

A stage is up to date when the file in the bundle says in its header that it was made from the same data, settings and
networks; so better data, a GPU, or a better early stage re-make what hangs on them, and nothing else. A stage that was
killed goes on by the same command: its state lies in RUNS/<stage>. The numbers of a stage are written into its card,
between the marks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mien.app.screen import Bars, note
from mien.app.settings import DETECTOR, FACE_NET
from mien.app.studio import Studio, companion, pick_device
from mien.app.train import configured
from mien.atomic import write_text
from mien.edits.attributes import SHIPPED, face_scorer
from mien.edits.directions import load_directions, save_directions
from mien.edits.find import FindConfig, find_directions
from mien.errors import WeightsError
from mien.losses import identity_distance, perceptual
from mien.metrics import psnr, ssim
from mien.nets.encoder import Encoder
from mien.nets.features import FaceNet
from mien.report import Sink
from mien.training.data import PictureSet, load_pictures, split_people
from mien.training.detector import DetectorConfig
from mien.training.detector import train as train_detector
from mien.training.encoder import EncoderConfig, train_encoder
from mien.training.faces import FaceTrainConfig, evaluate, train_faces
from mien.training.gan import train_gan
from mien.training.gan_step import PRESETS, GanConfig
from mien.training.validation import FaceScores
from mien.weights.load import load_net, read_recipe, save_net, weights_digest

BUNDLE = Path(__file__).resolve().parent.parent / "src" / "mien" / "bundle"
NUMBERS = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.DOTALL)


@dataclass(frozen=True)
class Chain:
    """Where the data lie, where runs are kept, which generator is made, and on what."""

    data: Path
    runs: Path
    generator: str
    device: torch.device
    on_step: Sink

    @property
    def network(self) -> Path:
        return BUNDLE / f"{self.generator}.safetensors"

    def pictures(self, size_px: int) -> tuple[PictureSet, PictureSet]:
        """People to train on, and people held out."""
        return split_people(load_pictures(self.data / "faces128.zip", size_px=size_px, cache=self.runs / "cache"))

    def face_net(self) -> FaceNet:
        return load_net(BUNDLE / f"{FACE_NET}.safetensors", FaceNet).to(self.device)


@dataclass(frozen=True)
class Stage:
    """One network: its file, what it is made from, and how.

    `make` is given the settings, the run's folder and the provenance, and returns what it measured.
    """

    name: str
    out: Path
    sources: Sequence[Path]
    config: Any
    make: Callable[[Any, Path, dict[str, Any]], dict[str, float]]

    def provenance(self) -> dict[str, Any]:
        """What the file's header says of its making."""
        made_from = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.sources}
        return {"made_from": made_from, "config": json.loads(json.dumps(asdict(self.config)))}

    def is_done(self) -> bool:
        """Say whether the file in the bundle was made from what is there now."""
        try:
            held = read_header(self.out)
        except WeightsError:
            return False
        return all(held.get(key) == value for key, value in self.provenance().items())


def read_header(path: Path) -> dict[str, Any]:
    """Provenance of a file of weights or of directions."""
    if path.name.startswith("directions-"):
        return dict(load_directions(path).provenance)
    return dict(read_recipe(path).provenance)


def stages(chain: Chain) -> list[Stage]:
    """The chain in order."""
    faces, ages, scenes = (chain.data / f"{name}.zip" for name in ("faces128", "ages128", "scenes250"))
    face_net, network = BUNDLE / f"{FACE_NET}.safetensors", chain.network
    encoder = companion(network, "encoder")

    def make_detector(config: DetectorConfig, run_dir: Path, provenance: dict[str, Any]) -> dict[str, float]:
        net = train_detector(config, scenes, run_dir, chain.on_step)
        save_net(net, BUNDLE / f"{DETECTOR}.safetensors", provenance=provenance, use_half=True)
        return {}

    def make_faces(config: FaceTrainConfig, run_dir: Path, provenance: dict[str, Any]) -> dict[str, float]:
        cache = chain.runs / "cache"
        net = train_faces(config, faces=faces, ages=ages, run_dir=run_dir, cache=cache, on_step=chain.on_step)
        save_net(net, face_net, provenance=provenance, use_half=True)
        return evaluate(net, faces=faces, ages=ages, cache=cache)

    def make_generator(config: GanConfig, run_dir: Path, provenance: dict[str, Any]) -> dict[str, float]:
        people, held_out = chain.pictures(config.img_resolution)
        net = chain.face_net()
        G = train_gan(
            config,
            people,
            run_dir,
            chain.on_step,
            held_out=held_out.pixels[:16].float() / 127.5 - 1,
            device=chain.device,
            perceptual=lambda a, b: perceptual(net.maps(a), net.maps(b)),
            evaluate=FaceScores.of(net, people.pixels, held_out.pixels),
        )
        save_net(G, network, provenance=provenance | {"licence": "research and demonstration"}, use_half=True)
        return {"kimg": config.kimg}

    def make_encoder(config: EncoderConfig, run_dir: Path, provenance: dict[str, Any]) -> dict[str, float]:
        studio = Studio(network, device=str(chain.device))
        people, held_out = chain.pictures(studio.G.img_resolution)
        E = train_encoder(
            config,
            studio.G,
            people,
            run_dir,
            chain.on_step,
            face_model=chain.face_net(),
            start=trained_beside(chain.runs / "generator", studio, config.hidden),
        )
        save_net(E, encoder, provenance=provenance | {"network": studio.digest}, use_half=True)
        return measure_encoder(studio, E, chain.face_net(), held_out)

    def make_directions(config: FindConfig, _run_dir: Path, provenance: dict[str, Any]) -> dict[str, float]:
        studio = Studio(network, device=str(chain.device))
        people, _ = chain.pictures(studio.G.img_resolution)
        found = find_directions(
            studio.G,
            face_scorer(chain.face_net()),
            SHIPPED,
            codes=studio.encode_pixels(people.pixels[: config.num_samples]),
            config=config,
            network=studio.digest,
            on_step=chain.on_step,
        )
        found = found.with_provenance(provenance)
        save_directions(found, companion(network, "directions"))
        return {f"one {name}, {d.unit}": d.std for name, d in found.directions.items()}

    return [
        Stage("detector", BUNDLE / f"{DETECTOR}.safetensors", [scenes], DetectorConfig(), make_detector),
        Stage("faces", face_net, [faces, ages], FaceTrainConfig(), make_faces),
        Stage("generator", network, [faces, face_net], PRESETS[chain.generator], make_generator),
        Stage("encoder", encoder, [faces, face_net, network], EncoderConfig(), make_encoder),
        Stage(
            "directions",
            companion(network, "directions"),
            [faces, face_net, network, encoder],
            FindConfig(),
            make_directions,
        ),
    ]


def trained_beside(run_dir: Path, studio: Studio, hidden: int) -> Encoder | None:
    """The last encoder that was trained together with the generator, when it has the sizes that are wanted."""
    found = sorted((run_dir / "snapshots").glob("E-*.safetensors"))
    if not found:
        return None
    start = load_net(found[-1], Encoder)
    sizes = (studio.G.num_ws, studio.G.w_dim, hidden)
    same = (start.num_ws, start.w_dim, start.init_kwargs["hidden"]) == sizes
    return start.requires_grad_(True) if same else None


@torch.no_grad()
def measure_encoder(studio: Studio, E: Encoder, face_net: FaceNet, held_out: PictureSet) -> dict[str, float]:
    """Numbers of the encoder on people held out, by our own measures."""
    found: dict[str, list[torch.Tensor]] = {"PSNR, dB": [], "SSIM": [], "identity (our face network)": []}
    for pixels in held_out.pixels.split(32):
        img = pixels.to(studio.device).float() / 127.5 - 1
        render = studio.G.synthesis(E(img), noise_mode="const").clamp(-1, 1)
        same = 1 - identity_distance(face_net(render).identity, face_net(img).identity)
        for values, new in zip(found.values(), (psnr(render, img), ssim(render, img), same), strict=True):
            values.append(new)
    return {name: float(torch.cat(values).median()) for name, values in found.items()}


def write_numbers(card: Path, numbers: dict[str, float]) -> None:
    """Put a stage's numbers between the marks of its card, where it has them."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in numbers.items())
    if rows and NUMBERS.search(text):
        write_text(NUMBERS.sub(lambda m: f"{m[1]}| | |\n|---|---|\n{rows}{m[2]}", text), card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with faces128, ages128 and scenes250")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="states, logs and decoded pictures")
    parser.add_argument("--stage", choices=("detector", "faces", "generator", "encoder", "directions"))
    parser.add_argument("--set", action="append", metavar="NAME=X", help="a setting of the stage that is named")
    parser.add_argument("--only", action="store_true", help="no stage after the one that is named")
    parser.add_argument("--generator", choices=sorted(PRESETS), default="faces-64")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.set and not args.stage:
        parser.error("--set needs --stage")
    with Bars() as bars:
        chain = Chain(args.data, args.runs, args.generator, pick_device(args.device), bars)
        todo = stages(chain)
        names = [stage.name for stage in todo]
        first = names.index(args.stage) if args.stage else 0
        todo[first] = replace(
            todo[first], config=configured(type(todo[first].config), args.set, preset=todo[first].config)
        )
        for stage in todo[first : first + 1 if args.only else None]:
            if stage.is_done():
                note(f"{stage.name}: {stage.out.name} is up to date")
                continue
            numbers = stage.make(stage.config, args.runs / stage.name, stage.provenance())
            write_numbers(stage.out.with_suffix(".md"), numbers)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            note(f"{stage.name}: {stage.out.name} {weights_digest(stage.out)[:12]}  {shown}")


if __name__ == "__main__":
    main()
