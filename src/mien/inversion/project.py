"""Optimise codes and noise maps until the generator shows given pictures: in W or in W+, many pictures at once.

Pictures of a batch never meet: every loss is one number a picture, the optimiser works element by element, random
exploration is the same for all, and each picture stops on its own; so a batch gives what one by one gives.

Source: Karras et al. 2020, App. D, arXiv:1912.04958; offsets kept near W: Tov et al. 2021, arXiv:2102.02766;
codes kept likely: Zhu et al. 2020, arXiv:2012.09036.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.objective import FaceModel, Target, TermWeights, check_terms, picture_terms, total
from mien.latents import LatentStats, latent_stats
from mien.losses import noise_autocorrelation
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["ProjectConfig", "Schedule", "noise_options", "project"]

SPACES = ("w", "w+", "fixed")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How many steps are taken, and how fast: the rate rises in a line and falls along a cosine."""

    num_steps: int  # most optimiser steps
    lr: float  # highest learning rate of Adam
    lr_rampup: float = 0.05  # share of the steps in which the rate rises
    lr_rampdown: float = 0.5  # share of the steps in which it falls

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.lr <= 0:
            raise InputError(f"lr must be above 0, got {self.lr}")

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        t = step / self.num_steps
        down = min(1.0, (1 - t) / self.lr_rampdown) if self.lr_rampdown else 1.0
        up = min(1.0, (step + 1) / (self.lr_rampup * self.num_steps)) if self.lr_rampup else 1.0
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * down)) * up


@dataclass(frozen=True, kw_only=True)
class ProjectConfig(Schedule):
    """Settings of `project`. Lengths in W are in units of the spread of w, so that no number belongs to one network."""

    space: str = "w+"  # "w": one code for all rows; "w+": a code for each; "fixed": the code stays, noise is found
    num_steps: int = 200
    lr: float = 0.1  # where the spread of one coordinate of w is 1
    is_lr_of_w: bool = False  # the rate is for w as it is, as published settings of one network are
    w_noise: float = 0.0  # random exploration of w at the first step, where the spread of w is 1
    w_noise_until: float = 0.75  # share of the steps with exploration
    terms: TermWeights = field(default_factory=TermWeights)  # how renders are compared
    offset_weight: float = 0.08  # squared distance of the rows from their mean
    prior_weight: float = 0.04  # how unlikely the code is for the mapping
    noise_lr: float = 0.05  # learning rate of the noise maps, 0 = the network's own maps
    noise_weight: float = 10.0  # autocorrelation of the noise maps
    patience: int = 40  # steps without progress after which a picture stops
    min_progress: float = 0.002  # what counts as progress, a share of the loss
    seed: int = 0  # of the exploration

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in SPACES:
            raise InputError(f"space must be one of {', '.join(SPACES)}, got {self.space!r}")
        if self.patience < 1:
            raise InputError(f"patience must be at least 1, got {self.patience}")


def _normalise(noise: Tensor) -> Tensor:
    noise = noise - noise.mean(dim=(1, 2, 3), keepdim=True)
    return noise / noise.square().mean(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()


class _Adam:
    """Adam (0.9, 0.999) whose pictures can leave: every parameter is [N, ...], and rows can be dropped."""

    def __init__(self, params: list[Tensor]) -> None:
        self.params, self.count = params, 0
        self.m, self.v = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]

    def step(self, grads: Sequence[Tensor], lrs: Sequence[float]) -> None:
        self.count += 1
        for p, g, m, v, lr in zip(self.params, grads, self.m, self.v, lrs, strict=True):
            m.lerp_(g, 0.1)
            v.lerp_(g.square(), 0.001)
            p.data -= lr * (m / (1 - 0.9**self.count)) / ((v / (1 - 0.999**self.count)).sqrt() + 1e-8)

    def select(self, rows: Tensor) -> None:
        self.params = [p.detach()[rows].requires_grad_() for p in self.params]
        self.m, self.v = [m[rows] for m in self.m], [v[rows] for v in self.v]


def noise_maps(G: Generator) -> list[Tensor]:
    """The generator's own noise maps [1, 1, h, w] in order, none for a family without noise."""
    maps = getattr(G.synthesis, "noise_maps", None)
    return [] if maps is None else list(maps())


def noise_options(noise: Sequence[Tensor], device: torch.device) -> dict[str, Any]:
    """Keyword for `G.synthesis` that renders with these maps [h, w]; empty for the network's own."""
    return {"noise": [n.to(device).float()[None, None] for n in noise]} if noise else {}


@dataclass
class _Best:
    """The best parameters so far of every picture, and when they were found."""

    params: list[Tensor]
    score: Tensor
    step: Tensor
    losses: list[dict[str, float]]

    @classmethod
    def of(cls, params: Sequence[Tensor]) -> _Best:
        """Begin with parameters [N, ...] that nothing is known of."""
        num, device = len(params[0]), params[0].device
        return cls(
            params=[p.detach().clone() for p in params],
            score=torch.full([num], math.inf, device=device),
            step=torch.zeros(num, dtype=torch.long, device=device),
            losses=[{} for _ in range(num)],
        )

    def remember(
        self,
        active: Tensor,
        params: Sequence[Tensor],
        score: Tensor,
        terms: Mapping[str, Tensor],
        step: int,
        *,
        min_progress: float,
    ) -> None:
        """Keep the parameters of the pictures that are better than ever; only real progress renews their patience."""
        better = score < self.score[active]
        progress = score < self.score[active] * (1 - min_progress)
        self.step[active[progress]] = step
        self.score[active[better]] = score[better]
        for kept, now in zip(self.params, params, strict=True):
            kept[active[better]] = now.detach()[better]
        for i in torch.nonzero(better)[:, 0].tolist():
            shown = {name: float(value.detach()[i]) for name, value in terms.items()}
            self.losses[int(active[i])] = {"total": float(score[i])} | shown

    def inversions(self, num_ws: int, config: ProjectConfig) -> list[Inversion]:
        """Return what was found."""
        facts = asdict(config)
        return [
            Inversion(
                ws=self.params[0][i].expand(num_ws, -1).clone(),
                noise=tuple(p[i, 0].clone() for p in self.params[1:]),
                method="optimize",
                config=facts,
                losses=losses,
            )
            for i, losses in enumerate(self.losses)
        ]


