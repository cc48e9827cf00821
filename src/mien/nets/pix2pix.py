"""pix2pix: a U-Net from picture to picture, and the discriminator of 70x70 patches that trains it.

Source: Isola et al. 2017, App. 6.1, arXiv:1611.07004; weights start as there, from N(0, 0.02).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NORMS", "PatchDiscriminator", "UnetGenerator"]

NORMS = ("batch", "instance")
SLOPE = 0.2
DROPOUT = 0.5
NUM_DROPOUTS = 3  # of the innermost levels that have skips
MAX_WIDTH = 8  # in units of ngf or ndf


def _norm(kind: str, channels: int) -> nn.Module:
    if kind not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {kind!r}")
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)


class Down(nn.Module):
    """Half the side: convolution, then norm."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, has_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=norm == "instance")
        self.norm = _norm(norm, out_channels) if has_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, in, H, W] to [N, out, H/2, W/2]."""
        y: Tensor = self.norm(self.conv(x))
        return y


class Up(nn.Module):
    """Twice the side: transposed convolution, norm, dropout."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: str, is_last: bool, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=is_last or norm == "instance")
        self.norm = nn.Identity() if is_last else _norm(norm, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Carry [N, in, H, W] to [N, out, 2H, 2W]."""
        y: Tensor = self.dropout(self.norm(self.conv(x)))
        return y


class UnetGenerator(nn.Module):
    """Picture to picture, with skips between the levels of equal side.

    Args:
        in_channels: of the picture given.
        out_channels: of the picture made.
        ngf: feature maps of the outermost level.
        num_downs: halvings; the side must be a multiple of 2**num_downs, and above it in training.
        norm: one of `NORMS`.
        use_dropout: on the inner levels while training, the only noise that the paper's generator has.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        ngf: int = 64,
        num_downs: int = 8,
        norm: str = "batch",
        use_dropout: bool = True,
    ) -> None:
        super().__init__()
        if num_downs < 2:
            raise ValueError(f"num_downs must be at least 2, got {num_downs}")
        self.init_kwargs: dict[str, Any] = dict(
            in_channels=in_channels,
            out_channels=out_channels,
            ngf=ngf,
            num_downs=num_downs,
            norm=norm,
            use_dropout=use_dropout,
        )
        self.in_channels, self.num_downs = in_channels, num_downs
        widths = [ngf * min(2**i, MAX_WIDTH) for i in range(num_downs)]
        last = num_downs - 1
        self.downs = nn.ModuleList(
            Down(a, b, norm=norm, has_norm=0 < i < last) for i, (a, b) in enumerate(pairwise([in_channels, *widths]))
        )
        self.ups = nn.ModuleList(  # in the order of the levels: ups[0] makes the picture
            Up(
                width if i == last else 2 * width,
                widths[i - 1] if i else out_channels,
                norm=norm,
                is_last=i == 0,
                dropout=DROPOUT if use_dropout and max(0, last - 1 - NUM_DROPOUTS) < i < last else 0.0,
            )
            for i, width in enumerate(widths)
        )
        _initialise(self)

    def forward(self, img: Tensor) -> Tensor:
        """Carry img [N, in_channels, H, W] in [-1, 1] to [N, out_channels, H, W] in [-1, 1]."""
        step = 2**self.num_downs
        if img.ndim != 4 or img.shape[1] != self.in_channels or img.shape[2] % step or img.shape[3] % step:
            raise ValueError(f"img must be [N,{self.in_channels},H,W] with sides of {step} px, got {list(img.shape)}")
        maps: list[Tensor] = []
        x = img
        for i, down in enumerate(self.downs):
            x = down(F.leaky_relu(x, SLOPE) if i else x)
            maps.append(x)
        for i in reversed(range(self.num_downs)):
            skip = [maps[i]] if i < self.num_downs - 1 else []
            x = self.ups[i](F.relu(torch.cat([*skip, x], dim=1)))
        return torch.tanh(x)


class PatchDiscriminator(nn.Module):
    """Logits of overlapping patches, of 70 px with three layers, which see the picture given and the picture made.

    Args:
        in_channels: of both pictures together.
        ndf: feature maps of the first layer.
        num_layers: layers that halve the side.
        norm: one of `NORMS`.
    """

    def __init__(self, in_channels: int = 6, *, ndf: int = 64, num_layers: int = 3, norm: str = "batch") -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = dict(in_channels=in_channels, ndf=ndf, num_layers=num_layers, norm=norm)
        self.in_channels = in_channels
        widths = [in_channels, *(ndf * min(2**i, MAX_WIDTH) for i in range(num_layers + 1)), 1]
        ends = (0, num_layers + 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2 if i < num_layers else 1, 1, bias=i in ends or norm == "instance")
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.Identity() if i in ends else _norm(norm, b) for i, b in enumerate(widths[1:]))
        _initialise(self)

    def forward(self, img: Tensor) -> Tensor:
        """Carry img [N, in_channels, H, W] to logits [N, 1, h, w]; of 256 px to 30 by 30."""
        return self.maps(img)[-1]

    def maps(self, img: Tensor) -> list[Tensor]:
        """Return what every layer makes of img [N, in_channels, H, W]; the last of them are the logits."""
        x, found = img, list[Tensor]()
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(F.leaky_relu(x, SLOPE) if i else x))
            found.append(x)
        return found
