"""Layer blending: a generator between generators that were fine-tuned from one another, tensor by tensor.

A layer is known by its place, never by its name (StyleGAN3's names hold sizes). Every parameter and every buffer that
was learnt or measured is blended; filters, Fourier features and the mapping are the base's.

Source: Pinkney and Adler 2020, arXiv:2010.05334; relatedness: cosine of weights, which stay near their start.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mien.edits.schedule import Schedule
from mien.errors import InputError
from mien.nets import stylegan1, stylegan2, stylegan3
from mien.nets.generator import Generator

__all__ = [
    "MIN_COSINE",
    "SURE_COSINE",
    "Part",
    "Relatedness",
    "blend",
    "check_related",
    "parts",
    "relatedness",
    "resolutions",
]

log = logging.getLogger(__name__)

MIN_COSINE, SURE_COSINE = 0.2, 0.7
"""Generators less alike than the first are refused, less alike than the second warned of; strangers are at 0."""

FAMILIES: dict[type, str] = {
    stylegan1.Generator: "StyleGAN",
    stylegan2.Generator: "StyleGAN2",
    stylegan3.Generator: "StyleGAN3",
}
KIND_OF = {
    "weight": "conv",
    "const": "conv",
    "magnitude_ema": "conv",  # what the weights of its layer expect of their input
    "affine.weight": "affine",
    "affine.bias": "affine",
    "noise_const": "noise",
    "noise_strength": "noise",
    "bias": "bias",
}
FOURIER = ("freqs", "phases")
KEPT = (*FOURIER, "transform", "resample_filter", "up_filter", "down_filter")
HINT = "blend a generator with one that was fine-tuned from it, or two that were fine-tuned from a third"
TOLERANCE = 1e-2  # of features that were kept in 16 bits


# ---- What a generator is made of ------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A tensor that is blended: the layer that it belongs to, its kind (`schedule.KINDS`) and its name in there."""

    layer_idx: int
    kind: str
    name: str
    tensor: Tensor


def resolutions(G: Generator) -> list[float]:
    """Return for each layer how many pixels a side it can tell apart.

    StyleGAN has num_ws layers. StyleGAN2 too: the last one is the last ToRGB, others belong to the convolution before.
    StyleGAN3 has 15 as published; a layer of cut-off f holds what f periods, 2 f pixels, can hold.
    """
    synthesis: Any = G.synthesis
    if isinstance(G, stylegan3.Generator):
        return [2 * band.cutoff for band in synthesis.bands]
    rows = [float(layer.resolution) for block in synthesis.blocks() for layer in block.layers()]
    return rows if isinstance(G, stylegan1.Generator) else [*rows, float(G.img_resolution)]


def _modules(G: Generator) -> Iterator[tuple[int, nn.Module, bool]]:
    """Yield the layer, a module with tensors of it, and whether that makes colours."""
    synthesis: Any = G.synthesis
    if isinstance(G, stylegan3.Generator):
        yield 0, synthesis.input, False
        for i, layer in enumerate(synthesis.layers()):
            yield i, layer, layer.is_torgb
        return
    row = -1
    for block in synthesis.blocks():
        for layer in block.layers():
            yield (row := row + 1), layer, False
        if hasattr(block, "skip"):
            yield row, block.skip, False
        if hasattr(block, "torgb"):
            yield row + (block.resolution == G.img_resolution), block.torgb, True
    if isinstance(G, stylegan1.Generator):
        yield row, synthesis.torgb, True


def parts(G: Generator) -> list[Part]:
    """Return everything of the synthesis that is blended; the tensors are the generator's own."""
    found = [
        Part(i, _kind(name, is_torgb), name, tensor)
        for i, module, is_torgb in _modules(G)
        for name, tensor in module.state_dict(keep_vars=True).items()
        if name not in KEPT
    ]
    blocks = [] if isinstance(G, stylegan3.Generator) else cast(Any, G.synthesis).blocks()
    return [*(Part(0, "conv", "const", blocks[0].const) for _ in blocks[:1]), *found]


def _kind(name: str, is_torgb: bool) -> str:
    kind = KIND_OF[name]
    return "torgb" if is_torgb and kind != "affine" else kind


# ---- Who is related -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relatedness:
    """How alike the weights of two generators are: 1 for equal ones, about 0 for strangers."""

    cosine: float  # mean over the layers
    layers: tuple[float, ...]  # of the weights of convolutions and affines of each layer


def relatedness(A: Generator, B: Generator) -> Relatedness:
    """Compare two generators that are built alike, layer by layer.

    Raises:
        InputError: they are of two families, or built differently.
    """
    _check_build(A, B)
    num = len(resolutions(A))
    product, a_squared, b_squared = ([0.0] * num for _ in range(3))
    for a, b in zip(parts(A), parts(B), strict=True):
        if not a.name.endswith("weight"):
            continue
        x, y = a.tensor.detach().double().flatten(), b.tensor.detach().to(a.tensor.device).double().flatten()
        product[a.layer_idx] += float(x @ y)
        a_squared[a.layer_idx] += float(x @ x)
        b_squared[a.layer_idx] += float(y @ y)
    lengths = [math.sqrt(x * y) for x, y in zip(a_squared, b_squared, strict=True)]
    layers = tuple(p / length for p, length in zip(product, lengths, strict=True) if length > 0)
    return Relatedness(math.fsum(layers) / max(len(layers), 1), layers)


