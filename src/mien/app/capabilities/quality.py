"""What looks at pairs and judges them: networks for the measuring, and the fitted judge that comes with a generator."""

from __future__ import annotations

from pathlib import Path

from mien.app.capabilities.networks import companion, pick_device
from mien.app.settings import DEFAULT_NETWORK, DETECTOR, FACE_NET
from mien.errors import MissingWeightsError
from mien.faces.detect import load_detector
from mien.nets.discriminator import Discriminator
from mien.nets.features import FaceNet
from mien.training.pair_features import PairMeter
from mien.training.quality import Quality, load_quality
from mien.weights.load import find_weights, load_net

__all__ = ["find_quality", "load_meter"]


def load_meter(network: str | Path = DEFAULT_NETWORK, *, device: str = "auto") -> PairMeter:
    """Return what measures pairs; the discriminator beside the people's generator joins in where there is one.

    Raises:
        MissingWeightsError: no such generator.
    """
    place, beside = pick_device(device), companion(find_weights(network), "discriminator")
    D = load_net(beside, Discriminator).to(place) if beside.is_file() else None
    return PairMeter(load_detector(DETECTOR).to(place), load_net(FACE_NET, FaceNet).to(place), D)


def find_quality(path: Path | None, network: str | Path = DEFAULT_NETWORK) -> Quality:
    """Return the judge in a file, or the one that comes with the people's generator.

    Raises:
        MissingWeightsError: none comes with it.
        WeightsError: the file holds none.
    """
    beside = companion(find_weights(network), "quality")
    if path is None and not beside.is_file():
        hint = "label some pairs (mien pairs label) and fit one (mien pairs fit)"
        raise MissingWeightsError(f"no judge of pairs comes with {network}", hint=hint)
    return load_quality(path or beside)
