"""Where an inversion starts: each start gives a code ws [N, num_ws, w_dim] for N pictures, from one table.

Source: nearest sample: the usual practice with Karras et al. 2020, App. D; iterative encoding: Alaluf et al. 2021
(ReStyle), Sec. 3, arXiv:2104.02699, here with an encoder that was trained for one look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mien.errors import InputError, WeightsError
from mien.inversion.objective import FaceModel, Target, TermWeights, picture_terms, total
from mien.latents import LatentStats, broadcast, sample_w
from mien.nets.generator import Generator

__all__ = ["STARTS", "Means", "Start", "start_codes"]

Encode = Callable[[Tensor], Tensor]
"""img [N, 3, H, W] to ws [N, num_ws, w_dim] in one look."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an inversion may use beside the generator and the pictures."""

    stats: LatentStats
    encode: Encode | None = None
    face_model: FaceModel | None = None
    given: Tensor | None = None  # ws [N, num_ws, w_dim], for the start of this name
    dtype: torch.dtype = torch.float32  # of the generator's feature maps
    seed: int = 0
    terms: TermWeights = field(default_factory=TermWeights)  # by which starts are compared


Start = Callable[[Generator, Tensor, Means], Tensor]

NUM_SAMPLES, TRUNCATION, BATCH = 512, 0.7, 32
NUM_PASSES, SHARES = 4, (1.0, 0.5, 0.25)


def _distance(G: Generator, ws: Tensor, target: Target, means: Means) -> Tensor:
    """How far renders of ws [N, num_ws, w_dim] are from their pictures, [N]."""
    with torch.no_grad():
        terms = picture_terms(G.synthesis(ws, noise_mode="const"), target, means.terms, means.face_model)
    return total(terms, means.terms)


def average(G: Generator, img: Tensor, means: Means) -> Tensor:
    """Start everybody at the mean of w."""
    return means.stats.to(img.device).w_avg.expand(len(img), G.num_ws, -1).clone()


def nearest(G: Generator, img: Tensor, means: Means) -> Tensor:
    """Start at the nearest of fixed samples, by the distance that is optimised later."""
    w_avg = means.stats.to(img.device).w_avg
    samples = w_avg.lerp(sample_w(G, NUM_SAMPLES, seed=means.seed), TRUNCATION)
    target = Target.of(img, means.face_model)
    best = torch.full([len(img)], torch.inf, device=img.device)
    codes = average(G, img, means)
    for w in samples.split(BATCH):
        ws = broadcast(w, G.num_ws)
        renders = Target.of(_render(G, ws), means.face_model)
        for i in range(len(img)):
            one = target.select(torch.full([len(ws)], i, device=img.device))
            distance = total(_between(renders, one, means), means.terms)
            if distance.min() < best[i]:
                best[i], codes[i] = distance.min(), ws[distance.argmin()]
    return codes


def _render(G: Generator, ws: Tensor) -> Tensor:
    with torch.no_grad():
        return G.synthesis(ws, noise_mode="const")


def _between(renders: Target, target: Target, means: Means) -> dict[str, Tensor]:
    """Compare renders that the face network has seen already."""
    return picture_terms(renders.img, target, means.terms, means.face_model, seen=renders)


def encoder(_G: Generator, img: Tensor, means: Means) -> Tensor:
    """Start at what the encoder sees in one look."""
    if means.encode is None:
        hint = "start from average or nearest, or train one: mien train encoder"
        raise WeightsError("this generator has no encoder", hint=hint)
    return means.encode(img)


def iterative(G: Generator, img: Tensor, means: Means) -> Tensor:
    """Look again and again: move by what the encoder sees of the picture and not of the render.

    A move, or a half or a quarter of it, is kept only where it brings the render nearer to the picture.
    """
    target = Target.of(img, means.face_model)
    seen = ws = encoder(G, img, means)
    assert means.encode is not None
    distance = _distance(G, ws, target, means)
    for _ in range(NUM_PASSES):
        move = seen - means.encode(_render(G, ws))
        before, base = distance.clone(), ws
        for share in SHARES:
            trial = base + share * move
            far = _distance(G, trial, target, means)
            ws = torch.where((far < distance)[:, None, None], trial, ws)
            distance = torch.minimum(far, distance)
        if not (distance < before).any():
            break
    return ws


def given(G: Generator, img: Tensor, means: Means) -> Tensor:
    """Start at the codes that the caller has."""
    wanted = (len(img), G.num_ws, G.w_dim)
    if means.given is None or means.given.shape != wanted:
        found = "none" if means.given is None else list(means.given.shape)
        raise InputError(f"this start needs codes {list(wanted)}, got {found}")
    return means.given.to(img.device)


def auto(G: Generator, img: Tensor, means: Means) -> Tensor:
    """Start from the encoder where there is one, else from the mean."""
    return average(G, img, means) if means.encode is None else encoder(G, img, means)


STARTS: Mapping[str, Start] = {
    "auto": auto,
    "average": average,
    "nearest": nearest,
    "encoder": encoder,
    "iterative": iterative,
    "given": given,
}


def start_codes(G: Generator, img: Tensor, name: str, means: Means) -> Tensor:
    """Return ws [N, num_ws, w_dim] of the start of that name.

    Raises:
        InputError: an unknown name, or codes that are not given.
        WeightsError: it needs an encoder and there is none.
    """
    if name not in STARTS:
        raise InputError(f"no start named {name!r}", hint=f"known: {', '.join(STARTS)}")
    return STARTS[name](G, img, means)
