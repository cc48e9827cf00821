"""Files from elsewhere: fetched once, checked by their hash, kept in a cache.

A download that was cut goes on where it stopped. What arrives under the file's name is the file that was asked for, or
nothing: a page of a proxy, a cut connection and a changed file each end in one clear error.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from mien.errors import HashMismatchError, MienError, WeightsError
from mien.report import Sink, Step, ignore

__all__ = ["Download", "default_cache", "fetch", "is_offline"]

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file that can be fetched."""

    url: str
    sha256: str
    size_bytes: int
    license: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


class _Retry(Exception):
    """The attempt failed in a way that may pass; what has arrived stays for the next one."""


def default_cache() -> Path:
    """Return the folder for downloads: `MIEN_CACHE`, or `mien` in the platform's place for caches."""
    if given := os.environ.get("MIEN_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "mien" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mien"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mien"


def is_offline() -> bool:
    """Say whether the user forbids downloads (`MIEN_OFFLINE=1`)."""
    return os.environ.get("MIEN_OFFLINE", "").lower() not in ("", "0", "false", "no")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_hand(path: Path) -> str:
    return f"check the connection, or put the file there yourself: {path}"


def _check_answer(response: http.client.HTTPResponse, wanted: Download, path: Path) -> None:
    if "text/html" in response.headers.get("Content-Type", ""):
        message = f"{wanted.url} answers with a web page instead of the file"
        raise WeightsError(message, hint=f"a proxy or a login may stand between; {_by_hand(path)}")


def _receive(response: IO[bytes], part: IO[bytes], wanted: Download, on_step: Sink) -> None:
    """Append what arrives to `part`; never more than was announced."""
    while chunk := response.read(CHUNK_BYTES):
        part.write(chunk)
        done = part.tell()
        if done > wanted.size_bytes:
            message = f"{wanted.url} sends more than {wanted.size_bytes} bytes"
            raise HashMismatchError(message, hint="the file has changed; update mien")
        on_step(Step(f"download {wanted.name}", done, wanted.size_bytes))


def _attempt(wanted: Download, part_path: Path, path: Path, on_step: Sink) -> None:
    """Bring `part_path` to its full length, from where it stopped."""
    start = part_path.stat().st_size if part_path.exists() else 0
    if start == wanted.size_bytes:
        return
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "mien", "Range": f"bytes={start}-"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            _check_answer(response, wanted, path)
            resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            with open(part_path, "ab" if resumes else "wb") as part:
                _receive(response, part, wanted, on_step)
    except urllib.error.HTTPError as err:
        err.close()
        if err.code < 500 and err.code not in (408, 416, 429):
            raise WeightsError(f"{wanted.url} answers {err.code} {err.reason}", hint=_by_hand(path)) from err
        if err.code == 416:
            part_path.unlink(missing_ok=True)
        raise _Retry(f"{err.code} {err.reason}") from err
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as err:
        raise _Retry(str(getattr(err, "reason", err))) from err
    size = part_path.stat().st_size
    if size < wanted.size_bytes:
        raise _Retry(f"the connection was cut after {size} of {wanted.size_bytes} bytes")


def _download(wanted: Download, path: Path, on_step: Sink, attempts: int, pause_s: float) -> None:
    part = path.with_name(f".{path.name}.{wanted.sha256[:12]}.part")
    reason = ""
    for attempt in range(attempts):
        try:
            if attempt:
                time.sleep(pause_s * 2 ** (attempt - 1))
            _attempt(wanted, part, path, on_step)
        except _Retry as err:
            reason = str(err)
            logger.warning("download of %s: %s", wanted.name, reason)
            continue
        if _digest(part) == wanted.sha256:
            os.replace(part, path)
            return
        part.unlink()  # perhaps two halves of different files: once more from the start
        reason = "its sha256 is not the expected one"
    if reason.startswith("its sha256"):
        hint = f"it was changed or damaged on the way; {_by_hand(path)}"
        raise HashMismatchError(f"{wanted.url}: {reason}, {wanted.sha256}", hint=hint)
    raise WeightsError(f"cannot download {wanted.url}: {reason}", hint=_by_hand(path))


def fetch(
    wanted: Download,
    *,
    cache: Path | None = None,
    offline: bool | None = None,
    on_step: Sink = ignore,
    attempts: int = 4,
    pause_s: float = 1.0,
) -> Path:
    """Return the path of a file in the cache, and download it first when it is not there.

    Args:
        wanted: what, with its hash.
        cache: folder; by default `default_cache()`.
        offline: never download; by default as `MIEN_OFFLINE` says.
        on_step: hears of the bytes that arrived.
        attempts: how often to try when the connection fails.
        pause_s: wait before the second attempt; doubled each time.

    Raises:
        WeightsError: it is not there and cannot be fetched.
        HashMismatchError: what arrives is another file.
        MienError: the disk is full, or the cache cannot be written.
    """
    path = (cache or default_cache()) / wanted.name
    if path.is_file() and _digest(path) == wanted.sha256:
        return path
    if offline if offline is not None else is_offline():
        hint = f"unset MIEN_OFFLINE, or copy it from {wanted.url} to {path}"
        raise WeightsError(f"{wanted.name} is not in the cache, and downloads are off", hint=hint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # another process may be fetching it right now
            if not path.is_file() or _digest(path) != wanted.sha256:
                _download(wanted, path, on_step, attempts, pause_s)
    except OSError as err:
        reason = err.strerror or err
        hint = "free some space, or name another folder in MIEN_CACHE"
        raise MienError(f"cannot write {path}: {reason}", hint=hint) from err
    return path
