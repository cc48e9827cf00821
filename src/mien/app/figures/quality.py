"""What a judge of pairs did, as one page: how far it can be trusted, who was kept, pairs from its best to its worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mien.app.figures.page import Chapter, Shown, chart, page, paragraph, rows, table, tiles

__all__ = ["clean_page", "fit_page"]

COLUMNS = 6


def _groups(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [
        (what, name, int(group["count"]), float(group["kept"]))
        for what, groups in found.items()
        for name, group in groups.items()
    ]
    return rows(("", "group", "pairs", "kept"), lines)


def _pictures(shown: Sequence[Shown]) -> str:
    return tiles([shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)], widest_px=190)


def clean_page(report: Mapping[str, Any], shown: Mapping[str, Sequence[Shown]]) -> str:
    """Return the page of `clean_pairs`.

    Args:
        report: as it returned it.
        shown: heading => pictures of pairs.
    """
    kept = sum(report["kept"].values())
    said = report["said_good"]
    facts = {"pairs": report["pairs"], "kept": kept, "threshold": float(report["threshold"])}
    share = {f"said good of {name}": value for name, value in said.items() if value is not None}
    groups = [
        paragraph(
            "Age and gender are what the face network sees, lightness is L* of the cheeks; thirds are this set's."
        ),
        _groups(report["groups"]),
    ]
    chapters = [
        Chapter("kept", "Who was kept", groups),
        Chapter(
            "pairs", "From the best to the worst", [p for n, s in shown.items() for p in (paragraph(n), _pictures(s))]
        ),
        Chapter("settings", "Settings", [table({**share, **report["kept"], "judge": report["judge"]})]),
    ]
    return page("Pairs, cleaned", "A person and their drawing, judged and sorted out.", chapters, facts=facts)


def fit_page(report: Mapping[str, Any], shown: Mapping[str, Sequence[Shown]] | None = None) -> str:
    """Return the page of a judge that was fitted: `report` is what `mien pairs fit` writes as JSON."""
    said = [(one["said"], one["good"]) for one in report["reliability"]]
    bins = [(f"{o['low']:g} to {o['high']:g}", o["count"], o["said"], o["good"]) for o in report["reliability"]]
    keeps = [(float(keep), value) for keep, value in report["precision"].items()]
    facts = {"good": report["good"], "bad": report["bad"], "AUC": report["auc"], "Brier": report["brier"]}
    trust = [
        chart("what is good, over what was said", {"judge": said, "perfect": [(0.0, 0.0), (1.0, 1.0)]}),
        rows(("said", "pairs", "in the mean", "good"), bins),
        chart("precision over the share that is kept", {"precision": sorted(keeps)}),
    ]
    chapters = [
        Chapter("trust", "How far it can be trusted", trust),
        Chapter("kept", "Who would be kept", [_groups(report["groups"])]),
    ]
    if shown:
        pictures = [p for name, some in shown.items() for p in (paragraph(name), _pictures(some))]
        chapters.append(Chapter("pairs", "Where it and you disagree", pictures))
    chapters.append(Chapter("settings", "Settings", [table({"penalty": report["strength"], "folds": report["folds"]})]))
    text = "All numbers are of pairs that it had not seen: every fold is judged by a judge fitted without it."
    return page("A judge of pairs", text, chapters, facts=facts)
