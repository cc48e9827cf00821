"""The improved residual network with squeeze and excitation, which face recognisers and pSp's encoders are built on.

Parameters carry the names of the PyTorch code that its weights come from.

Source: Deng et al. 2019, Sec. 3.1, arXiv:1801.07698; Hu et al. 2018, Eq. 2-4, arXiv:1709.01507.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["STRIDE", "UNITS", "WIDTHS", "backbone", "stem"]

WIDTHS = (64, 128, 256, 512)
"""Feature maps of the four stages."""

UNITS = (3, 4, 14, 3)
"""Residual units of each stage in the network of 50 layers."""

STRIDE = 16
"""Of the whole backbone: each stage begins with a stride of two."""

REDUCTION = 16  # channels per channel of the squeezed description


class SqueezeExcitation(nn.Module):
    """Feature maps weighed by what all of them hold on average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(1, channels // REDUCTION), 1, bias=False)
        self.fc2 = nn.Conv2d(max(1, channels // REDUCTION), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape [N, channels, H, W]."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=[2, 3], keepdim=True)))))


class ResidualUnit(nn.Module):
    """Norm, convolution, PReLU, convolution, norm, squeeze and excitation, and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, use_se: bool) -> None:
        super().__init__()
        if in_channels == out_channels:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        if use_se:
            self.res_layer.append(SqueezeExcitation(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, in, H, W] to [N, out, H/stride, W/stride]."""
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y


def stem(in_channels: int, width: int) -> nn.Sequential:
    """Return the layers before the first stage."""
    conv = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.PReLU(width))


def backbone(widths: Sequence[int] = WIDTHS, units: Sequence[int] = UNITS, *, use_se: bool = True) -> nn.Sequential:
    """Return the residual units of all stages, one after the other."""
    body: list[nn.Module] = []
    for (before, width), num in zip(pairwise([widths[0], *widths]), units, strict=True):
        body.append(ResidualUnit(before, width, stride=2, use_se=use_se))
        body += [ResidualUnit(width, width, stride=1, use_se=use_se) for _ in range(num - 1)]
    return nn.Sequential(*body)
