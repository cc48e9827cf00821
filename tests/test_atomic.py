"""Files arrive whole or not at all."""

from __future__ import annotations

import errno
import subprocess
import sys
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


WRITER = """
import sys
from pathlib import Path
from mien.atomic import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks are those of POSIX")
def test_what_a_killed_writer_left_is_swept_and_a_living_ones_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = tmp_path / "a.txt", tmp_path / ".a.txt.0123456789ab.part"
    write_text("old", path)
    theirs.write_text("a download that will go on")
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        (part,) = set(tmp_path.iterdir()) - {path, theirs}
        monkeypatch.setattr("mien.atomic._swept", set())
        write_text("new", path)
        assert part.read_text() == "half"
        writer.kill()
    assert part.exists() and path.read_text() == "new"
    monkeypatch.setattr("mien.atomic._swept", set())
    write_text("newer", path)
    assert set(tmp_path.iterdir()) == {path, theirs} and path.read_text() == "newer"


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
def test_a_write_that_breaks_off_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel stops the file at 1 kB, as it does where the disk is full."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = f"""
import resource, signal
from pathlib import Path
from mien.atomic import replacing
from mien.errors import MienError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    with replacing(Path({str(path)!r})) as part:
        part.write_bytes(bytes(5000))
except MienError as err:
    print(err)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write" in result.stdout and "File too large" in result.stdout
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
