"""From a generator of faces to one of drawings, by a hundred pictures: the loop of `gan.py` with a hand on the brake.

What the source knows is kept where few pictures would only spoil it: the mapping stays as it is, so that the same w
stays the same person; D's first blocks keep their eyes (FreezeD); styles of early layers may stay; and a loss at low
resolution may hold each drawing to the face that the source draws for the same w. Every few thousand pictures a
snapshot is taken and judged by the signs of `signs.py`. The run ends where the distance to the drawings no longer
falls, or where the samples become one, and gives the best snapshot.

Drawings larger than what the source renders make it grow first: new blocks learn what the smaller picture cannot show.

Source: ADA: Karras et al. 2020, arXiv:2006.06676; FreezeD: Mo et al. 2020, arXiv:2002.10964; frozen mapping and
structure loss: Back 2021, arXiv:2106.12785; transfer and blending: Pinkney and Adler 2020, arXiv:2010.05334.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.edits.blend import parts
from mien.edits.sweep import identity_kept
from mien.errors import InputError
from mien.latents import sample_ws, synthesize
from mien.losses import identity_distance
from mien.nets import stylegan2, stylegan3
from mien.nets.discriminator import Discriminator
from mien.nets.features import FaceNet
from mien.nets.generator import Generator
from mien.report import Sink, ignore
from mien.training.augment import AdaController, augment
from mien.training.data import PictureSet, select
from mien.training.gan import CRITIC_STAGES, check_size, run_training
from mien.training.gan_step import GanConfig, GanTrainer
from mien.training.grow import grow_discriminator, grow_generator
from mien.training.provenance import net_digest
from mien.training.resume import Origin
from mien.training.settings import fixed_settings, require_above, require_least, require_share
from mien.training.signs import Signs, speak_up
from mien.weights.formats import read_checkpoint
from mien.weights.load import load_net, read_recipe, weights_digest

__all__ = [
    "ADAPT_PRESETS",
    "AdaptConfig",
    "AdaptTrainer",
    "Adapted",
    "Score",
    "adapt",
    "best",
    "find_discriminator",
    "is_enough",
    "structure_distance",
]

log = logging.getLogger(__name__)

LUMA = (0.299, 0.587, 0.114)
PEOPLE = tuple(range(100, 132))  # seeds whose likeness to the source is measured
EPS = 1e-6
Score = Mapping[str, float]
"""What a snapshot was judged: `kimg`, `kernel`, `diversity` and the other numbers of `AdaptTrainer.judge`."""


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Settings of an adaptation to about a hundred pictures; those above the line are fixed while a run goes on."""

    where: str = ""  # Which pictures, by a column of their table: style=illustration, or style=comic,arcane.
    batch_size: int = 32
    seed: int = 0
    is_mapping_frozen: bool = True  # The same w stays the same person.
    freeze_d: int = 1  # Blocks of D, from the picture's side, that stay as they are,
    freeze_affines: int = 0  # and layers of G, from the first, that keep how styles act on them.
    structure_weight: float = 1.0  # Of `structure_distance` to the source's face of the same w,
    structure_px: int = 16  # at this side.
    identity_weight: float = 0.0  # Of the distance in identity to it, by our face network.
    critic_weight: float = 0.0  # Of a second critic, on our face network's maps.
    lr: float = 0.0005  # Adam, (0, 0.99), G;
    discriminator_lr: float = 0.001
    warmup_kimg: float = 0.5  # In which the rates rise from nothing: the optimisers know nothing of these networks yet.
    r1_gamma: float = 0.5
    r1_interval: int = 16
    style_mixing_prob: float = 0.5
    ada_target: float = 0.6
    ada_kimg: float = 100.0  # Thousands of pictures in which p can go from 0 to 1; 500 from nothing.
    ada_start: float = 0.0  # p at first.
    ema_kimg: float = 1.0  # Half-life of the moving average.
    # ------------------------------------------------------------------------------------------------------------------
    kimg: float = 12.0
    snapshot_kimg: float = 2.0  # Between two snapshots, each judged.
    save_kimg: float = 2.0
    patience: int = 3  # Snapshots without a smaller distance that end the run; 0 = never.
    least_diversity: float = 0.35  # Of the drawings' own; below it the run ends, and no snapshot is the best.
    evaluate_pictures: int = 256
    precision: str = "bf16"
    use_compile: bool = True

    def __post_init__(self) -> None:
        require_least(self, 3, "evaluate_pictures")
        require_least(self, 0, "freeze_d", "freeze_affines", "warmup_kimg", "patience")
        require_least(self, 0, "structure_weight", "identity_weight")
        require_above(self, 0, "structure_px", "ada_kimg", "ema_kimg")
        require_share(self, "ada_start", "least_diversity")
        self._loop(img_resolution=64)

    def _loop(self, **sizes: Any) -> GanConfig:
        names = {field.name for field in fields(self)} & {field.name for field in fields(GanConfig)}
        own = {name: getattr(self, name) for name in names}
        return GanConfig(**own, **sizes, evaluate_kimg=self.snapshot_kimg, ema_rampup=1e9)

    def loop(self, G: Generator) -> GanConfig:
        """The settings of the training loop for a generator of G's sizes."""
        return self._loop(img_resolution=G.img_resolution, z_dim=G.z_dim, w_dim=G.w_dim)

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change within a run."""
        names = [field.name for field in fields(self)]
        return fixed_settings(self, free=tuple(names[names.index("kimg") :]))


ADAPT_PRESETS = {
    "drawing": AdaptConfig(identity_weight=0.5, critic_weight=1.0),
    "cartoon-bot": AdaptConfig(
        batch_size=16,
        is_mapping_frozen=False,
        freeze_d=0,
        structure_weight=0.0,
        lr=0.0025,
        discriminator_lr=0.002,
        r1_gamma=6.6,
        warmup_kimg=0.0,
        style_mixing_prob=0.0,
        ema_kimg=5.0,
        kimg=160.0,
        snapshot_kimg=4.0,
        save_kimg=4.0,
        patience=0,
        least_diversity=0.0,
    ),
}
"""Settings by name. `drawing` is for some hundred pictures of a style, with the help of our face network.

