"""Latent codes without pictures: seeds to z to ws, truncation, mixing, interpolation, and the statistics of w.

z [N, z_dim] is drawn from a normal distribution; w [N, w_dim] is what the mapping makes of it; ws [N, num_ws, w_dim]
has one row for each layer. In W all rows of a code are equal, in W+ they are free.

Source: Karras et al. 2019, arXiv:1812.04948; Zhu et al. 2020 (P space), arXiv:2012.09036.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import InputError
from mien.nets.generator import Generator

__all__ = [
    "LatentStats",
    "broadcast",
    "interpolate",
    "latent_stats",
    "mix",
    "sample_w",
    "sample_ws",
    "seeds_to_z",
    "synthesize",
    "truncate",
]

MAX_SEED = 2**32 - 1
P_SLOPE = 5.0  # undoes the leaky ReLU of slope 0.2 that ends the mapping


def seeds_to_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Draw z [N, z_dim], one row for each seed, as the official code does.

    Raises:
        InputError: no seeds, or one that numpy's generator does not take.
    """
    if not seeds:
        raise InputError("no seeds given", hint="write for example 1,2,5-10")
    if bad := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
        raise InputError(f"seed {bad[0]} is out of range", hint=f"seeds go from 0 to {MAX_SEED}")
    return torch.from_numpy(np.stack([np.random.RandomState(seed).standard_normal(z_dim) for seed in seeds])).float()


def sample_ws(G: Generator, seeds: Sequence[int], *, truncation_psi: float = 1.0) -> Tensor:
    """Map seeds to ws [N, num_ws, w_dim] on the generator's own device."""
    with torch.no_grad():
        z = seeds_to_z(seeds, G.z_dim).to(G.w_avg.device)
        return G.mapping(z, None, truncation_psi=truncation_psi)


def sample_w(G: Generator, num: int, *, seed: int = 0) -> Tensor:
    """Draw `num` codes w [num, w_dim] from one seed, untruncated: the material of statistics."""
    z = np.random.RandomState(seed).standard_normal((num, G.z_dim)).astype(np.float32)
    with torch.no_grad():
        return G.mapping(torch.from_numpy(z).to(G.w_avg.device), None)[:, 0]


def broadcast(w: Tensor, num_ws: int) -> Tensor:
    """Repeat w [N, w_dim] on every row: ws [N, num_ws, w_dim] in W."""
    return w[:, None].repeat(1, num_ws, 1)


def synthesize(G: Generator, ws: Tensor) -> Tensor:
    """Render w [N, w_dim] or ws [N, num_ws, w_dim] as img [N, 3, H, W] with the network's own noise.

    Raises:
        InputError: the code is of another generator.
    """
    ws = broadcast(ws, G.num_ws) if ws.ndim == 2 else ws
    if ws.ndim != 3 or ws.shape[1:] != (G.num_ws, G.w_dim):
        raise InputError(f"the code must be [N, {G.num_ws}, {G.w_dim}], got {list(ws.shape)}")
    with torch.no_grad():
        return G.synthesis(ws, noise_mode="const")


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Pull the first `cutoff` rows (all by default) of ws towards w_avg [w_dim]: psi 1 keeps them, 0 gives the mean."""
    rows = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(ws[:, :rows], psi), ws[:, rows:]], dim=1)


def mix(ws: Tensor, ws_style: Tensor, layers: Iterable[int]) -> Tensor:
    """Take `layers` of ws from `ws_style`, both [N, num_ws, w_dim]: the first rows turn and shape, the last colour.

    Raises:
        InputError: a row that the code does not have, or codes of two generators.

    Source: Karras et al. 2019, Sec. 3.1, arXiv:1812.04948.
    """
    idx = list(layers)
    if ws.shape[1:] != ws_style.shape[1:]:
        raise InputError(f"codes of two generators cannot be mixed: {list(ws.shape)} and {list(ws_style.shape)}")
    if bad := [i for i in idx if not 0 <= i < ws.shape[1]]:
        raise InputError(f"no row {bad[0]}", hint=f"this generator's rows go from 0 to {ws.shape[1] - 1}")
    mixed = ws.clone()
    mixed[:, idx] = ws_style[:, idx]
    return mixed


def interpolate(ws_a: Tensor, ws_b: Tensor, t: float) -> Tensor:
    """Go from ws_a (t = 0) to ws_b (t = 1) in a straight line, as suits W."""
    return ws_a.lerp(ws_b, t)


@dataclass(frozen=True)
class LatentStats:
    """Where the codes of a generator lie: moments in W, and the axes of P, where they are close to a Gaussian.

    Attributes:
        w_avg: [w_dim] mean in W.
        w_std: root of the mean squared distance from it, a number.
        p_avg: [w_dim] mean in P.
        p_axes: [w_dim, num_axes] columns that carry a deviation in P to coordinates of variance one.
    """

    w_avg: Tensor
    w_std: float
    p_avg: Tensor
    p_axes: Tensor

    def to(self, device: torch.device) -> LatentStats:
        return LatentStats(self.w_avg.to(device), self.w_std, self.p_avg.to(device), self.p_axes.to(device))

    def whiten(self, w: Tensor) -> Tensor:
        """Carry w [..., w_dim] to coordinates [..., num_axes] that are about standard normal for samples."""
        return (F.leaky_relu(w, P_SLOPE) - self.p_avg) @ self.p_axes

    def unlikelihood(self, w: Tensor) -> Tensor:
        """Mean squared whitened coordinate [...]: about 1 for samples, more for codes that mapping never makes."""
        return self.whiten(w).square().mean(dim=-1)


def latent_stats(G: Generator, *, num: int = 10_000, seed: int = 123, energy: float = 0.999) -> LatentStats:
    """Measure `LatentStats` over fixed samples.

    Args:
        G: the generator.
        num: samples.
        seed: of the samples.
        energy: share of the variance in P whose axes are kept; the rest is too thin to divide by.
    """
    w = sample_w(G, num, seed=seed).cpu().double()  # not every device has float64
    p = F.leaky_relu(w, P_SLOPE)
    values, axes = torch.linalg.eigh((p - p.mean(0)).T.cov())
    values, axes = values.flip(0).clamp(min=0), axes.flip(1)
    kept = int((values.cumsum(0) < energy * values.sum()).sum()) + 1
    return LatentStats(
        w_avg=w.mean(0).float(),
        w_std=float((w - w.mean(0)).square().sum(1).mean().sqrt()),
        p_avg=p.mean(0).float(),
        p_axes=(axes[:, :kept] / values[:kept].sqrt()).float(),
    )
