"""A picture to W+: one base code for the whole face, and a regularised offset for every row.

It may look again: what it sees in the picture and does not see in the render of its code is added to the code. A small
residual network without normalisation, so that training and evaluation compute the same, one picture's code does not
depend on its batch, and bfloat16 in channels-last layout is quick.

Source: Tov et al. 2021 (e4e), Sec. 4.1, arXiv:2102.02766; further looks: Alaluf et al. 2021 (ReStyle), Sec. 3,
arXiv:2104.02699; residual branches: De & Smith 2020, arXiv:2002.10444.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.nets.generator import Generator

__all__ = ["Encoder", "look", "looking"]

SLOPE = 0.2
STEP_SIZE = 0.4  # share of what a render lacks that a further look adds, before training


def _conv(in_channels: int, out_channels: int, *, stride: int = 1, kernel_size: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class ResidualBlock(nn.Module):
    """Two convolutions whose sum joins the input, scaled by a learnt number that starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = _conv(channels, channels)
        self.conv1 = _conv(channels, channels)
        self.scale = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape [N, channels, H, W]."""
        y = self.conv1(F.leaky_relu(self.conv0(x), SLOPE))
        return F.leaky_relu(x + y * self.scale, SLOPE)


class Encoder(nn.Module):
    """Pictures to codes that a generator of the same sizes renders back.

    Args:
        img_resolution: side of the pictures given; they are resized to `in_resolution` inside.
        num_ws: rows of the generator.
        w_dim: width of a row.
        in_resolution: side that the network itself sees; a face of 64 px keeps who it is.
        channels: feature maps from `in_resolution` down to 4 px, one entry per halving and one for the start.
        hidden: width of the layer that the codes are read from.
        num_looks: how often it looks; from the second look on at its last render.
    """

    w_avg: Tensor

    def __init__(
        self,
        img_resolution: int,
        num_ws: int,
        w_dim: int,
        *,
        in_resolution: int = 64,
        channels: Sequence[int] = (32, 64, 128, 192, 256),
        hidden: int = 256,
        num_looks: int = 1,
    ) -> None:
        super().__init__()
        if num_looks < 1:
            raise ValueError(f"an encoder looks at least once, not {num_looks} times")
        if in_resolution != 4 * 2 ** (len(channels) - 1):
            raise ValueError(f"{len(channels)} widths go with in_resolution {4 * 2 ** (len(channels) - 1)} px")
        self.init_kwargs: dict[str, Any] = dict(
            img_resolution=img_resolution,
            num_ws=num_ws,
            w_dim=w_dim,
            in_resolution=in_resolution,
            channels=list(channels),
            hidden=hidden,
            num_looks=num_looks,
        )
        self.img_resolution, self.num_ws, self.w_dim, self.in_resolution = img_resolution, num_ws, w_dim, in_resolution
        self.num_looks = num_looks
        self.stem = _conv(3, channels[0])
        self.downs = nn.ModuleList(_conv(a, b, stride=2) for a, b in pairwise(channels))
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in channels[1:-1])
        self.squeeze = _conv(channels[-1], channels[-1] // 4, kernel_size=1)
        self.fc = nn.Linear(channels[-1] // 4 * 16, hidden)
        self.base = nn.Linear(hidden, w_dim)
        self.offsets = nn.Linear(hidden, num_ws * w_dim)
        for head in (self.base, self.offsets):
            nn.init.normal_(head.weight, std=0.1 / hidden**0.5)
            nn.init.zeros_(head.bias)
        if num_looks > 1:
            self.step_size = nn.Parameter(torch.full([num_ws, w_dim], STEP_SIZE))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def features(self, img: Tensor) -> Tensor:
        """Carry img [N, 3, H, W] in [-1, 1] to the features [N, hidden] that the codes are read from."""
        side = self.in_resolution
        if img.shape[-1] > side:
            img = F.interpolate(img, (side, side), mode="area")
        elif img.shape[-1] < side:
            img = F.interpolate(img, (side, side), mode="bilinear", align_corners=False)
        x = img.to(dtype=self.stem.weight.dtype, memory_format=torch.channels_last)
        x = F.leaky_relu(self.stem(x), SLOPE)
        for i, down in enumerate(self.downs):
            x = F.leaky_relu(down(x), SLOPE)
            if i < len(self.blocks):
                x = self.blocks[i](x)
        x = F.leaky_relu(self.squeeze(x), SLOPE)
        return F.leaky_relu(self.fc(x.flatten(1)), SLOPE)

    def forward(self, img: Tensor, num_free: int | None = None) -> Tensor:
        """Carry img [N, 3, H, W] in [-1, 1] to ws [N, num_ws, w_dim].

        Args:
            img: pictures, of any side.
            num_free: rows from the first that may differ from the base code; None for all, 0 gives a code in W.
        """
        if img.ndim != 4 or img.shape[1] != 3:
            raise ValueError(f"img must be [N,3,H,W], got {list(img.shape)}")
        x = self.features(img)
        base: Tensor = self.w_avg + self.base(x).float()  # [N,w_dim]
        offsets: Tensor = self.offsets(x).float().unflatten(1, (self.num_ws, self.w_dim))
        if num_free is not None and num_free < self.num_ws:
            offsets = F.pad(offsets[:, :num_free], (0, 0, 0, self.num_ws - num_free))
        return base[:, None] + offsets

    def further(self, ws: Tensor, seen: Tensor, render: Tensor, num_free: int | None = None) -> Tensor:
        """Look at what became of ws: add a share of what was seen in the picture and is not seen in the render.

        Args:
            ws: [N, num_ws, w_dim], of the last look.
            seen: likewise, of the first.
            render: of ws, as img.
            num_free: as for `forward`.
        """
        step: Tensor = self.step_size * (seen - self(render, num_free))
        return ws + step


def looking(E: Encoder, num_looks: int) -> Encoder:
    """Return an encoder of the same weights that looks `num_looks` times."""
    net = Encoder(**{**E.init_kwargs, "num_looks": num_looks}).to(E.w_avg.device)
    net.load_state_dict({**net.state_dict(), **E.state_dict()}, strict=False)  # who looks once has no size of a step
    return net


def look(E: Encoder, G: Generator, img: Tensor) -> Tensor:
    """Carry img [N, 3, H, W] to ws [N, num_ws, w_dim], looking as often as `E` was trained to, without gradients."""
    with torch.no_grad():
        seen: Tensor = E(img)
        ws = seen
        for _ in range(E.num_looks - 1):
            ws = E.further(ws, seen, G.synthesis(ws, noise_mode="const"))
    return ws
