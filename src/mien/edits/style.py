"""Style transfer: the colour, light and texture of one code on the shape of another, or another generator's drawing.

The last rows of a code make the style, so a person with the last rows of somebody else stays the person. Where only
texture and light are wanted, the colour is given back afterwards: the chroma of the result gets the mean and the
covariance that it had, and its luminance stays.

Source: rows of a style: Karras et al. 2019, Sec. 3.1, arXiv:1812.04948; chroma apart from luminance: Gatys et al. 2016,
arXiv:1606.05897; the map between two Gaussians: Pitié and Kokaram 2007, doi:10.1049/cp:20070055; the same code in a
fine-tuned generator: Pinkney and Adler 2020, arXiv:2010.05334.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from mien.edits.blend import MIN_COSINE, check_related
from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.personal import Changes
from mien.latents import fitted, mix
from mien.nets.generator import Generator

__all__ = ["check_decodes", "decode", "restyle", "with_chroma_of"]

LUMA = torch.tensor([0.2126, 0.7152, 0.0722])
"""Weights of red, green and blue in the luminance. Source: ITU-R BT.709."""

LEAST_SPREAD = 0.01  # of chroma along each axis: what is grey is not made loud


def restyle(ws: Tensor, ws_style: Tensor, layers: Iterable[int], psi: float = 0.0) -> Tensor:
    """Give ws [N, num_ws, w_dim] the rows `layers` of `ws_style`, with the share `psi` of its own kept in them.

    Raises:
        InputError: a row that is not there, a code of another generator, or a share outside 0 to 1.
    """
    if not 0 <= psi <= 1:
        raise InputError(f"psi is {psi:g}", hint="0 takes the style's rows, 1 keeps the person's")
    if ws.shape[1:] != ws_style.shape[1:]:
        return mix(ws, ws_style, layers)  # which says why not
    return mix(ws, ws_style.to(ws).lerp(ws, psi), layers)


def _split(img: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance [N, 1, H, W] and chroma [N, 2, H, W] (blue and red less luminance)."""
    luma = (img * LUMA.to(img)[:, None, None]).sum(1, keepdim=True)
    return luma, img[:, [2, 0]] - luma


def _joined(luma: Tensor, chroma: Tensor) -> Tensor:
    """Return img [N, 3, H, W] of what `_split` gives."""
    blue, red = (luma + chroma).split(1, dim=1)
    weights = LUMA.to(luma)
    green = (luma - weights[0] * red - weights[2] * blue) / weights[1]
    return torch.cat([red, green, blue], dim=1)


def _moments(chroma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [N, 2, 1] and covariance [N, 2, 2] over the pixels of [N, 2, P]."""
    mean = chroma.mean(2, keepdim=True)
    centred = chroma - mean
    return mean, centred @ centred.mT / chroma.shape[2]


def _root(matrix: Tensor, power: float) -> Tensor:
    """A power of symmetric matrices [N, 2, 2] whose eigenvalues are not negative."""
    values, axes = torch.linalg.eigh(matrix)
    return axes @ torch.diag_embed(values.clamp(min=0).pow(power)) @ axes.mT


def with_chroma_of(img: Tensor, reference: Tensor) -> Tensor:
    """Give img [N, 3, H, W] in [-1, 1] the mean and covariance of the reference's chroma; its luminance stays.

    The chroma is mapped linearly, as one Gaussian is carried to another with the least movement.
    """
    luma, chroma = _split(img.float())
    _, wanted = _split(reference.float())
    flat = chroma.flatten(2)
    (mean, cov), (wanted_mean, wanted_cov) = _moments(flat), _moments(wanted.flatten(2))
    floor = LEAST_SPREAD**2 * torch.eye(2, device=img.device)
    root = _root(wanted_cov + floor, 0.5)
    carry = root @ _root(root @ (cov + floor) @ root, -0.5) @ root
    return _joined(luma, (carry @ (flat - mean) + wanted_mean).view_as(chroma)).clamp(-1, 1)


def check_decodes(home: Generator, by: Generator, min_cosine: float = MIN_COSINE) -> None:
    """Refuse a generator to which the codes of `home` mean nothing.

    Raises:
        InputError: it is built differently, or its weights are less alike than `min_cosine`, see `blend.relatedness`.
    """
    try:
        check_related(home, by, min_cosine)
    except InputError as err:
        hint = "render by a generator that was fine-tuned from the code's own"
        raise InputError(f"the code means nothing to the other generator: {err.message}", hint=hint) from err


def decode(inversion: Inversion, home: Generator, by: Generator, *, min_cosine: float | None = MIN_COSINE) -> Tensor:
    """Render a code by another generator than the one it was found in, as img [1, 3, H, W].

    What was found for the person beside the code (noise, changes of weights and features) is added to the other
    generator too. It has no meaning for a stranger, so that with a `min_cosine` of None the code goes alone.

    Args:
        inversion: the code.
        home: the generator that it was found in.
        by: the generator that renders it.
        min_cosine: how alike their weights must be; None renders by any generator that takes the code.

    Raises:
        InputError: the generators are not related, or the code does not fit.
    """
    if min_cosine is None:
        return replace(inversion, noise=(), changes=Changes()).render(by)
    check_decodes(home, by, min_cosine)
    if by.num_ws != home.num_ws:  # one has grown from the other; noise is of a size
        inversion = replace(inversion, ws=fitted(inversion.ws[None], by.num_ws)[0], noise=())
    return inversion.render(by)
