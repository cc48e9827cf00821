"""Descent: it finds minima, sees stalls and leaps, and refuses what is no number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mien.edits.descent import DescentConfig, descend
from mien.errors import Cancelled, InputError, MienError

AIM = torch.tensor([0.5, -0.25, 0.125])


def bowl(x: Tensor, _step: int) -> Tensor:
    return ((x - AIM) * torch.tensor([1.0, 3.0, 10.0])).square().sum()


@pytest.mark.parametrize(("optimizer", "lr"), [("lbfgs", 1.0), ("adam", 0.05)])
def test_a_bowl_has_its_bottom(optimizer: str, lr: float) -> None:
    start = torch.zeros(3)
    found = descend(bowl, start, DescentConfig(optimizer=optimizer, lr=lr, num_steps=400))
    torch.testing.assert_close(found.x, AIM, atol=1e-2, rtol=0)
    assert torch.equal(start, torch.zeros(3)) and found.losses[0] == pytest.approx(float(bowl(start, 0)))
    assert found.has_settled  # it stops where there is nowhere to go


def test_tiny_losses_are_no_reason_to_stop() -> None:
    config = DescentConfig(num_steps=100)  # PyTorch's own tolerances would end at once, or learn no curvature
    found = descend(lambda x, s: 1e-12 * bowl(x, s), torch.zeros(3), config)
    torch.testing.assert_close(found.x, descend(bowl, torch.zeros(3), config).x, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.x, AIM, atol=1e-2, rtol=0)


def test_adam_stays_within_bounds_and_averages() -> None:
    config = DescentConfig(optimizer="adam", lr=0.1, num_steps=300, bounds=(-0.1, 0.1), average=0.9, final_lr=0.1)
    found = descend(bowl, torch.zeros(3), config)
    torch.testing.assert_close(found.x, torch.tensor([0.1, -0.1, 0.1]), atol=1e-2, rtol=0)


class Stalling:
    """A bowl whose slope points nowhere useful until the descent has begun anew: nothing gets better meanwhile."""

    def __init__(self, stuck_for: int) -> None:
        self.stuck_for, self.calls, self.points = stuck_for, 0, list[Tensor]()

    def __call__(self, x: Tensor, step: int) -> Tensor:
        self.calls += 1
        self.points.append(x.detach().clone())
        if self.calls > self.stuck_for:
            return bowl(x, step)
        return bowl(torch.zeros(3), step) + 0.0 * x.sum() + _unfelt(x)


def _unfelt(x: Tensor) -> Tensor:
    """Return 0 with a gradient of one everywhere."""
    return (x - x.detach()).sum()


@pytest.mark.parametrize(("optimizer", "lr"), [("lbfgs", 1.0), ("adam", 0.05)])
def test_a_stall_is_seen_and_begun_anew(optimizer: str, lr: float) -> None:
    loss = Stalling(stuck_for=21)
    config = DescentConfig(optimizer=optimizer, lr=lr, num_steps=300, patience=10)
    found = descend(loss, torch.zeros(3), config)
    assert found.restarts[0] == 19  # twice the patience, counted from 0
    assert torch.equal(loss.points[21], loss.points[0])  # from the best place, which was the first
    torch.testing.assert_close(found.x, AIM, atol=2e-2, rtol=0)


def test_a_stall_for_ever_is_an_error_and_a_plateau_is_an_end() -> None:
    with pytest.raises(MienError, match="does not move at all"):
        descend(Stalling(stuck_for=10**6), torch.zeros(3), DescentConfig(num_steps=200, patience=5))

    def floor(x: Tensor, step: int) -> Tensor:
        return bowl(x, step).clamp(min=0.3) + _unfelt(x)

    config = DescentConfig(optimizer="adam", lr=0.05, num_steps=500, patience=10, max_restarts=1)
    found = descend(floor, torch.zeros(3), config)
    assert found.has_settled and len(found.restarts) == 1 and len(found.losses) < 500


def test_a_leap_is_taken_back() -> None:
    found = descend(bowl, torch.zeros(3), DescentConfig(optimizer="adam", lr=5.0, num_steps=200, max_restarts=20))
    assert found.restarts[0] <= 2 and max(found.losses) > 10 * found.losses[0]
    assert float(bowl(found.x, 0)) < 0.2 * found.losses[0]  # with smaller steps


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(MienError, match="not a number at the start"):
        descend(lambda x, _: (x * torch.nan).sum(), torch.zeros(3), DescentConfig())
    with pytest.raises(MienError, match="not a number at the start"):
        descend(lambda x, _: x.sqrt().sum(), torch.zeros(3), DescentConfig())  # its slope is infinite

    def breaks(x: Tensor, step: int) -> Tensor:
        return bowl(x, step) * (torch.nan if step == 5 else 1.0)

    config = DescentConfig(optimizer="adam", lr=0.05, num_steps=60)
    found = descend(breaks, torch.zeros(3), config)
    assert found.restarts[0] == 5 and bool(found.x.isfinite().all())

    def broken(x: Tensor, step: int) -> Tensor:
        return bowl(x, step) * (torch.nan if step > 5 else 1.0)

    with pytest.raises(MienError, match="no number any more"):
        descend(broken, torch.zeros(3), config)


def test_the_caller_hears_and_may_stop() -> None:
    heard: list[tuple[int, float]] = []

    def tell(step: int, loss: float, x: Tensor) -> None:
        heard.append((step, loss))
        if step == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        descend(bowl, torch.zeros(3), DescentConfig(optimizer="adam", lr=0.05), tell)
    assert [step for step, _ in heard] == [0, 1, 2, 3] and heard[0][1] > heard[3][1]


def test_wrong_use() -> None:
    with pytest.raises(InputError, match="no optimizer named 'sgd'"):
        DescentConfig(optimizer="sgd")
    with pytest.raises(InputError, match="at least 1"):
        DescentConfig(num_steps=0)
    with pytest.raises(InputError, match="lr must be above 0"):
        DescentConfig(lr=float("nan"))
