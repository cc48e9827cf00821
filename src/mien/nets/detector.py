"""Detector: every face of a picture as a box, five points and a score, by one small fully convolutional network.

Three levels of strides 8, 16 and 32 look for faces of about 10-56, 40-112 and 80-400 px; each cell of a level predicts
one face, without anchors. Depthwise separable convolutions and a top-down pyramid keep it at a quarter of a million
numbers; the refiner that reads each face again has as many.

Source: Tian et al. 2019 (FCOS), arXiv:1904.01355; Deng et al. 2019 (RetinaFace), arXiv:1905.00641; Wu et al. 2023
(YuNet), doi:10.1007/s11633-023-1423-y; Lin et al. 2017 (feature pyramids), arXiv:1612.03144.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mien.nets.refiner import Refiner

__all__ = [
    "STRIDES",
    "Cells",
    "Detector",
    "Predictions",
    "cells",
    "decode",
    "encode",
    "fold_norm",
    "giou",
    "iou",
    "nms",
]

STRIDES = (8, 16, 32)
NUM_POINTS = 5
MEAN_SIZE = 4.0  # Side of a usual face in strides of its level, where the box starts.
START_POINTS = ((-0.18, -0.12), (0.18, -0.12), (0.0, 0.05), (-0.15, 0.22), (0.15, 0.22))  # In sides of the box.


class Cells(NamedTuple):
    """Where the predictions stand: `centres` [A, 2] px as (x, y), `strides` [A] px."""

    centres: Tensor
    strides: Tensor


class Predictions(NamedTuple):
    """One face for each of A cells: `logits` [N, A] of the score, `boxes` [N, A, 4] px, `points` [N, A, 5, 2] px."""

    logits: Tensor
    boxes: Tensor
    points: Tensor


def cells(height: int, width: int, *, device: torch.device | None = None) -> Cells:
    """Lay out the cells of a picture of `height` x `width` px (multiples of 32), level by level, row by row.

    >>> cells(32, 64).strides.unique(return_counts=True)[1].tolist()
    [32, 8, 2]
    """
    centres, strides = [], []
    for stride in STRIDES:
        y = (torch.arange(height // stride, device=device) + 0.5) * stride
        x = (torch.arange(width // stride, device=device) + 0.5) * stride
        rows, cols = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack([cols, rows], dim=-1).reshape(-1, 2))
        strides.append(torch.full((len(y) * len(x),), float(stride), device=device))
    return Cells(torch.cat(centres), torch.cat(strides))


def decode(raw: Tensor, at: Cells) -> tuple[Tensor, Tensor]:
    """Turn raw [..., A, 14] into boxes [..., A, 4] px and points [..., A, 5, 2] px.

    Raw holds the offset of the box's centre from the cell, the logarithm of its size, and the offsets of the points,
    all in strides of the level.
    """
    stride = at.strides[:, None]
    middle = at.centres + raw[..., :2] * stride
    half = raw[..., 2:4].clamp(-4, 6).exp() * stride / 2
    points = at.centres[:, None] + raw[..., 4:].unflatten(-1, (NUM_POINTS, 2)) * stride[..., None]
    return torch.cat([middle - half, middle + half], dim=-1), points


def encode(boxes: Tensor, points: Tensor, at: Cells) -> Tensor:
    """Invert `decode`: boxes [..., A, 4] and points [..., A, 5, 2] to raw [..., A, 14]."""
    stride = at.strides[:, None]
    middle = ((boxes[..., :2] + boxes[..., 2:]) / 2 - at.centres) / stride
    size = ((boxes[..., 2:] - boxes[..., :2]) / stride).log()
    offsets = (points - at.centres[:, None]) / stride[..., None]
    return torch.cat([middle, size, offsets.flatten(-2)], dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union [...] of boxes a and b [..., 4]."""
    shared = _area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1))
    return shared / (_area(a) + _area(b) - shared).clamp(min=1e-6)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised intersection over union [...] of boxes a and b [..., 4], in [-1, 1].

    Source: Rezatofighi et al. 2019, Alg. 1, arXiv:1902.09630.
    """
    shared = _area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1))
    hull = _area(torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1))
    union = (_area(a) + _area(b) - shared).clamp(min=1e-6)
    return shared / union - 1 + union / hull.clamp(min=1e-6)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def nms(boxes: Tensor, scores: Tensor, *, max_iou: float) -> Tensor:
    """Keep the best box of each heap: indices int64 [K] of boxes [A, 4], highest of `scores` [A] first.

    A box goes when its intersection over union with a better one that stays is above `max_iou`.
    """
    order = scores.argsort(descending=True, stable=True)
    covers = iou(boxes[order, None], boxes[None, order]) > max_iou  # [A, A]
    stays = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for i in range(len(order)):
        if stays[i]:
            stays[i + 1 :] &= ~covers[i, i + 1 :]
    return order[stays]


class Conv(nn.Sequential):
    """Convolution, normalisation, ReLU; `separable` splits it into a depthwise and a pointwise one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        separable: bool = True,
        act: bool = True,
        norm: bool,
    ) -> None:
        layers: list[nn.Module] = []
        kernel = 3
        if separable:
            layers.append(nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False))
            kernel, stride = 1, 1
        layers.append(nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(out_channels))
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Block(nn.Module):
    """Two separable convolutions beside an identity."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv0 = Conv(channels, channels, norm=norm)
        self.conv1 = Conv(channels, channels, act=False, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, H, W] to the same shape."""
        return F.relu(self.conv1(self.conv0(x)).add(x))


