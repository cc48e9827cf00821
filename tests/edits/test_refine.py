"""Refining, where the best direction is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.edits.directions import Direction
from mien.edits.probe import Probe, Scores
from mien.edits.refine import RefineConfig, refine

SPREAD = {"smile": 1.0, "age": 1.0}


def linear() -> Any:
    """A generator whose pictures are w in their first 8 pixels."""
    return SimpleNamespace(
        img_resolution=4,
        synthesis=lambda ws, noise_mode: F.pad(ws.mean(1), (0, 40)).reshape(-1, 3, 4, 4) / 16,
    )


def scorer(img: Tensor) -> Scores:
    """Two coordinates smile; one of them is also who the face is, and the third is age."""
    w = 16 * img.flatten(1)
    return Scores({"smile": w[:, 0] + w[:, 1], "age": w[:, 2]}, F.normalize(F.pad(w[:, 1:2], (0, 1), value=1.0), dim=1))


def test_refining_keeps_the_strength_and_finds_the_way_round_the_identity() -> None:
    ws = torch.randn(200, 1, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 2, -1)
    start = Direction(torch.tensor([0.3, 0.7, 0.5, 0, 0, 0, 0, 0]), (0, 1), "", 1.0, (0.0, 0.0))
    config = RefineConfig(lr=0.3, prior_weight=0.01, largest_shift=0.0)
    slope = torch.tensor([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    found = refine(linear(), scorer, ws, start, "smile", ["age"], SPREAD, slope, 150, config)
    assert found.vector.shape == (2, 8)
    before, after = (Probe(linear(), ws[:50], scorer, SPREAD).measured(d) for d in (start, found))
    assert after.effects["smile"] == pytest.approx(1, abs=0.1)
    assert abs(after.effects["age"]) < 0.1 < before.effects["age"]
    assert after.identity > before.identity + 0.2
    again = refine(linear(), scorer, ws, start, "smile", ["age"], SPREAD, slope, 150, config)
    assert torch.equal(again.vector, found.vector)


def test_what_the_linear_model_promises_is_kept() -> None:
    """A scorer that also pays for the last coordinate, which no two faces differ by."""

    def fooled(img: Tensor) -> Scores:
        honest = scorer(img)
        return Scores(
            {**honest.attributes, "smile": honest.attributes["smile"] + 160 * img.flatten(1)[:, 7]}, honest.identity
        )

    ws = torch.randn(200, 1, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 2, -1).clone()
    ws[..., 7] *= 0.3
    start, slope = Direction(torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0]), (0, 1), "", 1.0, (0.0, 0.0)), torch.ones(8)
    slope[2:] = 0
    shares = []
    for weight in (0.0, 10.0):
        config = RefineConfig(lr=0.3, promise_weight=weight, largest_shift=0.0)
        found = refine(linear(), fooled, ws, start, "smile", [], SPREAD, slope, 150, config)
        shares.append(float((found.vector @ slope).mean()))
    assert shares[0] < 0.7 < 0.9 < shares[1]
