"""Numbers that judge pictures, pairs of pictures and sets of pictures; each metric is one function.

Sets are compared by features [N,D] of any network, float64 inside; `FaceNet.describe` gives them for faces, and
`judges.features_judge` for whatever network the papers used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError
from mien.images import PHOTO_SUFFIXES, open_photo, to_tensor
from mien.losses import SSIM_WINDOW_PX, structural_similarity
from mien.report import Sink, Step, ignore

__all__ = [
    "SetScores",
    "compare_folders",
    "describe_folder",
    "frechet_distance",
    "kernel_distance",
    "ms_ssim",
    "nearest",
    "precision_recall",
    "psnr",
    "ssim",
    "verification",
]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # fine to coarse
ROWS = 2048  # of a table of distances that is in memory at once
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # Bińkowski et al. 2018, App. D


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


def ms_ssim(img: Tensor, target: Tensor) -> Tensor:
    """Structural similarity over five scales of pictures [N,C,H,W] in [-1,1] of at least 176 px, [N], at most 1.

    Gaussian windows of 11 px and sigma 1.5, channels averaged, a contrast below 0 counts as 0.

    Source: Wang et al. 2003, Eq. 7 and Sec. 3.2, doi:10.1109/ACSSC.2003.1292216.
    """
    least = 11 * 2 ** (len(MS_SSIM_WEIGHTS) - 1)
    if min(img.shape[-2:]) < least:
        raise InputError(f"MS-SSIM needs pictures of at least {least} px, got {list(img.shape[-2:])}")
    x, y = img.double() / 2 + 0.5, target.double() / 2 + 0.5
    taps = torch.exp(-0.5 * ((torch.arange(11, dtype=x.dtype, device=x.device) - 5) / 1.5) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2

    def blurred(a: Tensor) -> Tensor:
        return F.conv2d(a.flatten(0, 1)[:, None], kernel[None, None]).unflatten(0, a.shape[:2])[:, :, 0]

    result = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)  # [N,C]
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        mean_x, mean_y, xx, yy, xy = (blurred(m) for m in (x, y, x * x, y * y, x * y))
        var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
        part = (2 * cov + 0.03**2) / (var_x + var_y + 0.03**2)
        if scale == len(MS_SSIM_WEIGHTS) - 1:
            part = part * (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        result = result * part.mean(dim=(2, 3)).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result.mean(dim=1)


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


def kernel_distance(
    features: Tensor, reference: Tensor, *, num_subsets: int = 1, subset_size: int | None = None, seed: int = 0
) -> float:
    """Unbiased squared maximum mean discrepancy of two sets [N,D] and [M,D] under the kernel (x.y / D + 1)^3.

    Args:
        features: of one set.
        reference: of the other.
        num_subsets: over so many random subsets the estimate is averaged; papers take 100.
        subset_size: of each, at most the smaller set; by default both sets whole. Papers take 1000.
        seed: of the subsets.

    Source: Bińkowski et al. 2018, Eq. 4 and App. D, arXiv:1801.01401.
    """
    x, y = _sets(features, reference, least=2)
    if subset_size is None:
        return _discrepancy(x, y)
    size = min(subset_size, len(x), len(y))
    if size < 2 or num_subsets < 1:
        raise InputError(f"need subsets of at least 2, got {num_subsets} of {size}")
    random = torch.Generator().manual_seed(seed)

    def some(a: Tensor) -> Tensor:
        return a[torch.randperm(len(a), generator=random)[:size].to(a.device)]

    return math.fsum(_discrepancy(some(x), some(y)) for _ in range(num_subsets)) / num_subsets


def _discrepancy(x: Tensor, y: Tensor) -> float:
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

    def share_among(points: Tensor, others: Tensor) -> float:
        k = num_neighbours + 1  # the nearest is the point itself
        reach = torch.cat([torch.cdist(some, others).kthvalue(k, dim=1).values for some in others.split(ROWS)])
        is_among = torch.cat([(torch.cdist(some, others) <= reach).any(1) for some in points.split(ROWS)])
        return float(is_among.double().mean())

    return share_among(x, y), share_among(y, x)


def nearest(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each of `features` [N,D] the row of the nearest of `reference` [M,D] and its distance, both [N]."""
    x, y = _sets(features, reference, least=1)
    found = torch.cdist(x, y).min(1)
    return found.indices, found.values


@dataclass(frozen=True)
class SetScores:
    """How far one set of pictures is from another, and by whose features."""

    judge: str
    fid: float  # Fréchet distance; 0 for equal sets
    kid: float  # kernel distance; about 0 for sets of one kind
    precision: float  # share of the pictures that look like the reference, 0..1
    recall: float  # share of the reference that is covered, 0..1
    num: int
    num_reference: int


def describe_folder(
    folder: Path, describe: Callable[[Tensor], Tensor], *, batch_size: int = 32, on_step: Sink = ignore
) -> Tensor:
    """Return the features [N,D] of every picture in a folder and below, in the order of their paths, on the CPU.

    Args:
        folder: pictures of any size; those of one size in a row are described together.
        describe: img [N,3,H,W] in [-1,1] to features [N,D].
        batch_size: most pictures at once.
        on_step: hears of each batch.

    Raises:
        InputError: there is no picture, or one cannot be read.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PHOTO_SUFFIXES]
    if not paths:
        raise InputError(f"no pictures in {folder}", hint="give a folder of PNG or JPEG files")
    rows: list[Tensor] = []
    batch: list[Tensor] = []

    def flush() -> None:
        with torch.inference_mode():
            rows.append(describe(torch.cat(batch)).cpu())
        batch.clear()

    for done, path in enumerate(paths):
        img = to_tensor(open_photo(path))
        if batch and (len(batch) == batch_size or batch[0].shape != img.shape):
            flush()
            on_step(Step(f"look at {folder.name}", done, len(paths)))
        batch.append(img)
    flush()
    on_step(Step(f"look at {folder.name}", len(paths), len(paths)))
    return torch.cat(rows)


def compare_folders(
    folder: Path,
    reference: Path,
    describe: Callable[[Tensor], Tensor],
    *,
    judge: str,
    batch_size: int = 32,
    seed: int = 0,
    on_step: Sink = ignore,
) -> SetScores:
    """Compare the pictures of two folders: FID, KID, precision and recall.

    The numbers are the papers' only by the papers' features and numbers of pictures: Inception's and 50,000 for FID and
    KID, VGG16's for precision and recall.

    Args:
        folder: the pictures to judge.
        reference: what they should look like.
        describe: img [N,3,H,W] in [-1,1] to features [N,D].
        judge: its name, for the report.
        batch_size: most pictures at once.
        seed: of KID's subsets.
        on_step: hears of each batch.

    Raises:
        InputError: a folder has fewer than four pictures, or one that cannot be read.
    """
    x, y = (describe_folder(f, describe, batch_size=batch_size, on_step=on_step) for f in (folder, reference))
    precision, recall = precision_recall(x, y)
    return SetScores(
        judge=judge,
        fid=frechet_distance(x, y),
        kid=kernel_distance(x, y, num_subsets=KID_SUBSETS, subset_size=KID_SUBSET_SIZE, seed=seed),
        precision=precision,
        recall=recall,
        num=len(x),
        num_reference=len(y),
    )


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
