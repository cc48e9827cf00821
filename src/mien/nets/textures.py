"""A fixed bank of texture features: what style transfer compares where no network of ImageNet is at hand.

A pyramid of the picture, and on each level filters that nobody trained. Their responses after a ReLU (`texture1`, the
finest) describe textures as maps of trained networks do; `structure1` holds oriented differences of brightness, in
units of their own spread, which tell what is where and not how it is painted; `colour1` and `patch1` are the level in
opponent colours, to be compared pixel by pixel and patch by patch, and `detail1` is what is finest in it.

Source: Ustyuzhaninov et al. 2016 (random filters of many sizes suffice), arXiv:1606.00021; Freeman and Adelson 1991
(steerable derivatives), doi:10.1109/34.93808.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError

__all__ = ["NUM_LEVELS", "TextureBank"]

NUM_LEVELS = 5
NUM_FILTERS, FILTER_PX = 64, 7
NUM_ORIENTATIONS, STRUCTURE_PX = 4, 9
DETAIL_GAIN = 3.0  # what is finest varies least
SMALLEST_PX = 12  # a level is never smaller: it repeats the one before
KINDS = ("colour", "patch", "detail", "texture", "structure")
OPPONENT = ((0.299, 0.587, 0.114), (1.5, -1.5, 0.0), (0.75, 0.75, -1.5))
"""Brightness, red against green and yellow against blue; colours vary less in pictures, so they count threefold."""


class TextureBank(nn.Module):
    """Maps of a picture under fixed filters, asked for by name as a network's are.

    Args:
        seed: of the random filters.
    """

    filters: Tensor  # [K,3,k,k], orthonormal
    derivatives: Tensor  # [4,1,k,k]

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        rows = torch.randn(3 * FILTER_PX**2, NUM_FILTERS, generator=random)
        basis = torch.linalg.qr(rows).Q.T
        self.register_buffer("filters", basis.reshape(-1, 3, FILTER_PX, FILTER_PX).contiguous())
        self.register_buffer("derivatives", _derivatives())
        self.layer_names = tuple(f"{kind}{level}" for kind in KINDS for level in range(1, NUM_LEVELS + 1))
        self.min_px = SMALLEST_PX

    def maps(self, img: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Return the maps [N,C,h,w] of img [N,3,H,W] in [-1,1] of these names.

        Raises:
            InputError: no such layer, or a picture too small.
        """
        if unknown := [name for name in layers if name not in self.layer_names]:
            raise InputError(f"no layer {unknown[0]!r}", hint=f"known: {', '.join(self.layer_names)}")
        if min(img.shape[-2:]) < self.min_px:
            raise InputError(f"pictures must be at least {self.min_px} px, got {list(img.shape[-2:])}")
        depth = max(int(name[-1]) for name in layers)
        levels = [img]
        while len(levels) < depth:
            small = min(levels[-1].shape[-2:]) < 2 * SMALLEST_PX
            levels.append(levels[-1] if small else _halved(levels[-1]))
        return [self._map(levels[int(name[-1]) - 1], name[:-1]) for name in layers]

    def _map(self, level: Tensor, kind: str) -> Tensor:
        if kind in ("colour", "patch", "detail"):
            colours = torch.einsum("ij,njhw->nihw", level.new_tensor(OPPONENT), level)
            return colours if kind != "detail" else DETAIL_GAIN * (colours - _smooth(colours))
        if kind == "texture":
            said = F.conv2d(F.pad(level, (FILTER_PX // 2,) * 4, mode="replicate"), self.filters)
            return F.relu(said)
        brightness = F.pad(level.mean(1, keepdim=True), (STRUCTURE_PX // 2,) * 4, mode="replicate")
        said = F.conv2d(brightness, self.derivatives)
        return said / (said.square().mean((1, 2, 3), keepdim=True) + 1e-6).sqrt()


def _smooth(img: Tensor) -> Tensor:
    """Return img [N,C,H,W] under a binomial filter of five taps."""
    taps = img.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = torch.outer(taps, taps).expand(img.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(img, (2, 2, 2, 2), mode="replicate"), kernel, groups=img.shape[1])


def _halved(img: Tensor) -> Tensor:
    """Halve img [N,C,H,W] behind a binomial filter of four taps, which leaves no grid in what is optimised through it.

    Source: Burt and Adelson 1983, doi:10.1109/TCOM.1983.1095851.
    """
    taps = img.new_tensor([1, 3, 3, 1]) / 8
    kernel = torch.outer(taps, taps).expand(img.shape[1], 1, -1, -1)
    return F.conv2d(
        F.pad(img, (1, 1 + img.shape[-1] % 2, 1, 1 + img.shape[-2] % 2), mode="replicate"),
        kernel,
        stride=2,
        groups=img.shape[1],
    )


def _derivatives() -> Tensor:
    """Return first derivatives of a Gaussian in four directions, [4,1,k,k], of unit norm."""
    axis = torch.arange(STRUCTURE_PX) - STRUCTURE_PX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angles = torch.arange(NUM_ORIENTATIONS) * math.pi / NUM_ORIENTATIONS
    along = angles.cos()[:, None, None] * x + angles.sin()[:, None, None] * y
    found = along * torch.exp(-(x**2 + y**2) / (2 * 1.5**2))
    return (found / found.flatten(1).norm(dim=1)[:, None, None])[:, None].float()
