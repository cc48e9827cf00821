"""`.mien` files: they render exactly, are taken wherever a code is, and work goes on from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.studio import Studio
from mien.errors import InputError
from mien.inversion.code import load_inversion

from ..conftest import make_bundle


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def pixels(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("method", ["pti", "hybrid"])
def test_a_person_is_one_file(bundle: Path, photo: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "out"
    code, said = run("invert", str(photo), "--method", method, "--steps", "2", "--outdir", str(out))
    assert code == 0, said
    names = {path.name for path in out.iterdir()}
    assert names == {f"two_{i}{suffix}" for i in range(2) for suffix in (".mien", ".safetensors", ".png")}
    found = load_inversion(out / "two_0.mien")
    assert np.array_equal(np.asarray(Studio().picture(found)), pixels(out / "two_0.png"))
    assert found.changes and not load_inversion(out / "two_0.safetensors").changes
    assert found.method == method and found.network == Studio().digest and found.crop["source"] == "two.png"
    assert set(found.versions) == {"mien", "torch", "numpy"} and found.losses and found.config["start"] == "auto"
    assert found.preview is not None and tuple(found.preview.shape) == (3, 16, 16)


def test_it_is_taken_wherever_a_code_is(bundle: Path, photo: Path, tmp_path: Path) -> None:
    run("invert", str(photo), "--method", "pti", "--steps", "2", "--outdir", str(tmp_path))
    person, out = str(tmp_path / "two_0.mien"), str(tmp_path / "changed.png")
    code, said = run("edit", person, "--set", "smile=0", "--out", out)
    assert code == 0, said
    assert np.array_equal(pixels(Path(out)), pixels(tmp_path / "two_0.png"))
    code, said = run("mix", person, "seed:3", "--layers", "2-", "--out", out)
    assert code == 0, said
    assert not np.array_equal(pixels(Path(out)), pixels(tmp_path / "two_0.png"))


def test_the_same_command_goes_on(bundle: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["invert", str(photo), "--method", "pti", "--steps", "1", "--outdir", str(tmp_path / "out")]
    run(*arguments)
    before = (tmp_path / "out" / "two_0.mien").read_bytes()
    (tmp_path / "out" / "two_1.png").unlink()  # killed between a code and its render
    asked: list[int] = []
    real = Studio.invert
    monkeypatch.setattr(Studio, "invert", lambda self, img, **k: asked.append(len(img)) or real(self, img, **k))
    code, said = run(*arguments)
    assert code == 0 and "two_0.png" in said and "two_1.png" in said
    assert asked == [1]
    assert (tmp_path / "out" / "two_0.mien").read_bytes() == before
    run(*arguments[:-3], "2", *arguments[-2:])  # other settings
    assert asked == [1, 2]


def test_a_wrong_generator_is_one_clear_error(bundle: Path, photo: Path, tmp_path: Path) -> None:
    run("invert", str(photo), "--method", "pti", "--steps", "1", "--outdir", str(tmp_path))
    (tmp_path / "other").mkdir()
    network = str(next(make_bundle(tmp_path / "other", seed=1).glob("faces-*.safetensors")))
    person = str(tmp_path / "two_0.mien")
    code, said = run("edit", person, "--set", "smile=1", "--out", str(tmp_path / "x.png"), "--network", network)
    assert code == 2 and "was made with another generator" in said
    with pytest.raises(InputError, match="another generator"):
        Studio(network).render(load_inversion(Path(person)))
