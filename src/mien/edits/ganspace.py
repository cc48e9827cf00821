"""GANSpace: directions as the principal components of samples in W.

Source: Härkönen et al. 2020, Sec. 3.1, arXiv:2004.02546.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mien.errors import InputError
from mien.latents import sample_w
from mien.nets.generator import Generator

__all__ = ["ganspace"]


def ganspace(G: Generator, num: int, *, num_samples: int = 50_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Find the moves along which samples of w vary most.

    Args:
        G: the generator.
        num: how many moves.
        num_samples: samples of w; the paper takes a million.
        seed: of the samples.

    Returns:
        unit vectors [num, w_dim] and the variances along them [num], largest first.

    Raises:
        InputError: more moves than w has dimensions, or too few samples.
    """
    if not 1 <= num <= G.w_dim:
        raise InputError(f"{num} directions are not in a space of {G.w_dim} dimensions")
    if num_samples <= num:
        raise InputError(f"{num_samples} samples are too few for {num} directions")
    w = sample_w(G, num_samples, seed=seed).double()
    values, vectors = torch.linalg.eigh((w - w.mean(0)).T.cov())
    return vectors.flip(1).T[:num].float(), values.flip(0)[:num].float()
