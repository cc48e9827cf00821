"""Ranking, precision, calibration and kept shares against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mien.errors import InputError
from mien.training.reliability import (
    auc,
    auc_interval,
    brier,
    calibration_error,
    kept_shares,
    precision_at,
    reliability,
    threshold_at,
)


def some(seed: int, num: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, num) / 12, rng.random(num) < 0.4  # with ties


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_order(seed: int) -> None:
    scores, labels = some(seed)
    wins = [float(g > b) + (g == b) / 2 for g in scores[labels] for b in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(sum(wins) / len(wins))
    assert auc(-scores, labels) == pytest.approx(1 - auc(scores, labels))


def test_auc_of_one_kind_is_no_number() -> None:
    assert math.isnan(auc(np.ones(3), np.ones(3, bool)))
    assert all(map(math.isnan, auc_interval(np.ones(3), np.ones(3, bool))))


def test_the_interval_holds_the_area_and_repeats() -> None:
    scores, labels = some(1, 200)
    low, high = auc_interval(scores, labels, num=300)
    assert low < auc(scores, labels) < high and high - low < 0.25
    assert auc_interval(scores, labels, num=300) == (low, high)


@pytest.mark.parametrize("keep", [0.1, 0.33, 0.5, 0.9, 1.0])
def test_precision_counts_the_best(keep: float) -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.random(50), rng.random(50) < 0.5
    best = sorted(range(50), key=lambda i: -scores[i])[: round(keep * 50)]
    assert precision_at(scores, labels, keep) == pytest.approx(np.mean([labels[i] for i in best]))
    assert (scores >= threshold_at(scores, keep)).sum() == len(best)


def test_nothing_to_keep() -> None:
    with pytest.raises(InputError, match="the share to keep is 0"):
        threshold_at(np.ones(3), 0)
    with pytest.raises(InputError, match="nothing to keep a share of"):
        threshold_at(np.zeros(0), 0.5)


def test_calibration_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    said = rng.random(3000)
    true = rng.random(3000) < said
    assert calibration_error(reliability(said, true)) < 0.03
    assert calibration_error(reliability(said, rng.random(3000) < 0.5)) > 0.2
    assert brier(said, true) == pytest.approx(np.mean([(p - t) ** 2 for p, t in zip(said, true, strict=True)]))
    total = 0.0
    for low in np.arange(10) / 10:
        mine = [i for i in range(3000) if low <= said[i] < low + 0.1 - 1e-12]
        total += len(mine) * abs(np.mean(said[mine]) - np.mean(true[mine]))
    assert calibration_error(reliability(said, true)) == pytest.approx(total / 3000, abs=1e-3)


def test_bins_hold_everything_once() -> None:
    said, true = np.array([0.0, 0.05, 0.95, 1.0]), np.array([False, True, True, True])
    bins = reliability(said, true)
    assert [(one.low, one.count, one.good) for one in bins] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert bins[0].said == pytest.approx(0.025)


def test_kept_shares_count_groups() -> None:
    groups = np.array([[20, 0.1, 10], [40, 0.9, 20], [60, 0.9, 30], [29.9, 0.2, 40], [50, 0.5, 50], [70, 0.4, 60]])
    kept = np.array([True, False, True, True, False, False])
    found = kept_shares(kept, groups)
    assert found["age"] == {
        "below 30": {"count": 2, "kept": 1.0},
        "30 to 50": {"count": 1, "kept": 0.0},
        "above 50": {"count": 3, "kept": pytest.approx(1 / 3)},
    }
    assert found["gender"]["looks female"] == {"count": 3, "kept": pytest.approx(2 / 3)}
    assert {name: one["kept"] for name, one in found["skin"].items()} == {
        "darkest third": 0.5,
        "middle third": 1.0,
        "lightest third": 0.0,
    }
    assert kept_shares(np.zeros(0, bool), np.zeros((0, 3))) == {"age": {}, "gender": {}, "skin": {}}
