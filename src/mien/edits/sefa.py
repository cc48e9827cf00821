"""SeFa: directions in closed form, from the weights that turn a code into styles.

A move along a unit vector n changes the styles of the chosen layers by A n; the moves that change them most are the
eigenvectors of A^T A, in the order of their eigenvalues.

Source: Shen & Zhou 2021, Eq. 4-7, arXiv:2007.06600.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mien.edits.directions import Direction
from mien.errors import InputError
from mien.latents import sample_w
from mien.nets.generator import Generator

__all__ = ["principal_directions", "sefa", "style_weights"]

NUM_SAMPLES = 4000
SAFE_RANGE = (-3.0, 3.0)
NOT_STYLES = ("torgb", "input")  # colours alone, and where StyleGAN3's first map lies


def style_weights(G: Generator) -> list[tuple[int, Tensor]]:
    """Return the row of ws that each layer's styles are made of, and the weight [styles, w_dim], in order of execution.

    The network itself is asked: every row gets a code of its own, and each layer is seen taking one.
    """
    assert isinstance(G.synthesis, nn.Module)
    ws = torch.arange(1.0, G.num_ws + 1, device=G.w_avg.device)[None, :, None] * torch.ones_like(G.w_avg)
    found: list[tuple[int, Tensor]] = []

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        row = round(float(inputs[0].flatten()[0])) - 1
        found.append((row, module.get_parameter("weight").detach()))

    handles = [
        module.register_forward_pre_hook(watch)
        for name, module in G.synthesis.named_modules()
        if name.endswith("affine") and not any(part in NOT_STYLES for part in name.split("."))
    ]
    try:
        with torch.no_grad():
            G.synthesis(ws, noise_mode="none")
    finally:
        for handle in handles:
            handle.remove()
    return found


def sefa(G: Generator, layers: Collection[int], num: int) -> tuple[Tensor, Tensor]:
    """Find the moves of w that change the styles of the rows `layers` most.

    Args:
        G: the generator.
        layers: rows of ws.
        num: how many moves.

    Returns:
        unit vectors [num, w_dim] and their eigenvalues [num], largest first.

    Raises:
        InputError: no style hangs on these rows, or more moves than w has dimensions.
    """
    if not 1 <= num <= G.w_dim:
        raise InputError(f"{num} directions are not in a space of {G.w_dim} dimensions")
    parts = [weight for row, weight in style_weights(G) if row in layers]
    if not parts:
        raise InputError(f"no style hangs on rows {sorted(layers)}", hint=f"rows go from 0 to {G.num_ws - 1}")
    styles = torch.cat([weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) for weight in parts]).double()
    values, vectors = torch.linalg.eigh(styles.T @ styles)
    return vectors.flip(1).T[:num].float(), values.flip(0)[:num].float()


def principal_directions(
    G: Generator, vectors: Tensor, layers: Sequence[int], name: str, *, seed: int = 0
) -> dict[str, Direction]:
    """Turn unit vectors [K, w_dim] into directions `<name>0`, `<name>1`...: 1 is one deviation of w along each.

    The sign is arbitrary and fixed here: the largest coordinate is above 0.
    """
    w = sample_w(G, NUM_SAMPLES, seed=seed)
    directions = {}
    for i, vector in enumerate(vectors.to(w)):
        vector = vector * vector[vector.abs().argmax()].sign()
        std = float((w @ vector).std())
        unit = f"{std:.3g} of w along it"
        directions[f"{name}{i}"] = Direction((vector * std).cpu(), tuple(layers), unit, std, SAFE_RANGE)
    return directions
