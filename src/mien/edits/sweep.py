"""A sweep over blends: which snapshot, swapped where and how smoothly, keeps the person and still reaches the style.

A blend needs no training, so all of them are rendered for the same seeds and scored twice. *Identity kept* is the
cosine of the faces before and after. *Style reached* says how far the pictures have come from the base's to the other
generator's: 0 at the base, 1 at the other. The blends that none beats in both are the front to choose from.

Source: statistics of style: Huang and Belongie 2017, Eq. 5 and 12, arXiv:1703.06868.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mien.edits.blend import MIN_COSINE, blend, check_related
from mien.edits.schedule import Listed, Ramp, Schedule
from mien.errors import InputError
from mien.latents import sample_ws, synthesize
from mien.nets.features import FaceNet
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["StyleScale", "Sweep", "SweepConfig", "Trial", "identity_kept", "pareto_front", "style_statistics", "sweep"]

EPS = 1e-4


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What `sweep` tries, and on whom."""

    swaps_px: tuple[float, ...] | None = None  # by default every octave from 8 px to the generator's own
    widths: tuple[float, ...] = (0.0, 0.5, 1.0)  # in octaves; 0 is a hard swap
    is_below: bool = False  # take the other's layers below the swap, its geometry
    seeds: tuple[int, ...] = tuple(range(1, 13))
    truncation_psi: float = 0.7
    class_idx: int | None = None  # of generators that have classes

    def __post_init__(self) -> None:
        if self.swaps_px == () or not self.widths:
            raise InputError("a sweep needs a swap and a width at least", hint="write for example --swaps 8,16,32")
        if len(self.seeds) < 2:
            raise InputError("a sweep needs two seeds at least", hint="write for example --seeds 1-12")

    def schedules(self, img_resolution: int) -> list[Schedule]:
        """All that is tried of one snapshot of so many pixels: by swaps, then by widths."""
        swaps = self.swaps_px or [2**i for i in range(3, img_resolution.bit_length())]
        return [Schedule(Ramp(swap, width, self.is_below)) for swap in swaps for width in self.widths]


@dataclass(frozen=True)
class Trial:
    """One blend with its pictures and scores."""

    network: str
    schedule: Schedule
    img: Tensor  # [N,3,H,W] in [-1,1], one of each seed
    identity: float  # mean cosine with the base's faces of the same seeds
    style: float  # 0 as the base, 1 as the other generator
    is_on_front: bool = False


@dataclass(frozen=True)
class Sweep:
    """What `sweep` found: the base's pictures, each whole snapshot as a trial of weight 1, and the blends."""

    base: Tensor  # [N,3,H,W]
    others: tuple[Trial, ...]
    trials: tuple[Trial, ...]


# ---- Scores ---------------------------------------------------------------------------------------------------------


def identity_kept(face_net: FaceNet, img: Tensor, base: Tensor) -> float:
    """Return the mean cosine of the faces of img and base, both [N,3,H,H] in [-1,1]: 1 for the same pictures."""
    return float((face_net(img).identity * face_net(base).identity).sum(1).mean())


def style_statistics(face_net: FaceNet, img: Tensor) -> list[Tensor]:
    """Return mean and deviation of each channel, [N, 2C], of the colours and of the face network's maps."""
    maps = [img, *face_net.maps(img)]
    return [torch.cat([m.mean((2, 3)), m.std((2, 3), correction=0)], 1) for m in maps]


class StyleScale:
    """Where sets of pictures lie between two styles, by their mean statistics in units of the pictures' own spread.

    Args:
        base: statistics of the one style's pictures, [N, 2C] of each map.
        other: of the other's.
    """

    def __init__(self, base: Sequence[Tensor], other: Sequence[Tensor]) -> None:
        pairs = zip(base, other, strict=True)
        self.spreads = [((a.var(0) + b.var(0)) / 2 + EPS**2).sqrt() for a, b in pairs]
        self.aim = [b.mean(0) for b in other]
        self.whole = self._distance(base)

    def _distance(self, statistics: Sequence[Tensor]) -> float:
        groups = zip(statistics, self.aim, self.spreads, strict=True)
        steps = [((s.mean(0) - aim) / spread).square().mean().sqrt() for s, aim, spread in groups]
        return float(torch.stack(steps).mean())

    def reached(self, statistics: Sequence[Tensor]) -> float:
        """Return 0 for the base's statistics, 1 for the other's, and 1 where the two do not differ."""
        return 1.0 if self.whole == 0 else 1 - self._distance(statistics) / self.whole


def pareto_front(scores: Sequence[tuple[float, float]]) -> list[bool]:
    """Say for each pair of scores, both better when higher, whether no other is at least as good in both and not equal.

    >>> pareto_front([(1.0, 0.0), (0.5, 0.5), (0.4, 0.5), (0.0, 1.0)])
    [True, True, False, True]
    """
    return [not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in scores) for p in scores]


# ---- The sweep ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sweep(
    base: Generator,
    snapshots: Mapping[str, Generator],
    face_net: FaceNet,
    config: SweepConfig | None = None,
    *,
    min_cosine: float = MIN_COSINE,
    on_step: Sink = ignore,
) -> Sweep:
    """Blend every snapshot into `base` in every way, and score the pictures.

    Args:
        base: gives the codes, so that a seed is one person in all pictures.
        snapshots: generators that were fine-tuned from it, by name.
        face_net: says whose face it is, and sees style.
        config: what to try.
        min_cosine: how alike the weights must be, see `blend`.
        on_step: hears of each blend; its scalars are the scores.

    Raises:
        InputError: no snapshots, or one that does not fit.
    """
    if not snapshots:
        raise InputError("nothing to blend with", hint="give a second generator")
    config = config or SweepConfig()
    schedules = config.schedules(base.img_resolution)
    for other in snapshots.values():
        check_related(base, other, min_cosine)
    ws = _codes(base, config)
    start = synthesize(base, ws)
    faces, total = style_statistics(face_net, start), len(snapshots) * len(schedules)
    others: list[Trial] = []
    trials: list[Trial] = []
    for name, other in snapshots.items():
        style = StyleScale(faces, style_statistics(face_net, synthesize(other, _codes(other, config))))

        def tried(G: Generator, schedule: Schedule, name: str = name, style: StyleScale = style) -> Trial:
            img = synthesize(G, ws)
            identity, reached = identity_kept(face_net, img, start), style.reached(style_statistics(face_net, img))
            return Trial(name, schedule, img, identity, reached)

        others.append(tried(other, Schedule(Listed((1.0,)))))
        for schedule in schedules:
            trials.append(tried(blend(base, [(other, schedule)], min_cosine=None), schedule))
            scores = {"identity": trials[-1].identity, "style": trials[-1].style}
            on_step(Step("blends", len(trials), total, scores))
    front = pareto_front([(trial.identity, trial.style) for trial in trials])
    marked = tuple(replace(trial, is_on_front=best) for trial, best in zip(trials, front, strict=True))
    return Sweep(start, tuple(others), marked)


def _codes(G: Generator, config: SweepConfig) -> Tensor:
    return sample_ws(G, config.seeds, truncation_psi=config.truncation_psi, class_idx=config.class_idx)
