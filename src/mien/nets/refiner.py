"""Refiner: a second, close look at each face that the detector proposes: is it one, and where exactly are its points.

The five rough points are laid on a mean face, so that the crop is upright and of one size whatever the photo shows;
a small network reads it and corrects points and score. This is the last stage of a cascade.

Source: Zhang et al. 2016 (MTCNN, the output network), Sec. II-A, arXiv:1604.02878.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CROP_PX", "MEAN_FACE", "Frame", "Refinement", "Refiner", "frame_of", "sample_crops"]

CROP_PX = 64
MEAN_FACE = ((22.0, 25.0), (42.0, 25.0), (32.0, 36.0), (24.0, 46.0), (40.0, 46.0))  # Five points in the crop, px.
NUM_POINTS = len(MEAN_FACE)
MAX_SHRINK = 16.0  # Halvings go no further: sides are multiples of 32.


class Refinement(NamedTuple):
    """What the close look says of K crops: `logits` [K] of being a face, `points` [K, 5, 2] px of the crop."""

    logits: Tensor
    points: Tensor


class Frame(NamedTuple):
    """Similarities from crop to picture px, for K crops: picture = turn @ crop + shift; [K, 2, 2] and [K, 2]."""

    turn: Tensor
    shift: Tensor

    def to_picture(self, points: Tensor) -> Tensor:
        """Carry points [K, P, 2] px of the crops to px of the picture."""
        return points @ self.turn.mT + self.shift[:, None]

    def to_crop(self, points: Tensor) -> Tensor:
        """Carry points [K, P, 2] px of the picture to px of the crops."""
        return (points - self.shift[:, None]) @ torch.linalg.inv(self.turn).mT


def frame_of(points: Tensor) -> Frame:
    """Return the similarities that lay the mean face on `points` [K, 5, 2] px with the least squared distance.

    Points that are all in one place give a crop of a thousandth of a pixel, not an error.

    Source: Umeyama 1991, in the plane, where a similarity is a complex number.
    """
    mean = torch.tensor(MEAN_FACE, dtype=points.dtype, device=points.device)
    middle, centre = mean.mean(0), points.mean(1)
    a, b = mean - middle, points - centre[:, None]
    power = a.square().sum()
    cos = (a * b).sum((1, 2)) / power
    sin = (a[:, 0] * b[:, :, 1] - a[:, 1] * b[:, :, 0]).sum(1) / power
    cos = torch.where(torch.hypot(cos, sin) < 1e-3, 1e-3, cos)
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return Frame(turn, centre - (turn @ middle))


def sample_crops(img: Tensor, frame: Frame) -> Tensor:
    """Cut crops [K, 3, 64, 64] out of img [1, 3, H, W], H and W multiples of 32; what lies outside is 0.

    Each crop comes from the level of a pyramid of halvings that is at most twice as fine as the crop.
    """
    scale = torch.linalg.det(frame.turn).sqrt()  # Picture px in one crop px.
    level = scale.clamp(1, MAX_SHRINK).log2().floor().long()
    crops = img.new_zeros(len(scale), 3, CROP_PX, CROP_PX)
    steps = torch.arange(CROP_PX, dtype=frame.turn.dtype, device=img.device) + 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(1, -1, 2)
    extent = torch.tensor([img.shape[-1], img.shape[-2]], device=img.device)
    reached = 0
    for i in level.unique().tolist():
        for _ in range(i - reached):
            img = F.interpolate(img, scale_factor=0.5, mode="bilinear")  # The mean of two by two.
        reached = i
        mine = (level == i).nonzero()[:, 0]
        spots = Frame(frame.turn[mine], frame.shift[mine]).to_picture(pixels) / extent * 2 - 1  # [K, 4096, 2]
        side_by_side = F.grid_sample(img, spots.reshape(1, -1, CROP_PX, 2), align_corners=False)[0]
        crops[mine] = side_by_side.unflatten(1, (len(mine), CROP_PX)).transpose(0, 1)
    return crops


class Refiner(nn.Module):
    """Read crops [K, 3, 64, 64], RGB in [-1, 1].

    Args:
        channels: feature maps after each halving of the crop.
        hidden: features between the last map and what is said.
    """

    def __init__(self, *, channels: Sequence[int] = (16, 32, 64, 96), hidden: int = 64) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = {"channels": list(channels), "hidden": hidden}
        layers: list[nn.Module] = []
        before = 3
        for i, width in enumerate(channels):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.PReLU(width)]
            if 0 < i < 3:
                layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
            before = width
        side = CROP_PX // 2 ** len(channels)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side**2, hidden), nn.PReLU(hidden))
        self.out = nn.Linear(hidden, 1 + 2 * NUM_POINTS)

    def forward(self, crops: Tensor) -> Refinement:
        """Say of each crop whether it is a face, and where its points are."""
        raw = self.out(self.body(crops)).float()
        mean = torch.tensor(MEAN_FACE, device=raw.device)
        return Refinement(raw[:, 0], mean + raw[:, 1:].unflatten(1, (NUM_POINTS, 2)) * CROP_PX / 8)
