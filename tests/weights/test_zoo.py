"""The zoo: a table that holds together, and files that arrive under its names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from mien.errors import HashMismatchError, InputError, WeightsError
from mien.weights import zoo as module
from mien.weights.load import bundled_names, find_weights
from mien.weights.zoo import COMMERCIAL, CROPS, KINDS, Entry, find, in_cache, licences, pull, zoo

CONTENT = b"weights of somebody"


def test_every_entry_is_whole() -> None:
    assert len(zoo()) > 60
    for entry in zoo().values():
        assert re.fullmatch(r"[a-z0-9-]+", entry.name), entry.name
        assert entry.kind in KINDS and entry.crop in CROPS, entry.name
        assert re.match(r"https://[\w.-]+/", entry.url), entry.name
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", entry.sha256), entry.name
        assert Path(entry.download.name).suffix in (".pkl", ".pt", ".pth"), entry.name
        assert re.search(r"arXiv:\d{4}\.\d{4,5}", entry.paper), entry.name
        assert entry.facts and entry.about
        assert entry.kind == "features" or (entry.resolution or 0) >= 32
    assert len({entry.download.name for entry in zoo().values()}) == len(zoo())
    assert not set(zoo()) & set(bundled_names())


def test_a_hash_in_a_files_name_is_the_beginning_of_its_hash() -> None:
    named = {e.name: m[1] for e in zoo().values() if (m := re.search(r"-([0-9a-f]{8})\.pth$", e.url))}
    assert len(named) >= 10
    for name, prefix in named.items():
        assert (find(name).sha256 or "").startswith(prefix)


def test_licences_say_what_is_allowed() -> None:
    for licence in licences().values():
        assert licence.commercial in COMMERCIAL
        assert licence.terms.endswith(".")
    assert all(e.licence.commercial == "no" for e in zoo().values() if "nvlabs" in e.url or "nvidia" in e.url)
    assert find("lpips-vgg").licence.commercial == "yes"


@pytest.mark.parametrize(
    "name",
    [
        *("stylegan-ffhq-1024", "stylegan2-ffhq-1024", "stylegan2-ffhq-256", "stylegan2-metfaces-1024"),
        *("stylegan3-t-ffhq-1024", "stylegan3-r-ffhq-1024", "stylegan3-t-ffhqu-256", "stylegan3-r-ffhqu-256"),
        *("stylegan2-afhqcat-512", "stylegan2-afhqdog-512", "stylegan2-afhqwild-512", "toonify", "anime-portraits-512"),
        *("e4e-ffhq", "psp-ffhq", "vgg16", "vgg19", "lpips-vgg", "lpips-alex", "arcface-ir-se50", "inception-fid"),
    ],
)
def test_what_people_ask_for_is_there(name: str) -> None:
    assert find(name).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no weights named 'e4e-ffqh'") as info:
        find("e4e-ffqh")
    assert "e4e-ffhq" in info.value.hint


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """One small entry in place of all, its file at hand in the cache."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    entry = Entry(
        name="small",
        about="a test",
        url="http://127.0.0.1:9/x/file.pkl",
        licence=licences()["cc-by-4"],
        paper="",
        facts="",
        kind="generator",
        family="stylegan2",
        crop="none",
    )
    monkeypatch.setattr(module, "zoo", lambda: {"small": entry})
    return entry


def test_a_cached_file_is_found_by_its_name(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_cache("small") is None
    (tmp_path / "small.pkl").write_bytes(CONTENT)
    assert in_cache("small") == pull("small") == tmp_path / "small.pkl"
    assert hashlib.sha256(CONTENT).hexdigest() in (tmp_path / "hashes.json").read_text()
    monkeypatch.setattr("mien.weights.load.zoo", module.zoo)
    assert find_weights("small") == tmp_path / "small.pkl"


def test_a_file_that_changed_since_is_not_used(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "small.pkl").write_bytes(CONTENT)
    pull("small")
    (tmp_path / "small.pkl").write_bytes(b"changed")
    assert in_cache("small") is None
    with pytest.raises(WeightsError, match="downloads are off"):
        pull("small")


def test_a_record_that_contradicts_the_publisher_is_said(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.pkl").write_bytes(CONTENT)
    pull("small")
    from dataclasses import replace

    monkeypatch.setattr(module, "zoo", lambda: {"small": replace(entry, sha256="00000000")})
    with pytest.raises(HashMismatchError, match="its publisher states 00000000"):
        pull("small")


def test_what_only_a_browser_can_fetch_says_where_to_put_it(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    by_hand = replace(entry, manual=True)
    monkeypatch.setattr(module, "zoo", lambda: {"small": by_hand})
    with pytest.raises(WeightsError, match="browser only") as info:
        pull("small")
    assert str(tmp_path / "small.pkl") in info.value.hint
    (tmp_path / "small.pkl").write_bytes(CONTENT)
    assert pull("small") == tmp_path / "small.pkl"
