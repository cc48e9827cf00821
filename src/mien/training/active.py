"""Which pairs to label next: some at random, the others where the judge is least sure, far from one another.

Random ones keep the judge honest: only by them can it be calibrated, and only they find what it is sure of wrongly.
The first round, before there is a judge, is diverse.

Source: uncertainty: Lewis and Gale 1994 (SIGIR); diversity by the farthest point: Gonzalez 1985, Sener and Savarese
2018 (core sets), arXiv:1708.00489.
"""

from __future__ import annotations

import numpy as np

__all__ = ["choose_next", "farthest"]

WIDER = 4  # how many uncertain ones there are to choose the diverse ones from, for one that is chosen


def farthest(features: np.ndarray, chosen: np.ndarray, candidates: np.ndarray, num: int) -> list[int]:
    """Return up to `num` of the candidates, each as far as can be from all that were chosen before it.

    Args:
        features: [N, D].
        chosen: rows to keep away from; where there are none, from the mean.
        candidates: rows to choose from.
        num: how many.
    """
    points = features[candidates]
    near = features[chosen] if len(chosen) else features.mean(0, keepdims=True)
    distance = np.min([np.square(points - one).sum(1) for one in near], axis=0)
    found: list[int] = []
    for _ in range(min(num, len(candidates))):
        best = int(distance.argmax())
        found.append(int(candidates[best]))
        distance = np.minimum(distance, np.square(points - points[best]).sum(1))
        distance[best] = -1.0
    return found


def choose_next(
    features: np.ndarray,
    is_open: np.ndarray,
    probabilities: np.ndarray | None,
    num: int,
    *,
    random_share: float = 0.2,
    seed: int = 0,
) -> list[int]:
    """Return rows to label next, in an order that mixes the kinds.

    Args:
        features: [N, D], of one scale.
        is_open: bool [N], who has no label yet.
        probabilities: [N] of being good, None while nobody can say.
        num: how many; fewer where fewer are open.
        random_share: of them.
        seed: of the random ones and of the order.
    """
    rng = np.random.default_rng(seed)
    open_rows = np.flatnonzero(is_open)
    num = min(num, len(open_rows))
    at_random = rng.permutation(open_rows)[: round(random_share * num)]
    rest = np.setdiff1d(open_rows, at_random)
    known = np.concatenate([np.flatnonzero(~is_open), at_random])
    if probabilities is not None:
        by_doubt = np.argsort(np.abs(probabilities[rest] - 0.5), kind="stable")
        rest = rest[by_doubt[: WIDER * num]]
    chosen = [*map(int, at_random), *farthest(features, known, rest, num - len(at_random))]
    return [chosen[i] for i in rng.permutation(len(chosen))]
