"""Our face network: one trunk that tells who a face is, how it is turned, what it expresses, and how old it looks.

A plain residual network (He et al. 2015) looks at the face inside an FFHQ-aligned crop; its head for identity weighs
every place of the last map, since eyes and corners do not say the same (MobileFaceNet, Chen et al. 2018). Everything
is smooth, so that gradients through it are useful to whoever changes the picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mien.errors import InputError

__all__ = [
    "EXPRESSIONS",
    "FRAME_PX",
    "MIRRORED",
    "SMILE",
    "WINDOW",
    "FaceNet",
    "FaceReading",
    "flip_expression",
    "folded",
    "window",
]

EXPRESSIONS = (
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"),
    *("jawOpen", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthPucker"),
    *("mouthPressLeft", "mouthPressRight", "mouthSmileLeft", "mouthSmileRight"),
    *("mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("mouthLowerDownLeft", "mouthLowerDownRight", "noseSneerLeft", "noseSneerRight"),
    *("eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeLookDownLeft"),
)
"""The columns of `FaceReading.expression`: MediaPipe's blendshapes; left is the person's own left."""


def _mirrored(name: str) -> str:
    if name.startswith("eyeLook"):
        swaps = {"eyeLookInLeft": "eyeLookOutLeft", "eyeLookOutLeft": "eyeLookInLeft"}
        return swaps.get(name, name)
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    return name.removesuffix("Right") + "Left" if name.endswith("Right") else name


MIRRORED = [EXPRESSIONS.index(_mirrored(name)) for name in EXPRESSIONS]
"""For each column the one that a mirror turns it into.

Of the gaze only the left eye's columns exist; both eyes turn together, so its In and Out change places.
"""
SMILE = [EXPRESSIONS.index("mouthSmileLeft"), EXPRESSIONS.index("mouthSmileRight")]
FRAME_PX = 96
WINDOW = (28, 16, 64)  # top, left and side of the face inside a frame of FRAME_PX: brows to chin, little hair
POSE_UNIT_DEG, AGE_MIDDLE, AGE_UNIT = 30.0, 45.0, 20.0


def flip_expression(expression: Tensor) -> Tensor:
    """Exchange left and right of `expression` [N, 32], as a mirror does."""
    return expression[:, MIRRORED]


class FaceReading(NamedTuple):
    """What `FaceNet` says of N faces.

    `identity` [N, D] unit vectors; `maps` of the face's window, fine to coarse, each [N, C, H, W]; `pose` [N, 3]
    degrees, signed as MediaPipe's: yaw (above 0 the face looks to the right of the picture), pitch (above 0 it looks
    down), roll (above 0 it is turned counter-clockwise); `expression` [N, 32] in [0,1], columns `EXPRESSIONS`; `age`
    [N] years; `gender` [N] from 0, female, to 1, male, as it looks to the labels' authors.
    """

    identity: Tensor
    maps: list[Tensor]
    pose: Tensor
    expression: Tensor
    age: Tensor
    gender: Tensor

    @property
    def smile(self) -> Tensor:
        """Mean of the two mouthSmile columns, [N] in [0,1]."""
        return self.expression[:, SMILE].mean(1)


class ConvUnit(nn.Sequential):
    """3x3 (or 1x1) convolution, batch norm, and SiLU if `active`; without `norm` the convolution has the bias."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, active: bool = True, norm: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm)
        self.norm = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.act = nn.SiLU() if active else nn.Identity()


class Residual(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, norm=norm)
        self.second = ConvUnit(channels, channels, active=False, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.second(self.first(x)))


