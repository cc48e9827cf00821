"""What the README prints works as printed, with the networks that are shipped."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mien.app.demo import demo_photo
from mien.images import save_png

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
USE = README[README.index("## Use") : README.index("## Networks")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `make demo` leaves of the photo."""
    folder = tmp_path_factory.mktemp("readme")
    save_png(demo_photo(), folder / "out" / "demo" / "photo.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", re.findall(r"^mien .*$", USE, flags=re.MULTILINE))
def test_commands(line: str, place: Path) -> None:
    args = shlex.split(line, comments=True)[1:]
    if args[0] in ("interpolate", "video"):
        pytest.importorskip("av", reason="needs the extra video")
    command = [sys.executable, "-c", "from mien.app.cli import main; main()", *args]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr
    for path in re.findall(r"--(?:out|outdir) (\S+)", line):
        made = place / path
        assert made.is_file() or any(made.iterdir()), f"{path} is empty"


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", USE, flags=re.DOTALL), ids=["network", "studio"])
def test_examples(code: str, place: Path) -> None:
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=place, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    written = re.findall(r'"(out/[a-z]+\.png)"\)', code)[-1]
    assert (place / written).is_file()
