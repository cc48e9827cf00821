"""What a person who labels pairs works at: which pair comes next, verdicts that are on the disk at once, undo.

The pairs in question are a pool, chosen by a hash of their keys from all splits. They come in that order until somebody
has measured them; from then on they come in rounds, see `mien.training.active`, and a judge that is fitted between two
rounds says where it is least sure.
"""

from __future__ import annotations

import hashlib
import tarfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import InputError, MissingExtraError, UnsupportedFileError
from mien.training.active import choose_next
from mien.training.clean import shards_in
from mien.training.pair_features import Measured
from mien.training.pair_labels import LabelBook
from mien.training.quality import QualityConfig, fit_quality
from mien.training.reliability import auc

__all__ = ["SIDES", "LabelDesk", "PairPool"]

SIDES = ("source", "target")
ROUND = 20  # pairs between two fits
FEW = 8  # labels of each kind, at least, for a judge that is worth asking
FIT = QualityConfig(strengths=(0.1,), num_folds=5)


@dataclass(frozen=True)
class _Place:
    shard: Path
    offset: int
    size: int


class PairPool:
    """Up to `num` pairs of a folder, whose files are read where they lie in their shards."""

    def __init__(self, folder: Path, num: int) -> None:
        places: dict[str, dict[str, _Place]] = {}
        for shard in shards_in(folder):
            for key, extension, place in _members(shard):
                places.setdefault(key, {})[extension] = place
        chosen = sorted(places, key=lambda key: hashlib.sha256(f"pool {key}".encode()).digest())[:num]
        self._places = {key: places[key] for key in chosen}

    @property
    def keys(self) -> tuple[str, ...]:
        """Their keys, in an order that a hash decides."""
        return tuple(self._places)

    def file(self, key: str, extension: str) -> bytes:
        """Return one file of a pair.

        Raises:
            InputError: there is none.
        """
        try:
            place = self._places[key][extension]
            with place.shard.open("rb") as shard:
                shard.seek(place.offset)
                return shard.read(place.size)
        except KeyError:
            raise InputError(f"there is no {key}.{extension} in the pool") from None
        except OSError as err:
            raise InputError(f"cannot read {key}: {err.strerror}", hint="are the shards still there?") from err

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield all of them as `read_pairs` does."""
        for key, files in self._places.items():
            yield {"__key__": key, **{extension: self.file(key, extension) for extension in files}}


def _members(shard: Path) -> Iterator[tuple[str, str, _Place]]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                yield key, extension, _Place(shard, member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as err:
        hint = "remove it, and make the pairs again: the rest stays"
        raise UnsupportedFileError(f"{shard} is damaged: {err}", hint=hint) from err


class LabelDesk:
    """One person's work on a pool; safe to call from several threads.

    Args:
        pool: the pairs.
        book: open for writing.
        seed: of what is shown at random.
    """

    def __init__(self, pool: PairPool, book: LabelBook, *, seed: int = 0) -> None:
        self.pool, self.book, self.seed = pool, book, seed
        self._queue: deque[str] = deque()
        self._measured: Measured | None = None
        self._unseen_auc: float | None = None
        self._lock = threading.RLock()

    def learn(self, measured: Measured) -> None:
        """Take what was measured of the pool, in its order; the next round is chosen by it."""
        assert measured.keys == self.pool.keys
        with self._lock:
            self._measured = measured
            self._queue.clear()

    def now(self) -> dict[str, Any]:
        """Return what the page shows: the pair in question, the one after it, and how far the work is."""
        with self._lock:
            self._fill()
            ahead = [*self._queue][:2]
            return {
                "key": ahead[0] if ahead else None,
                "after": ahead[1] if len(ahead) > 1 else None,
                "counts": self.book.labels.counts(),
                "left": sum(key not in self.book.labels.rows for key in self.pool.keys),
                "is_measured": self._measured is not None,
                "auc": self._unseen_auc,
            }

    def put(self, key: str, label: str, reason: str = "") -> None:
        """Write a verdict down.

        Raises:
            InputError: no such pair.
        """
        with self._lock:
            if key not in self.pool.keys:
                raise InputError(f"there is no {key!r} in the pool")
            self.book.put(key, label, reason)
            self._queue = deque(one for one in self._queue if one != key)

    def undo(self) -> None:
        """Take the latest verdict back, and ask for it again."""
        with self._lock:
            key = self.book.undo()
            if key in self.pool.keys:
                self._queue.appendleft(str(key))

    def _fill(self) -> None:
        if self._queue:
            return
        rows = self.book.labels.rows
        waiting = [key for key in self.pool.keys if key not in rows]
        if self._measured is None or not waiting:
            self._queue.extend(waiting[:ROUND])
            return
        is_open = np.array([key not in rows for key in self.pool.keys])
        standard = _standardised(self._measured.features)
        chosen = choose_next(standard, is_open, self._probabilities(), ROUND, seed=self.seed + len(rows))
        self._queue.extend(self.pool.keys[row] for row in chosen)

    def _probabilities(self) -> np.ndarray | None:
        """Ask a judge that is fitted on the labels so far; None where there are too few, or nobody to fit it."""
        assert self._measured is not None
        judged = self.book.labels.judged()
        rows = [i for i, key in enumerate(self.pool.keys) if key in judged]
        good = np.array([judged[self.pool.keys[row]] for row in rows], dtype=bool)
        if min(good.sum(), (~good).sum()) < FEW:
            return None
        try:
            fitted = fit_quality(self._measured.rows(rows), good, FIT)
        except (InputError, MissingExtraError):
            return None
        self._unseen_auc = auc(fitted.unseen, good)
        return fitted.quality(self._measured)


def _standardised(features: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(features)
    return np.clip((known - known.mean(0)) / known.std(0).clip(1e-6), -4, 4)
