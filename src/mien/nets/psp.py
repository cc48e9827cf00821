"""The encoders of pSp, e4e and ReStyle: a face recogniser's backbone, and one small head for every row of W+.

Parameters carry the names of the official code, so that its files load as they are.

Source: Richardson et al. 2021 (pSp), arXiv:2008.00951; Tov et al. 2021 (e4e), arXiv:2102.02766; Alaluf et al. 2021
(ReStyle), arXiv:2104.02699.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.nets.irse import STRIDE, UNITS, WIDTHS, backbone, stem
from mien.nets.layers import FullyConnectedLayer

__all__ = ["KINDS", "PspEncoder"]

KINDS = ("e4e", "psp")
"""How rows of W+ come about: as offsets from the first one, or each on its own."""

COARSE, MIDDLE = 3, 7  # the first rows of the middle and of the fine styles (pSp, Sec. 3.1)


class StyleHead(nn.Module):
    """Feature maps to one row of W+, halving them until one pixel is left ("map2style" in pSp, Sec. 3.1)."""

    def __init__(self, in_channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(side.bit_length() - 1):
            layers += [nn.Conv2d(w_dim if i else in_channels, w_dim, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = FullyConnectedLayer(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, in_channels, side, side] to [N, w_dim]."""
        row: Tensor = self.linear(self.convs(x).flatten(1))
        return row


class PspEncoder(nn.Module):
    """Pictures to W+ codes by the networks of pSp, e4e or ReStyle.

    Args:
        num_ws: rows of the generator.
        w_dim: width of a row.
        kind: one of `KINDS`.
        use_pyramid: read finer rows from finer feature maps; ReStyle reads all from the coarsest.
        in_channels: 3; 6 for ReStyle, which also sees the render of the code so far.
        in_resolution: side that the network sees; other pictures are resized.
        channels: widths of the backbone's four stages.
        units: residual units of each stage; those of the 50-layer network by default.
        use_se: squeeze and excitation in every unit.
    """

    latent_avg: Tensor

    def __init__(
        self,
        num_ws: int,
        w_dim: int = 512,
        *,
        kind: str = "e4e",
        use_pyramid: bool = True,
        in_channels: int = 3,
        in_resolution: int = 256,
        channels: Sequence[int] = WIDTHS,
        units: Sequence[int] = UNITS,
        use_se: bool = True,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if len(channels) != 4 or len(units) != 4 or min(units) < 1:
            raise ValueError("the backbone has four stages")
        side = in_resolution // STRIDE
        if side < 2 or side.bit_count() != 1 or side * STRIDE != in_resolution:
            raise ValueError(f"in_resolution must be a power of two from {2 * STRIDE} up, got {in_resolution}")
        self.init_kwargs: dict[str, Any] = dict(
            num_ws=num_ws,
            w_dim=w_dim,
            kind=kind,
            use_pyramid=use_pyramid,
            in_channels=in_channels,
            in_resolution=in_resolution,
            channels=list(channels),
            units=list(units),
            use_se=use_se,
        )
        self.num_ws, self.w_dim, self.kind, self.use_pyramid = num_ws, w_dim, kind, use_pyramid
        self.in_channels, self.in_resolution = in_channels, in_resolution
        self.stage_ends = [sum(units[: i + 1]) - 1 for i in range(4)]
        self.input_layer = stem(in_channels, channels[0])
        self.body = backbone(channels, units, use_se=use_se)
        self.styles = nn.ModuleList(StyleHead(channels[3], w_dim, side * self._scale(i)) for i in range(num_ws))
        if use_pyramid:
            self.latlayer1 = nn.Conv2d(channels[2], channels[3], 1)
            self.latlayer2 = nn.Conv2d(channels[1], channels[3], 1)
        self.register_buffer("latent_avg", torch.zeros(num_ws, w_dim))

    def _scale(self, row: int) -> int:
        """How many times finer than the coarsest the feature maps of a row are."""
        if not self.use_pyramid or row < COARSE:
            return 1
        return 2 if row < MIDDLE else 4

    def features(self, img: Tensor) -> dict[int, Tensor]:
        """Carry img [N, in_channels, in_resolution, in_resolution] to the feature maps of each scale."""
        x = self.input_layer(img)
        stages = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in self.stage_ends:
                stages.append(x)
        if not self.use_pyramid:
            return {1: x}
        middle = _enlarge(x, stages[2]) + self.latlayer1(stages[2])
        return {1: x, 2: middle, 4: _enlarge(middle, stages[1]) + self.latlayer2(stages[1])}

    def forward(self, img: Tensor, ws: Tensor | None = None) -> Tensor:
        """Carry img [N, in_channels, H, W] in [-1, 1] to ws [N, num_ws, w_dim].

        Args:
            img: pictures of any side; for ReStyle with the render of `ws` behind them, that of the average at first.
            ws: the code so far, which the result adds to; the average by default.
        """
        if img.ndim != 4 or img.shape[1] != self.in_channels:
            raise ValueError(f"img must be [N,{self.in_channels},H,W], got {list(img.shape)}")
        maps = self.features(_resize(img, self.in_resolution))
        rows = [head(maps[self._scale(i)]) for i, head in enumerate(self.styles)]
        codes = torch.stack(rows, dim=1)
        if self.kind == "e4e":
            codes = torch.cat([codes[:, :1], codes[:, :1] + codes[:, 1:]], dim=1)
        return (self.latent_avg if ws is None else ws) + codes


def _resize(img: Tensor, side: int) -> Tensor:
    if img.shape[2] > side or img.shape[3] > side:
        return F.interpolate(img, (side, side), mode="area")
    if img.shape[2:] != (side, side):
        return F.interpolate(img, (side, side), mode="bilinear", align_corners=False)
    return img


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)
