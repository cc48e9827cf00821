"""`mien replay`: the same photo gives the same bytes, other photos the same edit, and a foreign recipe is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.operations import OPERATIONS, Edit, Mix, apply, code_of, person_of
from mien.app.recipes import differences, studio_of
from mien.app.studio import Studio
from mien.edits.recipe import load_recipe
from mien.errors import InputError
from mien.images import open_photo

from ..conftest import draw_photo, make_bundle, mien

QUICK = ["--steps", "2"]


def rewrite(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


@pytest.fixture
def recipe(bundle: Path, photo: Path, tmp_path: Path) -> Path:
    path = tmp_path / "edit.json"
    mien("edit", photo, "--set", "smile=1.5", "--out", tmp_path / "edit.png", "--recipe", path, *QUICK)
    return path


def test_the_same_photo_gives_the_same_bytes(recipe: Path, photo: Path, tmp_path: Path) -> None:
    said = mien("replay", recipe, photo, "--outdir", tmp_path / "again")
    assert "warning" not in said.output
    assert (tmp_path / "again" / "two.png").read_bytes() == (tmp_path / "edit.png").read_bytes()


@pytest.mark.parametrize("options", [["--face", "1"], ["--method", "encoder"], ["--precision", "bf16", "--seed", "4"]])
def test_every_option_is_in_the_recipe(bundle: Path, photo: Path, tmp_path: Path, options: list[str]) -> None:
    path, out = tmp_path / "edit.json", tmp_path / "edit.png"
    mien("edit", photo, "--set", "age=1", "--set", "yaw=-2", "--out", out, "--recipe", path, *QUICK, *options)
    mien("replay", path, photo, "--outdir", tmp_path / "again")
    assert (tmp_path / "again" / "two.png").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("style", ["seed:5", "photo"])
def test_a_mix_carries_the_other_person_along(bundle: Path, photo: Path, tmp_path: Path, style: str) -> None:
    other = tmp_path / "other.png"
    draw_photo((25,)).save(other)
    path, out = tmp_path / "mix.json", tmp_path / "mix.png"
    mien("mix", photo, other if style == "photo" else style, "--layers", "2-", "--out", out, "--recipe", path, *QUICK)
    other.unlink()
    (operation,) = json.loads(path.read_text())["operations"]
    assert operation["person"].keys() == ({"ws"} if style == "photo" else {"seed"})
    mien("replay", path, photo, "--outdir", tmp_path / "again")
    assert (tmp_path / "again" / "two.png").read_bytes() == out.read_bytes()


def test_a_style_is_a_recipe(bundle: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "styles"
    mien("style", photo, "seed:5", "--keep-colour", "--psi", "0.3", "--outdir", out, "--recipes", *QUICK)
    mien("replay", out / "seed5.json", photo, "--outdir", tmp_path / "again")
    assert (tmp_path / "again" / "two.png").read_bytes() == (out / "two-seed5.png").read_bytes()
    assert (
        "--recipes needs --outdir" in mien("style", photo, "seed:5", "--out", out / "t.png", "--recipes", code=2).output
    )


def test_a_drag_is_a_recipe(bundle: Path, photo: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "drag.json", tmp_path / "drag.png"
    points = ["--from", "50,60", "--to", "54,60", "--drag-steps", "2"]
    mien("drag", photo, *points, "--out", out, "--recipe", path, *QUICK)
    assert json.loads(path.read_text())["face"] == 1  # the smaller one, on the left
    mien("replay", path, photo, "--outdir", tmp_path / "again")
    assert (tmp_path / "again" / "two.png").read_bytes() == out.read_bytes()
    bad = [{"op": "drag", "starts": [[1, 2]], "goals": [[1]], "num_steps": 1}]
    assert (
        "as many goals as starts"
        in mien("replay", rewrite(path, operations=bad), photo, "--outdir", out, code=2).output
    )


@pytest.mark.parametrize("source", ["seed:5", "photo"])
def test_a_swap_is_a_recipe(bundle: Path, photo: Path, tmp_path: Path, source: str) -> None:
    other, path, out = tmp_path / "other.png", tmp_path / "swap.json", tmp_path / "swap.png"
    draw_photo((25,)).save(other)
    texts = [other if source == "photo" else source, photo]
    mien("swap", *texts, "--out", out, "--recipe", path, "--method", "encoder", "--steps", "1")
    other.unlink()
    mien("replay", path, photo, "--outdir", tmp_path / "again")
    assert (tmp_path / "again" / "two.png").read_bytes() == out.read_bytes()
    operations = json.loads(path.read_text())["operations"]
    both = rewrite(path, operations=[*operations, {"op": "edit", "strengths": {"smile": 1}}])
    assert "a swap stands alone" in mien("replay", both, photo, "--outdir", tmp_path / "no", code=3).output


def test_other_photos_codes_and_seeds(recipe: Path, tmp_path: Path) -> None:
    draw_photo((25,)).save(tmp_path / "one.png")
    draw_photo(()).save(tmp_path / "none.png")
    said = mien("replay", recipe, tmp_path / "one.png", tmp_path / "none.png", "seed:7", "--outdir", tmp_path, code=2)
    assert "would overwrite its input" in said.output
    out = tmp_path / "out"
    said = mien("replay", recipe, tmp_path / "one.png", tmp_path / "none.png", "seed:7", "--outdir", out, code=3)
    assert "no face found in none.png" in said.output
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "seed7.png"]
    studio = Studio()
    expected = studio.picture(studio.edit(studio.seed_code(7), {"smile": 1.5}))
    assert open_photo(out / "seed7.png").tobytes() == expected.tobytes()


def test_operations_are_done_in_their_order(bundle: Path) -> None:
    studio = Studio()
    code = studio.seed_code(1)
    edit, mix = Edit(strengths={"smile": 2.0}), Mix(person=person_of(studio, studio.seed_code(2)), layers=(0, 1))
    edited_last = apply(studio, code, [mix, edit])
    expected = studio.edit(studio.mix(code, studio.seed_code(2), [0, 1]), {"smile": 2.0})
    assert torch.equal(edited_last.ws, expected.ws)
    assert not torch.equal(apply(studio, code, [edit, mix]).ws, edited_last.ws)


def test_people_by_seed_and_by_code(bundle: Path) -> None:
    studio = Studio()
    assert person_of(studio, studio.seed_code(9)).seed == 9
    other = studio.seed_code(9, psi=1.0)
    somebody = person_of(studio, other)
    assert somebody.seed is None and torch.equal(code_of(studio, somebody).ws, other.ws)


def test_another_generator_is_refused(recipe: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_bundle(tmp_path / "other", seed=1) / "faces-64.safetensors"
    said = mien("replay", recipe, photo, "--outdir", tmp_path / "out", "--network", other, code=2)
    assert "made with another generator" in said.output and "sha256 begins with" in said.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["hf://someone/evil", "/etc/passwd", "stylegan2-ffhq"])
def test_a_recipe_opens_and_downloads_nothing(recipe: Path, photo: Path, tmp_path: Path, name: str) -> None:
    said = mien("replay", rewrite(recipe, network=name), photo, "--outdir", tmp_path / "out", code=2)
    assert "not one of mien's own" in said.output and "--network" in said.output


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"operations": [{"op": "edit", "strengths": {"wings": 1}}]}, "no direction named 'wings'"),
        ({"operations": [{"op": "mix", "person": {"seed": 1}, "layers": [99]}]}, "no row 99"),
        ({"operations": [{"op": "eval", "code": "1"}]}, "operation 1 is unknown"),
        ({"method": "magic"}, "no method named 'magic'"),
        ({"settings": {"start": "elsewhere"}}, "other settings here"),
    ],
)
def test_what_does_not_fit_is_one_error(
    recipe: Path, photo: Path, tmp_path: Path, fields: dict[str, Any], expected: str
) -> None:
    result = CliRunner().invoke(app, ["replay", str(rewrite(recipe, **fields)), str(photo), "--outdir", str(tmp_path)])
    assert result.exit_code in (2, 3) and expected in " ".join(result.output.split())
    assert "unexpected" not in result.output


def test_it_says_what_is_other_than_it_was(recipe: Path) -> None:
    wanted = load_recipe(rewrite(recipe, weights={"encoder-faces-64.safetensors": "00"}), OPERATIONS)
    studio = studio_of(wanted)
    assert list(differences(wanted, studio)) == ["encoder-faces-64.safetensors is another one here"]
    wanted = load_recipe(rewrite(recipe, weights={}, made_with={"torch": "1.0", "threads": "1"}), OPERATIONS)
    assert list(differences(wanted, studio)) == [f"torch was 1.0, here it is {torch.__version__}"]


def test_a_recipe_is_json_and_not_the_result(bundle: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "edit.png"
    said = mien("edit", photo, "--set", "smile=1", "--out", out, "--recipe", tmp_path / "edit.txt", code=2)
    assert "does not end in .json" in said.output and not out.exists()


def test_no_recipe_without_a_generator(recipe: Path) -> None:
    wanted = load_recipe(rewrite(recipe, network="elsewhere"), OPERATIONS)
    with pytest.raises(InputError, match="not one of mien's own"):
        studio_of(wanted)


@pytest.mark.slow
def test_kept_across_processes(tmp_path: Path) -> None:
    def run(*arguments: object) -> None:
        command = [sys.executable, "-c", "from mien.app.cli import main; main()", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=250)

    path = tmp_path / "edit.json"
    mix = ["mix", "seed:3", "seed:5", "--layers", "4-"]
    run(*mix, "--out", tmp_path / "mix.png", "--recipe", path)
    run("replay", path, "seed:3", "--outdir", tmp_path / "again")
    assert (tmp_path / "again" / "seed3.png").read_bytes() == (tmp_path / "mix.png").read_bytes()