def _output(channels: int, start: Sequence[float]) -> nn.Conv2d:
    """Make the last convolution: it says `start` in every cell until it has learnt."""
    conv = nn.Conv2d(channels, len(start), 1)
    nn.init.normal_(conv.weight, std=0.01)
    with torch.no_grad():
        for i, value in enumerate(start):
            conv.bias[i] = value  # type: ignore[index]
    return conv


class Head(nn.Module):
    """What one level predicts in each cell: raw [N, H * W, 15]."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, norm=norm)
        start = [0.0, 0.0, *[math.log(MEAN_SIZE)] * 2, *[MEAN_SIZE * v for p in START_POINTS for v in p]]
        nearly_never = [-math.log(99)]  # Score 0.01.
        self.score = nn.Sequential(Conv(channels, channels, norm=norm), _output(channels, nearly_never))
        self.place = nn.Sequential(Conv(channels, channels, norm=norm), _output(channels, start))

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to raw [N, H * W, 15], rows first."""
        x = self.conv(x)
        raw = torch.cat([self.score(x), self.place(x)], dim=1)
        return raw.permute(0, 2, 3, 1).flatten(1, 2)


class Detector(nn.Module):
    """Find faces in img [N, 3, H, W], RGB in [-1, 1], H and W multiples of 32.

    Args:
        channels: feature maps at strides 2, 4, 8, 16, 32.
        num_blocks: residual blocks at strides 8, 16, 32.
        pyramid_channels: feature maps of the pyramid and the heads.
        refiner_kwargs: arguments of the `refiner`, which looks at each found face again; `forward` does not use it.
        norm: batch normalisation, for training; `fold_norm` makes the equal network without.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (16, 32, 64, 96, 128),
        num_blocks: Sequence[int] = (2, 2, 2),
        pyramid_channels: int = 64,
        refiner_kwargs: Mapping[str, Any] | None = None,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = {
            "channels": list(channels),
            "num_blocks": list(num_blocks),
            "pyramid_channels": pyramid_channels,
            "refiner_kwargs": dict(refiner_kwargs or {}),
            "norm": norm,
        }
        c2, c4, *widths = channels
        self.stem = nn.Sequential(
            Conv(3, c2, stride=2, separable=False, norm=norm), Conv(c2, c4, stride=2, separable=False, norm=norm)
        )
        self.stages = nn.ModuleList()
        for level, (width, depth) in enumerate(zip(widths, num_blocks, strict=True)):
            before = widths[level - 1] if level else c4
            down = Conv(before, width, stride=2, separable=level > 0, norm=norm)
            self.stages.append(nn.Sequential(down, *[Block(width, norm=norm) for _ in range(depth)]))
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid_channels, 1) for width in widths)
        self.heads = nn.ModuleList(Head(pyramid_channels, norm=norm) for _ in widths)
        self.refiner = Refiner(**(refiner_kwargs or {}))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, img: Tensor) -> Predictions:
        """Predict one face per cell; see `cells` for their order."""
        height, width = img.shape[-2:]
        assert height % STRIDES[-1] == 0 and width % STRIDES[-1] == 0, f"not multiples of 32: {height}x{width}"
        x = self.stem(img.contiguous(memory_format=torch.channels_last))
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for fine, coarse in ((1, 2), (0, 1)):
            levels[fine] = levels[fine] + F.interpolate(levels[coarse], scale_factor=2, mode="nearest")
        raw = torch.cat([head(level) for head, level in zip(self.heads, levels, strict=True)], dim=1).float()
        boxes, points = decode(raw[..., 1:], cells(height, width, device=img.device))
        return Predictions(raw[..., 0], boxes, points)


def fold_norm(net: Detector) -> Detector:
    """Return an equal network in which each batch normalisation has become part of the convolution before it."""
    folded = copy.deepcopy(net).eval()
    for module in [module for module in folded.modules() if isinstance(module, Conv)]:
        for i, layer in enumerate(module):
            if isinstance(layer, nn.BatchNorm2d):
                module[i - 1] = fuse_conv_bn_eval(module[i - 1], layer)  # type: ignore[type-var]
                del module[i]
                break
    plain = Detector(**{**net.init_kwargs, "norm": False})
    plain.load_state_dict(folded.state_dict())
    return plain.eval()
