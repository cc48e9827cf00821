"""LPIPS, learned perceptual image patch similarity: how differently two pictures look to people, by deep features.

Maps of a network of ImageNet are scaled to unit length at every place; squared differences are weighted by channel with
what people's judgements taught (version 0.1 of the published heads), averaged over places and summed over five layers.

Source: Zhang et al. 2018, Eq. 1, arXiv:1801.03924.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mien.errors import InputError
from mien.nets.features import at_least_float32
from mien.nets.vgg import VGG, AlexNet, Trunk

__all__ = ["LPIPS", "TRUNKS"]

TRUNKS = {"vgg16": (VGG, (64, 128, 256, 512, 512)), "alexnet": (AlexNet, (64, 192, 384, 256, 256))}
"""Name of the trunk => its class, and the channels of its five maps."""


class Head(nn.Module):
    """One weight for each channel, under the name that the published files give it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))

    @property
    def weight(self) -> Tensor:
        """[C]."""
        return cast(nn.Conv2d, self.model[1]).weight.flatten()


class LPIPS(nn.Module):
    """Compare pictures [N,3,H,W] in [-1,1] of any size from 32 px; 0 for equal ones, about 1 for very different ones.

    Args:
        trunk: a name in `TRUNKS`: `vgg16` (better as a loss) or `alexnet` (nearer to people's judgements).
    """

    def __init__(self, *, trunk: str = "vgg16") -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise InputError(f"no trunk named {trunk!r}", hint=f"known: {', '.join(TRUNKS)}")
        self.init_kwargs: dict[str, Any] = {"trunk": trunk}
        kind, widths = TRUNKS[trunk]
        self.net: Trunk = kind()
        for i, channels in enumerate(widths):
            self.add_module(f"lin{i}", Head(channels))
        self.num_maps = len(widths)

    def forward(self, img: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each picture from its target, [N]."""
        return self.distance(self.maps(img), self.maps(target))

    def maps(self, img: Tensor) -> list[Tensor]:
        """Return the five maps [N,C,h,w] of `img`, of unit length at every place where they are not 0."""
        return [_unit(features) for features in self.net.maps(img)]

    def distance(self, maps: Sequence[Tensor], target_maps: Sequence[Tensor]) -> Tensor:
        """Compare what `maps` gave of N pictures, [N]; a target's maps need to be made once only."""
        parts = [
            ((x - y).square() * cast(Head, self.get_submodule(f"lin{i}")).weight[:, None, None]).sum(1).mean((1, 2))
            for i, (x, y) in enumerate(zip(maps, target_maps, strict=True))
        ]
        return torch.stack(parts).sum(0)


def _unit(features: Tensor) -> Tensor:
    features = at_least_float32(features)
    return features * features.square().sum(1, keepdim=True).clamp(min=1e-20).rsqrt()  # finite slope at 0
