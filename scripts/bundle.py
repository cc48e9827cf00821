"""Make the networks of mien: detector, faces, generator, encoder, directions, drawn, painted, grown, cartoon, student.

    python scripts/bundle.py --data ../shared/data --runs runs                    # whatever is not up to date
    python scripts/bundle.py --data ../shared/data --runs runs --plan             # say what that is, and where
    python scripts/bundle.py --data ../shared/data --runs runs --stage encoder    # this stage and those that follow
    python scripts/bundle.py --data ../shared/data --runs runs --generator faces-128 --device cuda
    python scripts/bundle.py --data ../shared/data --runs runs --stage encoder --set num_steps=500

A stage is up to date when the file in the bundle says in its header that it was made from the same data, settings and
networks; so better data, a GPU, or a better early stage re-make what hangs on them, and nothing else. A stage that was
killed goes on by the same command: its state lies in RUNS/<stage>-<hash>, where the hash is of all that may not change
while a run goes on, so that another generator begins another run of its encoder. A folder RUNS/<stage> without a hash
is gone on with where its state says that it was begun with the same. The numbers of a stage are written into its card,
between the marks. What draws photos is the cartoon's network; the student, which learns from pairs of the generators,
is measured beside it (bench/student.py) and stays in RUNS: its teacher's likenesses are not good enough to ship it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.app.artists import drawing_code
from mien.app.capabilities.networks import companion, pick_device
from mien.app.settings import DETECTOR, FACE_NET
from mien.app.studio import Studio
from mien.app.terminal.configured import configured
from mien.app.terminal.screen import Bars, note
from mien.atomic import write_text
from mien.edits.attributes import EXPRESSION_PARTS, KEPT, SHIPPED, attributes_of, face_scorer
from mien.edits.directions import DirectionSet, load_directions, save_directions
from mien.edits.find import FindConfig, find_directions
from mien.edits.interfacegan import find_boundaries
from mien.edits.labels import load_labels
from mien.errors import InputError, WeightsError
from mien.faces.detect import load_detector
from mien.losses import identity_distance
from mien.metrics import psnr, ssim
from mien.nets.discriminator import Discriminator
from mien.nets.encoder import Encoder, look
from mien.nets.features import FaceNet
from mien.nets.student import Student
from mien.report import Sink, ignore
from mien.training.adapt import ADAPT_PRESETS, AdaptConfig, adapt, find_discriminator
from mien.training.cartoon import CartoonConfig, cartoon
from mien.training.data import PictureSet, load_pictures, source_digest, split_people
from mien.training.detector import DetectorConfig
from mien.training.detector import train as train_detector
from mien.training.distill import DistillConfig, distill
from mien.training.encoder import EncoderConfig, train_encoder
from mien.training.faces import FaceTrainConfig, evaluate, train_faces
from mien.training.gan import train_on_people
from mien.training.gan_step import PRESETS, GanConfig
from mien.training.pair_filter import FilterConfig, PairFilter
from mien.training.pair_set import load_pairs
from mien.training.pairs import PairsConfig, make_pairs
from mien.training.provenance import net_digest, provenance
from mien.training.resume import Origin, load_state, read_options
from mien.weights.delta import save_difference
from mien.weights.load import load_generator, load_net, read_recipe, save_net, weights_digest

BUNDLE = Path(__file__).resolve().parent.parent / "src" / "mien" / "bundle"
NUMBERS = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.DOTALL)
LICENCE = "research and demonstration"
DATA = {
    "faces128": "Labeled Faces in the Wild, aligned as FFHQ is (faces128)",
    "ages128": "UTKFace, adults, tight crops (ages128)",
    "scenes250": "Labeled Faces in the Wild, whole photos (scenes250)",
    "toons128": "machine-made drawings of DualStyleGAN's overview sheets, S-Lab licence, non-commercial (toons128)",
}
STAGES = ("detector", "faces", "generator", "encoder", "directions", "drawn", "painted", "grown", "cartoon", "student")
HOW = ("precision", "use_compile", "save_steps", "save_kimg", "snapshot_kimg", "evaluate_kimg", "evaluate_pictures")
"""Settings that say how a network is made and not what it becomes; another one makes no file stale."""


@dataclass(frozen=True, kw_only=True)
class StudentConfig(DistillConfig):
    """Settings of the student, and how many pairs it learns from."""

    num_people: int = 3000  # invented, a fifth of them with more variety, and
    num_photos: int = 1000  # of real people, the sharpest; both before the filter
    is_filtered: bool = True


@dataclass(frozen=True)
class Chain:
    """Where the data lie, where runs are kept, which generator is made, on what, and where the networks go."""

    data: Path
    runs: Path
    generator: str
    device: torch.device
    on_step: Sink = ignore
    bundle: Path = BUNDLE
    drawn_px: int = 128  # side of the drawings to which the generator grows that draws

    @property
    def network(self) -> Path:
        return self.bundle / f"{self.generator}.safetensors"

    def source(self, name: str) -> Path:
        return self.data / f"{name}.zip"

    def pictures(self, size_px: int) -> tuple[PictureSet, PictureSet]:
        """People to train on, and people held out."""
        return split_people(load_pictures(self.source("faces128"), size_px=size_px, cache=self.runs / "cache"))

    def face_net(self) -> FaceNet:
        return load_net(self.bundle / f"{FACE_NET}.safetensors", FaceNet).to(self.device)


@dataclass(frozen=True)
class Stage:
    """One network: its file, what it is made from, and how.

    `make` is given the settings, the run's folder and the provenance, and returns what it measured. `data` and `nets`
    are what it is made from; `network` is the generator that it learns for.
    """

    name: str
    out: Path
    data: Sequence[Path]
    nets: Sequence[Path]
    config: Any
    make: Callable[[Any, Path, dict[str, Any]], dict[str, float]]
    network: Path | None = None

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the file's header is to say of its making, as things stand when the stage's turn comes."""
        known = {"data": [DATA[path.stem] for path in self.data], "licence": LICENCE}
        return provenance(self.config, [*self.data, *self.nets], **known)

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The settings that may not change while its run goes on."""
        return dict(self.config.fixed()) if hasattr(self.config, "fixed") else asdict(self.config)

    def is_done(self) -> bool:
        """Say whether the file in the bundle was made from what is there now."""
        try:
            held = read_header(self.out)
        except WeightsError:
            return False
        return same_sources(self.provenance["made_from"], held.get("made_from", {})) and same_settings(
            self.config, held.get("config", {})
        )

    def run_dir(self, runs: Path) -> Path:
        """Return the folder of its run."""
        plain = runs / self.name
        if (plain / "state.pt").exists():
            digests = [source_digest(path) for path in self.data]
            network = net_digest(load_net(self.network)) if self.network else ""
            try:
                load_state(plain / "state.pt", Origin(self.fixed, digests if len(digests) > 1 else digests[0], network))
                return plain
            except InputError:
                pass  # a run of another kind; it stays as it is
        key = json.dumps({"fixed": self.fixed, "made_from": self.provenance["made_from"]}, sort_keys=True)
        return runs / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def same_sources(now: Mapping[str, str], held: Mapping[str, str]) -> bool:
    """Say whether a header names the data and networks that there are now; older ones do not name the tables."""
    known = {name for name in now if name in held or not name.endswith(".csv") or name.startswith("labels-")}
    return all(held.get(name) == now[name] for name in known)


def same_settings(config: Any, held: Mapping[str, Any]) -> bool:
    """Say whether a header holds these settings, all of them: what it does not know may have been otherwise."""
    now = json.loads(json.dumps(asdict(config)))
    return all(name in held and held[name] == value for name, value in now.items() if name not in HOW)


def read_header(path: Path) -> dict[str, Any]:
    """Provenance of a file of weights or of directions."""
    if path.name.startswith("directions-"):
        return dict(load_directions(path).provenance)
    return dict(read_recipe(path).provenance)


def settings(generator: str) -> dict[str, Any]:
    """The settings of every stage that the shipped networks are made with, by its name."""
    return {
        "detector": DetectorConfig(),
        "faces": FaceTrainConfig(precision="bf16"),
        "generator": PRESETS[generator],
        "encoder": EncoderConfig(),
        "directions": FindConfig(),
        "drawn": replace(ADAPT_PRESETS["drawing"], where="style=illustration,comic"),
        "grown": replace(
            ADAPT_PRESETS["drawing"],
            where="style=illustration",
            batch_size=16,
            lr=0.0008,
            discriminator_lr=0.0016,
            kimg=14.0,
            patience=0,
        ),
        "painted": replace(ADAPT_PRESETS["drawing"], where="style=impasto,fantasy"),
        "cartoon": CartoonConfig(where="style=illustration,comic"),
        "student": StudentConfig(kimg=12.0, precision="bf16", identity_weight=2.0, save_kimg=2.0),
    }


def stages(chain: Chain, configs: Mapping[str, Any]) -> list[Stage]:
    """The chain in order, each stage with its settings of `configs`."""
    faces, ages, scenes, toons = (chain.source(name) for name in ("faces128", "ages128", "scenes250", "toons128"))
    face_net, network = chain.bundle / f"{FACE_NET}.safetensors", chain.network
    encoder, directions, critic = (companion(network, kind) for kind in ("encoder", "directions", "discriminator"))
    labels = companion(network, "labels").with_suffix(".csv")

    def make_detector(config: DetectorConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        net = train_detector(config, scenes, run_dir, chain.on_step, device=chain.device)
        steps = [config.num_steps, config.num_refiner_steps]
        save_net(net, detector.out, provenance=facts | of_run(run_dir, steps=steps), use_half=True)
        return {}

    def make_faces(config: FaceTrainConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        sets: dict[str, Any] = dict(faces=faces, ages=ages, cache=chain.runs / "cache")
        net = train_faces(config, **sets, run_dir=run_dir, device=chain.device, on_step=chain.on_step)
        save_net(net, face_net, provenance=facts | of_run(run_dir, steps=config.num_steps), use_half=True)
        return evaluate(net, **sets)

    def make_generator(config: GanConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        people, held_out = chain.pictures(config.img_resolution)
        net = chain.face_net()
        G = train_on_people(config, people, held_out, run_dir, chain.on_step, face_net=net, device=chain.device)
        facts |= of_run(run_dir, kimg=config.kimg, face_net=net_digest(net))
        save_net(G, network, provenance=facts, use_half=True)
        D = load_net(newest(run_dir, "D"), Discriminator)
        belongs = {"network": weights_digest(network)}
        save_net(D, critic, provenance=facts | belongs, use_half=True)
        return {"kimg": config.kimg} | {k: v for k, v in last_scores(run_dir).items() if "/" in k}

    def make_encoder(config: EncoderConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        studio = Studio(network, device=str(chain.device))
        people, held_out = chain.pictures(studio.G.img_resolution)
        E = train_encoder(
            config,
            studio.G,
            people,
            run_dir,
            chain.on_step,
            face_model=chain.face_net(),
            start=trained_beside(generator.run_dir(chain.runs), studio, config.hidden),
        )
        facts |= of_run(run_dir, steps=config.num_steps, network=studio.digest)
        save_net(E, encoder, provenance=facts, use_half=True)
        return measure_encoder(studio, E, chain.face_net(), held_out)

    def make_directions(config: FindConfig, _run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        studio, net = Studio(network, device=str(chain.device)), chain.face_net()
        people, held_out = chain.pictures(studio.G.img_resolution)
        codes = studio.encode_pixels(people.pixels[: config.num_samples])
        known: dict[str, Any] = dict(config=config, on_step=chain.on_step)
        found = find_directions(studio.G, face_scorer(net), SHIPPED, codes=codes, network=studio.digest, **known)
        if labels.is_file():
            told = dict(labels=load_labels(labels), keep=KEPT, network=studio.digest)
            found = found.joined(find_boundaries(studio.G, face_scorer(net), **told, **known))
        facts |= {"data_sha256": people.digest, "pictures": len(codes)}
        save_directions(found.with_provenance(facts), directions)
        return direction_numbers(found) | agreement(net, held_out)

    def taught(
        out: Path, begin: Any, D: Discriminator | None, side_px: int, config: AdaptConfig, run_dir: Path, facts: Any
    ) -> dict[str, float]:
        drawings = load_pictures(toons, size_px=side_px, cache=chain.runs / "cache")
        known: dict[str, Any] = dict(D=D, face_net=chain.face_net(), device=chain.device)
        found = adapt(config, begin, drawings, run_dir, chain.on_step, **known)
        facts |= of_run(run_dir, kimg=found.score["kimg"], score=dict(found.score))
        save_difference(found.G, out, base=load_generator(network), base_name=network.stem, provenance=facts)
        return dict(found.score)

    def adapted(name: str) -> Stage:
        out = chain.bundle / f"{name}-{chain.generator.removeprefix('faces-')}.safetensors"

        def make(config: AdaptConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
            G = load_generator(network)
            return taught(out, G, find_discriminator(network, critic), G.img_resolution, config, run_dir, facts)

        return Stage(name, out, [toons], [face_net, network, critic], configs[name], make, network)

    def make_grown(config: AdaptConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        D = load_net(newest(drawn.run_dir(chain.runs), "D"), Discriminator)
        return taught(grown.out, load_generator(drawn.out), D, chain.drawn_px, config, run_dir, facts)

    def make_student(config: StudentConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        studio, pairs, net = Studio(network, device=str(chain.device)), run_dir / "pairs", chain.face_net()
        people, _ = chain.pictures(chain.drawn_px)
        kept = FilterConfig() if config.is_filtered else None
        judge = PairFilter(load_detector(detector.out).to(chain.device), net, kept) if kept else None
        known = PairsConfig(num=config.num_people, high_psi_share=0.2, photos=people.digest, filter=kept)
        digests = {"source": studio.digest, "target": weights_digest(grown.out)}
        photos = {"photos-000000": drawn_from_life(studio, people, config.num_photos)}
        target = load_generator(grown.out)
        make_pairs(studio.G, target, pairs, known, digests=digests, judge=judge, photos=photos, on_step=chain.on_step)
        shown, held = (
            load_pairs(pairs, split) if any(pairs.glob(f"{split}-*")) else None for split in ("train", "val")
        )
        assert shown is not None
        made = distill(config, shown, run_dir, chain.on_step, held=held, face_net=net, device=chain.device)
        facts |= of_run(run_dir, kimg=config.kimg, img_resolution=shown.side_px, made_by=shown.made_by)
        save_net(made, student, provenance=facts, use_half=True)
        return {name: value for name, value in last_scores(run_dir, "val_l1").items() if name.startswith("val_")}

    def make_cartoon(config: CartoonConfig, run_dir: Path, facts: dict[str, Any]) -> dict[str, float]:
        people, held = chain.pictures(chain.drawn_px)
        drawings = load_pictures(toons, size_px=chain.drawn_px, cache=chain.runs / "cache")
        known: dict[str, Any] = dict(face_net=chain.face_net(), held=held, device=chain.device)
        net = cartoon(config, people, drawings, run_dir, chain.on_step, **known)
        num_drawings = read_options(run_dir)["drawings"]
        facts |= of_run(run_dir, kimg=config.kimg, img_resolution=chain.drawn_px, drawings=num_drawings)
        save_net(net, drawing, provenance=facts, use_half=True)
        return measure_cartoon(net, chain.face_net(), held)

    drawing = chain.bundle / f"toon-{chain.drawn_px}.safetensors"
    student = chain.runs / f"student-{chain.drawn_px}.safetensors"
    drawn, painted = adapted("drawn"), adapted("painted")
    grown = Stage(
        "grown",
        chain.bundle / f"drawn-{chain.drawn_px}.safetensors",
        [toons],
        [face_net, network, drawn.out],
        configs["grown"],
        make_grown,
        network,
    )
    detector = Stage(
        "detector", chain.bundle / f"{DETECTOR}.safetensors", [scenes], [], configs["detector"], make_detector
    )
    generator = Stage("generator", network, [faces], [], configs["generator"], make_generator)
    return [
        detector,
        Stage("faces", face_net, [faces, ages], [], configs["faces"], make_faces),
        generator,
        Stage("encoder", encoder, [faces], [face_net, network], configs["encoder"], make_encoder, network),
        Stage(
            "directions",
            directions,
            [faces],
            [face_net, network, encoder, *([labels] if labels.is_file() else [])],
            configs["directions"],
            make_directions,
            network,
        ),
        drawn,
        painted,
        grown,
        Stage("cartoon", drawing, [faces, toons], [face_net], configs["cartoon"], make_cartoon),
        Stage(
            "student",
            student,
            [faces],
            [face_net, network, encoder, grown.out],
            configs["student"],
            make_student,
            network,
        ),
    ]


def of_run(run_dir: Path, **facts: Any) -> dict[str, Any]:
    """What a header says of the run, beside how long it was."""
    options = read_options(run_dir)
    return {"data_sha256": options["data"], "pictures": options["pictures"], **facts}


def newest(run_dir: Path, letter: str) -> Path:
    """The last snapshot of a network of a run.

    Raises:
        InputError: there is none.
    """
    found = sorted((run_dir / "snapshots").glob(f"{letter}-*.safetensors"))
    if not found:
        raise InputError(f"{run_dir} holds no snapshot of {letter}", hint="a run leaves one at its end")
    return found[-1]


def last_scores(run_dir: Path, known_by: str = "frechet/held_out") -> dict[str, float]:
    """The last line of a run's stats.jsonl that has a score of that name; empty where none has."""
    with open(run_dir / "stats.jsonl", encoding="utf-8") as stats:
        scored = [line for line in map(json.loads, stats) if known_by in line]
    return dict(scored[-1]) if scored else {}


