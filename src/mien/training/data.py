"""Training pictures in memory, their labels, and an endless sampler that can start anywhere.

A data set is a zip of small pictures with a CSV of the same stem beside it (`faces128.zip`, `faces128.csv`), or a plain
folder. Small sets are decoded once into uint8; a batch is a function of (seed, step) alone, so that a run that was
killed goes on with the pictures that it would have seen.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from mien.atomic import replacing
from mien.errors import InputError
from mien.images import PHOTO_SUFFIXES

__all__ = [
    "Batches",
    "PictureSet",
    "cap_per_person",
    "check_columns",
    "is_held_out",
    "load_pictures",
    "read_table",
    "select",
    "source_digest",
    "split_people",
]


def is_held_out(identity: str) -> bool:
    """Say whether a person is kept out of all training (one person in twenty, by a hash of the name).

    >>> sum(is_held_out(f"person_{i}") for i in range(2000)) in range(60, 140)
    True
    """
    return zlib.crc32(identity.encode()) % 20 == 0


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read a CSV with a header as one array per column: float64 where every value is a number, else str.

    Raises:
        InputError: no table there, one that has no rows, or rows of several lengths.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as err:
        raise InputError(f"cannot read the table {path}: {err}", hint="give a CSV in UTF-8") from err
    if len(rows) < 2:
        raise InputError(f"{path} has no rows", hint="the first line names the columns")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            what = f"{path}: row {number} has {len(row)} values for {len(rows[0])} columns"
            raise InputError(what, hint="write one value for each column that the first line names")
    columns: dict[str, np.ndarray] = {}
    for name, values in zip(rows[0], zip(*rows[1:], strict=True), strict=True):
        try:
            columns[name] = np.array(values, dtype=np.float64)
        except ValueError:
            columns[name] = np.array(values, dtype=np.str_)
    return columns


def check_columns(
    columns: Mapping[str, np.ndarray], table: Path, *, texts: Sequence[str] = (), numbers: Sequence[str] = ()
) -> None:
    """Refuse a table in which columns are missing, or hold texts where numbers are needed.

    Args:
        columns: what `read_table` gave, or the labels of a `PictureSet`.
        table: where it was read, for the message.
        texts: columns of any content.
        numbers: columns of numbers.

    Raises:
        InputError: the first such column, and what the table needs.
    """
    needed = [*texts, *(f"{name} (a number)" for name in numbers)]
    hint = f"each of its rows needs {', '.join(needed)}"
    for name in (*texts, *numbers):
        if name not in columns:
            raise InputError(f"the table {table} has no column {name!r}", hint=hint)
        if name in numbers and columns[name].dtype.kind != "f":
            raise InputError(f"the column {name!r} of {table} holds something else than numbers", hint=hint)


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one size in memory, with one row of labels each.

    `pixels` is uint8 [N, 3, H, W]; `names` and every column of `labels` have N entries; `digest` is the sha256 of the
    source file (or of the folder's names and sizes).
    """

    pixels: Tensor
    names: Sequence[str]
    labels: dict[str, np.ndarray]
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    def select(self, keep: np.ndarray) -> PictureSet:
        """Return the rows of a boolean mask or an index array."""
        idx = np.flatnonzero(keep) if keep.dtype == bool else keep
        return PictureSet(
            pixels=self.pixels[torch.from_numpy(idx)],
            names=[self.names[int(i)] for i in idx],
            labels={name: column[idx] for name, column in self.labels.items()},
            digest=self.digest,
        )


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in PHOTO_SUFFIXES:
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES:
                    yield name, archive.read(name)
    except zipfile.BadZipFile as err:
        raise InputError(f"{source} is damaged or no zip: {err}", hint="give a zip or a folder of pictures") from err