def _check_build(A: Generator, B: Generator) -> None:
    for G in (A, B):
        if type(G) not in FAMILIES:
            raise InputError(f"cannot blend a {type(G).__name__}", hint=f"known: {', '.join(FAMILIES.values())}")
    if type(A) is not type(B):
        raise InputError(f"cannot blend a {FAMILIES[type(A)]} with a {FAMILIES[type(B)]}", hint=HINT)
    if A.img_resolution != B.img_resolution:
        raise InputError(f"cannot blend {A.img_resolution} px with {B.img_resolution} px", hint=HINT)
    a, b = parts(A), parts(B)
    if [part[:3] for part in a] != [part[:3] for part in b]:
        raise InputError("cannot blend generators of different layers", hint=HINT)
    for one, other in zip(a, b, strict=True):
        mine, theirs = list(one.tensor.shape), list(other.tensor.shape)
        if mine != theirs:
            what = f"{one.name} of layer {one.layer_idx} is {mine} and {theirs}"
            raise InputError(f"cannot blend generators of different widths: {what}", hint=HINT)


def at_size(G: Generator, img_resolution: int) -> Generator:
    """Return what a StyleGAN2 with skips renders up to a side, its last blocks left out; any other one as it is."""
    if not isinstance(G, stylegan2.Generator) or img_resolution >= G.img_resolution:
        return G
    if any(block.architecture != "skip" for block in G.synthesis.blocks()):
        return G
    small = stylegan2.Generator(**G.init_kwargs | {"img_resolution": img_resolution})
    small.load_state_dict(G.state_dict(), strict=False)
    return small.to(G.w_avg.device).eval().requires_grad_(False)


def check_related(A: Generator, B: Generator, min_cosine: float = MIN_COSINE) -> None:
    """Refuse generators that are not related, and warn of those that are but far.

    Of two StyleGAN2 of different sides, one of which may have grown from the other, the blocks of both are compared.

    Raises:
        InputError: they are built differently, or the cosine of their weights is below `min_cosine`.
    """
    A, B = at_size(A, B.img_resolution), at_size(B, A.img_resolution)
    found = relatedness(A, B)
    if isinstance(A, stylegan3.Generator):
        for name in FOURIER:
            a, b = (getattr(cast(Any, G.synthesis).input, name) for G in (A, B))
            if not torch.allclose(a, b.to(a), rtol=TOLERANCE, atol=TOLERANCE):
                raise InputError("the generators are not related: their Fourier features differ", hint=HINT)
    if found.cosine < min_cosine:
        what = f"the generators are not related: the cosine of their weights is {found.cosine:.2f}"
        raise InputError(f"{what}, not {min_cosine:g} or more", hint=HINT)
    if found.cosine < SURE_COSINE:
        log.warning("the generators are far apart: the cosine of their weights is %.2f", found.cosine)


# ---- Blending -------------------------------------------------------------------------------------------------------


def _mixed(base: Tensor, others: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return (1 - the sum of the weights) base + the sum of weight times tensor; what has weight 0 is not read."""
    shares = [(weight, tensor) for weight, tensor in others if weight > 0]
    rest = 1 - math.fsum(weight for weight, _ in shares)
    if rest > 0:
        shares.insert(0, (rest, base))
    if len(shares) == 1:
        return shares[0][1]
    return torch.stack([weight * tensor.detach().to(base.device).double() for weight, tensor in shares]).sum(0)


def _check_sum(weights: Sequence[float], what: str) -> None:
    if (total := math.fsum(weights)) > 1 + 1e-9:
        hint = "the weights of all generators but the base add up to at most 1"
        raise InputError(f"the weights of {what} add up to {total:g}", hint=hint)


def blend(
    base: Generator, others: Sequence[tuple[Generator, Schedule]], *, min_cosine: float | None = MIN_COSINE
) -> Generator:
    """Blend generators: of each other one the share that its schedule says, and of `base` what remains of 1.

    Args:
        base: gives the mapping and what is never blended; also the device of the result.
        others: generators with how much of them each layer takes.
        min_cosine: how alike the weights must be, see `relatedness`; None if that was checked before.

    Returns:
        A new generator for evaluation, without gradients; those given are as they were.

    Raises:
        InputError: generators that do not fit or are not related, or weights that add up to more than 1.
    """
    for other, _ in others:
        _check_build(base, other)
        if min_cosine is not None:
            check_related(base, other, min_cosine)
    tables = [schedule.at(resolutions(base)) for _, schedule in others]
    blended = copy.deepcopy(base)
    with torch.no_grad():
        for own, *theirs in zip(parts(blended), *(parts(other) for other, _ in others), strict=True):
            weights = [table[own.kind][own.layer_idx] for table in tables]
            _check_sum(weights, f"layer {own.layer_idx} ({own.kind})")
            own.tensor.copy_(_mixed(own.tensor, list(zip(weights, (part.tensor for part in theirs), strict=True))))
        _blend_mapping(blended, others)
    cast(nn.Module, blended).eval().requires_grad_(False)
    return blended


def _blend_mapping(blended: Generator, others: Sequence[tuple[Generator, Schedule]]) -> None:
    taken = [(schedule.mapping, cast(nn.Module, other.mapping).state_dict()) for other, schedule in others]
    taken = [(weight, tensors) for weight, tensors in taken if weight > 0]
    _check_sum([weight for weight, _ in taken], "the mapping")
    for name, own in cast(nn.Module, blended.mapping).state_dict().items():
        if any(name not in tensors or tensors[name].shape != own.shape for _, tensors in taken):
            hint = "leave mapping=0: the base's mapping serves"
            raise InputError(f"cannot blend mappings that are built differently: {name}", hint=hint)
        own.copy_(_mixed(own, [(weight, tensors[name]) for weight, tensors in taken]))
