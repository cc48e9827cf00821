"""`mien facespace`: fitted to a folder, blended beside its bars, morphed; wrong use is one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.inversion.invert import PRESETS, Method
from mien.inversion.project import ProjectConfig


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["facespace", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    for i, name in enumerate(("anna", "bert", "cleo")):
        pixels = np.random.RandomState(i).randint(90, 165, (4, 4, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).resize((32, 32), PIL.Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


def test_fit_and_blend(bundle: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {**PRESETS, "optimize": Method("auto", (ProjectConfig(num_steps=1),))}
    monkeypatch.setattr("mien.inversion.invert.PRESETS", quick)
    space, out = str(tmp_path / "space.safetensors"), tmp_path / "blend.png"
    code, said = run("fit", str(people), "--aligned", "--cycles", "0", "--out", space)
    assert code == 0, said
    code, said = run("blend", space, "--weights", "2,1,1", "--out", str(out))
    assert code == 0, said
    with PIL.Image.open(out) as sheet:
        assert sheet.size == (512, 256)
    code, said = run("blend", space, "--weights", "1,1", "--out", str(out))
    assert code == 2 and "2 weights for 3 people" in said
    code, said = run("morph", space, "anna", "dora", "--out", str(tmp_path / "morph.mp4"))
    assert code == 2 and "nobody named 'dora'" in said


def test_wrong_use(bundle: Path, people: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.png")
    code, said = run("blend", str(people / "anna.png"), "--weights", "1,1", "--out", out)
    assert code == 2 and "holds no space of faces" in said
    code, said = run("blend", str(people / "anna.png"), "--weights", "half", "--out", out)
    assert code == 2 and "'half' are no weights" in said
    for name in ("bert", "cleo"):
        (people / f"{name}.png").write_bytes(b"")
    code, said = run("fit", str(people), "--aligned", "--out", str(tmp_path / "space.safetensors"))
    assert code == 2 and "shows 1 face" in said and "bert.png is empty" in said


@pytest.mark.parametrize("method", ["pti", "hybrid"])
def test_people_of_a_space_share_one_generator(bundle: Path, people: Path, tmp_path: Path, method: str) -> None:
    code, said = run("fit", str(people), "--aligned", "--method", method, "--out", str(tmp_path / "space.safetensors"))
    assert code == 2 and f"--method {method} changes the generator" in " ".join(said.split())
