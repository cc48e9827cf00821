"""Files from elsewhere: fetched once, checked by their hash, kept in a cache.

A download that was cut goes on where it stopped. What arrives under the file's name is the file that was asked for, or
nothing: a page of a proxy, a quota page, a cut connection and a changed file each end in one clear error. Where the
publisher states no hash, the first file that arrives is trusted and its hash is recorded (`weights/locked.py`).
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NoReturn

from filelock import FileLock

from mien.errors import HashMismatchError, MienError, WeightsError
from mien.report import Sink, Step, ignore
from mien.weights.locked import locked_sha256, remember

__all__ = ["Download", "cached", "default_cache", "direct_address", "fetch", "is_offline"]

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0
PAGE_BYTES = 1 << 16  # so much of a web page is read to tell what it is
OTHER_FILE = "its sha256 is not the expected one"
FULL_SHA256 = 64

PAGES = (
    (
        rb"quota exceeded|too many users have viewed or downloaded",
        "is over its download quota at Google Drive: a page says so instead of the file",
        "try again in a day",
    ),
    (
        rb"virus scan warning|can.t scan this file for viruses",
        "is behind Google Drive's warning that it scans no large file",
        "open the address in a browser",
    ),
    (
        rb"you need access|request access|accounts\.google\.com/(v3/)?signin|sign in",
        "is behind a login: a page asks for it instead of the file",
        "its owner withdrew it, or shares it with some people only",
    ),
)
"""What a page says (any case), what that means for the file, and what helps."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file that can be fetched."""

    url: str
    sha256: str | None  # 64 hex digits; fewer where the publisher states only the first; None where none is stated
    size_bytes: int | None
    license: str
    filename: str = ""  # in the cache; by default the last part of the address

    @property
    def name(self) -> str:
        return self.filename or self.url.rsplit("/", 1)[-1]

    @property
    def is_pinned(self) -> bool:
        """Whether the hash is known in full before anything arrives."""
        return self.sha256 is not None and len(self.sha256) == FULL_SHA256

    def accepts(self, digest: str) -> bool:
        """Say whether a file of this sha256 is the one that is meant; any is where no hash is known."""
        return digest.startswith(self.sha256 or "")


class _Retry(Exception):
    """The attempt failed in a way that may pass; what has arrived stays for the next one."""


def direct_address(url: str) -> str:
    """Return where the file of a Google Drive link itself is; any other address is returned as it is.

    >>> direct_address("https://drive.google.com/file/d/1AbC_d-9/view?usp=sharing")
    'https://drive.usercontent.google.com/download?id=1AbC_d-9&export=download&confirm=t'
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in ("drive.google.com", "docs.google.com"):
        return url
    found = re.search(r"/d/([\w-]+)", parts.path) or re.search(r"(?:^|&)id=([\w-]+)", parts.query)
    if found is None:
        return url
    return f"https://drive.usercontent.google.com/download?id={found[1]}&export=download&confirm=t"


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


def _refuse_page(page: bytes, wanted: Download, path: Path) -> NoReturn:
    for pattern, meaning, help_ in PAGES:
        if re.search(pattern, page, re.IGNORECASE):
            raise WeightsError(f"{wanted.url} {meaning}", hint=f"{help_}, or put the file there yourself: {path}")
    message = f"{wanted.url} answers with a web page instead of the file"
    raise WeightsError(message, hint=f"a proxy or a login may stand between; {_by_hand(path)}")


def _first_chunk(response: http.client.HTTPResponse, wanted: Download, path: Path) -> bytes:
    """Read the beginning of the body, and refuse a web page."""
    chunk = response.read(CHUNK_BYTES)
    is_page = chunk.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
    if is_page or "text/html" in response.headers.get("Content-Type", ""):
        _refuse_page(chunk[:PAGE_BYTES], wanted, path)
    return chunk


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """Return the whole file's size as the server announces it; None where it does not."""
    of = response.headers.get("Content-Range", "").rpartition("/")[2]
    if of.isdigit():
        return int(of)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _receive(
    chunk: bytes, response: IO[bytes], part: IO[bytes], wanted: Download, total: int | None, on_step: Sink
) -> None:
    """Append what arrives to `part`; never more than was announced."""
    while chunk:
        part.write(chunk)
        done = part.tell()
        if wanted.size_bytes is not None and done > wanted.size_bytes:
            message = f"{wanted.url} sends more than {wanted.size_bytes} bytes"
            raise HashMismatchError(message, hint="the file has changed; update mien")
        on_step(Step(f"download {wanted.name}", done, total or done))
        chunk = response.read(CHUNK_BYTES)


