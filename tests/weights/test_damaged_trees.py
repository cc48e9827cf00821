"""Whatever is wrong with the names and tensors of a file, reading and building it ends in a network or one error."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mien.errors import WeightsError
from mien.nets.animegan import AnimeGenerator
from mien.nets.discriminator import Discriminator
from mien.nets.pix2pix import UnetGenerator
from mien.nets.psp import PspEncoder
from mien.nets.stylegan2 import Generator
from mien.weights import animegan, foreign, mmagic, nvidia_names, pix2pix, rosinality, wrapped
from mien.weights.build import build
from mien.weights.checkpoint import Found, Recipe

READERS: tuple[Any, ...] = (foreign, nvidia_names, rosinality, wrapped, mmagic, pix2pix, animegan)
SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (3,), (1, 2, 3), (2, 2, 2, 2), (1, 1, 1, 1, 1), (1, 3, 1, 1))
NUM_CASES = 60


def found(name: str, net: Any) -> Found:
    return Found(Recipe(name, net.init_kwargs), net.state_dict())


def trees() -> dict[str, dict[Any, Any]]:
    """Small files of every family."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8)
    G = Generator(z_dim=8, w_dim=8, mapping_kwargs=dict(num_layers=2), **sizes)
    both = {"G_ema": found("stylegan2.Generator", G), "D": found("discriminator.Discriminator", Discriminator(**sizes))}
    E = PspEncoder(4, 8, in_resolution=32, channels=(4, 6, 8, 10), units=(1, 1, 2, 1))
    theirs = rosinality.to_tree(both)
    parts = {f"decoder.{name}": tensor for name, tensor in theirs["g_ema"].items()}
    parts |= {f"encoder.{name}": tensor for name, tensor in E.state_dict().items() if name != "latent_avg"}
    return {
        "NVIDIA": nvidia_names.to_tree(both),
        "rosinality": theirs,
        "e4e": {"state_dict": parts, "latent_avg": torch.zeros(8), "opts": {"encoder_type": "Encoder4Editing"}},
        "pix2pix": pix2pix.to_tree({"G": found("pix2pix.UnetGenerator", UnetGenerator(ngf=2, num_downs=3))}),
        "AnimeGANv2": dict(AnimeGenerator(4).state_dict()),
    }


def other(value: Any, rng: random.Random) -> Any:
    """Something else in the place of a value."""
    choices: list[Callable[[], Any]] = [
        lambda: None,
        lambda: "text",
        dict,
        lambda: [value],
        lambda: 3,
        lambda: torch.zeros(rng.choice(SHAPES)),
        lambda: torch.full((2, 2), torch.nan),
    ]
    if isinstance(value, Tensor):
        choices += [
            lambda: value.to(torch.int64),
            lambda: value.to(torch.complex64),
            lambda: value.permute(tuple(reversed(range(value.ndim)))),
        ]
        choices += [lambda: value[None], lambda: value.flatten()[:1], lambda: value.expand(2, *value.shape)]
    return rng.choice(choices)()


def renumbered(name: Any, rng: random.Random) -> Any:
    """A name with one of its digits changed."""
    places = [i for i, char in enumerate(str(name)) if char.isdigit()]
    if not places:
        return ("odd", name)
    place = rng.choice(places)
    return f"{name[:place]}{rng.choice(['0', '7', '99', '12345678'])}{name[place + 1 :]}"


def damaged(tree: dict[Any, Any], rng: random.Random) -> dict[Any, Any]:
    """A copy with a few values changed, taken away, renamed or doubled."""
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in tree.items()}
    for _ in range(rng.choice((1, 1, 2, 5))):
        part, name = tree, rng.choice(list(tree))
        if isinstance(part[name], dict) and part[name] and rng.random() < 0.9:
            part = part[name]
            name = rng.choice(list(part))
        value = part.pop(name)
        match rng.randrange(4):
            case 0:
                part[name] = other(value, rng)
            case 1:
                part[renumbered(name, rng)] = value
            case 2:
                part |= {name: value, rng.choice((3, None, "extra.weight", "module.x")): value}
        if not tree:
            break
    return tree


def build_all(tree: Any) -> list[nn.Module]:
    for reader in READERS:
        if reader.matches(tree):
            return [build(network, "file").net for network in reader.read(tree).networks.values()]
    return []


@pytest.mark.parametrize("family", ["NVIDIA", "rosinality", "e4e", "pix2pix", "AnimeGANv2"])
def test_every_damage_ends_in_a_network_or_one_error(family: str) -> None:
    rng, tree = random.Random(family), trees()[family]
    assert build_all(tree)
    num_errors = 0
    for _ in range(NUM_CASES):
        try:
            build_all(damaged(tree, rng))
        except WeightsError as err:
            num_errors += 1
            assert len(err.message) < 400
    assert num_errors > NUM_CASES / 4
