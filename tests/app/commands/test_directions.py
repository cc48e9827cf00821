"""`mien directions`: found, listed and shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["directions", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("method", ["sefa", "ganspace"])
def test_found_listed_shown(bundle: Path, tmp_path: Path, method: str) -> None:
    file = tmp_path / "found.safetensors"
    code, said = run("find", "--method", method, "--num", "2", "--layers", "0-3", "--out", str(file))
    assert code == 0, said
    code, said = run("list", "--file", str(file))
    assert code == 0 and f"{method}0  1 = " in said and f"{method}1" in said and "rows 0-3" in said
    code, said = run("show", f"{method}1", "--file", str(file), "--seeds", "1-2", "--out", str(tmp_path / "show.png"))
    assert code == 0, said
    with PIL.Image.open(tmp_path / "show.png") as sheet:
        assert sheet.width > sheet.height


def test_the_networks_own_and_published_ones(bundle: Path, tmp_path: Path) -> None:
    code, said = run("list")
    assert code == 0 and all(name in said for name in ("age", "smile", "yaw"))
    np.save(tmp_path / "glad.npy", np.ones((1, 8)))
    code, said = run("list", "--file", str(tmp_path / "glad.npy"))
    assert code == 0 and "glad  1 = as published" in said


def test_wrong_use(bundle: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "found.safetensors")
    code, said = run("find", "--method", "magic", "--out", out)
    assert code == 2 and "no method named 'magic'" in said
    code, said = run("find", "--layers", "40-", "--out", out)
    assert code == 2 and "are not there" in said
    code, said = run("show", "nobody", "--out", str(tmp_path / "show.png"))
    assert code == 2 and "no direction named 'nobody'" in said
