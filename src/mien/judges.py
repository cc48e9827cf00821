"""Who says how alike pictures are: published networks where their weights are at hand, ours otherwise.

Three questions, each asked the same way whoever answers: how different do two pictures look (`Perceptual`), whose face
is it (`Identity`), and what is in a set of pictures (`Features`). A judge knows its name and its files, so that every
report can say which one spoke. `auto` takes the best whose weights are in the cache, and never downloads; a name pulls
what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import InputError
from mien.losses import perceptual
from mien.nets.arcface import ArcFace
from mien.nets.features import FaceNet
from mien.nets.inception import Inception
from mien.nets.vgg import VGG
from mien.report import Sink, ignore
from mien.weights.load import load_net, weights_digest
from mien.weights.published import load_judge, load_lpips
from mien.weights.recogniser import OnnxRecogniser
from mien.weights.zoo import in_cache, pull

__all__ = [
    "FEATURES",
    "IDENTITIES",
    "PERCEPTUALS",
    "FaceJudge",
    "FaceLook",
    "Features",
    "Identity",
    "Perceptual",
    "Where",
    "features_judge",
    "identity_judge",
    "perceptual_judge",
]

AUTO, SHIPPED, ONNX = "auto", "shipped", "onnx:"
FACE_NET = "face-features"
LOOK_PX = 256

PERCEPTUALS = {"lpips-vgg": ("vgg16", "lpips-vgg"), "lpips-alex": ("alexnet", "lpips-alex")}
IDENTITIES = {"arcface": ("arcface-ir-se50",)}
FEATURES = {"inception": ("inception-fid",), "vgg16": ("vgg16",)}
"""Names of judges, the best first => the weights in the zoo that they need."""


@dataclass(frozen=True)
class _Judge:
    """What all judges have: a name, and sha256 by file of the weights that they use."""

    name: str
    weights: Mapping[str, str]

    @property
    def record(self) -> dict[str, Any]:
        """What a report says of the judge."""
        return {"judge": self.name, "weights": dict(self.weights)}


@dataclass(frozen=True)
class Perceptual(_Judge):
    """How different pictures look: 0 for equal ones. `maps` is taken once of a target, `distance` compares [N]."""

    maps: Callable[[Tensor], Sequence[Tensor]]
    distance: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]

    def __call__(self, img: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each picture of `img` [N,3,H,W] in [-1,1] from its target, [N]."""
        return self.distance(self.maps(img), self.maps(target))


@dataclass(frozen=True)
class Identity(_Judge):
    """Whose face it is: `describe` turns FFHQ-aligned crops [N,3,H,H] in [-1,1] into unit vectors [N,D]."""

    describe: Callable[[Tensor], Tensor]

    def __call__(self, img: Tensor, target: Tensor) -> Tensor:
        """Return the cosine of each face of `img` and its target's, [N]: 1 for the same picture."""
        return (self.describe(img) * self.describe(target)).sum(1)


@dataclass(frozen=True)
class Features(_Judge):
    """What pictures show, for distances between sets: `describe` turns [N,3,H,W] in [-1,1] into [N,D]."""

    describe: Callable[[Tensor], Tensor]

    def __call__(self, img: Tensor) -> Tensor:
        """Return the features [N,D]."""
        return self.describe(img)


class FaceLook(NamedTuple):
    """What a `FaceJudge` sees in N faces: `identity` [N,D], and the `maps` that its looks are compared by."""

    identity: Tensor
    maps: Sequence[Tensor]


@dataclass(frozen=True)
class FaceJudge:
    """Looks and identity at once, as a loss wants them: in place of the face network where codes are optimised."""

    looks: Perceptual
    identity: Identity

    def __call__(self, img: Tensor) -> FaceLook:
        """Look at FFHQ-aligned crops [N,3,H,H] in [-1,1]; larger ones at 256 px, as papers do."""
        small = img if img.shape[-1] <= LOOK_PX else F.interpolate(img, (LOOK_PX, LOOK_PX), mode="area")
        return FaceLook(self.identity.describe(small), self.looks.maps(small))

    def distance(self, maps: Sequence[Tensor], target_maps: Sequence[Tensor]) -> Tensor:
        """Return how different the looks are, [N]."""
        return self.looks.distance(maps, target_maps)

    @property
    def record(self) -> dict[str, Any]:
        """What a report says of both judges."""
        return {"looks": self.looks.record, "identity": self.identity.record}


Net = TypeVar("Net", bound=nn.Module)


