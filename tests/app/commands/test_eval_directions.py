"""`mien eval directions`: numbers, figure and page for invented people and for a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.figures.chart import draw_curves
from mien.app.studio import Studio
from mien.edits.directions import DirectionSet, StyleDirection, save_directions


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", "directions", *arguments])
    return result.exit_code, result.output


def test_invented_people_and_every_shipped_direction(bundle: Path, tmp_path: Path) -> None:
    code, said = run("--seeds", "1-4", "--strengths=-1,1,0", "--outdir", str(tmp_path))
    assert code == 0, said
    report = json.loads((tmp_path / "directions.json").read_text())
    assert (report["num_faces"], sorted(report["directions"])) == (4, ["age", "smile", "yaw"])
    smile = report["directions"]["smile"]
    assert smile["strengths"] == [-1, 0, 1]
    assert smile["identities"][1] == pytest.approx(1, abs=1e-5)  # unmoved
    assert smile["curves"]["age"][1] == pytest.approx(0, abs=1e-5)
    assert "smile" not in smile["beside"] and len(smile["beside"]) == 4
    assert all(f"| {name} | " in said for name in ("age", "smile", "yaw"))
    with PIL.Image.open(tmp_path / "directions.png") as sheet:
        assert sheet.width > 1000
    shown = (tmp_path / "directions.html").read_text()
    assert set(re.findall(r'src="([^"]+)"', shown)) == {"age.png", "smile.png", "yaw.png"}
    assert all((tmp_path / source).is_file() for source in ("age.png", "smile.png", "yaw.png"))


def test_a_folder_of_faces_and_directions_that_nothing_measures(bundle: Path, photo: Path, tmp_path: Path) -> None:
    studio, file, out = Studio(device="cpu"), tmp_path / "mine.safetensors", tmp_path / "out"
    hat = StyleDirection({"b8.conv0.affine": torch.ones(8)}, "half of the way to hat", 0.5, (-1.0, 1.0))
    save_directions(DirectionSet({"hat": hat}, studio.digest), file)
    given = ("--file", str(file), "--method", "encoder", "--strengths", "0,2", "--outdir", str(out))
    code, said = run(str(photo.parent), *given)
    assert code == 0, said
    found = json.loads((out / "directions.json").read_text())["directions"]["hat"]
    assert (found["strength"], found["purity"]) == (0, 0)
    assert "hat" not in found["curves"] and len(found["identities"]) == 2


def test_wrong_use(bundle: Path, tmp_path: Path) -> None:
    out = ("--outdir", str(tmp_path / "out"))
    for arguments, message in (
        (("--strengths", "1"), "a curve needs two strengths"),
        (("--strengths", "1,x"), "are no numbers"),
        (("--names", "hat"), "no direction named 'hat'"),
        (("--method", "pti"), "changes the generator for each face"),
        ((str(tmp_path / "none"),), "no folder at"),
    ):
        code, said = run(*arguments, *out)
        assert code == 2 and message in " ".join(said.split()), said
    (tmp_path / "empty").mkdir()
    code, said = run(str(tmp_path / "empty"), *out)
    assert code == 2 and "no faces in" in said


def test_a_chart_holds_its_curves_in_their_colours() -> None:
    drawn = draw_curves("title", "x", "y", {"a": [(-1.0, 0.0), (2.0, 0.5)], "b": [(0.0, 0.5), (2.0, 0.5)]})
    colours = {colour for _, colour in drawn.getcolors(1 << 20) or []}
    assert drawn.size == (640, 400)
    assert {(236, 112, 60), (36, 87, 167)} <= colours
    assert draw_curves("one point", "x", "y", {"a": [(0.0, 0.0)]}).size == (640, 400)
