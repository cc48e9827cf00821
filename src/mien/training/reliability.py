"""How far the scores of a judge can be trusted: ranking, precision at a keep rate, calibration, and who is kept.

Scores are numbers that are higher for what is more likely good; labels are True for good. Probabilities are scores from
0 to 1 that claim to be frequencies: of what has 0.8, eight in ten are good.

Source: area under the curve as a rank statistic: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747; Brier
1950; expected calibration error: Naeini et al. 2015 (AAAI).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.errors import InputError
from mien.training.pair_features import GROUPS

__all__ = [
    "Bin",
    "auc",
    "auc_interval",
    "brier",
    "calibration_error",
    "kept_shares",
    "precision_at",
    "reliability",
    "threshold_at",
]

Numbers = np.ndarray
AGES, GENDERS, THIRDS = (30.0, 50.0), (0.5,), (1 / 3, 2 / 3)
NAMES: Mapping[str, tuple[str, ...]] = {
    "age": ("below 30", "30 to 50", "above 50"),
    "gender": ("looks female", "looks male"),
    "skin": ("darkest third", "middle third", "lightest third"),
}


@dataclass(frozen=True)
class Bin:
    """Pairs whose probability lies from `low` to below `high`: how many, what was said of them, and what is true."""

    low: float
    high: float
    count: int
    said: float  # mean probability
    good: float  # share that is good


def auc(scores: Numbers, labels: Numbers) -> float:
    """Return how often a good one has a higher score than a bad one, ties counting half; nan without both.

    >>> auc(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    0.75
    """
    good, bad = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(good) or not len(bad):
        return math.nan
    below, up_to = np.searchsorted(bad, good, side="left"), np.searchsorted(bad, good, side="right")
    return float((below + up_to).sum() / 2 / (len(good) * len(bad)))


def auc_interval(scores: Numbers, labels: Numbers, *, num: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return where 95 % of the areas of resampled sets lie (the bootstrap of Efron 1979); nan without both labels."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(scores), (num, len(scores)))
    areas = [auc(scores[rows], labels[rows]) for rows in drawn]
    low, high = np.nanquantile(areas, [0.025, 0.975]) if not np.isnan(areas).all() else (math.nan, math.nan)
    return float(low), float(high)


def threshold_at(scores: Numbers, keep: float) -> float:
    """Return the score of the last one that is kept when the best `keep` of all are.

    >>> threshold_at(np.array([0.1, 0.9, 0.5, 0.7]), 0.5)
    0.7

    Raises:
        InputError: there are no scores, or `keep` is not above 0 and up to 1.
    """
    if not 0 < keep <= 1:
        raise InputError(f"the share to keep is {keep:g}", hint="write for example 0.9")
    if not len(scores):
        raise InputError("there is nothing to keep a share of", hint="make pairs first: mien pairs make")
    return float(np.sort(scores)[::-1][max(round(keep * len(scores)), 1) - 1])


def precision_at(scores: Numbers, labels: Numbers, keep: float) -> float:
    """Return the share of good ones among the best `keep` of all."""
    return float(labels[scores >= threshold_at(scores, keep)].mean())


def brier(probabilities: Numbers, labels: Numbers) -> float:
    """Return the mean squared distance of probabilities from what is true: 0 is perfect, 0.25 always says a half."""
    return float(np.square(probabilities - labels).mean())


def reliability(probabilities: Numbers, labels: Numbers, *, num_bins: int = 10) -> list[Bin]:
    """Return the bins of equal width that hold anything."""
    place = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    return [
        Bin(i / num_bins, (i + 1) / num_bins, int(mine.sum()), float(probabilities[mine].mean()), labels[mine].mean())
        for i in range(num_bins)
        if (mine := place == i).any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Return the mean distance of what was said and what is true, over bins by how many they hold."""
    return sum(one.count * abs(one.said - one.good) for one in bins) / max(sum(one.count for one in bins), 1)


def kept_shares(is_kept: Numbers, groups: Numbers) -> dict[str, dict[str, Any]]:
    """Count who is kept, [N] of whom `groups` [N, 3] tells (`GROUPS`); thirds of the skin are those of all N.

    Returns:
        By what is told, by group: `count` of all, and the `kept` share; groups that nobody is in are left out.
    """
    skin = groups[:, GROUPS.index("skin")]
    edges = {"age": AGES, "gender": GENDERS, "skin": tuple(np.quantile(skin, THIRDS)) if len(skin) else THIRDS}
    found: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(GROUPS):
        place = np.digitize(groups[:, column], edges[name])
        members = {word: place == i for i, word in enumerate(NAMES[name])}
        found[name] = {
            word: {"count": int(mine.sum()), "kept": float(is_kept[mine].mean())}
            for word, mine in members.items()
            if mine.any()
        }
    return found