class Where(TypedDict, total=False):
    """Where weights come from, and where networks go."""

    cache: Path | None  # folder of weights; by default `default_cache()`
    offline: bool | None  # never download; by default as `MIEN_OFFLINE` says
    device: torch.device | str  # of the network; by default the CPU
    on_step: Sink  # hears of downloads


@dataclass(frozen=True, kw_only=True)
class _Files:
    """`Where`, with its defaults."""

    cache: Path | None = None
    offline: bool | None = None
    device: torch.device | str = "cpu"
    on_step: Sink = ignore

    def choose(self, name: str, known: Mapping[str, tuple[str, ...]]) -> str:
        """Return a name of `known` or `SHIPPED`, for `auto` the first whose weights are in the cache."""
        if name == AUTO:
            at_hand = (key for key, needs in known.items() if all(in_cache(n, cache=self.cache) for n in needs))
            return next(at_hand, SHIPPED)
        if name not in known and name != SHIPPED:
            raise InputError(f"no judge named {name!r}", hint=f"known: {', '.join((AUTO, SHIPPED, *known))}")
        return name

    def pull(self, names: Sequence[str]) -> list[Path]:
        return [pull(name, cache=self.cache, offline=self.offline, on_step=self.on_step) for name in names]

    def net(self, path: Path, kind: type[Net], **options: bool) -> Net:
        net = load_judge(path, kind, **options).to(self.device)
        assert isinstance(net, kind)
        return net

    def face_net(self) -> FaceNet:
        return load_net(FACE_NET, FaceNet).to(self.device)


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {path.name: weights_digest(path) for path in paths}


SHIPPED_WEIGHTS = f"{FACE_NET}.safetensors"


def _shipped_digest() -> dict[str, str]:
    return {SHIPPED_WEIGHTS: weights_digest(FACE_NET)}


def perceptual_judge(name: str = AUTO, **where: Unpack[Where]) -> Perceptual:
    """Return who says how different pictures look.

    Args:
        name: `auto`, `shipped`, or a name in `PERCEPTUALS`.
        where: see `Where`.

    Raises:
        InputError: no such judge.
        WeightsError: its weights cannot be had.
    """
    files = _Files(**where)
    name = files.choose(name, PERCEPTUALS)
    if name == SHIPPED:
        return Perceptual(SHIPPED, _shipped_digest(), files.face_net().maps, perceptual)
    paths = files.pull(PERCEPTUALS[name])
    net = load_lpips(PERCEPTUALS[name][0], *paths).to(files.device)
    return Perceptual(name, _digests(paths), net.maps, net.distance)


def identity_judge(name: str = AUTO, **where: Unpack[Where]) -> Identity:
    """Return who says whose face it is.

    Args:
        name: `auto`, `shipped`, a name in `IDENTITIES`, or `onnx:FILE` for a recogniser of your own.
        where: see `Where`; ONNX stays on the CPU.

    Raises:
        InputError: no such judge.
        WeightsError: its weights cannot be had.
        MissingExtraError: an ONNX file, but not the extra `recognisers`.
    """
    if name.startswith(ONNX):
        path = Path(name.removeprefix(ONNX))
        recogniser = OnnxRecogniser(path)
        return Identity(f"{ONNX}{path.name}", _digests([path]), recogniser.describe)
    files = _Files(**where)
    name = files.choose(name, IDENTITIES)
    if name == SHIPPED:
        face_net = files.face_net()
        return Identity(SHIPPED, _shipped_digest(), lambda img: face_net(img).identity)
    paths = files.pull(IDENTITIES[name])
    return Identity(name, _digests(paths), files.net(paths[0], ArcFace).describe)


def features_judge(name: str = AUTO, **where: Unpack[Where]) -> Features:
    """Return who describes sets of pictures: FID and KID are defined by `inception`, precision and recall by `vgg16`.

    Args:
        name: `auto`, `shipped`, or a name in `FEATURES`.
        where: see `Where`.

    Raises:
        InputError: no such judge.
        WeightsError: its weights cannot be had.
    """
    files = _Files(**where)
    name = files.choose(name, FEATURES)
    if name == SHIPPED:
        return Features(SHIPPED, _shipped_digest(), files.face_net().describe)
    paths = files.pull(FEATURES[name])
    if name == "vgg16":
        return Features(name, _digests(paths), files.net(paths[0], VGG, with_classifier=True).describe)
    return Features(name, _digests(paths), files.net(paths[0], Inception).describe)
