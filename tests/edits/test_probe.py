"""What a direction does to faces, measured where the answer is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mien.edits.directions import Direction
from mien.edits.probe import Probe, Scores, sample_spread, score_direction
from mien.errors import InputError

SPREAD = {"smile": 0.2, "age": 1.0}


def toy() -> Any:
    """A generator whose pictures begin with w, and whose w is z."""
    return SimpleNamespace(
        z_dim=8,
        w_dim=8,
        c_dim=0,
        num_ws=2,
        w_avg=torch.zeros(8),
        mapping=lambda z, c: z[:, None].expand(-1, 2, -1),
        synthesis=lambda ws, noise_mode: torch.nn.functional.pad(ws.mean(1), (0, 40)).reshape(-1, 3, 4, 4),
    )


def scorer(img: Tensor) -> Scores:
    """Smile is w0, age ten times w1; the identity turns with w1."""
    w = img.flatten(1)
    turned = torch.stack([w[:, 1].cos(), w[:, 1].sin()], dim=1)
    return Scores({"smile": w[:, 0], "age": 10 * w[:, 1]}, turned)


@pytest.fixture
def probe() -> Probe:
    ws = torch.randn(6, 1, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 2, -1) / 10
    return Probe(toy(), ws, scorer, SPREAD)


@pytest.fixture
def direction() -> Direction:
    vector = torch.zeros(8)
    vector[0], vector[1] = 0.2, 0.1
    return Direction(vector, (0, 1), "0.2", 0.2, (-2.0, 2.0))


def test_a_direction_gets_its_strength_purity_and_identity(probe: Probe, direction: Direction) -> None:
    found = score_direction(probe, "smile", direction, others=["age"], strengths=(-1.0, 0.0, 1.0))
    assert found.strength == pytest.approx(1, abs=1e-4)
    assert found.purity == pytest.approx(0.5**0.5, abs=1e-4)  # age moves as much
    assert found.curves["age"] == pytest.approx([-1, 0, 1], abs=1e-4)
    assert found.identities == pytest.approx([float(torch.tensor(0.1).cos()), 1, float(torch.tensor(0.1).cos())])
    alone = score_direction(probe, "smile", direction, others=[])
    assert alone.purity == pytest.approx(1)
    with pytest.raises(InputError, match="two strengths"):
        score_direction(probe, "smile", direction, others=[], strengths=(1.0,))


def test_side_effects_and_identity_are_kept_with_the_direction(probe: Probe, direction: Direction) -> None:
    found = probe.measured(direction)
    assert found.effects == pytest.approx({"smile": 1, "age": 1}, abs=1e-3)
    assert found.identity == pytest.approx(float(torch.tensor(0.2).cos()), abs=1e-3)
    assert torch.equal(found.vector, direction.vector)


def test_the_safe_range_ends_where_the_face_is_somebody_else(probe: Probe, direction: Direction) -> None:
    low, high = probe.safe_range("smile", direction, largest=4.0, least_identity=float(torch.tensor(0.21).cos()))
    assert (low, high) == (-2.0, 2.0)
    assert probe.safe_range("smile", direction.scaled(-1), largest=4.0, least_identity=-1) == (0.0, 0.0)


def test_spread_is_that_of_truncated_samples() -> None:
    found = sample_spread(toy(), scorer, 4000, truncation_psi=0.1)
    assert found == pytest.approx({"smile": 0.1, "age": 1.0}, rel=0.05)