class PlaceWeights(nn.Module):
    """Sum over places with a weight for each place and channel: [N, C, S, S] to [N, C].

    Source: Chen et al. 2018, Sec. 3.1 (global depthwise convolution), arXiv:1804.07573.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, side, side) / side)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum((2, 3))


class FaceNet(nn.Module):
    """Read FFHQ-aligned faces: img [N,3,H,H] in [-1,1] of any square size, resized inside.

    Args:
        channels: width of each stage; every stage halves the resolution.
        num_blocks: residual blocks of each stage.
        embedding_dim: D of the identity.
        norm: with batch norm, for training; the network that `folded` returns has none.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        num_blocks: Sequence[int] = (0, 1, 2, 2),
        embedding_dim: int = 256,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if len(channels) != len(num_blocks):
            raise InputError(f"{len(channels)} widths but {len(num_blocks)} numbers of blocks")
        self.init_kwargs: dict[str, Any] = {
            "channels": list(channels),
            "num_blocks": list(num_blocks),
            "embedding_dim": embedding_dim,
            "norm": norm,
        }
        self.stages = nn.ModuleList()
        for in_channels, width, count in zip((3, *channels), channels, num_blocks, strict=False):
            blocks = [Residual(width, norm=norm) for _ in range(count)]
            self.stages.append(nn.Sequential(ConvUnit(in_channels, width, stride=2, norm=norm), *blocks))
        side = WINDOW[2] >> len(channels)
        self.places = PlaceWeights(width, side)
        self.embed = nn.Sequential(nn.BatchNorm1d(width) if norm else nn.Identity(), nn.Linear(width, embedding_dim))
        self.attributes = nn.Sequential(
            ConvUnit(width, 32, kernel=1, norm=norm),
            nn.Flatten(),
            nn.Linear(32 * side**2, 128),
            nn.SiLU(),
            nn.Linear(128, 3 + len(EXPRESSIONS) + 2),
        )

    def forward(self, img: Tensor) -> FaceReading:
        """Read `img` [N,3,H,H] in [-1,1]; see `FaceReading`."""
        return self.read(window(img))

    def read(self, face: Tensor) -> FaceReading:
        """Read what `window` cuts out of the frame, [N,3,64,64] in [-1,1]."""
        maps = self._trunk(face)
        identity = F.normalize(at_least_float32(self.embed(self.places(maps[-1]))), dim=1)
        attributes = at_least_float32(self.attributes(maps[-1]))
        pose, expression, age, gender = attributes.split([3, len(EXPRESSIONS), 1, 1], 1)
        return FaceReading(
            identity,
            maps,
            POSE_UNIT_DEG * pose,
            expression.sigmoid(),
            AGE_MIDDLE + AGE_UNIT * age[:, 0],
            gender[:, 0].sigmoid(),
        )

    def maps(self, img: Tensor, num_stages: int = 3) -> list[Tensor]:
        """Return perceptual maps of the whole frame, fine to coarse, at strides 2, 4, 8...

        The frame is taken at its own size, shrunk to 96 px where it is larger: `img` [N,3,H,H] in [-1,1].
        """
        return self._trunk(img if img.shape[-1] <= FRAME_PX else resized(img), num_stages)

    def describe(self, img: Tensor) -> Tensor:
        """Return features [N, sum of the last two widths] for distances between sets of faces.

        They are the means of the last two stages' maps over the face's window, not normalised.
        """
        return torch.cat([m.mean((2, 3)) for m in self._trunk(window(img))[-2:]], 1)

    def _trunk(self, x: Tensor, num_stages: int | None = None) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages[:num_stages]:
            x = stage(x)
            maps.append(x)
        return maps


def at_least_float32(x: Tensor) -> Tensor:
    """Widen what autocast made narrow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def resized(img: Tensor) -> Tensor:
    """Bring `img` to the frame of 96 px, smoothly in both directions."""
    if img.ndim != 4 or img.shape[1] != 3 or img.shape[2] != img.shape[3]:
        raise InputError(f"faces must be square, [N, 3, H, H], got {list(img.shape)}", hint="align the photo first")
    if img.shape[-1] == FRAME_PX:
        return img
    return F.interpolate(img, (FRAME_PX, FRAME_PX), mode="bilinear", antialias=img.shape[-1] > FRAME_PX)


def window(img: Tensor) -> Tensor:
    """Cut the face out of the aligned frame: [N,3,H,H] to [N,3,64,64]."""
    top, left, side = WINDOW
    return resized(img)[:, :, top : top + side, left : left + side]


def folded(net: FaceNet) -> FaceNet:
    """Return the same network, ready for use: batch norms folded into the convolutions, in evaluation mode."""
    twin = copy.deepcopy(net).eval()
    for unit in twin.modules():
        if isinstance(unit, ConvUnit) and isinstance(unit.norm, nn.BatchNorm2d):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.norm)
            unit.norm = nn.Identity()
    if isinstance(twin.embed[0], nn.BatchNorm1d):
        norm, linear = twin.embed[0], cast(nn.Linear, twin.embed[1])
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        with torch.no_grad():
            linear.bias.add_(linear.weight @ shift)
            linear.weight.mul_(scale)
        twin.embed[0] = nn.Identity()
    twin.init_kwargs["norm"] = False
    return twin.requires_grad_(False)