def _start(part_path: Path, wanted: Download) -> tuple[int, dict[str, str]]:
    """Return from which byte to go on, and the headers that ask for it.

    Two halves of different files would be noticed by a hash; where none is known, the server must vouch that the file
    is still the same (`If-Range`), or the download starts again.
    """
    start = part_path.stat().st_size if part_path.exists() else 0
    headers = {"User-Agent": "mien", "Range": f"bytes={start}-"}
    if start and wanted.sha256 is None:
        validator = _validator_path(part_path)
        if not validator.is_file():
            return 0, headers | {"Range": "bytes=0-"}
        headers["If-Range"] = validator.read_text(encoding="latin-1")
    return start, headers


def _validator_path(part_path: Path) -> Path:
    return part_path.with_suffix(".same")


def _note_validator(response: http.client.HTTPResponse, part_path: Path) -> None:
    """Keep by what the server knows this version of the file again."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    if validator:
        _validator_path(part_path).write_text(validator, encoding="latin-1")
    else:
        _validator_path(part_path).unlink(missing_ok=True)


def _attempt(wanted: Download, part_path: Path, path: Path, on_step: Sink) -> None:
    """Bring `part_path` to its full length, from where it stopped."""
    start, headers = _start(part_path, wanted)
    if start and start == wanted.size_bytes:
        return
    request = urllib.request.Request(direct_address(wanted.url), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            chunk = _first_chunk(response, wanted, path)
            total = wanted.size_bytes or _total(response, start if resumes else 0)
            if not resumes:
                _note_validator(response, part_path)
            with open(part_path, "ab" if resumes else "wb") as part:
                _receive(chunk, response, part, wanted, total, on_step)
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
    if total is not None and size < total:
        raise _Retry(f"the connection was cut after {size} of {total} bytes")


def _download(wanted: Download, path: Path, on_step: Sink, attempts: int, pause_s: float) -> str:
    """Bring the file to `path` and return its sha256."""
    key = wanted.sha256 or hashlib.sha256(wanted.url.encode()).hexdigest()
    part = path.with_name(f".{path.name}.{key[:12]}.part")
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
        digest = _digest(part)
        _validator_path(part).unlink(missing_ok=True)
        if wanted.accepts(digest):
            os.replace(part, path)
            return digest
        part.unlink()  # perhaps two halves of different files: once more from the start
        reason = OTHER_FILE
    if reason == OTHER_FILE:
        hint = f"it was changed or damaged on the way; {_by_hand(path)}"
        raise HashMismatchError(f"{wanted.url}: {reason}, {wanted.sha256}", hint=hint)
    raise WeightsError(f"cannot download {wanted.url}: {reason}", hint=_by_hand(path))


def _locked(wanted: Download, folder: Path) -> Download:
    """Return `wanted` with the hash that was recorded when it first arrived, where the publisher states none in full.

    Raises:
        HashMismatchError: what was recorded is not what the publisher states by now.
    """
    if wanted.is_pinned or (known := locked_sha256(folder, wanted.name)) is None:
        return wanted
    if not wanted.accepts(known):
        message = f"{wanted.name} was recorded with sha256 {known}, but its publisher states {wanted.sha256}"
        raise HashMismatchError(message, hint=f"remove it from {folder}, and its line from hashes.json")
    return replace(wanted, sha256=known)


def _present(wanted: Download, path: Path) -> bool:
    """Say whether the file is there; one whose hash nobody knows yet is trusted from now on."""
    if not path.is_file() or not wanted.accepts(digest := _digest(path)):
        return False
    if not wanted.is_pinned:
        remember(path.parent, wanted.name, digest, wanted.url)
    return True


def cached(wanted: Download, *, cache: Path | None = None) -> Path | None:
    """Return the path of a file that is in the cache and is the one that is meant, else None; never downloads.

    Raises:
        HashMismatchError: what was recorded of it is not what its publisher states.
        MienError: the cache cannot be written.
    """
    path = (cache or default_cache()) / wanted.name
    return path if _present(_locked(wanted, path.parent), path) else None


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
    wanted = _locked(wanted, path.parent)
    try:
        if _present(wanted, path):
            return path
        if offline if offline is not None else is_offline():
            hint = f"unset MIEN_OFFLINE, or copy it from {wanted.url} to {path}"
            lacks = "in the cache is damaged or another file" if path.is_file() else "is not in the cache"
            raise WeightsError(f"{wanted.name} {lacks}, and downloads are off", hint=hint)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # another process may be fetching it right now
            if not _present(wanted, path):
                digest = _download(wanted, path, on_step, attempts, pause_s)
                if not wanted.is_pinned:
                    remember(path.parent, wanted.name, digest, wanted.url)
    except OSError as err:
        reason = err.strerror or err
        hint = "free some space, or name another folder in MIEN_CACHE"
        raise MienError(f"cannot write {path}: {reason}", hint=hint) from err
    return path
