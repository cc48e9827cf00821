"""Labels of invented people: a table of seeds that is filled in by eye, for what no network here measures.

The file is CSV in UTF-8. Its first line names the generator and the truncation, its second the columns, then comes a
line for each seed. A cell is 0 (without), 1 (with), any other number for a degree, or empty where one cannot tell.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mien.atomic import write_text
from mien.errors import InputError

__all__ = ["Labels", "blank_labels", "load_labels", "save_labels"]

HEAD = re.compile(r"# mien labels, network ([0-9a-f]{64}), psi ([0-9.]+)\s*")
SEED = "seed"
MAX_BYTES, MAX_SEED = 16 << 20, 2**32 - 1
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
HINT = "make an empty one with `mien directions sheet`"


@dataclass(frozen=True, eq=False)
class Labels:
    """What somebody saw of invented people.

    Attributes:
        network: sha256 of the generator's file.
        truncation_psi: with which they were invented.
        seeds: of the people, N.
        values: name of an attribute => [N], not a number where there is no label.
    """

    network: str
    truncation_psi: float
    seeds: tuple[int, ...]
    values: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.values:
            raise InputError(f"no labels named {name!r}", hint=f"known: {', '.join(self.values)}")
        return self.values[name]


def blank_labels(network: str, truncation_psi: float, seeds: Sequence[int], names: Sequence[str]) -> Labels:
    """Return a table of `names` in which nothing is filled in.

    Raises:
        InputError: no names, or one that cannot be a direction's.
    """
    for name in names:
        if not NAME.fullmatch(name) or name == SEED:
            raise InputError(f"{name!r} is no name for a label", hint="write for example dark_hair")
    if not names or len(set(names)) < len(names):
        raise InputError("labels need names, each once", hint="write for example --names glasses,dark_hair")
    return Labels(network, truncation_psi, tuple(seeds), {name: torch.full([len(seeds)], math.nan) for name in names})


def save_labels(labels: Labels, path: Path) -> None:
    """Write a table of labels, whole or not at all."""
    text = io.StringIO()
    text.write(f"# mien labels, network {labels.network}, psi {labels.truncation_psi:g}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([SEED, *labels.values])
    for i, seed in enumerate(labels.seeds):
        cells = [float(column[i]) for column in labels.values.values()]
        writer.writerow([seed, *("" if math.isnan(cell) else f"{cell:g}" for cell in cells)])
    write_text(text.getvalue(), path)


def _number(cell: str, path: Path, line: int) -> float:
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value):
        hint = "a label is 0, 1, another number, or nothing"
        raise InputError(f"{path.name}, line {line}: {cell!r} is no label", hint=hint)
    return value


def load_labels(path: Path) -> Labels:
    """Read what `save_labels` wrote and somebody filled in.

    Raises:
        InputError: no such file, another kind of file, or a cell that is no label.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is too large for labels", hint=HINT)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as err:
        raise InputError(f"cannot read the labels {path}: {err}", hint=HINT) from err
    head, _, body = text.partition("\n")
    match = HEAD.fullmatch(head.rstrip(",; \r"))  # spreadsheets end it with empty cells
    rows = [row for row in csv.reader(io.StringIO(body)) if any(cell.strip() for cell in row)]
    if match is None or len(rows) < 2 or rows[0][0] != SEED or len(rows[0]) < 2:
        raise InputError(f"{path} is no table of labels", hint=HINT)
    columns = rows[0][1:]
    seeds, table = [], []
    for line, row in enumerate(rows[1:], 3):
        if len(row) != len(rows[0]) or not row[0].strip().isdecimal() or int(row[0]) > MAX_SEED:
            what = f"{path.name}, line {line}: not a seed and {len(columns)} labels"
            raise InputError(what, hint="leave a cell empty where one cannot tell")
        seeds.append(int(row[0]))
        table.append([_number(cell, path, line) for cell in row[1:]])
    blank = blank_labels(match[1], float(match[2]), seeds, columns)
    values = torch.tensor(table, dtype=torch.float64).T
    return Labels(blank.network, blank.truncation_psi, blank.seeds, dict(zip(columns, values, strict=True)))
