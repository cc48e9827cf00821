"""A training run of StyleGAN2: a folder with options, numbers, pictures, snapshots, and a state to go on from.

The same command goes on where a killed run stopped, to the same numbers: the state is replaced as a whole, and what is
random belongs to its step (see `gan_step.py`).

Source: Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.errors import InputError
from mien.images import grid, save_png, to_pil
from mien.losses import perceptual as perceptual_distance
from mien.nets.discriminator import Discriminator
from mien.nets.encoder import Encoder
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.report import Sink, Step, ignore
from mien.training.critic import Maps
from mien.training.data import PictureSet
from mien.training.gan_step import GanConfig, GanTrainer, Perceptual
from mien.training.grow import grow_discriminator, grow_generator
from mien.training.ranks import rank
from mien.training.resume import Origin, load_state, save_state, write_options
from mien.training.validation import FaceScores
from mien.weights.load import save_net

__all__ = ["Beginning", "check_size", "collapse_warning", "run_training", "train_gan", "train_on_people"]

log = logging.getLogger(__name__)

STATE = "state.pt"
CRITIC_STAGES = 4  # of the face network; the finest is left to the discriminator
STATS_STEPS = 25  # Steps that one line of stats.jsonl averages.
Evaluate = Callable[[Generator], Mapping[str, float]]
"""Scores of a generator, such as its Fréchet distance to people outside the training set."""
Warn = Callable[[Mapping[str, float]], str | None]
"""What looks wrong in averaged numbers or scores, if anything does."""


def collapse_warning(stats: Mapping[str, float]) -> str | None:
    """Say what looks wrong in the adversary's averaged numbers, if anything does.

    >>> collapse_warning({"ada/sign": 0.98, "score/real": 2.0, "score/fake": -2.0})
    'D overfits: the mean sign on real pictures is 0.98'
    """
    if "score/real" not in stats:
        return None
    gap = stats["score/real"] - stats["score/fake"]
    if not math.isfinite(gap):
        return "the scores are not finite"
    if gap > 20:
        return f"D is far ahead: the scores of real and generated pictures are {gap:.0f} apart"
    if stats["ada/sign"] > 0.95:
        return f"D overfits: the mean sign on real pictures is {stats['ada/sign']:.2f}"
    return None


class _Run:
    """The folder of a run and what is written there."""

    def __init__(
        self,
        trainer: GanTrainer,
        folder: Path,
        origin: Origin,
        facts: dict[str, Any],
        shown: Tensor,
        warn: Warn,
        use_half: bool,
    ) -> None:
        self.trainer, self.folder, self.origin, self.facts, self.shown = trainer, folder, origin, facts, shown
        self.warn, self.use_half, self.said = warn, use_half, ""
        self.pending: dict[str, list[Tensor]] = defaultdict(list)
        self.started = time.monotonic()

    def note(self, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Collect numbers; every `STATS_STEPS` steps write and return their means."""
        for name, value in scalars.items():
            self.pending[name].append(value.float())
        if self.trainer.step % STATS_STEPS:
            return {}
        means = {name: float(torch.stack(values).mean()) for name, values in self.pending.items()}
        self.pending.clear()
        self.write(means)
        return means

    def write(self, numbers: Mapping[str, float]) -> None:
        """Append one line to stats.jsonl."""
        if rank():
            return
        line: dict[str, Any] = {"kimg": self.trainer.kimg, "time_s": time.monotonic() - self.started, **numbers}
        if warning := self.warn(numbers):
            line["warning"] = warning
            if warning != self.said:
                log.warning("%.1f kimg: %s", self.trainer.kimg, warning)
        self.said = warning or self.said
        with open(self.folder / "stats.jsonl", "a", encoding="utf-8") as stats:
            stats.write(json.dumps(line) + "\n")

    def save_state(self) -> None:
        """Replace the state that a killed run goes on from."""
        save_state(self.trainer.state_dict(), self.folder / STATE, self.origin)

    def snapshot(self) -> dict[str, Path]:
        """Save the networks, 64 fixed samples at psi 0.7, and reconstructions under their originals."""
        trainer = self.trainer
        name = f"{trainer.kimg:06.0f}"
        facts = self.facts | {"kimg": round(trainer.kimg, 3)}
        nets = {"G": trainer.G_ema, "D": trainer.D} | ({"E": trainer.E} if trainer.E else {})
        for letter, net in nets.items():
            path = self.folder / "snapshots" / f"{letter}-{name}.safetensors"
            save_net(net, path, provenance=facts, use_half=self.use_half)
        return self._pictures(name)

    @torch.no_grad()
    def _pictures(self, name: str) -> dict[str, Path]:
        trainer = self.trainer
        z = torch.from_numpy(np.random.RandomState(0).standard_normal((64, trainer.G.z_dim))).float()
        ws = trainer.G_ema.mapping(z.to(trainer.device), truncation_psi=0.7)
        img = torch.cat([trainer.G_ema.synthesis(some, noise_mode="const") for some in ws.split(16)])
        pictures = {"samples": self.folder / "samples" / f"{name}.png"}
        save_png(grid(to_pil(img), columns=16, gap_px=0), pictures["samples"])
        if trainer.E is not None:
            coded = trainer.G_ema.synthesis(trainer.encode_pictures(self.shown), noise_mode="const")
            pictures["reconstructions"] = self.folder / "samples" / f"{name}-coded.png"
            both = to_pil(torch.cat([self.shown, coded]))
            save_png(grid(both, columns=len(coded), gap_px=0), pictures["reconstructions"])
        return pictures


