"""Pivotal tuning: keep a picture's code and change the generator's weights a little, until the render is the picture.

The generator that is given stays as it is; what changes is one person's own, a product of thin factors for every
convolution. People never meet: beside whom somebody is tuned makes no difference. Several pictures of one person, say
of a clip, may share one change.

Source: Roich et al. 2021, arXiv:2106.05744 (locality: Eq. 4-6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.func import functional_call

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.objective import FaceModel, Target, TermWeights, picture_terms, total
from mien.inversion.personal import Changes, changed, synthesis_of, tunable, twin
from mien.inversion.project import Schedule
from mien.latents import LatentStats, sample_w
from mien.losses import perceptual, squared_error
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["TuneConfig", "descend", "tune", "tune_together"]


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Schedule):
    """Settings of `tune`."""

    num_steps: int = 60
    lr: float = 0.02  # of the factors
    rank: int = 16  # of a weight's change
    terms: TermWeights = field(default_factory=TermWeights)
    stop_perceptual: float = 0.0  # features this near are near enough
    locality_weight: float = 0.1  # neighbours of the code render as before; 0 = off
    locality_reach: float = 1.0  # how far neighbours are, in units of the spread of w
    locality_every: int = 8  # steps from one look at a neighbour to the next
    seed: int = 0  # of the factors and of the neighbours

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise InputError(f"rank must be at least 1, got {self.rank}")
        if self.locality_every < 1:
            raise InputError(f"locality_every must be at least 1, got {self.locality_every}")


def _factors(G: Generator, config: TuneConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors whose product is zero: up is zero, down is random, so that an entry moves by about the rate a step."""
    gen = torch.Generator().manual_seed(config.seed)
    factors = {}
    for name, weight in tunable(G).items():
        rank = min(config.rank, len(weight), weight[0].numel())
        down = torch.randn(rank, weight[0].numel(), generator=gen) / math.sqrt(rank)
        up = weight.new_zeros(len(weight), rank)
        factors[name] = (up.requires_grad_(), down.to(weight).requires_grad_())
    return factors


Objective = Callable[[int], tuple[Tensor, dict[str, Tensor]]]
"""At a step: what to descend, a number, and the terms to report, a number each."""


def descend(
    params: list[Tensor], objective: Objective, schedule: Schedule, *, stop: float, stage: str, on_step: Sink
) -> dict[str, float]:
    """Run Adam and return the terms at the end; it ends early where features are nearer than `stop`."""
    adam = torch.optim.Adam(params, lr=schedule.lr)
    for step in range(schedule.num_steps + 1):
        loss, terms = objective(step)
        on_step(Step(stage, step, schedule.num_steps, {"loss": float(loss.detach())}))
        near = stop > 0 and float(terms.get("perceptual", terms["total"])) <= stop
        if step == schedule.num_steps or near:
            break
        for group in adam.param_groups:
            group["lr"] = schedule.rate(step)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return {name: float(value) for name, value in terms.items()}


def tune_together(
    G: Generator,
    target: Target,
    found: Sequence[Inversion],
    *,
    mask: Tensor | None = None,
    config: TuneConfig,
    face_model: FaceModel | None = None,
    stats: LatentStats,
    on_step: Sink = ignore,
) -> list[Inversion]:
    """Change the weights once, so that the codes of several pictures of one person all render them.

    Args:
        G: the generator; nothing of it is changed.
        target: K pictures.
        found: their codes, the pivots; all with noise maps, or none.
        mask: [K, 1, H, W] in [0, 1], where renders are compared; everywhere by default.
        config: settings.
        face_model: network for the perceptual and identity terms.
        stats: of the generator.
        on_step: hears of every step.

    Returns:
        The codes, which share the change of the weights, with the mean terms of the loss.
    """
    device = target.img.device
    found = [replace(inversion, noise=tuple(n.half() for n in inversion.noise)) for inversion in found]  # as files do
    factors, base = _factors(G, config), tunable(G)
    synthesis, before = synthesis_of(twin(G)), G.synthesis
    ws = torch.stack([inversion.ws for inversion in found]).to(device)
    noise = [torch.stack(maps).to(device).float()[:, None] for maps in zip(*(i.noise for i in found), strict=True)]
    options = {"noise": noise} if noise else {}
    neighbours = sample_w(G, config.num_steps // config.locality_every + 1, seed=config.seed)

    def locality(step: int, weights: dict[str, Tensor]) -> Tensor:
        turn = step // config.locality_every
        pivot = ws[turn % len(ws), None]
        away = neighbours[turn] - pivot.mean(dim=1)  # Eq. 4, for a code in W+
        near = pivot + config.locality_reach * stats.w_std * (away / away.norm())[:, None]
        with torch.no_grad():
            old = before(near, noise_mode="const")
        new: Tensor = functional_call(synthesis, weights, (near,), dict(noise_mode="const"))
        moved = squared_error(new, old)
        if face_model is not None:
            moved = moved + perceptual(face_model(new).maps, face_model(old).maps)
        return moved.sum()

    def objective(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        weights = {name: changed(base[name], *pair) for name, pair in factors.items()}
        img: Tensor = functional_call(synthesis, weights, (ws,), dict(noise_mode="const", **options))
        img = img if mask is None else target.img.lerp(img, mask)
        terms = picture_terms(img, target, config.terms, face_model)
        score = total(terms, config.terms)
        loss = score.mean()
        if config.locality_weight and step % config.locality_every == 0:
            loss = loss + config.locality_weight * config.locality_every * locality(step, weights)
        return loss, {name: value.detach().mean() for name, value in {"total": score, **terms}.items()}

    params = [factor for pair in factors.values() for factor in pair]
    losses = descend(params, objective, config, stop=config.stop_perceptual, stage="tune", on_step=on_step)
    kept = {name: (up.detach().half(), down.detach().half()) for name, (up, down) in factors.items()}
    changes = Changes(kept)
    return [replace(inversion, changes=changes, losses=losses) for inversion in found]


def tune(
    G: Generator,
    img: Tensor,
    found: list[Inversion],
    *,
    config: TuneConfig | None = None,
    masks: Tensor | None = None,
    face_model: FaceModel | None = None,
    stats: LatentStats,
    on_step: Sink = ignore,
) -> list[Inversion]:
    """Change the weights for each picture so that its code renders it.

    Args:
        G: the generator; nothing of it is changed.
        img: [N, 3, H, W] in [-1, 1].
        found: the pictures' codes, the pivots.
        config: settings.
        masks: [N, 1, H, W] in [0, 1], where renders are compared; everywhere by default.
        face_model: network for the perceptual and identity terms.
        stats: of the generator.
        on_step: hears of every step of everybody.

    Returns:
        The codes with the changes of the weights, rounded to 16 bits as a file keeps them.
    """
    config = config or TuneConfig()
    tuned = []
    for i, inversion in enumerate(found):
        mask = None if masks is None else masks[i : i + 1]
        target = Target.of(img[i : i + 1], face_model)
        tuned += tune_together(
            G, target, [inversion], mask=mask, config=config, face_model=face_model, stats=stats, on_step=on_step
        )
    return tuned
