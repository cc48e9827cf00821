"""On which terms weights may be used: of a name, of a file, and of everything that a run used.

Entries of the zoo say it in the table, our own files in their provenance. What nobody states is `UNSTATED`, and counts
as forbidden where commercial use is asked for.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.errors import InputError, WeightsError
from mien.weights.checkpoint import Recipe
from mien.weights.download import default_cache
from mien.weights.load import bundled_names, find_weights, read_recipe, weights_digest
from mien.weights.locked import locked_names
from mien.weights.zoo import UNSTATED, Licence, licences, zoo

__all__ = ["Used", "licence_of", "require_commercial", "used_by"]

OPEN = re.compile(r"(cc0|mit|apache|bsd|public domain|cc[- ]by[- ]4|cc[- ]by[- ]sa[- ]4)", re.IGNORECASE)
CLOSED = re.compile(r"(\bnc\b|non-?commercial|research|evaluation)", re.IGNORECASE)
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Used:
    """One file of weights that a run used, by its name in the report, and its terms."""

    name: str
    licence: Licence


def _stated(text: str) -> Licence:
    """Make a licence of the words in a file's provenance."""
    commercial = "no" if CLOSED.search(text) else "yes" if OPEN.match(text) else "unknown"
    return Licence(name=text, commercial=commercial, terms="As its maker says in the file.")


@functools.cache
def _digest(path: Path, _modified_ns: int) -> str:
    return weights_digest(path)


def _bundled_digests() -> Mapping[str, str]:
    paths = {name: find_weights(name) for name in bundled_names()}
    return {_digest(path, path.stat().st_mtime_ns): name for name, path in paths.items()}


def _of_recipe(recipe: Recipe) -> Licence:
    """Take what the file says, or what is said of the weights that it was made from or for."""
    for key in ("licence", "license"):
        if isinstance(text := recipe.provenance.get(key), str) and text:
            return _stated(text)
    made_from = recipe.provenance.get("made_from", {})
    origins = [recipe.provenance.get("network"), *(made_from.values() if isinstance(made_from, dict) else [])]
    found = [licence for digest in origins if (licence := _of_digest(str(digest), None)) is not None]
    return min(found, key=lambda licence: licence.commercial, default=licences()[UNSTATED])  # "no" before others


def _of_digest(digest: str, cache: Path | None) -> Licence | None:
    """Return the terms of what has this sha256, where it is ours, pinned in the zoo, or recorded in the cache."""
    if digest in _bundled_digests():
        return _of_recipe(read_recipe(_bundled_digests()[digest]))
    for entry in zoo().values():
        if entry.sha256 == digest:
            return entry.licence
    return _of_zoo_file(locked_names(cache or default_cache()).get(digest, ""))


def _of_zoo_file(filename: str) -> Licence | None:
    return next((entry.licence for entry in zoo().values() if entry.download.name == filename), None)


def licence_of(path_or_name: str | Path, *, cache: Path | None = None) -> Licence:
    """Return the terms of a bundled network, an entry of the zoo or a file; `UNSTATED` where none are known.

    Raises:
        WeightsError: there is no such file and no such name.
    """
    name = str(path_or_name)
    if name in zoo() and name not in bundled_names() and not Path(name).is_file():
        return zoo()[name].licence
    path = find_weights(path_or_name)
    if (known := _of_digest(weights_digest(path), cache)) is not None:
        return known
    try:
        return _of_recipe(read_recipe(path))
    except WeightsError:  # a foreign format; it says nothing of terms
        return licences()[UNSTATED]


def require_commercial(names: Iterable[str | Path], *, cache: Path | None = None) -> None:
    """Let nothing pass whose terms forbid commercial use, or are not known.

    Raises:
        WeightsError: the first that does not pass, with its terms.
    """
    for name in names:
        licence = licence_of(name, cache=cache)
        if licence.commercial == "no":
            raise WeightsError(f"{name} forbids commercial use: {licence.name}", hint=licence.terms)
        if licence.commercial != "yes":
            hint = "ask its author, or choose another from mien models list --commercial"
            raise WeightsError(f"whether {name} may be used commercially is not known: {licence.name}", hint=hint)


def _claims(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, sha256 or name of weights) of everything that a report or a set of options mentions."""
    if isinstance(tree, list):
        for item in tree:
            yield from _claims(item)
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == "weights" and isinstance(value, dict):
            yield from ((str(name), str(digest)) for name, digest in value.items())
        elif isinstance(value, str) and (DIGEST.fullmatch(value) or value in zoo() or value in bundled_names()):
            yield (value, value)
        else:
            yield from _claims(value)


def _terms(claim: str, cache: Path | None) -> Licence | None:
    if DIGEST.fullmatch(claim):
        return _of_digest(claim, cache)
    return licence_of(claim, cache=cache) if claim in zoo() or claim in bundled_names() else None


def used_by(report: Path, *, cache: Path | None = None) -> list[Used]:
    """Return the terms of everything that a run used, from its report.json or options.json (or its folder).

    Under `weights` every file counts, known or not; elsewhere the hashes and names that are known.

    Raises:
        InputError: there is no such report, or it mentions no weights.
    """
    hint = "give a report.json, an options.json or its folder; of pictures alone, the weights that made them"
    inside = (report / name for name in ("report.json", "options.json"))
    path = next((file for file in inside if file.is_file()), report)
    if path.is_dir():
        raise InputError(f"{path} holds no report.json and no options.json", hint=hint)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"cannot read {path}: {err}"[:300], hint=hint) from err
    used: dict[str, Used] = {}
    for name, claim in _claims(tree):
        licence = _terms(claim, cache)
        if licence is not None or name != claim:
            shown = _bundled_digests().get(claim, name)
            used.setdefault(claim, Used(shown if name == claim else name, licence or licences()[UNSTATED]))
    if not used:
        raise InputError(f"{path} mentions no weights", hint="give the report.json or options.json of a run")
    return list(used.values())