def _explored(rows: Tensor, step: int, stats: LatentStats, config: ProjectConfig) -> Tensor:
    """Move rows [N, num_ws, w_dim] at random, less with every step, all pictures alike."""
    reach = config.w_noise * max(0.0, 1 - step / (config.w_noise_until * config.num_steps)) ** 2
    if not reach:
        return rows
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    return rows + torch.randn(1, 1, rows.shape[2], generator=rng).to(rows.device) * (stats.w_std * reach)


def _regularisers(
    ws: Tensor, noise: Sequence[Tensor], stats: LatentStats, config: ProjectConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Terms of the code, [N] each, and their weighted sum."""
    offset = (ws - ws.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1) / stats.w_std**2
    terms = {"offset": offset, "prior": stats.unlikelihood(ws).mean(dim=1)}
    sum_ = config.offset_weight * terms["offset"] + config.prior_weight * terms["prior"]
    if noise:
        terms["noise"] = noise_autocorrelation(noise)
    return terms, sum_


def _check(G: Generator, img: Tensor, start: Tensor | None) -> None:
    side = G.img_resolution
    if img.ndim != 4 or img.shape[1:] != (3, side, side):
        raise InputError(f"img must be [N, 3, {side}, {side}], got {list(img.shape)}", hint="align the photo first")
    if start is not None and start.shape != (len(img), G.num_ws, G.w_dim):
        raise InputError(f"start must be [{len(img)}, {G.num_ws}, {G.w_dim}], got {list(start.shape)}")


def project(
    G: Generator,
    img: Tensor,
    *,
    config: ProjectConfig | None = None,
    start: Tensor | None = None,
    target: Target | None = None,
    face_model: FaceModel | None = None,
    stats: LatentStats | None = None,
    dtype: torch.dtype = torch.float32,
    on_step: Sink = ignore,
) -> list[Inversion]:
    """Find the codes whose renders are nearest to `img`.

    Args:
        G: the generator; nothing of it is changed.
        img: [N, 3, H, W] in [-1, 1], aligned faces at the generator's resolution.
        config: settings, by default `ProjectConfig()`.
        start: ws [N, num_ws, w_dim] to start from, say an encoder's; by default the mean of w.
        target: what to be near to, if not in everything to `img`, say another's identity.
        face_model: network for the perceptual and identity terms; without it only pixels are compared.
        stats: of the generator, when they have been measured already.
        dtype: of the feature maps of G; bfloat16 is an opt-in to speed.
        on_step: hears of every step, with the mean loss of the pictures still on the way.

    Returns:
        One `Inversion` for each picture, with the terms of its loss; its network and crop are the caller's to fill.

    Raises:
        InputError: a shape that is not the generator's, or settings that compare nothing.

    Source: Karras et al. 2020, App. D, arXiv:1912.04958.
    """
    config = config or ProjectConfig()
    _check(G, img, start)
    check_terms(config.terms, face_model)
    stats = (stats or latent_stats(G)).to(img.device)
    unit = 1.0 if config.is_lr_of_w else stats.w_std / math.sqrt(G.w_dim)  # spread of one coordinate
    ws = stats.w_avg.expand(len(img), G.num_ws, -1) if start is None else start
    ws = ws.mean(dim=1, keepdim=True) if config.space == "w" else ws
    maps = noise_maps(G) if config.noise_lr else []
    adam = _Adam([p.detach().clone().requires_grad_() for p in (ws, *(m.repeat(len(img), 1, 1, 1) for m in maps))])
    target = target or Target.of(img, face_model)
    best = _Best.of(adam.params)
    active = torch.arange(len(img), device=img.device)
    options: dict[str, Any] = {} if dtype == torch.float32 else {"dtype": dtype}
    for step in range(config.num_steps + 1):
        ws, noise = adam.params[0], adam.params[1:]
        rows = _explored(ws.expand(-1, G.num_ws, -1), step, stats, config)
        render = G.synthesis(rows, noise_mode="const", **({"noise": noise} if noise else {}), **options)
        terms = picture_terms(render, target, config.terms, face_model)
        code_terms, code_sum = _regularisers(rows, noise, stats, config)
        score = total(terms, config.terms) + code_sum
        found = terms | code_terms
        best.remember(active, adam.params, score.detach(), found, step, min_progress=config.min_progress)
        on_step(Step("project", step, config.num_steps, {"loss": float(score.detach().mean())}))
        if step == config.num_steps:
            break
        stays = step - best.step[active] < config.patience
        if not stays.any():
            break
        loss = score + config.noise_weight * code_terms["noise"] if noise else score
        rate = config.rate(step)
        w_lr, noise_lr = (0.0 if config.space == "fixed" else rate * unit), config.noise_lr * rate / config.lr
        adam.step(torch.autograd.grad(loss.sum(), adam.params), [w_lr, *[noise_lr] * len(noise)])
        for p in adam.params[1:]:
            p.data = _normalise(p.data)
        if not stays.all():
            adam.select(stays)
            target, active = target.select(stays), active[stays]
    return best.inversions(G.num_ws, config)
