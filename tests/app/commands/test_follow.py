"""`mien --track`: an optimisation is written down as a training is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.terminal.screen import Bars

pytestmark = pytest.mark.usefixtures("bundle")


def test_an_optimisation_is_tracked(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = tmp_path / "steps.jsonl"
    args = ["--track", f"jsonl:{lines}", "--track", "jsonl", "invert", str(photo), "--outdir", "codes", "--steps", "3"]
    result = CliRunner().invoke(app, [*args, "--device", "cpu"])
    assert result.exit_code == 0, (result.output, result.exception)
    found = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in found] == [0, 1, 2, 3] and all("loss" in line for line in found)
    (own,) = (tmp_path / "runs").glob("*-invert")
    assert (own / "steps.jsonl").read_text(encoding="utf-8") == lines.read_text(encoding="utf-8")
    assert not Bars.followers  # for one command
