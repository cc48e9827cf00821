"""AnimeGANv2's generator: a photo to a drawing, at a side that is a multiple of four, without skips.

Parameters carry the names of the well-known PyTorch port, so that its files load as they are.

Source: Chen et al. 2020 (AnimeGAN), doi:10.1007/978-981-15-5577-0_18; inverted residuals: Sandler et al. 2018,
arXiv:1801.04381; layer norm: Ba et al. 2016, arXiv:1607.06450.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AnimeGenerator"]

SLOPE = 0.2
EXPANSION = 2  # of an inverted residual
HALF = (0, 1, 0, 1)  # padding of a convolution that halves the side


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


class ConvNorm(nn.Sequential):
    """Mirrored border, convolution, layer norm, leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        padding: Any = HALF if stride == 2 else kernel_size // 2
        super().__init__(
            nn.ReflectionPad2d(padding),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=groups > 1),
            _norm(out_channels),
            nn.LeakyReLU(SLOPE),
        )


class InvertedResidual(nn.Module):
    """Wider, convolved by channel, narrower; the input is added where the widths agree."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.has_shortcut = in_channels == out_channels
        width = EXPANSION * in_channels
        self.layers = nn.Sequential(
            ConvNorm(in_channels, width, kernel_size=1),
            ConvNorm(width, width, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            _norm(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, in, H, W] to [N, out, H, W]."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class AnimeGenerator(nn.Module):
    """Photos to drawings.

    Args:
        channels: feature maps of the first layer; the others are multiples of it.
        align_corners: how maps are enlarged; the published code runs either way.
    """

    def __init__(self, channels: int = 32, *, align_corners: bool = True) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = dict(channels=channels, align_corners=align_corners)
        self.align_corners = align_corners
        a, b, c, d = channels, 2 * channels, 4 * channels, 8 * channels
        self.block_a = nn.Sequential(ConvNorm(3, a, kernel_size=7), ConvNorm(a, b, stride=2), ConvNorm(b, b))
        self.block_b = nn.Sequential(ConvNorm(b, c, stride=2), ConvNorm(c, c))
        residuals = [InvertedResidual(c, d), *(InvertedResidual(d, d) for _ in range(3))]
        self.block_c = nn.Sequential(ConvNorm(c, c), *residuals, ConvNorm(d, c))
        self.block_d = nn.Sequential(ConvNorm(c, c), ConvNorm(c, c))
        self.block_e = nn.Sequential(ConvNorm(c, b), ConvNorm(b, b), ConvNorm(b, a, kernel_size=7))
        self.out_layer = nn.Sequential(nn.Conv2d(a, 3, 1, bias=False), nn.Tanh())

    def forward(self, img: Tensor) -> Tensor:
        """Carry img [N, 3, H, W] in [-1, 1], H and W multiples of four, to drawings of the same shape and range."""
        if img.ndim != 4 or img.shape[1] != 3 or img.shape[2] % 4 or img.shape[3] % 4:
            raise ValueError(f"img must be [N,3,H,W] with sides that are multiples of 4, got {list(img.shape)}")
        x = self.block_c(self.block_b(self.block_a(img)))
        x = self.block_e(self._enlarged(self.block_d(self._enlarged(x))))
        y: Tensor = self.out_layer(x)
        return y

    def _enlarged(self, x: Tensor) -> Tensor:
        side = torch.Size([2 * x.shape[2], 2 * x.shape[3]])
        return F.interpolate(x, side, mode="bilinear", align_corners=self.align_corners)
