"""Files that arrive whole: written aside in the same folder, then renamed over the old one.

A reader sees the old file or the new one, never half of it, whether the disk is full or the process is killed. What a
killed process left aside is swept by the next one that writes into the same folder: whoever writes holds a lock on its
file, which dies with it.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mien.errors import MienError

__all__ = ["replacing", "write_text"]

PART = re.compile(r"\..{1,40}\.[0-9a-f]{16}\.part")

_swept: set[Path] = set()  # folders that this process has looked through


def _locked(part: Path, flags: int) -> int | None:
    """Open a file that nobody else has locked, and lock it; None where somebody has, or where locks do not work."""
    if sys.platform == "win32":
        return None
    import fcntl

    fd = os.open(part, os.O_RDWR | flags, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == part.stat().st_ino:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder, once in the life of this process."""
    if folder in _swept:
        return
    _swept.add(folder)
    with os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if PART.fullmatch(entry.name)]
    for part in left:
        with suppress(OSError):  # another process sweeps too, or the file is not ours to remove
            if (fd := _locked(part, 0)) is not None:
                try:
                    part.unlink()
                finally:
                    os.close(fd)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any failure it is removed and `path` is as before.

    Args:
        path: the file to make or replace; missing folders above it are made.

    Raises:
        MienError: the disk is full, read-only, or the folder cannot be made.
    """
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    fd = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.resolve())
        try:
            fd = _locked(part, os.O_CREAT | os.O_EXCL)
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
            if fd is not None:
                os.close(fd)
    except OSError as err:
        reason = err.strerror or err
        raise MienError(f"cannot write {path}: {reason}", hint="free some space or choose another place") from err


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
