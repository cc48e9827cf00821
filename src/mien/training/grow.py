"""A generator of twice the resolution that begins where a smaller one ended.

Blocks of the same size keep their weights; new ones join with a picture of their own that starts at nothing, so that
the first picture of the grown generator is the old one, enlarged.

Source: the idea is progressive growing, Karras et al. 2018, arXiv:1710.10196, in the skip architecture of Karras et al.
2020, Sec. 4.1, arXiv:1912.04958.
"""

from __future__ import annotations

import torch

from mien.errors import InputError
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator

__all__ = ["grow_discriminator", "grow_generator"]


def grow_generator(G: Generator, img_resolution: int) -> Generator:
    """Return a generator for `img_resolution` with the weights of `G` where both have the same block.

    Args:
        G: of architecture `skip`.
        img_resolution: a power of two above that of `G`.

    Raises:
        InputError: another architecture, or not larger.
    """
    if img_resolution <= G.img_resolution:
        raise InputError(f"{img_resolution} px is not more than the {G.img_resolution} px of this generator")
    if any(block.architecture != "skip" for block in G.synthesis.blocks()):
        raise InputError("only generators of architecture skip can grow", hint="others have no picture at each size")
    grown = Generator(**G.init_kwargs | {"img_resolution": img_resolution})
    grown.load_state_dict(G.state_dict(), strict=False)
    with torch.no_grad():
        for block in grown.synthesis.blocks():
            if block.resolution > G.img_resolution:
                block.torgb.weight.zero_()
    return grown


def grow_discriminator(D: Discriminator, img_resolution: int) -> Discriminator:
    """Return a discriminator for `img_resolution` with the weights of `D` in the blocks that both have."""
    if img_resolution <= D.img_resolution:
        raise InputError(f"{img_resolution} px is not more than the {D.img_resolution} px of this discriminator")
    grown = Discriminator(**D.init_kwargs | {"img_resolution": img_resolution})
    kept = {name: tensor for name, tensor in D.state_dict().items() if name in grown.state_dict()}
    grown.load_state_dict(kept, strict=False)
    return grown
