"""Files that arrive whole: written aside in the same folder, then renamed over the old one.

A reader sees the old file or the new one, never half of it, whether the disk is full or the process is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mien.errors import MienError

__all__ = ["replacing", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any failure it is removed and `path` is as before.

    Args:
        path: the file to make or replace; missing folders above it are made.

    Raises:
        MienError: the disk is full, read-only, or the folder cannot be made.
    """
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as err:
        reason = err.strerror or err
        raise MienError(f"cannot write {path}: {reason}", hint="free some space or choose another place") from err


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
