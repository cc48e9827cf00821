"""Distances between pictures of faces, and the regularity of noise maps: tensors in, one number a picture out.

Everything returns [N], so that pictures that are optimised together stay independent; take the mean to train.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "SSIM_WINDOW_PX",
    "dssim",
    "identity_distance",
    "noise_autocorrelation",
    "perceptual",
    "pyramid_l1",
    "squared_error",
    "structural_similarity",
    "unit_channels",
]

SMALLEST_PX = 8  # coarsest level of the pyramids
SSIM_WINDOW_PX = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def squared_error(img: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two batches of pictures [N,C,H,W]."""
    return (img - target).square().mean(dim=(1, 2, 3))


def pyramid_l1(img: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of [N,C,H,H], averaged over both pictures' pyramids down to 8 px."""
    levels = []
    while True:
        levels.append((img - target).abs().mean(dim=(1, 2, 3)))
        if img.shape[-1] <= SMALLEST_PX:
            return torch.stack(levels).mean(0)
        img, target = F.avg_pool2d(img, 2), F.avg_pool2d(target, 2)


def structural_similarity(img: Tensor, target: Tensor, *, use_sample_covariance: bool = False) -> Tensor:
    """Mean structural similarity over windows of 7 px of pictures [N,C,H,W] in [-1,1]: 1 for equal ones, at least -1.

    Args:
        img: at least 7 px wide and high.
        target: of the same shape.
        use_sample_covariance: divide covariances by one less than the window's pixels, as scikit-image does.

    Source: Wang et al. 2004, Eq. 13, doi:10.1109/TIP.2003.819861.
    """
    x, y = img / 2 + 0.5, target / 2 + 0.5  # the means of the definition are of light, from 0
    mean_x, mean_y, xx, yy, xy = (F.avg_pool2d(m, SSIM_WINDOW_PX, 1) for m in (x, y, x * x, y * y, x * y))
    num = SSIM_WINDOW_PX**2
    unbiased = num / (num - 1) if use_sample_covariance else 1.0
    var_x, var_y, cov = (unbiased * v for v in (xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y))
    ssim = (2 * mean_x * mean_y + SSIM_C1) * (2 * cov + SSIM_C2)
    ssim = ssim / ((mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2))
    return ssim.mean(dim=(1, 2, 3))


def dssim(img: Tensor, target: Tensor) -> Tensor:
    """One minus the structural similarity: 0 for equal pictures, at most 2."""
    return 1 - structural_similarity(img, target)


def unit_channels(features: Tensor) -> Tensor:
    """Scale the feature vector [C] at every place of [N,C,H,W] to unit length."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return features / (features.square().sum(1, keepdim=True) + 1e-4).sqrt()


def perceptual(maps: Sequence[Tensor], target_maps: Sequence[Tensor]) -> Tensor:
    """Squared distance of unit feature vectors, averaged over places, then over maps: 0 to 4.

    Args:
        maps: what `FaceNet.maps` or `FaceReading.maps` holds of N pictures, each [N,C,H,W].
        target_maps: the same of the pictures to reach.

    Source: Zhang et al. 2018, Eq. 1 with all channel weights 1, arXiv:1801.03924.
    """
    parts = [
        (unit_channels(x) - unit_channels(y)).square().sum(1).mean(dim=(1, 2))
        for x, y in zip(maps, target_maps, strict=True)
    ]
    return torch.stack(parts).mean(0)


def identity_distance(identity: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine of unit vectors [N,D]: 0 for the same, about 1 for another person."""
    return 1 - (identity * target).sum(1)


def noise_autocorrelation(noise: Sequence[Tensor]) -> Tensor:
    """Squared mean products of neighbours over every map's pyramid down to 8 px, summed over `noise` [N,1,H,H] each.

    Source: Karras et al. 2020, App. D, arXiv:1912.04958.
    """
    parts = [noise[0].new_zeros(len(noise[0]))]
    for level in noise:
        while level.shape[-1] >= SMALLEST_PX:
            parts += [(level * level.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square() for axis in (2, 3)]
            level = F.avg_pool2d(level, 2) * 2  # keeps the variance of white noise
    return torch.stack(parts).sum(0)
