"""Inception-v3 as FID knows it: the network of TensorFlow's file of December 2015, not torchvision's.

It differs from the published network in three places: averages leave the padding out, the last block pools by maximum,
and there are 1008 classes. Pictures are resized as TensorFlow 1 did, whose corners are off by half a pixel; FID and KID
of the papers were measured with that. Parameters have the names of pytorch-fid's file.

Source: Szegedy et al. 2015, Table 1, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError

__all__ = ["INPUT_PX", "NUM_CLASSES", "Inception", "resized_as_tensorflow_1"]

INPUT_PX = 299
NUM_CLASSES = 1008
NUM_FEATURES = 2048

Kernel = int | tuple[int, int]
Row = Sequence[str | tuple[str, ...]]


def _steps(length_in: int, length_out: int) -> Tensor:
    """Return the matrix [out, in] of a linear resize that maps the first sample on the first."""
    positions = torch.arange(length_out) * (length_in / length_out)
    low = positions.floor().long()
    high = (low + 1).clamp(max=length_in - 1)
    part = positions - low
    matrix = torch.zeros(length_out, length_in)
    matrix.scatter_add_(1, low[:, None], 1 - part[:, None])
    return matrix.scatter_add_(1, high[:, None], part[:, None])


def resized_as_tensorflow_1(img: Tensor, size_px: int = INPUT_PX) -> Tensor:
    """Resize `img` [N,C,H,W] bilinearly as TensorFlow 1 did: no half pixels at the corners, no smoothing first."""
    rows, columns = (_steps(length, size_px).to(img) for length in img.shape[-2:])
    return rows @ img @ columns.T


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel = 1, stride: int = 1, padding: Kernel = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Paths side by side, their channels joined.

    Args:
        units: by name.
        paths: each a row of names; `avg`, `max` and `max2` (which halves) pool; names in a tuple share their input.
    """

    def __init__(self, units: Mapping[str, ConvUnit], paths: Sequence[Row]) -> None:
        super().__init__()
        for name, unit in units.items():
            self.add_module(name, unit)
        self.paths = paths

    def _step(self, name: str, x: Tensor) -> Tensor:
        match name:
            case "avg":
                return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            case "max":
                return F.max_pool2d(x, 3, 1, 1)
            case "max2":
                return F.max_pool2d(x, 3, 2)
        stepped: Tensor = self.get_submodule(name)(x)
        return stepped

    def _walk(self, path: Row, x: Tensor) -> Tensor:
        for step in path:
            x = self._step(step, x) if isinstance(step, str) else torch.cat([self._step(s, x) for s in step], 1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._walk(path, x) for path in self.paths], 1)


def _fine(in_channels: int, pooled: int) -> Mixed:
    """35 px: Fig. 5."""
    units = {
        "branch1x1": ConvUnit(in_channels, 64),
        "branch5x5_1": ConvUnit(in_channels, 48),
        "branch5x5_2": ConvUnit(48, 64, 5, padding=2),
        "branch3x3dbl_1": ConvUnit(in_channels, 64),
        "branch3x3dbl_2": ConvUnit(64, 96, 3, padding=1),
        "branch3x3dbl_3": ConvUnit(96, 96, 3, padding=1),
        "branch_pool": ConvUnit(in_channels, pooled),
    }
    double = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return Mixed(units, [("branch1x1",), ("branch5x5_1", "branch5x5_2"), double, ("avg", "branch_pool")])


