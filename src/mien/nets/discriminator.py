"""StyleGAN2's discriminator, with the parameter names of the official PyTorch code.

It computes in float32 unless a call asks for another `dtype`; then the feature maps of blocks are of that type.

Source: Karras et al. 2020, arXiv:1912.04958; ADA: arXiv:2006.06676.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mien.nets.layers import (
    FIR,
    Conv2dLayer,
    FullyConnectedLayer,
    as_blocks,
    channels_at,
    check_architecture,
    full_precision,
    resolutions_to,
)
from mien.nets.ops import downsample2d, setup_filter
from mien.nets.stylegan2 import MappingNetwork

__all__ = ["Discriminator"]


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the resolution."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        *,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: Sequence[float] = FIR,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        self.in_channels, self.resolution, self.architecture = in_channels, resolution, architecture
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        layer: dict[str, Any] = dict(activation=activation, conv_clamp=conv_clamp)
        fir: dict[str, Any] = dict(down=2, resample_filter=resample_filter)
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, tmp_channels, kernel_size=1, **layer)
        self.conv0 = Conv2dLayer(tmp_channels, tmp_channels, kernel_size=3, **layer)
        self.conv1 = Conv2dLayer(tmp_channels, out_channels, kernel_size=3, **fir, **layer)
        if architecture == "resnet":
            self.skip = Conv2dLayer(tmp_channels, out_channels, kernel_size=1, bias=False, **fir)

    def forward(self, x: Tensor | None, img: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Take feature maps and picture at `resolution`; return those at half of it."""
        if x is not None:
            x = as_blocks(x, dtype)
        if self.in_channels == 0 or self.architecture == "skip":
            assert img is not None
            y = self.fromrgb(as_blocks(img, dtype))
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        assert x is not None
        if self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            x = y + self.conv1(self.conv0(x), gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x))
        return x, img


def minibatch_stddev(x: Tensor, group_size: int | None, num_channels: int) -> Tensor:
    """Append the mean standard deviation over small groups of samples as `num_channels` constant maps.

    The group is the largest divisor of the batch that is at most `group_size`.

    Source: Karras et al. 2018, Sec. 3, arXiv:1710.10196.
    """
    num, channels, height, width = x.shape
    group = next(g for g in range(min(group_size or num, num), 0, -1) if num % g == 0)
    y = x.reshape(group, -1, num_channels, channels // num_channels, height, width)  # [GnFcHW]
    y = (y - y.mean(dim=0)).square().mean(dim=0).add(1e-8).sqrt().mean(dim=[2, 3, 4])  # [nF]
    y = y.reshape(-1, num_channels, 1, 1).repeat(group, 1, height, width)
    return torch.cat([x, y], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """From 4x4 feature maps to one logit."""

    def __init__(
        self,
        in_channels: int,
        *,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.cmap_dim, self.architecture = cmap_dim, architecture
        self.mbstd_group_size, self.mbstd_num_channels = mbstd_group_size, mbstd_num_channels
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, kernel_size=1, activation=activation)
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels,
            in_channels,
            kernel_size=3,
            activation=activation,
            conv_clamp=conv_clamp,
        )
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None) -> Tensor:
        """Return logits [N, 1]."""
        x = full_precision(x).contiguous()
        if self.architecture == "skip":
            assert img is not None
            x = x + self.fromrgb(img)
        if self.mbstd_num_channels > 0:
            x = minibatch_stddev(x, self.mbstd_group_size, self.mbstd_num_channels)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is not None:
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """StyleGAN2's discriminator; with labels it is a projection discriminator.

    Args:
        c_dim: number of classes, 0 for none.
        img_resolution: side of the picture, a power of two.
        img_channels: 3 for RGB.
        architecture: `resnet`, `skip` or `orig`.
        channel_base: feature maps of a block are channel_base / resolution,
        channel_max: but not more than this, one number or one for each block from 4 px up.
        num_fp16_res: kept for files that have it; the call's `dtype` decides.
        conv_clamp: limit of feature maps, None for none.
        cmap_dim: size of the mapped label; by default the width at 4x4.
        block_kwargs: of `DiscriminatorBlock`.
        mapping_kwargs: of `MappingNetwork`.
        epilogue_kwargs: of `DiscriminatorEpilogue`.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int | Sequence[int] = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = dict(
            c_dim=c_dim,
            img_resolution=img_resolution,
            img_channels=img_channels,
            architecture=architecture,
            channel_base=channel_base,
            channel_max=channel_max,
            num_fp16_res=num_fp16_res,
            conv_clamp=conv_clamp,
            cmap_dim=cmap_dim,
            block_kwargs=dict(block_kwargs or {}),
            mapping_kwargs=dict(mapping_kwargs or {}),
            epilogue_kwargs=dict(epilogue_kwargs or {}),
        )
        self.block_resolutions = resolutions_to(img_resolution)[:0:-1]
        common: dict[str, Any] = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        in_channels = 0
        for res in self.block_resolutions:
            tmp, out = (channels_at(r, channel_base, channel_max) for r in (res, res // 2))
            block = DiscriminatorBlock(in_channels, tmp, out, resolution=res, **common, **(block_kwargs or {}))
            setattr(self, f"b{res}", block)
            in_channels = out
        width = channels_at(4, channel_base, channel_max)
        cmap_dim = 0 if c_dim == 0 else (width if cmap_dim is None else cmap_dim)
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, None, w_avg_beta=None, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(width, cmap_dim=cmap_dim, resolution=4, **common, **(epilogue_kwargs or {}))

    def forward(self, img: Tensor, c: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return logits [N, 1] of img [N, img_channels, H, W] (and labels c [N, c_dim]); higher is more real."""
        assert img.shape[1:] == (self.img_channels, self.img_resolution, self.img_resolution), img.shape
        rest: Tensor | None = full_precision(img)
        x = None
        for res in self.block_resolutions:
            x, rest = getattr(self, f"b{res}")(x, rest, dtype)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        assert x is not None
        logits: Tensor = self.b4(x, rest, cmap)
        return logits
