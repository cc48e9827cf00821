"""Pictures under affine maps and Gaussians: where pixels lie in another picture, and what is seen there.

Coordinates are continuous pixels, as everywhere in `faces`: the first pixel covers 0 to 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mien.images import resize

__all__ = ["Array", "blur", "grid", "warp"]

Array = NDArray[np.float64]
"""Points, quads and maps of the plane."""


def grid(matrix: Array, size: tuple[int, int], source_size: tuple[int, int]) -> Tensor:
    """Return where pixels of a picture of `size` lie in one of `source_size`: [1, H, W, 2], -1 to 1 from edge to edge.

    `matrix` [2, 3] carries px of the one to px of the other; both sizes are (width, height).
    """
    from_unit = np.array([[size[0] / 2, 0, size[0] / 2], [0, size[1] / 2, size[1] / 2], [0, 0, 1]])
    theta = (matrix @ from_unit) * 2 / np.array(source_size)[:, None] - [[0, 0, 1]]
    return F.affine_grid(torch.from_numpy(theta).float()[None], [1, 1, size[1], size[0]], align_corners=False)


def blur(img: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of [N, C, H, W]."""
    reach = max(1, round(3 * sigma_px))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma_px, 1e-3)).square())
    taps = taps / taps.sum()
    x = F.pad(img.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1))
    return x.reshape(img.shape)


def warp(img: Tensor, matrix: Array, size: tuple[int, int]) -> Tensor:
    """Resample `img` [1, C, H, W] to (width, height): bicubic, mirrored outside, low-passed where it shrinks.

    `matrix` [2, 3] carries px of the result to px of `img`.
    """
    shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    finer = max(1, math.ceil(shrink - 0.1))  # sample so densely that nothing aliases, then average
    fine_size = (size[0] * finer, size[1] * finer)
    points = grid(matrix / [[finer, finer, 1]], fine_size, (img.shape[3], img.shape[2]))
    fine = F.grid_sample(img, points, mode="bicubic", padding_mode="reflection", align_corners=False)
    return resize(fine, size)