def drawn_from_life(studio: Studio, people: PictureSet, num: int) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield name, picture [1, 3, S, S] and code [num_ws, w_dim] of the sharpest photos, as an artist sees them."""
    order = np.argsort(-people.labels["sharpness"].astype(float), kind="stable")[:num]
    for i in order:
        img = people.pixels[i : i + 1].float() / 127.5 - 1
        yield people.names[i], img, drawing_code(studio, img)[0].expand(studio.G.num_ws, -1)


def trained_beside(run_dir: Path, studio: Studio, hidden: int) -> Encoder | None:
    """The last encoder that was trained together with the generator, when it has the sizes that are wanted."""
    try:
        start = load_net(newest(run_dir, "E"), Encoder)
    except InputError:
        return None
    sizes = (studio.G.num_ws, studio.G.w_dim, hidden)
    same = (start.num_ws, start.w_dim, start.init_kwargs["hidden"]) == sizes
    return start.requires_grad_(True) if same else None


@torch.no_grad()
def measure_encoder(studio: Studio, E: Encoder, face_net: FaceNet, held_out: PictureSet) -> dict[str, float]:
    """Numbers of the encoder on people held out, by our own measures."""
    found: dict[str, list[torch.Tensor]] = {"PSNR, dB": [], "SSIM": [], "identity (our face network)": []}
    for pixels in held_out.pixels.split(32):
        img = pixels.to(studio.device).float() / 127.5 - 1
        render = studio.G.synthesis(look(E, studio.G, img), noise_mode="const").clamp(-1, 1)
        same = 1 - identity_distance(face_net(render).identity, face_net(img).identity)
        for values, new in zip(found.values(), (psnr(render, img), ssim(render, img), same), strict=True):
            values.append(new)
    return {name: float(torch.cat(values).median()) for name, values in found.items()}


@torch.no_grad()
def measure_cartoon(net: Student, face_net: FaceNet, held_out: PictureSet) -> dict[str, float]:
    """How drawings of people held out are still they, by our own face network; and the light that lines have taken."""
    same, darker = list[torch.Tensor](), list[torch.Tensor]()
    for pixels in held_out.pixels.split(32):
        img = pixels.to(next(net.parameters()).device).float() / 127.5 - 1
        drawn = net(img).clamp(-1, 1)
        same.append(1 - identity_distance(face_net(drawn).identity, face_net(img).identity))
        darker.append((img - drawn).mean((1, 2, 3)))
    return {
        "identity (our face network)": float(torch.cat(same).median()),
        "mean light lost, of 2": float(torch.cat(darker).mean()),
    }


def direction_numbers(found: DirectionSet) -> dict[str, float]:
    """Units of directions, and what each does beside what it is for, in standard deviations by strength 1."""
    numbers: dict[str, float] = {}
    for name, direction in found.directions.items():
        other = max(direction.effects.keys() - {name}, key=lambda one: abs(direction.effects[one]))
        numbers |= {
            f"one {name}, {direction.unit}": direction.std,
            f"{name}, identity kept at +-2 (our face network)": direction.identity,
            f"{name}, largest change of another ({other})": direction.effects[other],
        }
    missed, mixed = (found.provenance.get(key, {}) for key in ("not_found", "not_parted"))
    numbers |= {f"{name}: not found, strength 1 reaches": effect for name, effect in missed.items()}
    return numbers | {f"{name}: not found, share of labels told": accuracy for name, accuracy in mixed.items()}


@torch.no_grad()
def agreement(face_net: FaceNet, held_out: PictureSet) -> dict[str, float]:
    """How what the face network measures goes with the labels of people held out: correlations."""
    batches = held_out.pixels.split(64)
    parts = [attributes_of(face_net(pixels.to(next(face_net.parameters())) / 127.5 - 1)) for pixels in batches]
    labels = {name: np.mean([held_out.labels[part] for part in parts_], 0) for name, parts_ in EXPRESSION_PARTS.items()}
    labels |= {name: held_out.labels[f"{name}_deg"] for name in ("yaw", "pitch")}
    seen = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in labels}
    known = {name: np.isfinite(values) for name, values in labels.items()}
    return {
        f"measure of {name} with its labels, correlation": float(np.corrcoef(seen[name][k], labels[name][k])[0, 1])
        for name, k in known.items()
    }


def write_numbers(card: Path, numbers: dict[str, float]) -> None:
    """Put a stage's numbers between the marks of its card, where it has them."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in numbers.items())
    if rows and NUMBERS.search(text):
        write_text(NUMBERS.sub(lambda m: f"{m[1]}| | |\n|---|---|\n{rows}{m[2]}", text), card)


