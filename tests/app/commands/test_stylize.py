"""`mien stylize`: a picture, a report of whose eyes, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["stylize", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def style(tmp_path: Path) -> Path:
    path = tmp_path / "style.png"
    PIL.Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(path)
    return path


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))


def test_a_photo_is_painted_and_the_report_says_how(bundle: Path, photo: Path, style: Path, tmp_path: Path) -> None:
    out, preview = tmp_path / "out" / "painted.png", tmp_path / "now.png"
    options = ["--size", 48, "--steps", 2, "--weight", 2, "--weight", 1, "--spare-faces", 0.5, "--preview", preview]
    second = tmp_path / "other.png"
    PIL.Image.new("RGB", (20, 20), "red").save(second)
    code, said = run(photo, style, second, *options, "--out", out)
    assert code == 0, said
    with PIL.Image.open(out) as image:
        assert max(image.size) == 48
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["features"] == "shipped" and set(report["weights"]) == {"face-features.safetensors"}
    assert report["styles"] == {"style.png": 2.0, "other.png": 1.0} and report["photo_px"] == [200, 120]
    assert report["config"]["spare"] == 0.5 and report["preset"] == "auto" and preview.is_file()
    assert "painted at 48 px of the photo's 200" in said


def test_a_setting_of_vgg19_says_that_it_is_not_there(bundle: Path, photo: Path, style: Path, tmp_path: Path) -> None:
    out = tmp_path / "painted.png"
    code, said = run(photo, style, "--preset", "neural-style", "--size", 32, "--steps", 2, "--out", out)
    assert code == 0 and "VGG19 is not at hand" in said, said
    config = json.loads(out.with_suffix(".json").read_text())["config"]
    assert config["distance"] == "relative" and config["optimizer"] == "lbfgs" and config["size_px"] == 32


def test_wrong_use(bundle: Path, photo: Path, style: Path, tmp_path: Path) -> None:
    out = tmp_path / "painted.png"
    for options, message in (
        (["--preset", "monet"], "no preset named 'monet'"),
        (["--weight", "1", "--weight", "2"], "2 weights for 1 styles"),
        (["--weight", "much"], "not a weight"),
        (["--features", "vgg11"], "no features named 'vgg11'"),
        (["--colours", "sepia"], "no colours named 'sepia'"),
        (["--optimizer", "sgd"], "no optimizer named 'sgd'"),
    ):
        code, said = run(photo, style, *options, "--out", out)
        assert code == 2 and message in said, said
    code, said = run(photo, style, "--out", photo)
    assert code == 2 and "would overwrite its input" in said
    code, said = run(photo, tmp_path / "none.png", "--out", out)
    assert code == 2 and "cannot read" in said and not out.exists()
