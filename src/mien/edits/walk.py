"""A walk from person to person and back to the first: codes on a smooth closed loop, noise maps along with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.latents import loop_weights

__all__ = ["walk"]


def walk(codes: Sequence[Inversion], num_frames: int, own_noise: Sequence[Tensor] = ()) -> Iterator[Inversion]:
    """Yield the codes of a closed loop that meets every given one, at equal distances in time.

    Args:
        codes: of one generator, each `ws` [num_ws, w_dim].
        num_frames: codes of the whole loop.
        own_noise: the generator's own noise maps [1, 1, h, w], for the codes that have none.

    Raises:
        InputError: no codes, no frames, or codes of two generators.
    """
    if len({code.ws.shape for code in codes}) > 1 or len({code.network for code in codes} - {""}) > 1:
        raise InputError("the codes are of two generators", hint="give codes that were made with one --network")
    weights = loop_weights(len(codes), num_frames)
    ws = torch.tensordot(weights, torch.stack([code.ws.float().cpu() for code in codes]), dims=1)
    maps = _noise(codes, own_noise)
    for i in range(num_frames):
        noise = tuple(torch.tensordot(weights[i], keys, dims=1) for keys in maps)
        yield Inversion(ws=ws[i], noise=noise, network=codes[0].network, method="walk")


def _noise(codes: Sequence[Inversion], own_noise: Sequence[Tensor]) -> list[Tensor]:
    """Return for each layer the maps of all codes [K, h, w]; nothing where all use the generator's own."""
    if not any(code.noise for code in codes):
        return []
    own = tuple(noise[0, 0].cpu() for noise in own_noise)
    given = [code.noise or own for code in codes]
    if len({tuple(noise.shape for noise in maps) for maps in given}) > 1:
        raise InputError("the codes have noise maps of two generators", hint="invert the photos again")
    return [torch.stack([noise.float().cpu() for noise in maps]) for maps in zip(*given, strict=True)]
