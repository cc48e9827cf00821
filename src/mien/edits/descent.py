"""Descent on one tensor by L-BFGS or Adam, watched: what is not a number is refused, what stalls is started again.

PyTorch's L-BFGS stops in silence where losses are small, and without a line search it may leap away. So the loss is
brought to a scale where its slope is about one in each value, and the rest is seen from outside: whoever does not get
better for a while begins anew from the best place so far, without memory and with half the step; whoever still does
not has settled, and says so.

Source: Nocedal 1980 (L-BFGS), doi:10.1090/S0025-5718-1980-0572855-7; Kingma and Ba 2015 (Adam), arXiv:1412.6980.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mien.errors import InputError, MienError

__all__ = ["OPTIMIZERS", "Descent", "DescentConfig", "descend"]

OPTIMIZERS = ("lbfgs", "adam")
HISTORY = 20  # pairs of L-BFGS: as many copies of the tensor, twice
LEAP = 10.0  # a loss so many times the best one is no step but a leap
FLAT = 1e-4  # of the first gradient: below it there is nowhere to go


@dataclass(frozen=True, kw_only=True)
class DescentConfig:
    """How to descend."""

    optimizer: str = "lbfgs"
    num_steps: int = 500  # evaluations of the loss and its gradient
    lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam
    final_lr: float = 1.0  # of Adam: share of lr at the last step, where a cosine leads from 1
    average: float = 0.0  # of Adam: decay of the mean of the iterates that is returned, 0 = the best iterate itself
    bounds: tuple[float, float] | None = None  # of Adam: values are held between them after each step
    patience: int = 50  # steps whose mean loss must be lower than that of as many before them
    min_gain: float = 1e-4  # by this share
    max_restarts: int = 4

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"no optimizer named {self.optimizer!r}", hint=f"known: {', '.join(OPTIMIZERS)}")
        if self.num_steps < 1 or self.patience < 1 or self.max_restarts < 0:
            raise InputError("steps and patience must be at least 1, restarts at least 0")
        if not (0 < self.lr < math.inf and 0 <= self.average < 1 and 0 <= self.final_lr <= 1):
            raise InputError("lr must be above 0, average from 0 to below 1, final_lr from 0 to 1")


@dataclass(frozen=True)
class Descent:
    """Where the descent ended: the tensor, the loss of every step, and the steps at which it began anew."""

    x: Tensor
    losses: tuple[float, ...]
    restarts: tuple[int, ...]
    has_settled: bool  # before its last step


def descend(
    loss: Callable[[Tensor, int], Tensor],
    start: Tensor,
    config: DescentConfig,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> Descent:
    """Make `loss` small.

    Args:
        loss: of a tensor like `start`, at a step; a number.
        start: where to begin; it is not changed.
        config: how.
        on_step: hears of each step, its loss, and the tensor that has it; it may raise to stop.

    Raises:
        MienError: the loss or its gradient is no number at the start or stays so, or it never gets better at all.
    """
    walk = _Walk(loss, start, config)
    restarts: list[int] = []
    has_settled = False
    for step in range(config.num_steps):
        value = walk.step(step)
        if on_step is not None:
            on_step(step, value, walk.x)
        if walk.is_flat:
            has_settled = True
            break
        if walk.is_well(value):
            continue
        if len(restarts) == config.max_restarts:
            has_settled = True
            break
        restarts.append(step)
        walk.restart()
    walk.require_progress(has_settled)
    return Descent(walk.result, tuple(walk.losses), tuple(restarts), has_settled)


class _Walk:
    """The state of a descent: where it is, the best place so far, the optimiser."""

    def __init__(self, loss: Callable[[Tensor, int], Tensor], start: Tensor, config: DescentConfig) -> None:
        self.loss, self.config = loss, config
        self.x = start.detach().clone().requires_grad_()
        self.scale = self._scale()
        self.losses: list[float] = []
        self.since: list[float] = []  # losses of this start
        self.best, self.best_x = math.inf, start.detach().clone()
        self.mean, self.lr, self.first_slope, self.slope = start.detach().clone(), config.lr, math.nan, math.inf
        self.steps_averaged = 0
        self._begin()

    def _scale(self) -> float:
        """Return what brings the first gradient to a root mean square of one: L-BFGS forgets tiny curvatures."""
        loss = self.loss(self.x, 0)
        (slope,) = torch.autograd.grad(loss, self.x)
        size = float(slope.square().mean().sqrt())
        if not math.isfinite(float(loss.detach()) + size):
            raise MienError("the loss is not a number at the start", hint="give other pictures or weights")
        return 1 / size if size > 0 else 1.0

    def _begin(self) -> None:
        if self.config.optimizer == "lbfgs":
            self.optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
                [self.x], lr=self.lr, max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0
            )
        else:
            self.optimizer = torch.optim.Adam([self.x], lr=self.lr, betas=self.config.betas)

    def step(self, step: int) -> float:
        """Evaluate the loss, remember the place if it is the best, and go on from there; return the loss."""
        value = math.nan

        def evaluate() -> Tensor:
            nonlocal value
            self.optimizer.zero_grad()
            loss = self.loss(self.x, step)
            (self.scale * loss).backward()
            assert self.x.grad is not None
            value, self.slope = float(loss.detach()), float(self.x.grad.norm())
            if not math.isfinite(value + self.slope):
                self.x.grad.zero_()
            elif value < self.best:
                self.best = value
                self.best_x.copy_(self.x.detach())
            return loss

        if self.config.optimizer == "adam":
            along = (1 + math.cos(math.pi * step / self.config.num_steps)) / 2
            share = self.config.final_lr + (1 - self.config.final_lr) * along
            self.optimizer.param_groups[0]["lr"] = self.lr * share
        self.optimizer.step(evaluate)  # type: ignore[arg-type]
        if not self.losses:
            self.first_slope = self.slope
        self.losses.append(value)
        self.since.append(value)
        if self.config.optimizer == "adam":
            self._after_adam()
        return value

    def _after_adam(self) -> None:
        with torch.no_grad():
            if self.config.bounds is not None:
                self.x.clamp_(*self.config.bounds)
            self.steps_averaged += 1
            decay = min(self.config.average, self.steps_averaged / (self.steps_averaged + 1))
            self.mean.lerp_(self.x, 1 - decay)

    @property
    def is_flat(self) -> bool:
        return self.slope <= FLAT * self.first_slope

    def is_well(self, value: float) -> bool:
        """Say whether the loss is a number, near the best, and still getting better."""
        if not math.isfinite(value + self.slope) or abs(value) > LEAP * abs(self.best) + 1e-12:
            return False
        window = self.config.patience
        if len(self.since) < 2 * window:
            return True
        before, now = (math.fsum(part) / window for part in (self.since[-2 * window : -window], self.since[-window:]))
        return before - now > self.config.min_gain * abs(before)

    def restart(self) -> None:
        """Go back to the best place, forget the way, and take smaller steps."""
        with torch.no_grad():
            self.x.copy_(self.best_x)
            self.mean.copy_(self.best_x)
        self.since, self.steps_averaged = [], 0
        self.lr /= 2
        self._begin()

    def require_progress(self, has_settled: bool) -> None:
        if not math.isfinite(self.losses[-1]):
            raise MienError("the loss is no number any more", hint="give smaller weights or a smaller --lr")
        if has_settled and not self.is_flat and self.best >= self.losses[0]:
            raise MienError("the optimiser does not move at all", hint="give another --lr or --optimizer")

    @property
    def result(self) -> Tensor:
        """The mean of Adam's iterates where that is wanted, else the best."""
        use_mean = self.config.optimizer == "adam" and self.config.average > 0
        return self.mean if use_mean else self.best_x
