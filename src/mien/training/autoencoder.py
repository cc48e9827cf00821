"""The autoencoder start: encoder and generator learn together to render real pictures before and beside the adversary.

Reconstruction reaches the faces of real people long before an adversary alone does, and a mapping that is fitted to the
encoder's codes lets samples begin where reconstruction ended.

Source: the idea of a generator with its encoder: Pidhorskyi et al. 2020 (ALAE), arXiv:2004.04467; in-domain inversion:
Zhu et al. 2020, arXiv:2004.00049; sliced Wasserstein distance: Bonneel et al. 2015.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.nets.stylegan2 import MappingNetwork

__all__ = ["code_moments", "fit_mapping", "pyramid_distance", "sliced_wasserstein"]


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


def code_moments(ws: Tensor) -> tuple[Tensor, Tensor]:
    """Say how far codes are from unit normal ones, and how far their rows are from one another.

    Args:
        ws: [N, num_ws, w_dim] of one batch.

    Returns:
        Squared distance of the mean to 0 and of the variance to 1, averaged; mean square of the rows about their mean.
    """
    base = ws.mean(dim=1)  # [N,w_dim]
    spread = base.var(dim=0, unbiased=True)
    return base.mean(dim=0).square().mean() + (spread - 1).square().mean(), (ws - base[:, None]).square().mean()


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Mean squared distance of two equally large clouds [N, D] of points along `directions` [D, K] of unit length."""
    return ((a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values).square().mean()


def fit_mapping(
    mapping: MappingNetwork,
    codes: Tensor,
    *,
    num_steps: int = 400,
    batch_size: int = 512,
    lr: float = 1.0,
    seed: int = 0,
) -> float:
    """Fit a mapping so that its w are distributed as `codes`; changes the mapping, its running mean included.

    Args:
        mapping: without labels.
        codes: [N, w_dim].
        num_steps: optimiser steps.
        batch_size: points compared in a step.
        lr: learning rate of Adam; a mapping moves a hundredth of it (`lr_multiplier`).
        seed: of latents and directions.

    Returns:
        The last distance, in units of the codes.
    """
    rng = torch.Generator(device=codes.device).manual_seed(seed)
    optimizer = torch.optim.Adam(mapping.parameters(), lr=lr, betas=(0.9, 0.99))
    distance = torch.zeros([])
    for _ in range(num_steps):
        z = torch.randn([batch_size, mapping.z_dim], generator=rng, device=codes.device)
        some = codes[torch.randint(len(codes), [batch_size], generator=rng, device=codes.device)]
        directions = F.normalize(torch.randn([codes.shape[1], 64], generator=rng, device=codes.device), dim=0)
        w = mapping(z)[:, 0]
        distance = sliced_wasserstein(w, some, directions)
        moments = (w.mean(0) - some.mean(0)).square().mean() + (w.std(0) - some.std(0)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        (distance + moments).backward()
        optimizer.step()
    mapping.w_avg.copy_(codes.mean(dim=0))
    return float(distance.detach().sqrt())
