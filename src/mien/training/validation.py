"""How good a generator is: distances of its samples to people it saw and to people it never saw, paths.

Features are those of our own face network, so the numbers compare generators of this project with one another, not with
published ones. A distance to the training set that falls while the other rises is memorisation.

Source: Heusel et al. 2017, arXiv:1706.08500; Bińkowski et al. 2018, arXiv:1801.01401; Kynkäänniemi et al. 2019,
arXiv:1904.06991; Karras et al. 2019, arXiv:1812.04948.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mien.latents import sample_w, synthesize, truncate
from mien.metrics import frechet_distance, kernel_distance, nearest, precision_recall
from mien.nets.features import FaceNet
from mien.nets.generator import Generator

__all__ = ["FaceScores", "Faces", "compare", "look", "path_length", "samples"]

BATCH = 32
TRIMMED_SHARE = 0.01  # of the longest and of the shortest paths, as the official metric leaves them out


class Faces(NamedTuple):
    """What our face network makes of N pictures: `features` [N, D] for distances, `identity` [N, E] of unit length."""

    features: Tensor
    identity: Tensor


@torch.no_grad()
def look(face_net: FaceNet, batches: Iterable[Tensor]) -> Faces:
    """Read batches of aligned faces, img [n, 3, H, H] in [-1, 1], on the network's own device."""
    device = next(face_net.parameters()).device
    read = [face_net(img.to(device)) for img in batches]
    features = [torch.cat([m.mean((2, 3)) for m in reading.maps[-2:]], 1) for reading in read]
    return Faces(torch.cat(features).cpu(), torch.cat([reading.identity for reading in read]).cpu())


def pictures(pixels: Tensor, *, most: int) -> Iterator[Tensor]:
    """Yield at most `most` pictures of uint8 [N, 3, H, H], evenly chosen, as batches in [-1, 1]."""
    chosen = pixels[np.linspace(0, len(pixels) - 1, min(most, len(pixels))).round().astype(int)]
    for some in chosen.split(BATCH):
        yield some.float() / 127.5 - 1


def samples(G: Generator, num: int, *, truncation_psi: float = 1.0, seed: int = 0) -> Iterator[Tensor]:
    """Yield `num` pictures that the generator invents, as batches in [-1, 1]; always the same for one seed."""
    for w in sample_w(G, num, seed=seed).split(BATCH):
        yield synthesize(G, truncate(w[:, None], G.w_avg, truncation_psi)[:, 0]).clamp(-1, 1)


def compare(invented: Faces, trained: Faces, held_out: Faces) -> dict[str, float]:
    """Score samples against people who were trained on and people who were held out.

    Distances of the two sets of people to one another (`.../people`) say what a perfect generator would reach.
    `nearest/...` are medians over faces of the cosine to the most similar person trained on: samples above the people
    held out are copies.
    """
    numbers: dict[str, float] = {}
    for name, reference in (("trained", trained), ("held_out", held_out)):
        numbers[f"frechet/{name}"] = frechet_distance(invented.features, reference.features)
        numbers[f"kernel/{name}"] = kernel_distance(invented.features, reference.features)
        precision, recall = precision_recall(invented.features, reference.features)
        numbers |= {f"precision/{name}": precision, f"recall/{name}": recall}
    numbers["frechet/people"] = frechet_distance(trained.features, held_out.features)
    numbers["kernel/people"] = kernel_distance(trained.features, held_out.features)
    for name, faces in (("samples", invented), ("held_out", held_out)):
        numbers[f"nearest/{name}"] = float(nearest_cosine(faces, trained)[1].median())
    return numbers


def nearest_cosine(faces: Faces, reference: Faces) -> tuple[Tensor, Tensor]:
    """Return for each face the row of the most similar person of `reference`, and their cosine, both [N]."""
    rows, distance = nearest(faces.identity, reference.identity)
    return rows, 1 - distance.square() / 2


@dataclass(frozen=True)
class FaceScores:
    """Scores generators against two sets of people who were looked at once: `trained` and `held_out`."""

    face_net: FaceNet
    trained: Faces
    held_out: Faces

    @staticmethod
    def of(face_net: FaceNet, trained: Tensor, held_out: Tensor, *, num: int = 1000) -> FaceScores:
        """Look at up to `num` pictures, uint8 [N, 3, H, H], of each set."""
        seen, unseen = (look(face_net, pictures(pixels, most=num)) for pixels in (trained, held_out))
        return FaceScores(face_net, seen, unseen)

    def __call__(self, G: Generator) -> dict[str, float]:
        """Score as many untruncated samples as there are trained pictures, always from the same latents."""
        features = look(self.face_net, samples(G, len(self.trained.features))).features
        return {
            "frechet/trained": frechet_distance(features, self.trained.features),
            "frechet/held_out": frechet_distance(features, self.held_out.features),
            "kernel/held_out": kernel_distance(features, self.held_out.features),
        }


@torch.no_grad()
def path_length(
    G: Generator,
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    num: int = 1000,
    epsilon: float = 1e-4,
    seed: int = 0,
) -> float:
    """Return the perceptual path length in W: how much pictures change along straight lines, per squared step.

    Args:
        G: the generator.
        distance: of two batches img [N, 3, H, H], [N], quadratic in small changes.
        num: lines, each measured at its beginning.
        epsilon: step, as a share of the line.
        seed: of the lines.

    Source: Karras et al. 2019, Sec. 4.1, Eq. 3, arXiv:1812.04948; at the ends of lines: Karras et al. 2020, Sec. 2.
    """
    lengths = []
    for w in sample_w(G, 2 * num, seed=seed).split(BATCH):
        begin, end = w[0::2], w[1::2]
        img, moved = (synthesize(G, begin.lerp(end, t)) for t in (0.0, epsilon))
        lengths.append(distance(img, moved).double().cpu() / epsilon**2)
    found = torch.cat(lengths).sort().values
    cut = int(len(found) * TRIMMED_SHARE)
    return float(found[cut : len(found) - cut].mean())
