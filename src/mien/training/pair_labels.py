"""What somebody said of pairs: good, bad or skipped, in a CSV that people, spreadsheets and other tools read too.

Lines that begin with # are notes, the rule that was judged by for example. Then come the columns: `key` of the pair,
`label`, and any others, which are kept as they are. `reason` says in a word why a pair is bad.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from mien.atomic import write_text
from mien.errors import InputError

__all__ = ["FILE", "LABELS", "LabelBook", "PairLabel", "PairLabels", "load_pair_labels", "save_pair_labels"]

LABELS = ("good", "bad", "skip")
FILE = "labels.csv"
MAX_BYTES = 64 << 20
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
HINT = "its columns are key,label,reason; a label is good, bad or skip"


@dataclass(frozen=True)
class PairLabel:
    """One verdict, and what else stands in its line, by column."""

    key: str
    label: str
    reason: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PairLabels:
    """Verdicts by key, in the order in which they were given, and the notes above them."""

    rows: Mapping[str, PairLabel] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> dict[str, int]:
        """Return how many there are of each of `LABELS`."""
        found = Counter(row.label for row in self.rows.values())
        return {label: found[label] for label in LABELS}

    def judged(self) -> dict[str, bool]:
        """Return whether a pair is good, for those that were not skipped."""
        return {key: row.label == "good" for key, row in self.rows.items() if row.label != "skip"}

    def joined(self, more: PairLabels) -> PairLabels:
        """Return these and others; of a pair that both judge, the others' verdict counts."""
        notes = (*self.notes, *(note for note in more.notes if note not in self.notes))
        return PairLabels({**self.rows, **more.rows}, notes)


def save_pair_labels(labels: PairLabels, path: Path) -> None:
    """Write labels, whole or not at all."""
    extra = list(dict.fromkeys(name for row in labels.rows.values() for name in row.facts))
    text = io.StringIO()
    text.writelines(f"# {note}\n" for note in labels.notes)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "label", "reason", *extra])
    for row in labels.rows.values():
        writer.writerow([row.key, row.label, row.reason, *(row.facts.get(name, "") for name in extra)])
    write_text(text.getvalue(), path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is too large for labels", hint=HINT)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as err:
        raise InputError(f"cannot read the labels {path}: {err}", hint=HINT) from err


def load_pair_labels(path: Path) -> PairLabels:
    """Read labels; columns may stand in any order.

    Raises:
        InputError: no such file, no columns `key` and `label`, a line of another length, a pair twice, a label that is
            none.
    """
    lines = _text(path).splitlines()
    num_notes = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    table = csv.reader(lines[num_notes:])
    rows: dict[str, PairLabel] = {}
    try:
        head = [name.strip() for name in next(table, [])]
        if not {"key", "label"} <= set(head) or len(set(head)) < len(head):
            raise InputError(f"{path} is no table of labels", hint=HINT)
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path.name}, line {num_notes + table.line_num}"
            if len(cells) != len(head):
                raise InputError(f"{where}: {len(cells)} cells, not {len(head)}", hint=HINT)
            row = _row({name: cell.strip() for name, cell in zip(head, cells, strict=True)}, where)
            if row.key in rows:
                raise InputError(f"{where}: {row.key} is there twice", hint="keep one of both lines")
            rows[row.key] = row
    except csv.Error as err:
        raise InputError(f"{path.name} is no CSV: {err}", hint=HINT) from err
    return PairLabels(rows, tuple(line.removeprefix("#").strip() for line in lines[:num_notes]))


def _row(cells: dict[str, str], where: str) -> PairLabel:
    key, label, reason = cells.pop("key"), cells.pop("label").lower(), cells.pop("reason", "")
    if not KEY.fullmatch(key):
        raise InputError(f"{where}: {key!r} is no key of a pair", hint="keys are like seed-17")
    if label not in LABELS:
        raise InputError(f"{where}: {label!r} is no label", hint=f"known: {', '.join(LABELS)}")
    return PairLabel(key, label, reason, cells)


class LabelBook:
    """The labels of a folder while somebody gives them: each is on the disk before the next is asked for.

    Nobody else can open the same book meanwhile; use it in a `with`.

    Args:
        path: of the CSV, made with the first label.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels = load_pair_labels(path) if path.exists() else PairLabels()
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except Timeout:
            hint = "close it there, or label another folder"
            raise InputError(f"{self.path} is being labelled already", hint=hint) from None
        except OSError as err:
            raise InputError(f"cannot write into {self.path.parent}: {err.strerror}", hint="copy the pairs") from err
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def put(self, key: str, label: str, reason: str = "") -> None:
        """Write down a verdict; one that was given before is replaced, and counts as the latest."""
        assert label in LABELS, label
        rows = dict(self.labels.rows)
        facts = rows.pop(key).facts if key in rows else {}
        self._keep({**rows, key: PairLabel(key, label, reason, facts)})

    def undo(self) -> str | None:
        """Take the latest verdict back and return whose it was, or None where there is none."""
        if not self.labels.rows:
            return None
        *before, last = self.labels.rows
        self._keep({key: self.labels.rows[key] for key in before})
        return last

    def _keep(self, rows: Mapping[str, PairLabel]) -> None:
        labels = replace(self.labels, rows=rows)
        save_pair_labels(labels, self.path)
        self.labels = labels