def _square(name: str, data: bytes, size_px: int) -> np.ndarray:
    """Decode a picture to uint8 [size_px, size_px, 3], cut in the middle."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as err:
        raise InputError(f"{name} cannot be read as a picture: {err}", hint="take it out of the data") from err
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (size_px, size_px):
        filter_ = PIL.Image.Resampling.BOX if side % size_px == 0 else PIL.Image.Resampling.LANCZOS
        image = image.resize((size_px, size_px), filter_, box=(left, top, left + side, top + side))
    return np.asarray(image)


def source_digest(source: Path) -> str:
    """Return the sha256 of a file, or of a folder's names and sizes."""
    if source.is_dir():
        listing = [
            f"{p.relative_to(source).as_posix()}:{p.stat().st_size}" for p in sorted(source.rglob("*")) if p.is_file()
        ]
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_pictures(source: Path, *, size_px: int, table: Path | None = None, cache: Path | None = None) -> PictureSet:
    """Decode every picture of a zip or a folder to `size_px` square, centre-cropped, and join its table by file name.

    Args:
        source: zip file or folder of pictures.
        size_px: side of the square pictures.
        table: CSV with a column `file`; by default the file beside `source` with the suffix .csv, when there is one.
            With a table only the pictures that it lists are kept.
        cache: folder where the decoded pixels are kept for the next run.

    Raises:
        InputError: nothing there, nothing in it, a picture that is none, or a table without the pictures' names.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"no data at {source}", hint="give a zip or a folder of pictures")
    digest = source_digest(source)
    cached = cache / f"{source.stem}-{size_px}-{digest[:12]}.npz" if cache else None
    if cached and cached.exists():
        with np.load(cached) as held:
            pixels, names = held["pixels"], held["names"].tolist()
    else:
        arrays, names = [], []
        for name, data in _members(source):
            arrays.append(_square(name, data, size_px))
            names.append(name)
        if not arrays:
            raise InputError(f"no pictures in {source}", hint=f"known kinds: {' '.join(sorted(PHOTO_SUFFIXES))}")
        pixels = np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))
        if cached:
            with replacing(cached) as part, open(part, "wb") as file:
                np.savez(file, pixels=pixels, names=np.array(names))
    everything = PictureSet(torch.from_numpy(pixels), names, {}, digest)
    table = table or source.with_suffix(".csv")
    if not table.is_file():
        return everything
    columns = read_table(table)
    check_columns(columns, table, texts=["file"])
    row_of = {name: i for i, name in enumerate(names)}
    rows = np.array([row_of.get(str(file), -1) for file in columns["file"]])
    if not (rows >= 0).any():
        hint = "its column 'file' holds the names of the pictures as they are in the zip or folder"
        raise InputError(f"{table} lists none of the pictures in {source}", hint=hint)
    chosen = everything.select(rows[rows >= 0])
    return PictureSet(chosen.pixels, chosen.names, {k: v[rows >= 0] for k, v in columns.items()}, digest)


def select(data: PictureSet, where: str) -> PictureSet:
    """Return the pictures of which a column of the table has one of the values, `column=value,value`; all for "".

    Raises:
        InputError: not of this form, no such column, or no such picture.
    """
    if not where:
        return data
    column, equals, values = where.partition("=")
    if not equals:
        raise InputError(f"{where!r} chooses no pictures", hint="write column=value, say style=illustration")
    if column not in data.labels:
        raise InputError(f"the pictures' table has no column {column!r}", hint=f"it has {', '.join(data.labels)}")
    chosen = data.select(np.isin(data.labels[column].astype(str), values.split(",")))
    if not len(chosen):
        known = ", ".join(sorted(set(data.labels[column].astype(str)))[:20])
        raise InputError(f"no picture has {where}", hint=f"its values are {known}")
    return chosen


def cap_per_person(identities: np.ndarray, most: int, *, prefer: np.ndarray | None = None) -> np.ndarray:
    """Return a boolean mask that keeps at most `most` rows per identity, those with the highest `prefer` first."""
    order = np.argsort(-prefer, kind="stable") if prefer is not None else np.arange(len(identities))
    keep = np.zeros(len(identities), bool)
    seen: dict[str, int] = {}
    for i in order:
        name = str(identities[i])
        seen[name] = seen.get(name, 0) + 1
        keep[i] = seen[name] <= most
    return keep


def split_people(data: PictureSet, *, most_per_person: int = 20) -> tuple[PictureSet, PictureSet]:
    """Divide pictures into those of people to train on and of people held out: in colour, the sharpest of each person.

    A set without identities is all for training; the other part is then empty.
    """
    labels = data.labels
    keep = np.ones(len(data), bool) if "grey" not in labels else labels["grey"] == 0
    if "identity" not in labels:
        return data.select(keep), data.select(np.zeros(len(data), bool))
    keep &= cap_per_person(labels["identity"], most_per_person, prefer=labels.get("sharpness"))
    held_out = np.array([is_held_out(str(name)) for name in labels["identity"]])
    return data.select(keep & ~held_out), data.select(keep & held_out)


class Batches:
    """Batches of row numbers: a new shuffle every epoch, each a function of (seed, epoch) alone."""

    def __init__(self, num_items: int, batch_size: int, *, seed: int = 0) -> None:
        if num_items < 1 or batch_size < 1:
            raise InputError(f"need at least one item and a batch of one, got {num_items} and {batch_size}")
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def at(self, step: int) -> Tensor:
        """Return the row numbers int64 [batch_size] of batch `step` (from 0)."""
        first = step * self.batch_size
        rows = []
        for position in range(first, first + self.batch_size):
            epoch, offset = divmod(position, self.num_items)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng((self.seed, epoch)).permutation(self.num_items)
            rows.append(self._order[offset])
        return torch.from_numpy(np.array(rows, np.int64))
