"""Damaged files of every format: each is read, or ends in one `WeightsError` with a hint; nothing else ever happens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mien.errors import WeightsError
from mien.weights.build import build
from mien.weights.formats import read_checkpoint

FRAGMENTS = (
    b"\x00" * 8,
    b"\xff" * 8,
    b"cos\nsystem\n",
    b"(",
    b"R",
    b"b",
    b"\x8e",
    b"PK\x03\x04",
    b"\x80\x04",
    b"1",
    b"Q",
)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 4, 64])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def extend(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 200))


def insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.choice(FRAGMENTS) + content[at:]


def drop(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randrange(1, 64) :]


def swap(content: bytes, rng: random.Random) -> bytes:
    """Put a piece of the file into another place of it."""
    source, target, size = rng.randrange(len(content)), rng.randrange(len(content)), rng.randrange(1, 64)
    piece = content[source : source + size]
    return content[:target] + piece + content[target + len(piece) :]


DAMAGES = (cut, flip, flip, extend, insert, drop, swap)


def read(path: Path) -> None:
    """Read and build all of a file; only one kind of error may come."""
    try:
        for found in read_checkpoint(path).networks.values():
            build(found, path.name)
    except WeightsError as err:
        assert err.message.startswith(path.name) and err.hint and len(err.message) < 600, err.message


def fuzz(content: bytes, name: str, num: int, folder: Path) -> None:
    path = folder / name
    for seed in range(num):
        rng = random.Random(f"{name} {seed}")
        damage = rng.choice(DAMAGES)
        path.write_bytes(damage(content, rng))
        try:
            read(path)
        except BaseException as err:
            raise AssertionError(f"{name}: seed {seed}, {damage.__name__}: {type(err).__name__} {err}"[:500]) from err


NAMES = ("ours.safetensors", "zip.pt", "chain.pth", "nvidia2.pkl", "nvidia4.pkl")


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused(tiny_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    fuzz(tiny_files[name], name, 60, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_damaged_files_are_read_or_refused(
    tiny_files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    fuzz(tiny_files[name], name, 2000, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_recorded_files_damaged_are_read_or_refused(shared: Path, tmp_path: Path) -> None:
    files = [path for path in sorted((shared / "fixtures").iterdir()) if path.suffix in (".pkl", ".pt", ".pth")]
    assert len(files) > 20
    for path in files:
        fuzz(path.read_bytes(), path.name, 60, tmp_path)
