"""Scores of generators, checked on generators and directions whose answers are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.training.validation import (
    Faces,
    FaceScores,
    compare,
    look,
    path_length,
    pictures,
    samples,
)


@pytest.fixture(scope="module")
def face_net() -> FaceNet:
    torch.manual_seed(0)
    return FaceNet(channels=(4, 8, 8, 8), num_blocks=(0, 0, 0, 0), embedding_dim=8).eval().requires_grad_(False)


@pytest.fixture
def G() -> Generator:
    torch.manual_seed(0)
    return Generator(8, 0, 8, 16, 3, dict(num_layers=2), channel_base=64, channel_max=4).eval()


def linear(matrix: Tensor) -> Any:
    """A generator whose pictures are `matrix` [8, 48] times w, and whose w is z."""
    return SimpleNamespace(
        z_dim=8,
        c_dim=0,
        w_dim=8,
        num_ws=2,
        w_avg=torch.zeros(8),
        mapping=lambda z, c: z[:, None].expand(-1, 2, -1),
        synthesis=lambda ws, noise_mode: (ws.mean(1) @ matrix.to(ws)).reshape(-1, 3, 4, 4),
    )


def test_scores_are_distances_of_features(face_net: FaceNet, G: Generator) -> None:
    trained = torch.randint(0, 256, [12, 3, 16, 16], dtype=torch.uint8)
    held_out = torch.randint(0, 128, [5, 3, 16, 16], dtype=torch.uint8)
    scores = FaceScores.of(face_net, trained, held_out)
    numbers = scores(G)
    assert numbers == scores(G)  # always the same latents
    assert numbers["frechet/trained"] > 0
    img = held_out.float() / 127.5 - 1
    torch.testing.assert_close(scores.held_out.features, face_net.describe(img), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores.held_out.identity, face_net(img).identity, atol=1e-4, rtol=1e-4)
    assert len(FaceScores.of(face_net, trained, held_out, num=4).trained.features) == 4


def test_samples_that_are_the_set_score_nothing(face_net: FaceNet, G: Generator) -> None:
    drawn = look(face_net, samples(G, 8))
    moved = Faces(drawn.features + 1, drawn.identity)
    numbers = FaceScores(face_net, drawn, moved)(G)
    spread = float(drawn.features.square().sum(dim=1).mean())
    assert numbers["frechet/trained"] == pytest.approx(0, abs=1e-3 * spread)
    size = drawn.features.shape[1]
    assert numbers["frechet/held_out"] == pytest.approx(size, rel=1e-2)  # a shift of 1 in each feature


def test_samples_obey_truncation(G: Generator) -> None:
    (mean,) = samples(G, 2, truncation_psi=0.0)
    torch.testing.assert_close(mean[0], mean[1])
    (free,) = samples(G, 2)
    assert not torch.allclose(free[0], free[1])
    assert sum(len(img) for img in samples(G, 40)) == 40


def test_pictures_are_chosen_evenly() -> None:
    pixels = torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1).expand(-1, 3, 8, 8)
    (some,) = pictures(pixels, most=5)
    assert ((some[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [0, 25, 50, 74, 99]


def test_copies_and_strangers_are_told_apart() -> None:
    rng = torch.Generator().manual_seed(0)

    def people(shift: float) -> Faces:
        identity = torch.nn.functional.normalize(torch.randn(40, 16, generator=rng), dim=1)
        return Faces(torch.randn(40, 4, generator=rng) + shift, identity)

    trained, held_out, strangers = people(0), people(0), people(50)
    copied = compare(trained, trained, held_out)
    assert copied["frechet/trained"] == pytest.approx(0, abs=1e-6)
    assert copied["precision/trained"] == copied["recall/trained"] == 1
    assert copied["nearest/samples"] == pytest.approx(1, abs=1e-6) and copied["nearest/held_out"] < 0.9
    assert copied["frechet/held_out"] == pytest.approx(copied["frechet/people"])
    far = compare(strangers, trained, held_out)
    assert far["precision/held_out"] == far["recall/held_out"] == 0
    assert far["frechet/held_out"] == pytest.approx(4 * 50**2, rel=0.05)


def test_path_length_of_a_linear_generator_is_that_of_its_lines() -> None:
    matrix = torch.randn(8, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    toy = linear(matrix)
    lines = torch.from_numpy(np.random.RandomState(0).standard_normal((400, 8)))
    lengths = ((lines[1::2] - lines[0::2]) @ matrix).square().sum(1).sort().values
    found = path_length(toy, lambda a, b: (a - b).double().square().sum(dim=(1, 2, 3)), num=200, epsilon=0.01)
    assert found == pytest.approx(float(lengths[2:-2].mean()), rel=1e-3)
