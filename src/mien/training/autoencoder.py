"""What an encoder and a generator learn from together: to render real pictures, from codes that can be drawn.

Reconstruction reaches the faces of real people long before an adversary alone does.

Source: the idea of a generator with its encoder: Pidhorskyi et al. 2020 (ALAE), arXiv:2004.04467; in-domain inversion:
Zhu et al. 2020, arXiv:2004.00049.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["code_moments", "moments_apart", "pyramid_distance"]


def _slopes(img: Tensor) -> tuple[Tensor, Tensor]:
    return img[..., 1:] - img[..., :-1], img[..., 1:, :] - img[..., :-1, :]


def pyramid_distance(a: Tensor, b: Tensor, *, num_levels: int = 4) -> Tensor:
    """Mean absolute difference of colours and of slopes over a pyramid of halved pictures.

    Args:
        a: img [N, C, H, W].
        b: like `a`.
        num_levels: how many sizes, from the full one down to 2 px at the least.

    Returns:
        [N], 0 where both agree.
    """
    num_levels = min(num_levels, min(a.shape[2:]).bit_length() - 1)
    total = a.new_zeros(len(a))
    for level in range(num_levels):
        if level:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        total = total + (a - b).abs().mean(dim=[1, 2, 3])
        for x, y in zip(_slopes(a), _slopes(b), strict=True):
            total = total + (x - y).abs().mean(dim=[1, 2, 3])
    return total / num_levels


def code_moments(w: Tensor) -> Tensor:
    """Say how far codes w [N, w_dim] of one batch are from unit normal ones: squared errors of mean and variance."""
    return w.mean(dim=0).square().mean() + (w.var(dim=0) - 1).square().mean()


def moments_apart(w: Tensor, like: Tensor) -> Tensor:
    """Squared differences of mean and variance of two batches of codes, [N, w_dim] and [M, w_dim], averaged."""
    return (w.mean(dim=0) - like.mean(dim=0)).square().mean() + (w.var(dim=0) - like.var(dim=0)).square().mean()
