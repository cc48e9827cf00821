"""mien drag: points in px of what the user sees, the face that they lie on, the photo around it untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.images import save_png

pytestmark = pytest.mark.usefixtures("bundle")
QUICK = ("--steps", 2, "--drag-steps", 3)


def mien(*args: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result.stdout, result.stderr


def pixels(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_face_under_the_points_is_moved(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    said, told = mien("drag", photo, "--from", "50,60", "--to", "54,60", "--out", out, *QUICK)
    assert said.strip() == str(out)
    assert "point 0: 4.0 px from its goal, now" in told and "3 steps" in told
    changed = (pixels(out) != pixels(photo)).any(axis=(0, 2))
    assert changed[:100].any() and not changed[130:].any()  # the smaller face, on the left


def test_points_of_crops_and_of_renders(tmp_path: Path) -> None:
    save_png(PIL.Image.new("RGB", (64, 64), "grey"), tmp_path / "crop.png")
    for source, at, to, size in ((tmp_path / "crop.png", "24,24", "28,24", 16), ("seed:3", "6,6", "7,6", 16)):
        out = tmp_path / "out.png"
        aligned = ["--aligned"] if source != "seed:3" else []
        told = mien("drag", source, *aligned, "--from", at, "--to", to, "--out", out, *QUICK)[1]
        assert f"point 0: {4.0 if aligned else 1.0} px from its goal" in told
        assert pixels(out).shape == (size, size, 3)


def test_a_mask_lies_over_the_photo(photo: Path, tmp_path: Path) -> None:
    save_png(PIL.Image.new("RGB", (200, 120), "white"), tmp_path / "mask.png")
    save_png(PIL.Image.new("RGB", (20, 12), "white"), tmp_path / "small.png")
    points = ("--from", "50,60", "--to", "54,60", "--out", tmp_path / "out.png", *QUICK)
    mien("drag", photo, *points, "--mask", tmp_path / "mask.png")
    assert "the mask is 20x12" in mien("drag", photo, *points, "--mask", tmp_path / "small.png", code=2)[1]


def test_wrong_points(photo: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out.png")
    assert "'5' is no point" in mien("drag", photo, "--from", "5", "--to", "1,2", *out, code=2)[1]
    told = mien("drag", photo, "--from", "5,5", "--from", "6,6", "--to", "1,2", *out, code=2)[1]
    assert "2 --from and 1 --to make no pairs" in told
    assert "0,119 lies on no face" in mien("drag", photo, "--from", "0,119", "--to", "1,2", *out, code=2)[1]
    told = mien("drag", "seed:1", "--from", "40,4", "--to", "1,2", *out, code=2)[1]
    assert "the point 40.0,4.0 is outside of the face's 16x16 px" in told
    assert not (tmp_path / "out.png").exists()
