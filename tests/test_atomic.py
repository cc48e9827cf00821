"""Files arrive whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mien.atomic import replacing, write_text
from mien.errors import MienError


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text("old", path)
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"cannot write .*a.txt: No space left") as info, replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert info.value.exit_code == 1 and "free some space" in info.value.hint


def test_missing_folders_are_made_and_impossible_ones_are_said(tmp_path: Path) -> None:
    write_text("x", tmp_path / "new" / "deep" / "a.txt")
    with pytest.raises(MienError, match="cannot write"):
        write_text("y", tmp_path / "new" / "deep" / "a.txt" / "b.txt")