def _to_medium() -> Mixed:
    units = {
        "branch3x3": ConvUnit(288, 384, 3, 2),
        "branch3x3dbl_1": ConvUnit(288, 64),
        "branch3x3dbl_2": ConvUnit(64, 96, 3, padding=1),
        "branch3x3dbl_3": ConvUnit(96, 96, 3, 2),
    }
    return Mixed(units, [("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("max2",)])


def _medium(width: int) -> Mixed:
    """17 px: Fig. 6."""
    row: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
    column: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
    units = {
        "branch1x1": ConvUnit(768, 192),
        "branch7x7_1": ConvUnit(768, width),
        "branch7x7_2": ConvUnit(width, width, **row),
        "branch7x7_3": ConvUnit(width, 192, **column),
        "branch7x7dbl_1": ConvUnit(768, width),
        "branch7x7dbl_2": ConvUnit(width, width, **column),
        "branch7x7dbl_3": ConvUnit(width, width, **row),
        "branch7x7dbl_4": ConvUnit(width, width, **column),
        "branch7x7dbl_5": ConvUnit(width, 192, **row),
        "branch_pool": ConvUnit(768, 192),
    }
    single = tuple(f"branch7x7_{i}" for i in (1, 2, 3))
    double = tuple(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))
    return Mixed(units, [("branch1x1",), single, double, ("avg", "branch_pool")])


def _to_coarse() -> Mixed:
    units = {
        "branch3x3_1": ConvUnit(768, 192),
        "branch3x3_2": ConvUnit(192, 320, 3, 2),
        "branch7x7x3_1": ConvUnit(768, 192),
        "branch7x7x3_2": ConvUnit(192, 192, (1, 7), padding=(0, 3)),
        "branch7x7x3_3": ConvUnit(192, 192, (7, 1), padding=(3, 0)),
        "branch7x7x3_4": ConvUnit(192, 192, 3, 2),
    }
    return Mixed(units, [("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)), ("max2",)])


def _coarse(in_channels: int, pooling: str) -> Mixed:
    """8 px: Fig. 7."""
    units = {
        "branch1x1": ConvUnit(in_channels, 320),
        "branch3x3_1": ConvUnit(in_channels, 384),
        "branch3x3_2a": ConvUnit(384, 384, (1, 3), padding=(0, 1)),
        "branch3x3_2b": ConvUnit(384, 384, (3, 1), padding=(1, 0)),
        "branch3x3dbl_1": ConvUnit(in_channels, 448),
        "branch3x3dbl_2": ConvUnit(448, 384, 3, padding=1),
        "branch3x3dbl_3a": ConvUnit(384, 384, (1, 3), padding=(0, 1)),
        "branch3x3dbl_3b": ConvUnit(384, 384, (3, 1), padding=(1, 0)),
        "branch_pool": ConvUnit(in_channels, 192),
    }
    single: Row = ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b"))
    double: Row = ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
    return Mixed(units, [("branch1x1",), single, double, (pooling, "branch_pool")])


class Inception(nn.Module):
    """Describe pictures [N,3,H,W] in [-1,1] of any size for distances between sets of them."""

    def __init__(self) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = {}
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3)
        self.Mixed_5b = _fine(192, 32)
        self.Mixed_5c = _fine(256, 64)
        self.Mixed_5d = _fine(288, 64)
        self.Mixed_6a = _to_medium()
        self.Mixed_6b = _medium(128)
        self.Mixed_6c = _medium(160)
        self.Mixed_6d = _medium(160)
        self.Mixed_6e = _medium(192)
        self.Mixed_7a = _to_coarse()
        self.Mixed_7b = _coarse(1280, "avg")
        self.Mixed_7c = _coarse(2048, "max")
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def describe(self, img: Tensor) -> Tensor:
        """Return the features [N,2048] after the last pooling."""
        if img.ndim != 4 or img.shape[1] != 3:
            raise InputError(f"pictures must be [N, 3, H, W], got {list(img.shape)}")
        pixels = (img + 1) * 127.5
        x = (resized_as_tensorflow_1(pixels) - 128) / 128  # as the file's own first steps do it
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                x = block(x)
        return x.mean((2, 3))

    def forward(self, img: Tensor) -> Tensor:
        """Return the logits [N,1008] of the classes."""
        logits: Tensor = self.fc(self.describe(img))
        return logits
