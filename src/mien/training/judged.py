"""Pairs that somebody judged, made again from a table: every line has the seed, the truncation and the blend.

The columns beside `key` and `label` are `seed`, `psi` and `schedule`, which is how much of the target each layer of the
source takes (`mien.edits.schedule`; 1 is the target itself). Examples that nobody had to judge come with them: pairs
of low truncation as good ones, and the same spoiled as bad ones.
"""

from __future__ import annotations

from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from mien.edits.blend import blend
from mien.edits.schedule import parse_schedule
from mien.errors import InputError
from mien.latents import sample_ws, synthesize
from mien.nets.generator import Generator
from mien.training.pair_features import Measured, PairMeter
from mien.training.pair_labels import PairLabel, PairLabels
from mien.training.spoil import WAYS, spoil

__all__ = ["measure_judged", "measure_spoiled"]

BATCH = 16
SAFE_PSI = 0.5
FIRST_SEED = 2_000_000  # of made-up examples, far from any that are judged


def _recipe(row: PairLabel) -> tuple[str, float, int]:
    try:
        return row.facts["schedule"], float(row.facts["psi"]), int(row.facts["seed"])
    except (KeyError, ValueError) as err:
        what = f"{row.key} has no seed, psi and schedule"
        raise InputError(what, hint="give a folder of pairs, or labels with those columns") from err


def _pair(source: Generator, target: Generator, seeds: list[int], psi: float) -> tuple[Tensor, Tensor]:
    ws = sample_ws(source, seeds, truncation_psi=psi)
    people, drawings = (synthesize(G, ws).clamp(-1, 1) for G in (source, target))
    return people, drawings


@torch.no_grad()
def measure_judged(source: Generator, target: Generator, labels: PairLabels, meter: PairMeter) -> Measured:
    """Make the pairs of a table again and measure them, in the table's order without what was skipped.

    Raises:
        InputError: a line lacks its seed, truncation or schedule; generators that cannot be blended.
    """
    rows = [(row.key, *_recipe(row)) for row in labels.rows.values() if row.label != "skip"]
    done: dict[str, Measured] = {}
    for schedule in sorted({schedule for _, schedule, _, _ in rows}):
        mixed = blend(source, [(target, parse_schedule(schedule))])
        for psi in sorted({psi for _, of, psi, _ in rows if of == schedule}):
            mine = [(key, seed) for key, of, at, seed in rows if (of, at) == (schedule, psi)]
            for first in range(0, len(mine), BATCH):
                keys, seeds = zip(*mine[first : first + BATCH], strict=True)
                found = meter(keys, *_pair(source, mixed, list(seeds), psi), [psi] * len(keys))
                done |= {key: found.rows([i]) for i, key in enumerate(keys)}
    return Measured.joined([done[key] for key, _, _, _ in rows])


@torch.no_grad()
def measure_spoiled(
    source: Generator, target: Generator, meter: PairMeter, num: int, *, seed: int = 0
) -> tuple[Measured, np.ndarray, list[str]]:
    """Measure `num` pairs of low truncation, and each once more spoiled, in every way about as often.

    Returns:
        What was measured, [2 * num]; whether each is good; and the way each was spoiled in, empty for good ones.
    """
    parts, truth, ways = [], [], []
    for first, way in zip(range(0, num, BATCH), cycle(WAYS), strict=False):
        seeds = list(range(FIRST_SEED + first, FIRST_SEED + min(first + BATCH, max(num, first + 2))))
        people, drawings = _pair(source, target, seeds, SAFE_PSI)
        rng = torch.Generator().manual_seed(seed + first)
        spoiled = spoil(people.cpu(), drawings.cpu(), way, rng)
        for name, side in (("", drawings), (way, spoiled)):
            keys = [f"made-{one}{'-spoiled' if name else ''}" for one in seeds]
            parts.append(meter(keys, people, side, [SAFE_PSI] * len(seeds)))
            truth += [not name] * len(seeds)
            ways += [name] * len(seeds)
    return Measured.joined(parts), np.array(truth), ways