@dataclass(frozen=True)
class Beginning:
    """Networks that a run begins with: a generator, its discriminator, and perhaps its encoder."""

    G: Generator
    D: Discriminator
    E: Encoder | None = None


def _begin_with(trainer: GanTrainer, start: Beginning) -> None:
    """Give a fresh trainer the weights of other networks, grown to its size; an encoder does not grow."""
    side = trainer.config.img_resolution
    G = grow_generator(start.G, side) if start.G.img_resolution < side else start.G
    D = grow_discriminator(start.D, side) if start.D.img_resolution < side else start.D
    try:
        for net, given in ((trainer.G, G), (trainer.G_ema, G), (trainer.D, D)):
            net.load_state_dict(given.state_dict())
        if start.E is not None and trainer.E is not None and start.E.num_ws == G.num_ws:
            trainer.E.load_state_dict(start.E.state_dict())
    except RuntimeError as err:
        hint = "widths, w_dim and mapping_layers must be those of the networks to begin from"
        raise InputError("the run's networks do not fit those to begin from", hint=hint) from err


def train_gan(
    config: GanConfig,
    data: PictureSet,
    run_dir: Path,
    on_step: Sink = ignore,
    *,
    start: Beginning | None = None,
    held_out: Tensor | None = None,
    device: torch.device | str = "cpu",
    perceptual: Perceptual | None = None,
    maps: Maps | None = None,
    evaluate: Evaluate | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Generator:
    """Train a generator on `data`; called again with the same folder, it goes on where it stopped.

    Args:
        config: settings.
        data: pictures of side `img_resolution`.
        run_dir: folder for options.json, stats.jsonl, state.pt, snapshots and samples.
        on_step: told after every step; with numbers every 25 steps, with pictures at every snapshot.
        start: networks to begin from, of this size or a smaller one to grow; a run that goes on has its own.
        held_out: img [N, 3, H, H] of people outside `data`, to draw reconstructions of.
        device: where to train.
        perceptual: see `GanTrainer`.
        maps: see `GanTrainer`.
        evaluate: scores the moving average every `evaluate_kimg`.
        provenance: facts to save with the weights.

    Returns:
        The moving average of the generator.

    Raises:
        InputError: wrong size of pictures, or the folder belongs to a run with other networks or pictures.
    """
    check_size(data, config.img_resolution)
    trainer = GanTrainer(config, data.pixels, torch.device(device), perceptual=perceptual, maps=maps)
    return run_training(
        trainer,
        data,
        run_dir,
        on_step,
        origin=Origin(config.fixed(), data.digest),
        settings=config,
        begin=None if start is None else lambda: _begin_with(trainer, start),
        held_out=held_out,
        evaluate=evaluate,
        provenance=provenance,
    )


def check_size(data: PictureSet, side: int) -> None:
    """Refuse pictures of another side than the network's.

    Raises:
        InputError: they have another.
    """
    if data.pixels.shape[1:] != (3, side, side):
        raise InputError(f"the pictures are {list(data.pixels.shape[1:])}, the network wants [3, {side}, {side}]")


def run_training(
    trainer: GanTrainer,
    data: PictureSet,
    run_dir: Path,
    on_step: Sink,
    *,
    origin: Origin,
    settings: Any,
    begin: Callable[[], None] | None = None,
    held_out: Tensor | None = None,
    evaluate: Evaluate | None = None,
    warn: Warn = collapse_warning,
    provenance: Mapping[str, Any] | None = None,
    stage: str = "gan",
    use_half: bool = True,
) -> Generator:
    """Let a trainer take steps until it is over, or go on with those that its folder holds.

    What is due at a step is written before the state, so that a run that was killed in between does it again.

    Args:
        trainer: the networks and one step.
        data: what it trains on.
        run_dir: as for `train_gan`.
        on_step: as for `train_gan`.
        origin: of the run; another run's folder is refused.
        settings: a dataclass, for options.json.
        begin: called where the folder holds no state.
        held_out: as for `train_gan`.
        evaluate: as for `train_gan`.
        warn: says what looks wrong in numbers, None where nothing does; it is logged and kept in stats.jsonl.
        provenance: as for `train_gan`.
        stage: name of the steps that `on_step` is told.
        use_half: keep snapshots in 16 bits.

    Returns:
        The moving average of the generator.

    Raises:
        InputError: the folder belongs to a run with other networks or pictures.
    """
    config = trainer.config
    if (state := load_state(run_dir / STATE, origin, trainer.device)) is not None:
        trainer.load_state_dict(state)
    elif begin is not None:
        begin()
    facts = {"pictures": len(data), **(provenance or {})}
    if not rank():
        options = write_options(settings, run_dir, origin, facts)
        facts |= {"data_sha256": data.digest, "options": hashlib.sha256(options.encode()).hexdigest()[:12]}
    shown = held_out if held_out is not None else data.pixels[:16].float() / 127.5 - 1
    run = _Run(trainer, run_dir, origin, facts, shown[:16].to(trainer.device), warn, use_half)

    def is_due(every_kimg: float, before: float) -> bool:
        if rank():
            return False
        return int(trainer.kimg / every_kimg) > int(before / every_kimg) or trainer.is_over

    total = math.ceil(config.kimg * 1000 / config.batch_size)
    while not trainer.is_over:
        before = trainer.kimg
        numbers = run.note(trainer.train_step())
        pictures: dict[str, Path] = {}
        if is_due(config.snapshot_kimg, before):
            pictures = run.snapshot()
        if evaluate is not None and config.evaluate_kimg > 0 and is_due(config.evaluate_kimg, before):
            scores = dict(evaluate(trainer.G_ema))
            run.write(scores)
            numbers = numbers | scores
        if is_due(config.save_kimg, before):
            run.save_state()
        on_step(Step(stage, trainer.step, total, numbers, pictures))
    return trainer.G_ema


def train_on_people(
    config: GanConfig,
    people: PictureSet,
    held_out: PictureSet,
    run_dir: Path,
    on_step: Sink = ignore,
    *,
    face_net: FaceNet | None,
    start: Beginning | None = None,
    device: torch.device | str = "cpu",
) -> Generator:
    """Train on `people` with what our face network adds: a distance, a critic, and scores against others.

    Args:
        config: settings; `evaluate_kimg` and `evaluate_pictures` say how often and on how much it is scored.
        people: pictures to train on.
        held_out: pictures of other people; a run is scored where there are at least two of them.
        run_dir: as for `train_gan`.
        on_step: as for `train_gan`.
        face_net: our face network, moved to `device`; None trains without.
        start: as for `train_gan`.
        device: where to train.

    Returns:
        The moving average of the generator.

    Raises:
        InputError: as for `train_gan`.
    """
    net = None if face_net is None else face_net.to(device)
    evaluate = None
    if net is not None and len(held_out) > 1 and config.evaluate_kimg > 0 and not rank():
        evaluate = FaceScores.of(net, people.pixels, held_out.pixels, num=config.evaluate_pictures)
    return train_gan(
        config,
        people,
        run_dir,
        on_step,
        start=start,
        held_out=held_out.pixels[:16].float() / 127.5 - 1 if len(held_out) else None,
        device=device,
        perceptual=None if net is None else lambda a, b: perceptual_distance(net.maps(a), net.maps(b)),
        maps=None if net is None else lambda img: net.maps(img, CRITIC_STAGES)[1:],
        evaluate=evaluate,
    )
