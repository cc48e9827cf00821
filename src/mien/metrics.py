"""Numbers that judge pictures, pairs of pictures and sets of pictures; each metric is one function.

Sets are compared by features [N,D] of any network, float64 inside; `FaceNet.describe` gives them for faces.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mien.errors import InputError
from mien.losses import SSIM_WINDOW_PX, structural_similarity

__all__ = [
    "frechet_distance",
    "kernel_distance",
    "nearest",
    "precision_recall",
    "psnr",
    "ssim",
    "verification",
]


def psnr(img: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures [N,C,H,W] in [-1,1], [N] dB; infinite for equal ones."""
    error = (img - target).double().square().mean(dim=(1, 2, 3))
    return 10 * (4 / error).log10()  # the peak is 2


def ssim(img: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of pictures [N,C,H,W] in [-1,1], [N], at most 1.

    Windows of 7 px, unbiased covariances, channels averaged: what scikit-image calculates by default.

    Source: Wang et al. 2004, Eq. 13, doi:10.1109/TIP.2003.819861.
    """
    if min(img.shape[-2:]) < SSIM_WINDOW_PX:
        raise InputError(f"SSIM needs pictures of at least {SSIM_WINDOW_PX} px, got {list(img.shape[-2:])}")
    return structural_similarity(img.double(), target.double(), use_sample_covariance=True)


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Squared Fréchet distance of two Gaussians with the means and covariances of two sets [N,D] and [M,D].

    Source: Heusel et al. 2017, Eq. 6, arXiv:1706.08500.
    """
    x, y = _sets(features, reference, least=2)
    cov_x, cov_y = torch.atleast_2d(torch.cov(x.T)), torch.atleast_2d(torch.cov(y.T))
    values, vectors = torch.linalg.eigh(cov_x)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()  # trace of (cov_x cov_y)^(1/2)
    return float((x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross)


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two sets [N,D] and [M,D] under the kernel (x.y / D + 1)^3.

    Source: Bińkowski et al. 2018, Eq. 4, arXiv:1801.01401.
    """
    x, y = _sets(features, reference, least=2)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def precision_recall(features: Tensor, reference: Tensor, *, num_neighbours: int = 3) -> tuple[float, float]:
    """Return how many of `features` [N,D] lie among `reference` [M,D], and how many of these lie among those.

    A point lies among a set when it is nearer to one of its points than that point's k-th neighbour in the set is.

    Source: Kynkäänniemi et al. 2019, Eq. 1-2, arXiv:1904.06991.
    """
    x, y = _sets(features, reference, least=num_neighbours + 1)
    distances = torch.cdist(x, y)

    def reach(a: Tensor) -> Tensor:
        return torch.cdist(a, a).kthvalue(num_neighbours + 1, dim=1).values  # the first is the point itself

    precision = (distances <= reach(y)).any(1).double().mean()
    recall = (distances <= reach(x)[:, None]).any(0).double().mean()
    return float(precision), float(recall)


def nearest(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each of `features` [N,D] the row of the nearest of `reference` [M,D] and its distance, both [N]."""
    x, y = _sets(features, reference, least=1)
    found = torch.cdist(x, y).min(1)
    return found.indices, found.values


def verification(similarity: np.ndarray, is_same: np.ndarray, *, num_folds: int = 10) -> tuple[float, float]:
    """Return the share of pairs that one threshold tells right, and the mean threshold, by the protocol of LFW.

    The threshold is chosen on nine folds and judged on the tenth, in turn.

    Args:
        similarity: [P], higher for what is more alike; the pairs in random order.
        is_same: bool [P].
        num_folds: parts that the pairs are dealt to, in turn.

    Source: Huang et al. 2007, Labeled Faces in the Wild, Sec. III, UMass Amherst TR 07-49.
    """
    if len(similarity) < num_folds:
        raise InputError(f"{num_folds} folds need as many pairs, got {len(similarity)}")
    fold_of = np.arange(len(similarity)) % num_folds
    num_right, thresholds = 0, []
    for fold in range(num_folds):
        learnt, judged = fold_of != fold, fold_of == fold
        threshold = _best_threshold(similarity[learnt], is_same[learnt])
        thresholds.append(threshold)
        num_right += int(((similarity >= threshold) == is_same)[judged].sum())
    return num_right / len(similarity), math.fsum(thresholds) / num_folds


def _best_threshold(similarity: np.ndarray, is_same: np.ndarray) -> float:
    """Return the value halfway between two scores that tells most pairs right."""
    order = np.argsort(similarity)
    scores, first = np.unique(similarity[order], return_index=True)
    num_same_below = np.concatenate([[0], np.cumsum(is_same[order])])
    cuts = np.append(first, len(order))  # so many scores lie below the threshold
    num_right = is_same.sum() - 2 * num_same_below[cuts] + cuts
    best = int(num_right.argmax())
    edges = np.concatenate([[2 * scores[0] - scores[-1] - 1], scores, [2 * scores[-1] - scores[0] + 1]])
    return float(edges[best] + edges[best + 1]) / 2


def _sets(features: Tensor, reference: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    for side in (features, reference):
        if side.ndim != 2 or side.shape[1] != features.shape[1] or len(side) < least:
            raise InputError(
                f"need two sets of at least {least} features of one length, got {list(features.shape)} "
                f"and {list(reference.shape)}"
            )
    return features.double(), reference.double()
