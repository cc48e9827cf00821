"""How good a generator is while it trains: distances of its samples to people it saw and to people it never saw.

Features are those of our own face network, so the numbers compare generators of this project with one another, not with
published ones. A distance to the training set that falls while the other rises is memorisation.

Source: Heusel et al. 2017, arXiv:1706.08500; Bińkowski et al. 2018, arXiv:1801.01401.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mien.metrics import frechet_distance, kernel_distance
from mien.nets.features import FaceNet
from mien.nets.generator import Generator

__all__ = ["FaceScores"]


@torch.no_grad()
def _describe(face_net: FaceNet, pixels: Tensor, batch_size: int) -> Tensor:
    device = next(face_net.parameters()).device
    chunks = pixels.split(batch_size)
    return torch.cat([face_net.describe(chunk.to(device).float() / 127.5 - 1).cpu() for chunk in chunks])


@dataclass(frozen=True)
class FaceScores:
    """Scores generators against two sets of people, described once: `trained` and `held_out` are features [N, D]."""

    face_net: FaceNet
    trained: Tensor
    held_out: Tensor
    batch_size: int = 32

    @staticmethod
    def of(face_net: FaceNet, trained: Tensor, held_out: Tensor, *, num: int = 1000) -> FaceScores:
        """Describe at most `num` pictures, uint8 [N, 3, H, H], of each set."""
        seen, unseen = (
            _describe(face_net, pixels[:: max(1, len(pixels) // num)][:num], 32) for pixels in (trained, held_out)
        )
        return FaceScores(face_net, seen, unseen)

    @torch.no_grad()
    def __call__(self, G: Generator) -> dict[str, float]:
        """Draw as many untruncated samples as there are trained pictures, always from the same latents."""
        device = G.w_avg.device
        z = torch.from_numpy(np.random.RandomState(0).standard_normal((len(self.trained), G.z_dim))).float()
        drawn = []
        for some in z.split(self.batch_size):
            img = G.synthesis(G.mapping(some.to(device)), noise_mode="const")
            drawn.append(self.face_net.describe(img.clamp(-1, 1)).cpu())
        features = torch.cat(drawn)
        return {
            "frechet/trained": frechet_distance(features, self.trained),
            "frechet/held_out": frechet_distance(features, self.held_out),
            "kernel/held_out": kernel_distance(features, self.held_out),
        }
