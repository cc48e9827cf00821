"""Our own picture-to-picture network: a small U-Net that draws a face in one pass, wherever it was trained to.

What makes it quick: few maps where the side is large, no norm to compute, skips that are added and not stacked. What
makes it clean: maps are enlarged and then convolved, which leaves no checkerboard; nothing in it knows of the batch, so
that it does the same in training and in use; the last layer is linear, so that black and white do not saturate.

Source: the shape: Ronneberger et al. 2015, arXiv:1505.04597; enlarging before convolving: Odena et al. 2016,
doi:10.23915/distill.00003; residual branches that begin at nothing in place of norms: Zhang et al. 2019 (Fixup),
arXiv:1901.09321.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Student"]

SLOPE = 0.1


def _conv(in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A convolution whose maps begin with the variance of what it is given, times the square of `gain`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
    spread = gain * math.sqrt(2 / (1 + SLOPE**2)) / math.sqrt(in_channels * kernel**2)
    nn.init.normal_(conv.weight, 0, spread)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class Residual(nn.Module):
    """Two convolutions beside a shortcut; the branch begins at nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, C, H, W] to the same shape."""
        y: Tensor = self.second(_act(self.first(x)))
        return _act(x + y)


class Student(nn.Module):
    """Picture to picture: img [N, 3, H, W] in [-1, 1] to the same shape, about [-1, 1].

    Args:
        widths: feature maps of each level, from the full side on; every level halves it.
        num_blocks: residual blocks of each level, on the way down.
        img_resolution: side of the aligned faces that it was trained on; it takes any side that `step` divides.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (16, 32, 64, 128, 192),
        num_blocks: Sequence[int] = (0, 0, 1, 1, 2),
        img_resolution: int = 256,
    ) -> None:
        super().__init__()
        if len(widths) != len(num_blocks):
            raise ValueError(f"{len(widths)} widths but {len(num_blocks)} numbers of blocks")
        self.init_kwargs: dict[str, Any] = dict(
            widths=list(widths), num_blocks=list(num_blocks), img_resolution=img_resolution
        )
        self.img_resolution = img_resolution
        self.step = 2 ** (len(widths) - 1)
        self.stem = _conv(3, widths[0])
        self.downs = nn.ModuleList(_conv(a, b, stride=2) for a, b in pairwise(widths))
        self.levels = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(num))) for width, num in zip(widths, num_blocks, strict=True)
        )
        self.ups = nn.ModuleList(_conv(b, a, gain=math.sqrt(0.5)) for a, b in pairwise(widths))
        self.skips = nn.ModuleList(_conv(width, width, kernel=1, gain=math.sqrt(0.5)) for width in widths[:-1])
        self.refine = Residual(widths[0])
        self.last = _conv(widths[0], 3, gain=0.1)

    def forward(self, img: Tensor) -> Tensor:
        """Draw img [N, 3, H, W] in [-1, 1], sides multiples of `step`.

        Raises:
            ValueError: another shape.
        """
        if img.ndim != 4 or img.shape[1] != 3 or img.shape[2] % self.step or img.shape[3] % self.step:
            raise ValueError(f"img must be [N,3,H,W] with sides of {self.step} px, got {list(img.shape)}")
        x = self.levels[0](_act(self.stem(img)))
        maps = [x]
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            x = level(_act(down(x)))
            maps.append(x)
        for up, skip, finer in reversed(list(zip(self.ups, self.skips, maps[:-1], strict=True))):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = _act(up(x) + skip(finer))
        y: Tensor = self.last(self.refine(x))
        return y