`cartoon-bot` is the fine-tune behind published StyleGAN3 cartoon blends: 160 kimg in batches of 16, R1 6.6, NVIDIA's
rates, ADA at its speed of a resumed run, nothing frozen, nothing held to the source.
"""


# ---- Parts ----------------------------------------------------------------------------------------------------------


def structure_distance(img: Tensor, before: Tensor, size_px: int) -> Tensor:
    """One minus the correlation of the luminance of two batches img [N, 3, H, H], seen at `size_px`: [N], 0 to 2.

    Brighter, flatter or recoloured pictures of the same light and shade are at 0.
    """

    def seen(x: Tensor) -> Tensor:
        luma = (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        small = F.adaptive_avg_pool2d(luma, min(size_px, x.shape[-1])).flatten(1)
        small = small - small.mean(1, keepdim=True)
        return small / (small.square().mean(1, keepdim=True) + EPS).sqrt()

    return 1 - (seen(img) * seen(before)).mean(1)


def _freeze(G: Generator, D: Discriminator, config: AdaptConfig) -> None:
    """Let everything learn but what the settings keep."""
    if config.is_mapping_frozen:
        cast(Any, G.mapping).requires_grad_(False)
    for part in parts(G):
        if part.kind == "affine" and part.layer_idx < config.freeze_affines:
            part.tensor.requires_grad_(False)
    for side in D.block_resolutions[: config.freeze_d]:
        getattr(D, f"b{side}").requires_grad_(False)


def find_discriminator(network: Path, beside: Path) -> Discriminator | None:
    """Return the discriminator that a generator was trained with: in its own file, or in one beside it.

    Args:
        network: the generator's file, of any format.
        beside: where one would lie that says of which weights it is; of others it is not taken.
    """
    held = read_checkpoint(network).networks
    if "D" in held:
        return load_net(network, Discriminator, role="D")
    if not beside.is_file():
        return None
    if read_recipe(beside).provenance.get("network") != weights_digest(network):
        log.warning("%s belongs to another generator than %s", beside.name, network.name)
        return None
    return load_net(beside, Discriminator)


def _new_discriminator(G: Generator) -> Discriminator:
    """A discriminator of a generator's widths, which has learnt nothing."""
    widths = {k: v for k, v in G.init_kwargs["synthesis_kwargs"].items() if k in ("channel_base", "channel_max")}
    return Discriminator(0, G.img_resolution, G.img_channels, **widths)


