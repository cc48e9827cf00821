"""From codes with a row each to one w for all rows: an exact change of coordinates of generator and encoder.

An encoder that was trained with free rows keeps most of what it knows in the differences between rows, where no mapping
can follow it. Every row is read by affine layers of its own, so that any linear map of w may be moved into them: with
the principal axes of the codes in the affine layers, one w per picture says what all its rows said, the codes have unit
variance in every direction, and a mapping that is a rotation at its start draws from where the encoder writes.

Source: principal components as the space of a generator: Härkönen et al. 2020 (GANSpace), arXiv:2004.02546.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError
from mien.nets.encoder import Encoder
from mien.nets.layers import FullyConnectedLayer
from mien.nets.stylegan2 import Generator, MappingNetwork

__all__ = ["rotate_mapping", "whiten"]

SLOPE = 0.2
LRELU_MEAN = (1 - SLOPE) / math.sqrt(math.pi)  # of sqrt(2) lrelu(x), x unit normal
LRELU_STD = math.sqrt(1 + SLOPE**2 - LRELU_MEAN**2)


def _rotation(size: int, rng: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn([size, size], generator=rng, dtype=torch.float64))[0]


@torch.no_grad()
def rotate_mapping(mapping: MappingNetwork, *, seed: int = 0) -> None:
    """Make every layer of a mapping a rotation, so that its w have unit variance, nearly alike in every direction.

    Args:
        mapping: without labels, all widths alike; changed in place, its running mean included.
        seed: of the rotations.

    Raises:
        InputError: its widths differ, or it has labels.
    """
    rng = torch.Generator().manual_seed(seed)
    layers: list[FullyConnectedLayer] = [getattr(mapping, f"fc{i}") for i in range(mapping.num_layers)]
    if mapping.c_dim or any(layer.weight.shape != (mapping.w_dim, mapping.w_dim) for layer in layers):
        raise InputError("only a mapping without labels and of one width can become a rotation")
    mean, std = 0.0, 1.0  # of what enters a layer
    for i, layer in enumerate(layers):
        gain = 1 / (std * (LRELU_STD if i == len(layers) - 1 else 1))  # the last one's output has unit variance
        turn = _rotation(mapping.w_dim, rng) * gain
        layer.weight.copy_(turn / layer.weight_gain)
        layer.bias.copy_(-turn.sum(dim=1) * mean / layer.bias_gain)
        mean, std = LRELU_MEAN, LRELU_STD
    mapping.w_avg.fill_(LRELU_MEAN / LRELU_STD)


def _affines(G: Generator) -> Iterator[tuple[int, FullyConnectedLayer]]:
    """Every affine layer of a synthesis network with the row of ws that it reads."""
    row = 0
    for resolution in G.synthesis.block_resolutions:
        block = getattr(G.synthesis, f"b{resolution}")
        for name in ("conv0", "conv1")[2 - block.num_conv :]:
            yield row, getattr(block, name).affine
            row += 1
        if block.num_torgb:
            yield row, block.torgb.affine


@torch.no_grad()
def whiten(G: Generator, E: Encoder, features: Tensor, *, seed: int = 0) -> tuple[Generator, Encoder, float]:
    """Carry what an encoder says in all rows into one whitened w.

    Args:
        G: without labels, z_dim and w_dim alike.
        E: encoder of `G`.
        features: `E.features` of many pictures, [N, hidden].
        seed: of the rotations.

    Returns:
        A generator whose w of unit variance span the `w_dim` principal axes of the codes, with a mapping that draws
        them; its encoder, with all rows equal; the share of the codes' variance that these axes hold.
    """
    num_ws, w_dim = G.num_ws, G.w_dim
    weight = (E.base.weight.repeat(num_ws, 1) + E.offsets.weight).double()  # [num_ws*w_dim,hidden]
    bias = ((E.w_avg + E.base.bias).repeat(num_ws) + E.offsets.bias).double()
    center = weight @ features.double().mean(dim=0) + bias
    values, vectors = torch.linalg.eigh(torch.cov(features.double().T))
    axes, stds, _ = torch.linalg.svd(weight @ (vectors * values.clamp_min(0).sqrt()), full_matrices=False)
    share = float(stds[:w_dim].square().sum() / stds.square().sum())
    spare = max(0, w_dim - len(stds))  # directions that the encoder never uses
    axes, stds = F.pad(axes[:, :w_dim], (0, spare)), F.pad(stds[:w_dim], (0, spare))
    turn = _rotation(w_dim, torch.Generator().manual_seed(seed + 1))

    G, E = copy.deepcopy(G), copy.deepcopy(E)
    rotate_mapping(G.mapping, seed=seed)
    w_avg = G.mapping.w_avg.double()
    from_w = ((axes * stds) @ turn).view(num_ws, w_dim, w_dim)  # row i = center[i] + from_w[i] (w - w_avg)
    for row, affine in _affines(G):
        shift = center.view(num_ws, w_dim)[row] - from_w[row] @ w_avg
        affine.bias.copy_(affine.bias + affine.weight_gain / affine.bias_gain * (affine.weight.double() @ shift))
        affine.weight.copy_(affine.weight.double() @ from_w[row])
    to_w = turn.T @ (axes / stds.clamp_min(1e-6)).T
    E.base.weight.copy_(to_w @ weight)
    E.base.bias.copy_(to_w @ (bias - center))
    E.w_avg.copy_(w_avg)
    E.offsets.weight.zero_()
    E.offsets.bias.zero_()
    return G, E, share
