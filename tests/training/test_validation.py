"""Scores that a generator gets while it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.training.validation import FaceScores


@pytest.fixture(scope="module")
def face_net() -> FaceNet:
    torch.manual_seed(0)
    return FaceNet().eval().requires_grad_(False)


def test_scores_are_distances_of_features(face_net: FaceNet) -> None:
    torch.manual_seed(0)
    G = Generator(8, 0, 8, 16, 3, dict(num_layers=2), channel_base=64, channel_max=4).eval()
    trained = torch.randint(0, 256, [12, 3, 16, 16], dtype=torch.uint8)
    held_out = torch.randint(0, 128, [5, 3, 16, 16], dtype=torch.uint8)
    scores = FaceScores.of(face_net, trained, held_out)
    numbers = scores(G)
    assert numbers == scores(G)  # always the same latents
    assert numbers["frechet/trained"] > 0
    expected = face_net.describe(held_out.float() / 127.5 - 1)
    torch.testing.assert_close(scores.held_out, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_samples_that_are_the_set_score_nothing(face_net: FaceNet) -> None:
    torch.manual_seed(0)
    G = Generator(8, 0, 8, 16, 3, dict(num_layers=2), channel_base=64, channel_max=4).eval()
    z = torch.from_numpy(np.random.RandomState(0).standard_normal((8, G.z_dim))).float()
    features = face_net.describe(G(z, noise_mode="const").clamp(-1, 1))
    numbers = FaceScores(face_net, features, features + 1)(G)
    spread = float(features.square().sum(dim=1).mean())
    assert numbers["frechet/trained"] == pytest.approx(0, abs=1e-3 * spread)
    assert numbers["frechet/held_out"] == pytest.approx(features.shape[1], rel=1e-2)  # a shift of 1 in each feature
