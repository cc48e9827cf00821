"""The zoo: weights that others published, by name; the table itself is `zoo.toml` beside this file.

An entry says where a file is, which hash it has if anybody states one, on which terms it may be used, and what it
expects. `pull` brings it into the cache; what arrives is read by the safe readers only.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mien.errors import InputError, WeightsError
from mien.report import Sink, ignore
from mien.weights.download import Download, cached, default_cache, fetch

__all__ = [
    "COMMERCIAL",
    "CROPS",
    "KINDS",
    "UNSTATED",
    "Entry",
    "Licence",
    "find",
    "in_cache",
    "licences",
    "pull",
    "zoo",
]

KINDS = ("generator", "encoder", "features")

CROPS = ("ffhq", "ffhq-unaligned", "celebahq", "afhq", "anime", "arcface", "none")
"""What the pictures look like that a network was trained on: `ffhq` is what `mien align` cuts out."""

COMMERCIAL = ("yes", "no", "unknown")
UNSTATED = "unstated"


@dataclass(frozen=True)
class Licence:
    """On which terms weights may be used; `commercial` is one of `COMMERCIAL`."""

    name: str
    commercial: str
    terms: str
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One published file of weights."""

    name: str
    about: str
    url: str
    licence: Licence
    paper: str
    facts: str  # where all this was read
    kind: str
    family: str
    crop: str
    resolution: int | None = None  # px
    base: str | None = None  # the weights that these were made from, often another entry
    sha256: str | None = None
    size_bytes: int | None = None
    suffix: str = ""
    manual: bool = False  # the host gives it to browsers only

    @property
    def download(self) -> Download:
        """What to fetch; in the cache it has the entry's name."""
        suffix = self.suffix or Path(self.url).suffix
        return Download(
            url=self.url,
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            license=self.licence.name,
            filename=f"{self.name}{suffix}",
        )


@functools.cache
def _table() -> Mapping[str, Any]:
    text = (resources.files("mien.weights") / "zoo.toml").read_text(encoding="utf-8")
    return MappingProxyType(tomllib.loads(text))


@functools.cache
def licences() -> Mapping[str, Licence]:
    """Return every licence of the table by its key."""
    return MappingProxyType({key: Licence(**facts) for key, facts in _table()["licences"].items()})


@functools.cache
def zoo() -> Mapping[str, Entry]:
    """Return every entry by its name, in the table's order.

    >>> zoo()["stylegan2-ffhq-1024"].resolution
    1024
    """
    entries = {}
    for facts in _table()["models"]:
        known = {"licence": licences()[facts["licence"]], "url": facts["url"].format_map(_table()["places"])}
        entries[facts["name"]] = Entry(**(facts | known))
    return MappingProxyType(entries)


def find(name: str) -> Entry:
    """Return the entry of a name.

    >>> find("stylegan2-fhq-1024")
    Traceback (most recent call last):
    mien.errors.InputError: no weights named 'stylegan2-fhq-1024' in the zoo

    Raises:
        InputError: there is none; the hint names the nearest.
    """
    if name in zoo():
        return zoo()[name]
    near = difflib.get_close_matches(name, zoo(), 3)
    hint = f"perhaps {', '.join(near)}" if near else "see all names: mien models list"
    raise InputError(f"no weights named {name!r} in the zoo", hint=hint)


def in_cache(name: str, *, cache: Path | None = None) -> Path | None:
    """Return the file of an entry where it is in the cache, and is the one that is meant; never downloads.

    Raises:
        InputError: no such entry.
    """
    return cached(find(name).download, cache=cache)


def pull(name: str, *, cache: Path | None = None, offline: bool | None = None, on_step: Sink = ignore) -> Path:
    """Return the file of an entry, downloaded first where the cache does not have it; see `fetch`.

    Raises:
        InputError: no such entry.
        WeightsError: it is not there and cannot be fetched, or only by hand.
        HashMismatchError: what arrives is another file.
    """
    entry = find(name)
    if entry.manual:
        if (path := cached(entry.download, cache=cache)) is not None:
            return path
        place = (cache or default_cache()) / entry.download.name
        hint = f"open {entry.url} and save the file as {place}"
        raise WeightsError(f"{name} can be had by a browser only", hint=hint)
    return fetch(entry.download, cache=cache, offline=offline, on_step=on_step)
