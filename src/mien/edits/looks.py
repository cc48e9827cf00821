"""Through whose eyes style transfer looks: VGG19 where its weights are at hand, else our own networks and filters.

The stand-in has a layer for every one that the reference settings ask of VGG19: random filters at five scales for the
style; oriented edges and the face network's maps for the content. A report says whose eyes they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.nets.features import FaceNet
from mien.nets.textures import TextureBank
from mien.nets.vgg import VGG
from mien.report import Sink, ignore
from mien.weights.load import load_net, weights_digest
from mien.weights.published import load_judge
from mien.weights.zoo import in_cache, pull

__all__ = ["LOOKS", "Look", "OwnMaps", "bank_look", "find_look", "vgg_look"]

AUTO, VGG19, SHIPPED = "auto", "vgg19", "shipped"
LOOKS = (AUTO, VGG19, SHIPPED)
FACE_NET = "face-features"
FACE_VIEW_PX = 192  # longest side at which the face network sees a whole picture
STAND_INS = {
    **{f"relu{i}_1": f"texture{i}" for i in range(1, 6)},
    "conv1_1": "texture1",
    "conv1_2": "texture2",
    "conv2_1": "texture3",
    "conv2_2": "structure1",
    "conv3_1": "texture4",
    "relu4_2": "structure1",
    "relu5_2": "structure2",
}
"""A layer of VGG19 => what is asked for in its place."""


class Maps(Protocol):
    """What gives maps [1,C,h,w] of img [1,3,H,W] in [-1,1] by name."""

    def maps(self, img: Tensor, layers: Sequence[str]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Look:
    """Whose maps are compared: a name, sha256 by file of its weights, and names that stand for other names."""

    name: str
    weights: Mapping[str, str]
    source: Maps
    stand_ins: Mapping[str, str]
    min_px: int

    def maps(self, img: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the maps [1,C,h,w] of img [1,3,H,W] in [-1,1] by the names that were asked for."""
        found = self.source.maps(img, [self.stand_ins.get(name, name) for name in layers])
        return dict(zip(layers, found, strict=True))

    @property
    def record(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"features": self.name, "weights": dict(self.weights)}


class OwnMaps(nn.Module):
    """The bank of textures and the stages of a face network, `face1` to `face4`, that looks at the whole picture."""

    def __init__(self, bank: TextureBank, face_net: FaceNet | None) -> None:
        super().__init__()
        self.bank, self.face_net = bank, face_net
        self.num_stages = 0 if face_net is None else len(face_net.stages)

    def maps(self, img: Tensor, layers: Sequence[str]) -> list[Tensor]:
        of_faces = [name for name in layers if name.startswith("face")]
        of_bank = [name for name in layers if name not in of_faces]
        if wrong := [name for name in of_faces if name not in [f"face{i}" for i in range(1, self.num_stages + 1)]]:
            raise InputError(f"no layer {wrong[0]!r}", hint="the shipped networks have face1 to face4")
        found = dict(zip(of_bank, self.bank.maps(img, of_bank), strict=True)) if of_bank else {}
        if of_faces:
            assert self.face_net is not None
            shrink = max(2.0, max(img.shape[-2:]) / FACE_VIEW_PX)  # at least 2: strides must not leave a grid
            x = F.interpolate(img, [max(16, math.ceil(side / shrink)) for side in img.shape[-2:]], mode="area")
            for i, stage in enumerate(self.face_net.stages, 1):
                x = stage(x)
                found[f"face{i}"] = x
                if f"face{i}" == max(of_faces):
                    break
        return [found[name] for name in layers]


def bank_look(face_net: FaceNet | None, *, weights: Mapping[str, str] | None = None) -> Look:
    """Return the look of the fixed filters and of a face network, where there is one."""
    bank = TextureBank()
    if face_net is not None:
        bank.to(next(face_net.parameters()).device)
    return Look(SHIPPED, weights or {}, OwnMaps(bank, face_net), STAND_INS, bank.min_px)


def vgg_look(net: VGG, *, weights: Mapping[str, str] | None = None) -> Look:
    """Return the look of VGG19; its first convolution repeats the picture's border, where zeros would leave a frame."""
    cast(nn.Conv2d, net.features[0]).padding_mode = "replicate"
    return Look(VGG19, weights or {}, net, {}, net.min_px)


def find_look(
    name: str = AUTO,
    *,
    cache: Path | None = None,
    offline: bool | None = None,
    device: torch.device | str = "cpu",
    on_step: Sink = ignore,
) -> Look:
    """Return who looks.

    Args:
        name: one of `LOOKS`; `auto` is VGG19 where its weights are in the cache, and never downloads.
        cache: folder of weights; by default `default_cache()`.
        offline: never download; by default as `MIEN_OFFLINE` says.
        device: where the network goes.
        on_step: hears of downloads.

    Raises:
        InputError: no such look.
        WeightsError: its weights cannot be had.
    """
    if name not in LOOKS:
        raise InputError(f"no features named {name!r}", hint=f"known: {', '.join(LOOKS)}")
    if name == VGG19 or (name == AUTO and in_cache(VGG19, cache=cache)):
        path = pull(VGG19, cache=cache, offline=offline, on_step=on_step)
        net = load_judge(path, VGG)
        assert isinstance(net, VGG)
        return vgg_look(net.to(device), weights={path.name: weights_digest(path)})
    digest = {f"{FACE_NET}.safetensors": weights_digest(FACE_NET)}
    return bank_look(load_net(FACE_NET, FaceNet).to(device), weights=digest)
