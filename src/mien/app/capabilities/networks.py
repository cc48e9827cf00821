"""What a studio works with: its networks, loaded once, when first needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from mien.app.settings import DEFAULT_NETWORK, DETECTOR, DEVICES, FACE_MOTION, FACE_NET, PRECISIONS
from mien.edits.directions import DirectionSet, load_directions
from mien.errors import InputError, WeightsError
from mien.faces.detect import load_detector
from mien.latents import LatentStats, latent_stats
from mien.nets.detector import Detector
from mien.nets.encoder import Encoder
from mien.nets.features import FaceNet
from mien.nets.generator import Generator
from mien.nets.motion import FaceMotion
from mien.nets.precision import exact_float32
from mien.weights.load import bundled_names, find_weights, load_generator, load_net, read_recipe, weights_digest

__all__ = ["Networks", "companion", "in_precision", "pick_device"]

Way = TypeVar("Way", bound=Callable[..., Any])


def companion(network: Path, kind: str) -> Path:
    """Return where the `kind` (encoder, directions) that belongs to a generator's file is looked for: beside it.

    >>> companion(Path("bundle/faces-64.safetensors"), "encoder").as_posix()
    'bundle/encoder-faces-64.safetensors'
    """
    return network.with_name(f"{kind}-{network.stem}.safetensors")


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is a CUDA GPU where there is one, else the CPU.

    Raises:
        InputError: an unknown name, or a device that this machine or this torch does not have.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    kind = name.partition(":")[0]
    if kind not in present:
        raise InputError(f"no device named {name!r}", hint=f"known: {', '.join(DEVICES)}")
    if not present[kind]:
        raise InputError(f"this installation has no device {name}", hint="use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as err:
        raise InputError(f"no device named {name!r}", hint="write for example cuda:1") from err


def in_precision(method: Way) -> Way:
    """Let a method of the studio compute in float32 exactly, unless the studio was made for another precision."""

    @wraps(method)
    def run(self: Networks, *args: Any, **kwargs: Any) -> Any:
        with exact_float32(self.dtype == torch.float32):
            return method(self, *args, **kwargs)

    return cast(Way, run)


class Networks:
    """The networks that a studio works with; the arguments are `Studio`'s."""

    def __init__(
        self,
        network: str | Path = DEFAULT_NETWORK,
        *,
        device: str = "auto",
        precision: str = "fp32",
        seed: int = 0,
        face_net: str | Path | None = FACE_NET,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"no precision named {precision!r}", hint=f"known: {', '.join(PRECISIONS)}")
        self.device = pick_device(device)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.precision, self.seed, self._network, self._face_net = precision, seed, network, face_net

    @cached_property
    def network(self) -> Path:
        """The generator's file.

        Raises:
            MissingWeightsError: there is none; who only looks for faces never asks.
        """
        return find_weights(self._network)

    @cached_property
    def G(self) -> Generator:
        """The generator."""
        G = load_generator(self.network)
        assert isinstance(G, nn.Module)
        G.to(self.device)
        return G

    @cached_property
    def digest(self) -> str:
        """The sha256 of the generator's file, which codes, encoders and directions carry."""
        return weights_digest(self.network)

    @cached_property
    def detector(self) -> Detector:
        """The face detector."""
        return load_detector(DETECTOR).to(self.device)

    @cached_property
    def face_net(self) -> FaceNet | None:
        """The face network, or None where the studio was made without."""
        return None if self._face_net is None else load_net(self._face_net, FaceNet).to(self.device)

    @cached_property
    def motion(self) -> FaceMotion | None:
        """How points of faces move, or None where it is not there, or no face network to read poses."""
        if self._face_net is None or FACE_MOTION not in bundled_names():
            return None
        return load_net(FACE_MOTION, FaceMotion).to(self.device)

    @cached_property
    def encoder(self) -> Encoder | None:
        """The generator's encoder, or None where none lies beside it.

        Raises:
            WeightsError: the one beside it was trained for other weights.
        """
        path = companion(self.network, "encoder")
        if not path.is_file():
            return None
        if read_recipe(path).provenance.get("network") != self.digest:
            hint = "train it again: mien train encoder"
            raise WeightsError(f"{path.name} was trained for another generator than {self.network.name}", hint=hint)
        return load_net(path, Encoder).to(self.device)

    @cached_property
    def directions(self) -> DirectionSet:
        """The generator's directions; an empty set where none lie beside it.

        Raises:
            WeightsError: those beside it were found in other weights.
        """
        path = companion(self.network, "directions")
        if not path.is_file():
            return DirectionSet({})
        found = load_directions(path)
        if found.network != self.digest:
            hint = "find them again: mien train directions"
            raise WeightsError(f"{path.name} was found in another generator than {self.network.name}", hint=hint)
        return found

    @cached_property
    def stats(self) -> LatentStats:
        """Where the generator's codes lie."""
        return latent_stats(self.G)

    def weights(self) -> dict[str, str]:
        """Name => sha256 of every file of weights that the studio uses, for reports."""
        paths = [self.network, companion(self.network, "encoder"), companion(self.network, "directions")]
        named = [DETECTOR, *([] if self._face_net is None else [str(self._face_net), FACE_MOTION])]
        paths += [find_weights(name) for name in named if name in bundled_names()]
        return {path.name: weights_digest(path) for path in paths if path.is_file()}