def _grown(
    G: Generator, D: Discriminator | None, config: AdaptConfig, side_px: int
) -> tuple[stylegan2.Generator, Discriminator | None, AdaptConfig]:
    """Both networks for pictures of a larger side; of a discriminator whose first block is new nothing is frozen."""
    if not isinstance(G, stylegan2.Generator):
        raise InputError("only a StyleGAN2 grows", hint=f"give drawings of {G.img_resolution} px")
    if side_px & (side_px - 1):
        raise InputError(f"a generator cannot grow to {side_px} px", hint="give a power of two")
    D = None if D is None else grow_discriminator(D, side_px)
    return grow_generator(G, side_px), D, replace(config, freeze_d=0)


# ---- The trainer ----------------------------------------------------------------------------------------------------


class AdaptTrainer(GanTrainer):
    """A `GanTrainer` that begins with trained networks, keeps parts of them, and judges its snapshots.

    Args:
        config: settings.
        source: the generator to begin with; it is left as it is.
        D: the discriminator that it was trained with; None for a new one, of which nothing is frozen.
        pixels: uint8 [N, 3, H, H], the drawings.
        device: where to train.
        face_net: our face network, on `device`.
    """

    def __init__(
        self,
        config: AdaptConfig,
        source: Generator,
        D: Discriminator | None,
        pixels: Tensor,
        device: torch.device,
        *,
        face_net: FaceNet | None = None,
    ) -> None:
        if D is None:
            log.warning("no discriminator of this generator: a new one begins from nothing, with nothing frozen")
            config = replace(config, freeze_d=0)
        self.settings, self.face_net = config, face_net
        self.begin_D = D
        self.source = copy.deepcopy(cast(Any, source)).to(device).eval().requires_grad_(False)
        maps = None if face_net is None else lambda img: face_net.maps(img, CRITIC_STAGES)[1:]
        super().__init__(config.loop(source), pixels, device, maps=maps)
        if isinstance(source, stylegan3.Generator):
            self.synthesis = partial(self.synthesis, update_emas=True)
        self.ada = AdaController(target=config.ada_target, speed_kimg=config.ada_kimg)
        self.ada_p = torch.full([], config.ada_start, device=device)
        self.rates = {name: getattr(self, name).param_groups[0]["lr"] for name in ("opt_G", "opt_D", "opt_C")}
        self.scores: list[dict[str, float]] = []
        self.signs = Signs(pixels, face_net=face_net, num=config.evaluate_pictures, device=device)

    def _networks(self) -> tuple[Any, Discriminator]:
        G = copy.deepcopy(self.source).requires_grad_(True).train()
        D = copy.deepcopy(self.begin_D) if self.begin_D is not None else _new_discriminator(G)
        D.requires_grad_(True).train()
        _freeze(G, D, self.settings)
        return G, D

    def train_step(self) -> dict[str, Tensor]:
        """Show one batch, at the rates that its place in the run has."""
        shown = (self.step + 1) * self.settings.batch_size / 1000
        risen = min(1.0, shown / self.settings.warmup_kimg) if self.settings.warmup_kimg > 0 else 1.0
        for name, rate in self.rates.items():
            for group in getattr(self, name).param_groups:
                group["lr"] = rate * risen
        return super().train_step()

    def _ties(self, ws: Tensor, img: Tensor) -> Tensor | float:
        config = self.settings
        if config.structure_weight == 0 and config.identity_weight == 0:
            return 0.0
        with torch.no_grad():
            before = self.source.synthesis(ws, noise_mode="const", dtype=self.dtype)
        structure = structure_distance(img, before, config.structure_px).mean()
        self.scalars["loss/structure"] = structure.detach()
        loss = config.structure_weight * structure
        if config.identity_weight > 0:
            assert self.face_net is not None
            identity = identity_distance(self.face_net(img).identity, self.face_net(before).identity).mean()
            self.scalars["loss/identity"] = identity.detach()
            loss = loss + config.identity_weight * identity
        return loss

    # ---- Judgement --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def judge(self, G: Generator) -> dict[str, float]:
        """Score a snapshot: the signs, D's mean sign on the drawings, p, and the likeness to the source's people."""
        rng = torch.Generator(device=self.device).manual_seed(0)
        real = self.pixels.float() / 127.5 - 1
        logits = torch.cat([self.D(augment(some, self.ada_p, rng)) for some in real.split(32)])
        scores = {**self.signs(G), "ada/p": float(self.ada_p), "ada/sign": float(logits.sign().mean())}
        if self.face_net is not None:
            ws = sample_ws(self.source, PEOPLE, truncation_psi=0.7)
            scores["identity"] = identity_kept(self.face_net, synthesize(G, ws), synthesize(self.source, ws))
        self.scores.append({"kimg": self.kimg, **scores})
        return scores

    @property
    def is_over(self) -> bool:
        """Whether all pictures were shown, or the snapshots say that it is enough."""
        return super().is_over or is_enough(self.scores, self.settings)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on exactly, and how its snapshots were judged."""
        return super().state_dict() | {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        super().load_state_dict(state)
        self.scores = list(state["scores"])


def best(scores: list[dict[str, float]], config: AdaptConfig) -> dict[str, float]:
    """Return the score of the smallest distance to the drawings among those of enough diversity; else the most diverse.

    >>> best([{"kernel": 2, "diversity": 1}, {"kernel": 1, "diversity": 0.1}], AdaptConfig())["kernel"]
    2
    """
    diverse = [score for score in scores if score["diversity"] >= config.least_diversity]
    if not diverse:
        return max(scores, key=lambda score: score["diversity"])
    return min(diverse, key=lambda score: score["kernel"])


def is_enough(scores: list[dict[str, float]], config: AdaptConfig) -> bool:
    """Say whether samples have become one, or `patience` snapshots in a row brought no smaller distance."""
    if not scores or config.patience == 0:
        return False
    since_best = len(scores) - 1 - scores.index(best(scores, config))
    return scores[-1]["diversity"] < config.least_diversity or since_best >= config.patience


# ---- The run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adapted:
    """The best snapshot of an adaptation, with its score and the discriminator of that time."""

    G: Generator
    score: Score
    D: Discriminator


def adapt(
    config: AdaptConfig,
    G: Generator,
    drawings: PictureSet,
    run_dir: Path,
    on_step: Sink = ignore,
    *,
    D: Discriminator | None = None,
    face_net: FaceNet | None = None,
    device: torch.device | str = "cpu",
    provenance: Mapping[str, Any] | None = None,
) -> Adapted:
    """Teach a generator to draw; called again with the same folder, it goes on where it stopped, to the same bits.

    Args:
        config: settings; `where` chooses among the drawings.
        G: of StyleGAN2 or StyleGAN3, without classes.
        drawings: pictures of its side, or of a larger one to which it grows (StyleGAN2 with skips).
        run_dir: folder for options.json, stats.jsonl, state.pt, snapshots and samples.
        on_step: told after every step; with numbers every 25 steps, with scores and pictures at every snapshot.
        D: the discriminator that G was trained with.
        face_net: our face network; without it thumbnails are compared.
        device: where to train.
        provenance: facts to save with the snapshots.

    Returns:
        The best snapshot.

    Raises:
        InputError: a generator that cannot be adapted, pictures of another size or too few, a loss that needs the face
            network, or a folder of another run.
    """
    if not isinstance(G, stylegan2.Generator | stylegan3.Generator) or G.c_dim:
        hint = "give one of StyleGAN2 or StyleGAN3 that has no classes"
        raise InputError(f"a {type(G).__module__.rpartition('.')[2]} generator cannot be adapted", hint=hint)
    if face_net is None and (config.identity_weight > 0 or config.critic_weight > 0):
        hint = "give it, or set identity_weight and critic_weight to 0"
        raise InputError("identity and critic need the face network", hint=hint)
    origin = Origin(config.fixed(), drawings.digest, net_digest(cast(Any, G)))
    settings, side_px = config, int(drawings.pixels.shape[-1])
    if side_px > G.img_resolution:
        G, D, config = _grown(G, D, config, side_px)
    check_size(drawings, G.img_resolution)
    chosen = select(drawings, config.where)
    if len(chosen) < 3:
        raise InputError(f"{len(chosen)} pictures are too few", hint="give a hundred, three at the least")
    place = torch.device(device)
    net = None if face_net is None else face_net.to(place)
    trainer = AdaptTrainer(config, G, D, chosen.pixels, place, face_net=net)
    run_training(
        trainer,
        chosen,
        run_dir,
        on_step,
        origin=origin,
        settings=settings,
        evaluate=trainer.judge,
        warn=speak_up,
        provenance=provenance,
        stage="adapt",
        use_half=False,  # what was learnt is a small difference
    )
    score = best(trainer.scores, config)
    kept = run_dir / "snapshots"
    at = f"{score['kimg']:06.0f}.safetensors"
    return Adapted(load_net(kept / f"G-{at}", type(G)), score, load_net(kept / f"D-{at}", Discriminator))
