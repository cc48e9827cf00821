"""Trust on first use: the hashes of files whose publishers state none, as they first arrived in a cache.

They are kept in `hashes.json` beside the files, so that a file that changes at its address, or on the disk, is noticed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from filelock import FileLock

from mien.atomic import write_text
from mien.errors import MienError

__all__ = ["LOCK_NAME", "locked_names", "locked_sha256", "remember"]

LOCK_NAME = "hashes.json"


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / LOCK_NAME
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as err:
        raise MienError(f"cannot read {path}: {err}"[:300], hint="remove it, or bring it back from a backup") from err
    if not isinstance(records, dict) or not all(_is_record(record) for record in records.values()):
        raise MienError(f"{path} is not a list of hashes", hint="remove it, or bring it back from a backup")
    return records


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and bool(re.fullmatch(r"[0-9a-f]{64}", str(record.get("sha256"))))


def locked_sha256(folder: Path, name: str) -> str | None:
    """Return the sha256 that was recorded for a file of the cache `folder`, or None.

    Raises:
        MienError: the record is damaged.
    """
    record = _read(folder).get(name)
    return None if record is None else record["sha256"]


def locked_names(folder: Path) -> dict[str, str]:
    """Return sha256 => name of every recorded file, to tell what a hash in a report was."""
    return {record["sha256"]: name for name, record in _read(folder).items()}


def remember(folder: Path, name: str, sha256: str, url: str) -> None:
    """Record the hash of a file that has just become trusted; one that is recorded already stays as it is.

    Raises:
        MienError: the record cannot be read or written.
    """
    try:
        with FileLock(folder / f".{LOCK_NAME}.lock"):
            records = _read(folder)
            if name not in records:
                records[name] = {"sha256": sha256, "url": url}
                write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", folder / LOCK_NAME)
    except OSError as err:
        hint = "make the folder writable, or name another in MIEN_CACHE"
        raise MienError(f"cannot record the hash of {name} in {folder}: {err.strerror or err}", hint=hint) from err
