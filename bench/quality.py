"""Measure the judge of pairs on pairs judged by eye that were kept out, apart from pairs that were spoiled on purpose.

    python bench/quality.py [--labels labels-pairs-faces-64.csv] [--source faces-64] [--target drawn-64] [--write FILE]

The pairs are made again from the seeds in the labels. Four tenths of them, by a hash of the seed, are kept out of all
fitting and choosing. `--write` then fits a judge on all of them and saves it with these numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mien.app.capabilities.quality import load_meter
from mien.app.settings import DEFAULT_NETWORK
from mien.nets.precision import exact_float32
from mien.training.judged import measure_judged, measure_spoiled
from mien.training.pair_features import Measured
from mien.training.pair_labels import PairLabels, load_pair_labels
from mien.training.quality import Quality, QualityConfig, fit_quality, fold_of, save_quality
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
from mien.training.spoil import WAYS
from mien.weights.load import load_generator

BUNDLE = Path(__file__).parent.parent / "src" / "mien" / "bundle"
KEPT_OUT = 4  # of ten
KEEPS = (0.9, 0.7, 0.5, 0.3)
FEW = 5  # of a kind, below which an area says nothing


def is_kept_out(key: str) -> bool:
    return fold_of(f"held {key}", 10) < KEPT_OUT


def ranking(title: str, scores: np.ndarray, labels: np.ndarray) -> str:
    low, high = auc_interval(scores, labels)
    return f"| {title} | {labels.sum()} + {(~labels).sum()} | {auc(scores, labels):.3f} | {low:.3f} to {high:.3f} |"


def show_ranking(quality: Quality, held: Measured, good: np.ndarray, labels: PairLabels) -> None:
    scores = quality(held)
    facts = [labels.rows[key].facts for key in held.keys]
    drawn = np.array([fact["schedule"] == "1" for fact in facts])
    psi = np.array([float(fact["psi"]) for fact in facts])
    print("| kept out | good + bad | AUC | 95 % of resamples |\n|---|---|---|---|")
    print(ranking("all", scores, good))
    print(ranking("drawn by the target itself", scores[drawn], good[drawn]))
    for one in sorted(set(psi[drawn])):
        mine = drawn & (psi == one)
        if min(good[mine].sum(), (~good[mine]).sum()) >= FEW:
            print(ranking(f"of these, psi {one:g}", scores[mine], good[mine]))


def show_parts(fit: Callable[[Measured], Quality], rest: Measured, held: Measured, good: np.ndarray) -> None:
    """What the judge would be with some of its features only."""
    deep = np.array(["_feature_" in name for name in rest.names])
    looks = np.array([name.endswith("_look") for name in rest.names])
    kinds = {
        "the close look alone": looks,
        "signals": ~deep,
        "signals without psi": ~deep,
        "features": deep,
        "all": deep | True,
    }
    print("\n| fitted with | numbers | AUC |\n|---|---|---|")
    for title, columns in kinds.items():
        if title.endswith("psi"):
            columns = columns & (np.array(rest.names) != "psi")
        some = [
            replace(one, names=tuple(np.array(one.names)[columns]), features=one.features[:, columns])
            for one in (rest, held)
        ]
        print(f"| {title} | {columns.sum()} | {auc(fit(some[0])(some[1]), good):.3f} |")


def show_trust(scores: np.ndarray, good: np.ndarray) -> dict[str, float]:
    bins = reliability(scores, good, num_bins=5)
    print("\n| said | pairs | said in the mean | good |\n|---|---|---|---|")
    for one in bins:
        print(f"| {one.low:g} to {one.high:g} | {one.count} | {one.said:.2f} | {one.good:.2f} |")
    found = {"brier": brier(scores, good), "calibration_error": calibration_error(bins), "good": float(good.mean())}
    print(*(f"{name}: {value:.3f}" for name, value in found.items()), sep=", ")
    print("\n| kept | precision | a judge without fault |\n|---|---|---|")
    for keep in KEEPS:
        found[f"precision_at_{keep:g}"] = precision_at(scores, good, keep)
        print(
            f"| {keep:g} | {found[f'precision_at_{keep:g}']:.3f} | {min(1, good.sum() / round(keep * len(good))):.3f} |"
        )
    return found


def show_kept(scores: np.ndarray, good: np.ndarray, measured: Measured, keep: float) -> None:
    kept, truth = kept_shares(scores >= threshold_at(scores, keep), measured.groups), kept_shares(good, measured.groups)
    print(f"\n| of the best {keep:g} | pairs | judged good | kept |\n|---|---|---|---|")
    for what, groups in kept.items():
        for name, found in groups.items():
            print(f"| {what}: {name} | {found['count']} | {truth[what][name]['kept']:.2f} | {found['kept']:.2f} |")


def show_agreement(labels: PairLabels) -> float:
    twice = [(row.label, row.facts["again"]) for row in labels.rows.values() if row.facts.get("again")]
    agreed = sum(first == second for first, second in twice)
    kinds = [[second == "good" for first, second in twice if first == kind] for kind in ("good", "bad")]
    bound = (sum(kinds[0]) / len(kinds[0]) + 1 - sum(kinds[1]) / len(kinds[1])) / 2
    print(
        f"\nJudged twice: {len(twice)}, alike {agreed}. The second verdict as a score for the first: AUC {bound:.3f}."
    )
    return bound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=BUNDLE / f"labels-pairs-{DEFAULT_NETWORK}.csv")
    parser.add_argument("--source", default=DEFAULT_NETWORK)
    parser.add_argument("--target", default="drawn-64")
    parser.add_argument(
        "--spoiled", type=int, default=384, help="good pairs that are spoiled, half of them to fit with"
    )
    parser.add_argument("--extra-weight", type=float, default=QualityConfig().extra_weight)
    parser.add_argument("--write", type=Path, help="file for a judge that is fitted on all of it")
    args = parser.parse_args()
    config = QualityConfig(extra_weight=args.extra_weight)
    labels = load_pair_labels(args.labels)
    with exact_float32():
        meter = load_meter(args.source, device="cpu")
        source, target = (load_generator(name) for name in (args.source, args.target))
        measured = measure_judged(source, target, labels, meter)
        made, is_whole, ways = measure_spoiled(source, target, meter, args.spoiled)
    judged = labels.judged()
    good = np.array([judged[key] for key in measured.keys])
    out = np.array([is_kept_out(key) for key in measured.keys])
    for_fit = np.arange(len(made)) < len(made) // 2  # other people than the second half's
    first, second = (made.rows(np.flatnonzero(mine)) for mine in (for_fit, ~for_fit))

    def fit(rest: Measured) -> Quality:
        return fit_quality(rest, good[~out], config, extra=(first, is_whole[for_fit])).quality

    rest, held = (measured.rows(np.flatnonzero(mine)) for mine in (~out, out))
    quality = fit(rest)
    scores = quality(held)
    show_ranking(quality, held, good[out], labels)
    spoiled = quality(second)
    print("\n| spoiled on purpose | AUC |\n|---|---|")
    kind, whole = np.array(ways)[~for_fit], is_whole[~for_fit]
    for way in WAYS:
        mine = whole | (kind == way)
        print(f"| {way} | {auc(spoiled[mine], whole[mine]):.3f} |")
    print(f"| all | {auc(spoiled, whole):.3f} |")
    show_parts(fit, rest, held, good[out])
    numbers = show_trust(scores, good[out])
    show_kept(scores, good[out], held, 0.7)
    bound = show_agreement(labels)
    if args.write is None:
        return
    facts = {"source": args.source, "target": args.target, "auc": auc(scores, good[out]), "agreement": bound, **numbers}
    whole_fit = fit_quality(
        measured, good, config, digests=meter.digests, extra=(made, is_whole), facts=json.loads(json.dumps(facts))
    )
    save_quality(whole_fit.quality, args.write)


if __name__ == "__main__":
    main()
