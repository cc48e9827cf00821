"""Carry a face's own pixels along when its points move: a displacement everywhere from that of some points.

Nothing is drawn anew, so the face keeps its texture; what was hidden, above all the inside of a mouth that opens, has
to come from elsewhere.

Source: a displacement from points: weights that fall with the distance, Shepard 1968, doi:10.1145/800186.810616, here
Gaussian as in Ruprecht and Müller 1995, doi:10.1109/38.365004.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["carry", "displacement", "inner_mouth"]

NEAR, FAR = 0.018, 0.06  # widths of the weights in sides of the picture: between neighbours, and where points are rare
FAR_SHARE = 0.02  # of the wide weight
STILL = 1e-4  # weight of standing still, which holds far from all points

UPPER_LIP, LOWER_LIP, LEFT_CORNER, RIGHT_CORNER = 13, 14, 78, 308  # inner edges of the lips in MediaPipe's mesh
OPEN_FROM, OPEN_AT = 0.006, 0.014  # half the gap between the lips, in sides, from which a mouth is open


def centres(size_px: int, device: torch.device) -> Tensor:
    """Where the centres of pixels lie, (x, y) in sides of the picture, [S, S, 2]."""
    at = (torch.arange(size_px, device=device) + 0.5) / size_px
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)


def displacement(points: Tensor, moved: Tensor, size_px: int) -> Tensor:
    """Return from how far away every place of the new picture is taken, [N, 2, S, S] in sides of the picture.

    Args:
        points: [N, K, 2] (x, y) in sides, where points are,
        moved: and where they shall be.
        size_px: side S of the result.
    """
    at = centres(size_px, points.device).view(1, -1, 1, 2)
    squared = (at - moved[:, None]).square().sum(-1)  # [N, SS, K]
    weights = torch.exp(-squared / (2 * NEAR**2)) + FAR_SHARE * torch.exp(-squared / (2 * FAR**2))
    steps = (weights @ (points - moved)) / (weights.sum(-1, keepdim=True) + STILL)
    return steps.transpose(1, 2).reshape(len(points), 2, size_px, size_px)


def carry(img: Tensor, steps: Tensor, size_px: int) -> Tensor:
    """Take every place of img [N, 3, H, H] from where `displacement` says, [N, 3, size_px, size_px]."""
    fine = F.interpolate(steps, (size_px, size_px), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    points = 2 * (centres(size_px, img.device) + fine) - 1
    return F.grid_sample(img, points, mode="bicubic", padding_mode="border", align_corners=False)


def inner_mouth(points: Tensor, size_px: int) -> Tensor:
    """Return the soft mask [N, 1, S, S] of what lies between the lips, 0 everywhere where they are closed.

    Args:
        points: [N, 478, 2] (x, y) in sides.
        size_px: side S of the mask.
    """
    upper, lower, left, right = (points[:, i, :, None, None] for i in (UPPER_LIP, LOWER_LIP, LEFT_CORNER, RIGHT_CORNER))
    middle = (upper + lower + left + right) / 4  # [N, 2, 1, 1]
    half_width = 0.92 * (right - left).norm(dim=1) / 2
    half_height = ((lower - upper)[:, 1] / 2).clamp(min=1e-3)
    x, y = (centres(size_px, points.device).permute(2, 0, 1)[None] - middle).unbind(1)
    far = (x / half_width).square() + (y / half_height).square()
    is_open = ((half_height - OPEN_FROM) / (OPEN_AT - OPEN_FROM)).clamp(0, 1)
    return (((1.25 - far) / 0.5).clamp(0, 1) * is_open)[:, None]
