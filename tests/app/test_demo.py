"""The demo on tiny networks: every file is there, the report tells all, the figure holds together."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.demo import demo_photo, run_demo
from mien.app.figures.figure import Section, Tile, figure
from mien.app.settings import DEFAULT_NETWORK
from mien.app.studio import Studio
from mien.inversion.invert import PRESETS, Method
from mien.inversion.project import ProjectConfig

from .conftest import draw_photo, find_drawn


def test_the_demo_photo_is_the_portrait_that_scikit_image_carries() -> None:
    assert demo_photo().size == (512, 512)


@pytest.mark.usefixtures("bundle")
def test_demo_writes_pictures_a_figure_and_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.app.demo.demo_photo", lambda: draw_photo((30,)))
    monkeypatch.setattr(
        "mien.inversion.invert.PRESETS", {**PRESETS, "optimize": Method("auto", (ProjectConfig(num_steps=2),))}
    )
    result = CliRunner().invoke(app, ["demo", "--outdir", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "demo" / "overview.png") in result.stdout
    assert "report.json" in result.stderr
    pictures = {p.stem for p in (tmp_path / "demo").glob("*.png")}
    assert {"overview", "photo", "photo_0", "photo_0_inverted", "photo_smile_minus1", "photo_age_plus1.5"} <= pictures
    assert {"people", "people_smile", "people_age", "people_yaw", "people_mixed"} <= pictures
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert {len(sha) for sha in report["weights"].values()} == {64}
    assert len(report["weights"]) == 5
    assert report["losses"]["total"] > 0
    assert report["times_s"]["all"] == pytest.approx(
        sum(v for k, v in report["times_s"].items() if k != "all"), abs=0.1
    )
    assert report["seeds"]["people"] == list(range(1, 21))
    assert [edit["name"] for edit in report["edits"]] == ["smile", "age", "yaw", "yaw"]
    assert {edit["file"].removesuffix(".png") for edit in report["edits"]} <= pictures
    assert sorted(report["seeds"]["directions"]) == sorted(report["sweeps"]) == ["age", "smile", "yaw"]


def test_the_report_lists_what_was_done_and_nothing_else(
    tiny_nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.app.demo.demo_photo", lambda: draw_photo((30, 20)))
    monkeypatch.setattr("mien.app.studio.detect", find_drawn)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((tiny_nets / f"{DEFAULT_NETWORK}.safetensors").read_bytes())
    report = run_demo(Studio(alone, device="cpu", face_net=None), tmp_path / "demo")
    assert report["edits"] == [] and report["sweeps"] == {} and report["faces"] == 2
    assert report["weights"].keys() == {"alone.safetensors", "detector.safetensors"}
    assert {path.stem for path in (tmp_path / "demo").glob("photo_0_*.png")} == {"photo_0_inverted"}


def test_figure_is_as_wide_as_its_widest_row() -> None:
    red, wide = PIL.Image.new("RGB", (10, 10), "red"), PIL.Image.new("RGB", (40, 10), "blue")
    sheet = figure("Title", "text", [Section("A", "a", [[Tile(red, "one")], [Tile(wide), Tile(red)]], 100)])
    assert sheet.width == 400 + 14 + 100 + 2 * 56
    colours = {colour for _, colour in sheet.getcolors(1 << 16) or []}
    assert {(255, 0, 0), (0, 0, 255)} <= colours
