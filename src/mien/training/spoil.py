"""Bad pairs made of good ones, each in a way that generators fail or data is damaged, for judges to learn or be tried.

Pictures are [N,3,H,H] in [-1,1], randomness comes from a `torch.Generator`; the person's side stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.training.distortions import Placement, place

__all__ = ["WAYS", "spoil"]

FACE = (0.25, 0.40, 0.75, 0.80)  # left, top, right, bottom of eyes to mouth, in the crop's sides


def _moved(target: Tensor, rng: torch.Generator) -> Tensor:
    """Turned, enlarged and shifted, far beyond what alignment errs."""
    num, side = len(target), target.shape[-1]
    sign = torch.where(torch.rand(num, generator=rng) < 0.5, -1.0, 1.0)
    how = Placement(
        is_mirrored=torch.zeros(num, dtype=torch.bool),
        turn_deg=sign * (15 + 25 * torch.rand(num, generator=rng)),
        scale=(0.4 * torch.rand(num, generator=rng) - 0.2).exp(),
        shift=0.2 * torch.randn(num, 2, generator=rng).clamp(-1.5, 1.5),
    )
    frame = torch.eye(2, 3).expand(num, 2, 3).clone()
    return place(target, how, frame=frame, size_px=side, mode="bicubic").clamp(-1, 1)


def _melted(target: Tensor, rng: torch.Generator) -> Tensor:
    """Bent by a smooth random field, features out of their places."""
    num, side = len(target), target.shape[-1]
    field = F.interpolate(torch.randn(num, 2, 6, 6, generator=rng), (side, side), mode="bicubic", align_corners=False)
    straight = F.affine_grid(torch.eye(2, 3).expand(num, 2, 3), [num, 3, side, side], align_corners=False)
    grid = straight + 0.12 * field.permute(0, 2, 3, 1)
    return F.grid_sample(target, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _holes(target: Tensor, rng: torch.Generator) -> Tensor:
    """Soft blobs of any colour over eyes, nose or mouth."""
    num, side = len(target), target.shape[-1]
    left, top, right, bottom = FACE
    at = (torch.arange(side) + 0.5) / side
    spoiled = target
    for _ in range(2):
        x = left + (right - left) * torch.rand(num, 1, 1, generator=rng)
        y = top + (bottom - top) * torch.rand(num, 1, 1, generator=rng)
        radius = 0.06 + 0.08 * torch.rand(num, 1, 1, generator=rng)
        far = torch.hypot(at[None, None, :] - x, at[None, :, None] - y) / radius
        colour = 2 * torch.rand(num, 3, 1, 1, generator=rng) - 1
        spoiled = spoiled.lerp(colour, (2 - 2 * far).clamp(0, 1)[:, None])
    return spoiled


def _speckled(target: Tensor, rng: torch.Generator) -> Tensor:
    """Grains of light and colour over the whole face."""
    grains = torch.randn(target.shape, generator=rng) + torch.randn(len(target), 1, *target.shape[2:], generator=rng)
    return (target + 0.3 * grains).clamp(-1, 1)


def _burnt(target: Tensor, rng: torch.Generator) -> Tensor:
    """Contrast and single colours driven out of their range, upwards or downwards."""
    gain = 1.8 + torch.rand(len(target), 3, 1, 1, generator=rng)
    offset = torch.where(torch.rand(len(target), 1, 1, 1, generator=rng) < 0.5, -0.8, 0.8)
    return (target * gain + offset).clamp(-1, 1)


WAYS: Mapping[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "stranger": lambda _, target, __: target.roll(1, 0),
    "not drawn": lambda source, target, _: source.lerp(target, 0.1),
    "doubled": lambda _, target, __: target.lerp(target.roll(1, 0), 0.5),
    "moved": lambda _, target, rng: _moved(target, rng),
    "melted": lambda _, target, rng: _melted(target, rng),
    "holes": lambda _, target, rng: _holes(target, rng),
    "speckled": lambda _, target, rng: _speckled(target, rng),
    "burnt": lambda _, target, rng: _burnt(target, rng),
}
"""Names of ways to spoil pairs; strangers and doubles take the drawing of the next pair."""


def spoil(source: Tensor, target: Tensor, way: str, rng: torch.Generator) -> Tensor:
    """Return the drawings [N,3,H,H], spoiled in one of `WAYS`; with strangers, N must be at least 2."""
    assert len(target) > 1, "a stranger needs somebody else"
    return WAYS[way](source, target, rng)
