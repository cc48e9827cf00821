"""`mien swap`, `swap-matrix` and `eval swap`: faces by name and number, bad folders with one clear error each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.edits.swap import SwapConfig
from mien.inversion.invert import PRESETS, Method
from mien.inversion.project import ProjectConfig
from mien.inversion.tune import TuneConfig

PROJECT = ProjectConfig(num_steps=1, noise_lr=0.0)
QUICK = {"pivot": Method("auto", (PROJECT,)), "editable": Method("auto", (PROJECT, TuneConfig(num_steps=1)))}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.inversion.invert.PRESETS", {**PRESETS, **QUICK})
    config = SwapConfig(num_steps=1, num_views=0, num_samples=16, tune_steps=0)
    monkeypatch.setattr("mien.app.sitters.config_of", lambda steps, seed: config)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def friends(tmp_path: Path) -> Path:
    folder = tmp_path / "friends"
    folder.mkdir()
    for i, name in enumerate(("anna", "bert", "cleo")):
        pixels = np.random.RandomState(i).randint(90, 165, (4, 4, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).resize((40, 40), PIL.Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


def pixels_of(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_face_of_a_photo_is_changed_and_nothing_else(
    bundle: Path, photo: Path, friends: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    code, said = run("swap", photo, photo, "--face", 1, "--steps", 1, "--out", out)
    assert code == 0, said
    changed = (pixels_of(out) != pixels_of(photo)).any(2)
    assert changed[:, :100].any() and not changed[:, 120:].any()  # the smaller face stands on the left


def test_codes_seeds_crops_and_several_sources(bundle: Path, friends: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    command = ["swap", "seed:3", friends / "bert.png", "--source", friends / "anna.png", "--aligned", "--steps", 1]
    code, said = run(*command, "--out", out)
    assert code == 0, said
    before, after = pixels_of(friends / "bert.png"), pixels_of(out)
    assert after.shape == before.shape and (after != before).any()
    assert (after[:4] == before[:4]).all() and (after[:, :4] == before[:, :4]).all()


def test_the_labs_own_way(bundle: Path, friends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Method("auto", (replace(PRESETS["lab-swap"].stages[0], num_steps=2),))
    monkeypatch.setattr("mien.inversion.invert.PRESETS", {**PRESETS, **QUICK, "lab-swap": lab})
    monkeypatch.setattr("mien.edits.lab_swap.PRESETS", {"lab-swap": lab})
    out = tmp_path / "out.png"
    code, said = run("swap", "seed:3", friends / "bert.png", "--aligned", "--method", "lab-swap", "--out", out)
    assert code == 0, said
    assert (pixels_of(out) != pixels_of(friends / "bert.png")).any()


def test_wrong_use_of_a_swap(bundle: Path, photo: Path, friends: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "out.png", tmp_path / "empty.png"
    PIL.Image.new("RGB", (100, 120), (90, 120, 110)).save(empty)
    code, said = run("swap", photo, empty, "--out", out)
    assert code == 2 and "no face found in empty.png" in said
    code, said = run("swap", empty, photo, "--out", out)
    assert code == 2 and "no face found in empty.png" in said
    code, said = run("swap", photo, photo, "--face", 4, "--out", out)
    assert code == 2 and "none has number 4" in said
    code, said = run("swap", photo, photo, "--out", photo)
    assert code == 2 and "would overwrite its input" in said
    code, said = run("swap", photo, photo, "--method", "magic", "--out", out)
    assert code == 2 and "no method named 'magic'" in said
    assert not out.exists()


def test_a_matrix_names_everybody_and_leaves_out_who_fails(bundle: Path, friends: Path, tmp_path: Path) -> None:
    (friends / "dora.png").write_bytes(b"no picture")
    out = tmp_path / "matrix.png"
    code, said = run("swap-matrix", friends, "--aligned", "--steps", 1, "--out", out)
    assert code == 3 and "1 of 4 inputs failed" in said and "dora.png" in said
    with PIL.Image.open(out) as sheet:
        assert sheet.width > 3 * 192 and sheet.height > 3 * 192


def test_bad_folders(bundle: Path, friends: Path, tmp_path: Path) -> None:
    out = tmp_path / "matrix.png"
    code, said = run("swap-matrix", tmp_path / "nowhere", "--out", out)
    assert code == 2 and "no folder at" in said
    for name in ("bert.png", "cleo.png"):
        (friends / name).write_bytes(b"no picture")
    code, said = run("swap-matrix", friends, "--aligned", "--out", out)
    assert code == 2 and "shows 1 face" in said and "bert.png" in said
    (friends / "ANNA.webp").write_bytes(b"twin")
    code, said = run("swap-matrix", friends, "--aligned", "--out", out)
    assert code == 2 and "would have one name" in said
    assert not out.exists()


def test_swaps_are_measured(bundle: Path, friends: Path, tmp_path: Path) -> None:
    outdir = tmp_path / "measured"
    code, said = run("eval", "swap", friends, "--aligned", "--num", 2, "--outdir", outdir)
    assert code == 0, said
    assert "of 2 pairs are nearer to the source" in said and "identity_source" in said
    report = json.loads((outdir / "swap.json").read_text(encoding="utf-8"))
    assert set(report["pairs"]) == {"anna-on-bert", "bert-on-anna"} and report["identity"]["judge"] == "shipped"
    assert all(pair["changed_outside"] == 0 and pair["colour"] < 20 for pair in report["pairs"].values())
    assert (outdir / "anna-on-bert.png").is_file() and (outdir / "swap.png").is_file()
