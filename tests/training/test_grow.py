"""What a grown generator keeps."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.discriminator import Discriminator
from mien.nets.ops import upsample2d
from mien.nets.stylegan2 import Generator
from mien.training.grow import grow_discriminator, grow_generator


def test_the_first_picture_is_the_old_one_enlarged() -> None:
    torch.manual_seed(0)
    G = Generator(8, 0, 8, 16, 3, dict(num_layers=2), channel_base=128, channel_max=8)
    grown = grow_generator(G, 32)
    assert (grown.num_ws, grown.img_resolution) == (G.num_ws + 2, 32)
    z = torch.randn(2, 8)
    assert torch.equal(G.mapping(z)[:, 0], grown.mapping(z)[:, 0])
    img, large = G(z, noise_mode="const"), grown(z, noise_mode="const")
    torch.testing.assert_close(large, upsample2d(img, G.synthesis.b16.resample_filter))
    grown.synthesis(grown.mapping(z)).square().sum().backward()
    assert grown.synthesis.b32.torgb.weight.grad.abs().sum() > 0


def test_a_grown_discriminator_keeps_its_inner_blocks() -> None:
    D = Discriminator(0, 16, 3, channel_base=128, channel_max=8)
    grown = grow_discriminator(D, 32)
    assert torch.equal(grown.b16.conv0.weight, D.b16.conv0.weight) and torch.equal(grown.b4.out.weight, D.b4.out.weight)
    assert grown(torch.randn(2, 3, 32, 32)).shape == (2, 1)


def test_only_larger_skip_networks() -> None:
    kwargs = dict(channel_base=64, channel_max=4)
    with pytest.raises(InputError, match="not more than the 16 px"):
        grow_generator(Generator(4, 0, 4, 16, 3, synthesis_kwargs=kwargs), 16)
    with pytest.raises(InputError, match="architecture skip"):
        grow_generator(Generator(4, 0, 4, 8, 3, synthesis_kwargs=kwargs | {"architecture": "resnet"}), 16)
    with pytest.raises(InputError, match="not more than the 16 px"):
        grow_discriminator(Discriminator(0, 16, 3, **kwargs), 8)
