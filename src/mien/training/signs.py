"""What tells early that a generator fails to learn from few pictures: four signs, each with the bound it speaks at.

*ADA's p* near its bound means that augmentations leak; *the mean sign of D on real pictures* near 1, that D knows them
by heart. *Diversity* is the mean distance between samples, over that between the pictures: far below 1 the generator
repeats itself. *Nearest* is how far a sample is from the nearest picture, over how far pictures are from one another:
far below 1 it copies. All four move long before the eye sees anything.

Source: Karras et al. 2020, Sec. 3, arXiv:2006.06676; distances: Bińkowski et al. 2018, arXiv:1801.01401.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.metrics import frechet_distance, kernel_distance, nearest
from mien.nets.features import FaceNet
from mien.nets.generator import Generator
from mien.training.validation import pictures, samples

__all__ = ["BOUNDS", "Describe", "Signs", "diversity", "nearness", "speak_up"]

Describe = Callable[[Tensor], Tensor]
"""Features [N, D] of img [N, 3, H, H], by whose distances pictures are compared."""

BOUNDS = {
    "ada/p": (0.6, "above", "augmentations may leak into the pictures (ADA's p is {:.2f})"),
    "ada/sign": (0.85, "above", "D knows the pictures by heart (its mean sign on them is {:.2f})"),
    "diversity": (0.6, "below", "samples repeat themselves (their diversity is {:.2f} of the pictures')"),
    "nearest": (0.6, "below", "samples copy the pictures (the nearest is at {:.2f} of the pictures' own distance)"),
}
"""Sign => the value from which it is a warning, the side, and what is said."""

PIXEL_SIDE = 8  # of the thumbnails that are compared where there is no face network


def speak_up(numbers: Mapping[str, float]) -> str | None:
    """Say which signs are beyond their bounds.

    >>> speak_up({"ada/p": 0.1, "diversity": 0.31})
    "samples repeat themselves (their diversity is 0.31 of the pictures')"
    """
    said = [
        text.format(numbers[name])
        for name, (bound, side, text) in BOUNDS.items()
        if name in numbers and (numbers[name] > bound if side == "above" else numbers[name] < bound)
    ]
    return "; ".join(said) or None


def diversity(features: Tensor) -> float:
    """Return the mean distance between two of N features [N, D], N at least 2."""
    return float(torch.pdist(features.double()).mean())


def nearness(features: Tensor, reference: Tensor) -> float:
    """Return the median distance of features [N, D] to the nearest of a reference [M, D]."""
    return float(nearest(features, reference)[1].median())


def thumbnails(img: Tensor) -> Tensor:
    """Return the pixels of img [N, 3, H, H] at 8 px, [N, 192]."""
    return F.adaptive_avg_pool2d(img, PIXEL_SIDE).flatten(1)


class Signs:
    """Compares a generator's samples with the pictures that it learns from; call it with the generator.

    Args:
        pixels: uint8 [N, 3, H, H], the pictures, N at least 3.
        face_net: our face network, by which faces are compared; without one, thumbnails are.
        num: samples, always of the same latents.
        device: where features are computed.
    """

    def __init__(self, pixels: Tensor, *, face_net: FaceNet | None, num: int, device: torch.device) -> None:
        self.describe: Describe = thumbnails if face_net is None else face_net.describe
        self.num, self.device = num, device
        self.features = self._features(pictures(pixels, most=len(pixels)))
        self.seen = torch.cat([self.features, self._features(pictures(pixels.flip(3), most=len(pixels)))])
        self.diversity = diversity(self.features)
        self.nearness = float(_second_nearest(self.features).median())

    @torch.no_grad()
    def _features(self, batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([self.describe(img.to(self.device)).float().cpu() for img in batches])

    def __call__(self, G: Generator) -> dict[str, float]:
        """Return `kernel` and `frechet`, distances of samples to the pictures, `diversity` and `nearest`."""
        found = self._features(samples(G, self.num))
        return {
            "kernel": kernel_distance(found, self.features),
            "frechet": frechet_distance(found, self.features),
            "diversity": diversity(found) / self.diversity,
            "nearest": nearness(found, self.seen) / self.nearness,
        }


def _second_nearest(features: Tensor) -> Tensor:
    """Return the distance [N] of each of [N, D] to the nearest of the others."""
    distances = torch.cdist(features.double(), features.double())
    return distances.fill_diagonal_(torch.inf).min(1).values
