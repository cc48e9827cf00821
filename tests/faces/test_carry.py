"""Pixels that follow points: where nothing moves nothing changes, points arrive, mouths open by their lips."""

from __future__ import annotations

import torch

from mien.faces.carry import LEFT_CORNER, LOWER_LIP, RIGHT_CORNER, UPPER_LIP, carry, displacement, inner_mouth

SIDE = 32


def spread(step: float = 0.1) -> torch.Tensor:
    at = torch.arange(step, 1, step)
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2)


def test_points_that_stay_carry_nothing() -> None:
    img = torch.rand(1, 3, SIDE, SIDE)
    steps = displacement(spread(), spread(), SIDE)
    assert torch.equal(steps, torch.zeros(1, 2, SIDE, SIDE))
    torch.testing.assert_close(carry(img, steps, SIDE), img, atol=1e-5, rtol=0)


def test_points_that_all_move_alike_move_the_picture() -> None:
    """Everything goes 4 px to the right and 2 px up, away from the edges."""
    img = torch.rand(1, 3, SIDE, SIDE)
    moved = spread(0.04) + torch.tensor([4.0, -2.0]) / SIDE
    steps = displacement(spread(0.04), moved, SIDE)
    out = carry(img, steps, SIDE)
    torch.testing.assert_close(out[:, :, 6:20, 12:26], img[:, :, 8:22, 8:22], atol=0.02, rtol=0)


def test_far_from_all_points_the_picture_stands_still() -> None:
    point = torch.tensor([[[0.2, 0.2]]])
    steps = displacement(point, point + 0.05, SIDE)
    assert float(steps[..., -4:, -4:].abs().max()) < 1e-6
    x, y = steps[0, :, 8, 8].tolist()  # the point itself
    assert abs(x + 0.05) < 1e-3 and abs(y + 0.05) < 1e-3


def test_carrying_to_another_side_is_carrying_and_resizing() -> None:
    x = torch.linspace(-1, 1, SIDE).expand(1, 3, SIDE, SIDE)
    out = carry(x, torch.zeros(1, 2, 8, 8), 2 * SIDE)
    assert out.shape == (1, 3, 2 * SIDE, 2 * SIDE)
    assert float((out[0, 0, 0].diff() >= -1e-6).float().mean()) == 1


def lips(gap: float) -> torch.Tensor:
    points = torch.zeros(1, 478, 2)
    for i, x, y in ((UPPER_LIP, 0.5, 0.7 - gap / 2), (LOWER_LIP, 0.5, 0.7 + gap / 2)):
        points[0, i] = torch.tensor([x, y])
    points[0, LEFT_CORNER], points[0, RIGHT_CORNER] = torch.tensor([0.4, 0.7]), torch.tensor([0.6, 0.7])
    return points


def test_an_open_mouth_is_masked_between_the_lips_and_a_closed_one_not() -> None:
    assert float(inner_mouth(lips(0.004), 64).max()) == 0
    mask = inner_mouth(lips(0.1), 64)[0, 0]
    assert float(mask[int(0.7 * 64), 32]) == 1
    assert float(mask[int(0.6 * 64), 32]) == 0 and float(mask[int(0.7 * 64), int(0.35 * 64)]) == 0