def run(todo: Sequence[Stage], runs: Path) -> None:
    """Make what is not up to date, in order."""
    for stage in todo:
        if stage.is_done():
            note(f"{stage.name}: {stage.out.name} is up to date")
            continue
        numbers = stage.make(stage.config, stage.run_dir(runs), dict(stage.provenance))
        write_numbers(stage.out.with_suffix(".md"), numbers)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        note(f"{stage.name}: {stage.out.name} {weights_digest(stage.out)[:12]}  {shown}")


def plan(todo: Sequence[Stage], runs: Path) -> None:
    """Say what `run` would do; a stage after one that is to be made will be judged when its turn comes."""
    waits = False
    for stage in todo:
        if waits and stage.nets:
            note(f"{stage.name}: follows")
        elif stage.is_done():
            note(f"{stage.name}: {stage.out.name} is up to date")
        else:
            note(f"{stage.name}: {stage.out.name} is to be made in {stage.run_dir(runs)}")
            waits = True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with faces128, ages128, scenes250 and toons128"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="states, logs and decoded pictures")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="where the networks go")
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--set", action="append", metavar="NAME=X", help="a setting of the stage that is named")
    parser.add_argument("--only", action="store_true", help="no stage after the one that is named")
    parser.add_argument("--generator", choices=sorted(PRESETS), default="faces-64")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plan", action="store_true", help="say what is to be made, and stop")
    args = parser.parse_args(arguments)
    if args.set and not args.stage:
        parser.error("--set needs --stage")
    configs = settings(args.generator)
    if args.stage:
        config = configs[args.stage]
        configs[args.stage] = configured(type(config), args.set, preset=config)
    with Bars() as bars:
        chain = Chain(args.data, args.runs, args.generator, pick_device(args.device), bars, args.bundle)
        todo = stages(chain, configs)
        first = [stage.name for stage in todo].index(args.stage) if args.stage else 0
        chosen = todo[first : first + 1 if args.only else None]
        (plan if args.plan else run)(chosen, args.runs)


if __name__ == "__main__":
    main()
