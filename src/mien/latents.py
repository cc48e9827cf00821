"""Latent codes without pictures: seeds to z to ws, truncation, mixing, interpolation, and the statistics of w.

z [N, z_dim] is drawn from a normal distribution; w [N, w_dim] is what the mapping makes of it; ws [N, num_ws, w_dim]
has one row for each layer. In W all rows of a code are equal, in W+ they are free.

Source: Karras et al. 2019, arXiv:1812.04948; Zhu et al. 2020 (P space), arXiv:2012.09036.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import InputError
from mien.nets.generator import NOISE_MODES, Generator

__all__ = [
    "LatentStats",
    "broadcast",
    "class_label",
    "fitted",
    "interpolate",
    "latent_stats",
    "loop",
    "loop_weights",
    "mix",
    "sample_w",
    "sample_ws",
    "scale_rows",
    "seeds_to_z",
    "synthesize",
    "truncate",
]

MAX_SEED = 2**32 - 1
PUBLISHED_ROWS = 18  # of the networks of 1024 px, by which papers count
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


def class_label(G: Generator, class_idx: int | None) -> Tensor | None:
    """Return the label c [1, c_dim] of a class, or None for a generator without classes.

    Raises:
        InputError: a class that the generator does not have, or none where it needs one.
    """
    if G.c_dim == 0 and class_idx is None:
        return None
    if G.c_dim == 0:
        raise InputError(f"class {class_idx} of a generator without classes", hint="leave the class out")
    if class_idx is None or not 0 <= class_idx < G.c_dim:
        what = "this generator needs a class" if class_idx is None else f"no class {class_idx}"
        raise InputError(what, hint=f"its classes go from 0 to {G.c_dim - 1}")
    return F.one_hot(torch.tensor([class_idx]), G.c_dim).float().to(G.w_avg.device)


def sample_ws(
    G: Generator, seeds: Sequence[int], *, truncation_psi: float = 1.0, class_idx: int | None = None
) -> Tensor:
    """Map seeds to ws [N, num_ws, w_dim] on the generator's own device; all of one class where it has classes.

    Raises:
        InputError: a seed or class that cannot be, or a truncation that is not a number.
    """
    if not math.isfinite(truncation_psi):
        raise InputError(f"truncation_psi is {truncation_psi}", hint="1 is all variety, 0 the mean face")
    z, c = seeds_to_z(seeds, G.z_dim).to(G.w_avg.device), class_label(G, class_idx)
    with torch.no_grad():
        return G.mapping(z, None if c is None else c.expand(len(z), -1), truncation_psi=truncation_psi)


def sample_w(G: Generator, num: int, *, seed: int = 0) -> Tensor:
    """Draw `num` codes w [num, w_dim] from one seed, untruncated and of all classes: the material of statistics."""
    random, device = np.random.RandomState(seed), G.w_avg.device
    z = torch.from_numpy(random.standard_normal((num, G.z_dim)).astype(np.float32)).to(device)
    c = F.one_hot(torch.from_numpy(random.randint(G.c_dim, size=num)), G.c_dim).to(device, z.dtype) if G.c_dim else None
    with torch.no_grad():
        return G.mapping(z, c)[:, 0]


def broadcast(w: Tensor, num_ws: int) -> Tensor:
    """Repeat w [N, w_dim] on every row: ws [N, num_ws, w_dim] in W."""
    return w[:, None].repeat(1, num_ws, 1)


def synthesize(
    G: Generator, ws: Tensor, *, noise_mode: str = "const", seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Render w [N, w_dim] or ws [N, num_ws, w_dim] as img [N, 3, H, W].

    Args:
        G: the generator.
        ws: its code.
        noise_mode: `const` (the network's own noise), `random` or `none`.
        seed: of random noise; the caller's random numbers are not moved.
        dtype: of the feature maps.

    Raises:
        InputError: the code is of another generator, or an unknown mode.
    """
    if noise_mode not in NOISE_MODES:
        raise InputError(f"no noise mode {noise_mode!r}", hint=f"known: {', '.join(NOISE_MODES)}")
    ws = broadcast(ws, G.num_ws) if ws.ndim == 2 else ws
    if ws.ndim != 3 or ws.shape[1:] != (G.num_ws, G.w_dim):
        raise InputError(f"the code must be [N, {G.num_ws}, {G.w_dim}], got {list(ws.shape)}")
    devices = [G.w_avg.device] if G.w_avg.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices, enabled=noise_mode == "random"):
        if noise_mode == "random":
            torch.manual_seed(seed)
        return G.synthesis(ws, noise_mode=noise_mode, **({} if dtype == torch.float32 else {"dtype": dtype}))


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Pull the first `cutoff` rows (all by default) of ws towards w_avg [w_dim]: psi 1 keeps them, 0 gives the mean."""
    rows = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(ws[:, :rows], psi), ws[:, rows:]], dim=1)


def fitted(ws: Tensor, num_ws: int) -> Tensor:
    """Give ws [N, rows, w_dim] as many rows as a generator takes that has grown: the last one again, or fewer."""
    more = max(0, num_ws - ws.shape[1])
    return torch.cat([ws[:, :num_ws], ws[:, -1:].expand(-1, more, -1)], dim=1)


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


def scale_rows(rows: Iterable[int], num_ws: int, *, of: int = PUBLISHED_ROWS) -> list[int]:
    """Return the rows of a network with `num_ws` rows that stand where `rows` stand in one with `of` rows.

    Each row of the network takes the role of the other's row at its middle: as many rows as before stay as they are, of
    fewer each stands for several, of more several stand for one.

    Raises:
        InputError: a row that the other does not have, or rows so few that none of the network stands there.

    >>> scale_rows(range(9, 18), 10)
    [5, 6, 7, 8, 9]
    """
    wanted = set(rows)
    if bad := sorted(row for row in wanted if not 0 <= row < of):
        raise InputError(f"no row {bad[0]}", hint=f"rows are counted in {of}, from 0 to {of - 1}")
    scaled = [row for row in range(num_ws) if (2 * row + 1) * of // (2 * num_ws) in wanted]
    if not scaled:
        places = ", ".join(map(str, sorted(wanted))) or "none"
        raise InputError(f"no row of {num_ws} stands at {places} of {of}", hint="name a wider range of rows")
    return scaled


def interpolate(ws_a: Tensor, ws_b: Tensor, t: float) -> Tensor:
    """Go from ws_a (t = 0) to ws_b (t = 1) in a straight line, as suits W."""
    return ws_a.lerp(ws_b, t)


def loop_weights(num_keys: int, num_frames: int) -> Tensor:
    """Return [num_frames, num_keys]: how much of each key is in each frame of a smooth closed loop through them all.

    The frames lie on the periodic cubic spline at equal steps of time; key k is at k / num_keys of the loop, and the
    step after the last frame is the first. A spline is linear in its keys, so that the same weights serve codes, noise
    maps, or whatever else belongs to the keys.

    Source: de Boor 1978, A Practical Guide to Splines, Ch. IV, with periodic ends.
    """
    if num_keys < 1 or num_frames < 1:
        raise InputError(f"a loop needs keys and frames, got {num_keys} and {num_frames}")
    one = torch.eye(num_keys, dtype=torch.float64)
    beside = one.roll(1, dims=1) + one.roll(-1, dims=1)  # row k takes its two neighbours
    bend = torch.linalg.solve(beside + 4 * one, 6 * (beside - 2 * one))  # second derivatives at the keys
    time = torch.arange(num_frames, dtype=torch.float64) * num_keys / num_frames
    key = time.long()
    a, b = (1 - time + key)[:, None], (time - key)[:, None]
    following = (key + 1) % num_keys
    weights = a * one[key] + b * one[following] + ((a**3 - a) * bend[key] + (b**3 - b) * bend[following]) / 6
    return weights.float()


def loop(ws: Tensor, num_frames: int) -> Tensor:
    """Walk from each of ws [K, num_ws, w_dim] to the next and back to the first: [num_frames, num_ws, w_dim].

    The way is smooth everywhere, also where it closes.

    Raises:
        InputError: no codes, or no frames.
    """
    return torch.tensordot(loop_weights(len(ws), num_frames).to(ws.device), ws, dims=1)


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
