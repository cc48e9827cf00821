"""A tiny generator and a tiny face network, on one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mien.latents import LatentStats, latent_stats
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_G() -> Generator:
    """16 px, with noise that is seen."""
    torch.manual_seed(0)
    kwargs = dict(channel_base=512, channel_max=16)
    net = Generator(16, 0, 16, 16, 3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=kwargs)
    for name, p in net.named_parameters():
        if name.endswith("noise_strength"):
            p.data.fill_(0.1)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_stats(small_G: Generator) -> LatentStats:
    return latent_stats(small_G, num=500)


@pytest.fixture(scope="session")
def small_face_net() -> FaceNet:
    torch.manual_seed(1)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    return net.eval().requires_grad_(False)
