"""`mien eval inversion`: the numbers are those of their definitions, work goes on, and what fails has a name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.evaluate.inversion import compare, find_subject
from mien.app.studio import Studio
from mien.judges import identity_judge, perceptual_judge


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Three crops, and a file that is none."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.RandomState(i).randint(0, 255, (4, 4, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).resize((64, 64), PIL.Image.Resampling.BICUBIC).save(folder / f"face{i}.png")
    (folder / "notes.jpg").write_text("no picture")
    return folder


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", "inversion", *arguments])
    return result.exit_code, result.output


def test_a_table_a_report_and_a_sheet(bundle: Path, crops: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = run(str(crops), "--aligned", "--outdir", str(out), "--methods", "encoder,pti", "--steps", "1")
    assert code == 3, said  # notes.jpg
    assert "| encoder |" in said and "| pti |" in said
    report = json.loads((out / "inversion.json").read_text())
    assert report["num_faces"] == 3 and report["identity"]["judge"] == "shipped"
    faces = report["methods"]["pti"]["faces"]
    assert list(faces) == ["face0", "face1", "face2"]
    assert report["methods"]["pti"]["median"]["mse"] == sorted(f["mse"] for f in faces.values())[1]
    assert (out / "inversion.png").is_file() and (out / "pti" / "face1.mien").is_file()


def test_it_goes_on_where_it_stopped(
    bundle: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (str(crops), "--aligned", "--outdir", str(tmp_path / "out"), "--methods", "optimize", "--steps", "1")
    run(*arguments)
    before = json.loads((tmp_path / "out" / "inversion.json").read_text())
    (tmp_path / "out" / "optimize" / "face1.json").unlink()
    asked: list[str] = []
    real = Studio.invert
    monkeypatch.setattr(Studio, "invert", lambda self, *a, **k: asked.append(k["method"]) or real(self, *a, **k))
    run(*arguments)
    assert asked.count("optimize") == 1
    after = json.loads((tmp_path / "out" / "inversion.json").read_text())
    assert after["methods"]["optimize"]["faces"]["face0"] == before["methods"]["optimize"]["faces"]["face0"]
    assert (
        after["methods"]["optimize"]["faces"]["face1"]["mse"] == before["methods"]["optimize"]["faces"]["face1"]["mse"]
    )


def test_the_picture_itself_is_perfect(bundle: Path) -> None:
    picture = torch.rand(1, 3, 256, 256) * 2 - 1
    picture = (picture * 127.5 + 127.5).round() / 127.5 - 1
    numbers = compare(picture, picture, looks=perceptual_judge("shipped"), identity=identity_judge("shipped"))
    assert numbers["mse"] == 0 and numbers["perceptual"] == pytest.approx(0, abs=1e-6)
    assert numbers["ms_ssim"] == pytest.approx(1) and numbers["identity"] == pytest.approx(1, abs=1e-5)
    shifted = compare(
        (picture + 0.1).clamp(-1, 1), picture, looks=perceptual_judge("shipped"), identity=identity_judge("shipped")
    )
    assert 0 < shifted["mse"] < 0.0102


def test_photos_are_cut(bundle: Path, photo: Path) -> None:
    subject = find_subject(Studio(), photo, aligned=False)
    assert subject.name == "two"
    assert subject.picture.shape == (1, 3, 256, 256) and subject.img.shape == (1, 3, 16, 16)


def test_wrong_use_is_one_clear_error(bundle: Path, crops: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    code, said = run(str(tmp_path / "nowhere"), "--outdir", out)
    assert code == 2 and "no folder at" in said
    code, said = run(str(crops), "--outdir", out, "--methods", "magic")
    assert code == 2 and "no method named 'magic'" in said
    code, said = run(str(crops), "--outdir", out, "--methods", ",")
    assert code == 2 and "no methods to compare" in said
    (tmp_path / "empty").mkdir()
    code, said = run(str(tmp_path / "empty"), "--outdir", out)
    assert code == 2 and "no faces to invert" in said
