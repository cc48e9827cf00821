"""Layers that StyleGAN2's networks share, with equalised learning rate, and how their widths and types are chosen.

Source: Karras et al. 2018, Sec. 4.1, arXiv:1710.10196; Karras et al. 2020, arXiv:1912.04958.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien.nets.ops import ACTIVATIONS, bias_act, conv2d_resample, setup_filter

__all__ = [
    "ARCHITECTURES",
    "FIR",
    "Conv2dLayer",
    "FullyConnectedLayer",
    "as_blocks",
    "channels_at",
    "check_architecture",
    "full_precision",
    "resolutions_to",
    "weights_dtype",
]

ARCHITECTURES = ("orig", "skip", "resnet")
"""How blocks are joined (Karras et al. 2020, Fig. 7)."""

FIR = (1, 3, 3, 1)
"""The filter that smooths what is resampled."""


def channels_at(resolution: int, channel_base: int, channel_max: int | Sequence[int]) -> int:
    """Feature maps of the block at `resolution`; `channel_max` limits all, or is one limit per block from 4 px up."""
    limit = channel_max if isinstance(channel_max, int) else channel_max[resolution.bit_length() - 3]
    return min(channel_base // resolution, limit)


def check_architecture(architecture: str) -> None:
    """Refuse a way of joining blocks that is not in `ARCHITECTURES`."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")


def resolutions_to(img_resolution: int) -> list[int]:
    """Sides of the blocks from 4 up to `img_resolution`, a power of two."""
    if img_resolution < 4 or img_resolution.bit_count() != 1:
        raise ValueError(f"img_resolution must be a power of two from 4 up, got {img_resolution}")
    return [2**i for i in range(2, img_resolution.bit_length())]


def as_blocks(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast feature maps and lay them out as the fast convolutions of `dtype` want them."""
    return x.to(dtype=dtype, memory_format=torch.channels_last)


def weights_dtype(net: nn.Module) -> torch.dtype:
    """The type of a network's weights."""
    return next(net.parameters()).dtype


def full_precision(x: Tensor) -> Tensor:
    """Carry half types to float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalised learning rate and an activation."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init) / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, in_features] to [N, out_features]."""
        x = torch.addmm(self.bias, x, self.weight.T, beta=self.bias_gain, alpha=self.weight_gain)
        return bias_act(x, act=self.activation)


class Conv2dLayer(nn.Module):
    """Convolution with equalised learning rate, resampling and an activation."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = FIR,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.act_gain = ACTIVATIONS[activation].gain
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(resample_filter))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Carry [N, in, H, W] to [N, out, H*up/down, W*up/down]; `gain` scales the result."""
        x = conv2d_resample(
            x,
            self.weight * self.weight_gain,
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)
