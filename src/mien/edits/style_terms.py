"""What style transfer compares: Gram matrices, Gaussians, sliced distributions of maps, and how rough a picture is.

Every statistic may count places by a weight, so that a guide can leave some out; maps are [1,C,h,w], the places p of
a map are its h w pixels.

Source: Gatys et al. 2016, Eq. 3-5, doi:10.1109/CVPR.2016.265, with guides of Gatys et al. 2017, Eq. 3,
arXiv:1611.07865; Olkin and Pukelsheim 1982, doi:10.1016/0024-3795(82)90112-4 (Wasserstein distance of Gaussians);
Elnekave and Weiss 2022, Sec. 3, arXiv:2203.11862 (sliced distance of patches).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError

__all__ = [
    "DISTANCES",
    "Moments",
    "distance",
    "gram",
    "moments",
    "projected",
    "sliced",
    "total_variation",
    "wasserstein",
]

DISTANCES = ("squared", "scaled", "relative")
EPS = 1e-8


def distance(x: Tensor, target: Tensor, kind: str = "squared") -> Tensor:
    """Say how far x is from its target, of one shape, as one number.

    `squared` is the mean square; `scaled` the sum of squares over the sum of magnitudes, whose gradient has the same
    size wherever it comes from; `relative` the mean square in units of the target's variance.
    """
    if kind not in DISTANCES:
        raise InputError(f"no distance named {kind!r}", hint=f"known: {', '.join(DISTANCES)}")
    squares = (x - target).square()
    if kind == "scaled":
        return squares.sum() / ((x - target).abs().sum() + EPS)
    return squares.mean() / (target.var() + EPS if kind == "relative" else 1)


def _weighted(maps: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return maps as [C, P] and the weight of each place [P], which sum up to one."""
    flat = maps[0].flatten(1)
    if weight is None:
        return flat, flat.new_full((flat.shape[1],), 1 / flat.shape[1])
    places = F.interpolate(weight, maps.shape[-2:], mode="area").flatten()
    return flat, places / (places.sum() + EPS)


def gram(maps: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the Gram matrix [C,C] of maps [1,C,h,w]: mean products of channels over places, divided by C."""
    flat, places = _weighted(maps, weight)
    return (flat * places) @ flat.T / len(flat)


class Moments(NamedTuple):
    """Mean [C] and covariance [C,C] of a map's vectors over its places."""

    mean: Tensor
    cov: Tensor


def moments(maps: Tensor, weight: Tensor | None = None) -> Moments:
    """Return the moments of maps [1,C,h,w]."""
    flat, places = _weighted(maps, weight)
    mean = flat @ places
    centred = flat - mean[:, None]
    return Moments(mean, (centred * places) @ centred.T)


def _root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric matrix without negative eigenvalues."""
    values, axes = torch.linalg.eigh(matrix.double())
    return ((axes * values.clamp(min=0).sqrt()) @ axes.T).to(matrix.dtype)


def wasserstein(found: Moments, target: Moments) -> Tensor:
    """Return the squared Wasserstein-2 distance of two Gaussians, divided by the number of channels.

    |m - t|^2 + tr(A + B - 2 (B^1/2 A B^1/2)^1/2), where the last trace is the nuclear norm of A^1/2 B^1/2.
    """
    num = len(found.mean)
    ridge = 1e-5 * (target.cov.diagonal().mean() + EPS) * torch.eye(num, dtype=found.cov.dtype, device=found.cov.device)
    factor = torch.linalg.cholesky((found.cov + ridge).double())  # A = L L', and A^1/2 B^1/2 has L' B^1/2's singulars
    common = torch.linalg.svdvals(factor.T @ _root(target.cov + ridge).double()).sum().to(found.cov.dtype)
    trace = (found.cov + target.cov + 2 * ridge).diagonal().sum()
    return ((found.mean - target.mean).square().sum() + trace - 2 * common) / num


def projected(maps: Tensor, filters: Tensor, *, stride: int = 1, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Return the patches of maps [1,C,h,w] under filters [K,C,k,k], [K,P].

    Args:
        maps: pictures or maps.
        filters: directions, each of one patch.
        stride: between patches.
        offset: of the first patch, (y, x) px.
    """
    said = F.conv2d(maps[:, :, offset[0] :, offset[1] :], filters, stride=stride)
    return said[0].flatten(1)


def sliced(found: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the squared sliced Wasserstein-2 distance of what `projected` says of two pictures, [K,P] and [K,Q].

    Args:
        found: of the picture that is made.
        target: of the style; its number of places may be another.
        weight: [P]; places of a weight below one half are left out.
    """
    if weight is not None and int((weight >= 0.5).sum()) >= 16:
        found = found[:, weight >= 0.5]
    quantiles, aims = found.sort(dim=1).values, target.sort(dim=1).values
    if aims.shape[1] != quantiles.shape[1]:
        aims = F.interpolate(aims[None], quantiles.shape[1], mode="linear", align_corners=True)[0]
    return (quantiles - aims).square().mean()


def total_variation(img: Tensor) -> Tensor:
    """Return the mean squared difference of neighbours of img [1,3,H,W], along both axes."""
    return (img[:, :, 1:] - img[:, :, :-1]).square().mean() + (img[..., 1:] - img[..., :-1]).square().mean()
