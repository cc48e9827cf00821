"""A tiny generator and a tiny face network, on one thread."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mien.latents import LatentStats, latent_stats
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator


@pytest.fixture(autouse=True)
def quiet(one_thread: None) -> None:
    """These networks are too small to share."""


@pytest.fixture(scope="session")
def small_G(make_G: Callable[..., Generator]) -> Generator:
    """16 px, with noise that is seen."""
    net = make_G(z_dim=16, w_dim=16, num_layers=2, channel_base=512, channel_max=16)
    for name, p in net.named_parameters():
        if name.endswith("noise_strength"):
            p.data.fill_(0.1)
    return net


@pytest.fixture(scope="session")
def small_stats(small_G: Generator) -> LatentStats:
    return latent_stats(small_G, num=500)


@pytest.fixture(scope="session")
def small_face_net(make_face_net: Callable[..., FaceNet]) -> FaceNet:
    return make_face_net(1)
