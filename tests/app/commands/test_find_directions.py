"""`mien directions find` by scores and labels, and the sheets that labels are made from, on a tiny random generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.studio import Studio
from mien.edits.directions import Direction, StyleDirection, load_directions
from mien.edits.labels import Labels, load_labels, save_labels
from mien.latents import sample_ws, synthesize


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["directions", *arguments])
    return result.exit_code, result.output


def crown(img: torch.Tensor) -> torch.Tensor:
    """How bright the upper third is, where hair would be, [N]."""
    return img[:, :, : img.shape[2] // 3].mean(dim=(1, 2, 3))


def test_people_are_labelled_on_sheets_and_their_boundary_found(bundle: Path, tmp_path: Path) -> None:
    code, said = run("sheet", "--seeds", "1-64", "--names", "dark_hair,hat", "--outdir", str(tmp_path))
    assert code == 0, said
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["sheet-01.png", "sheet-02.png"]
    with PIL.Image.open(tmp_path / "sheet-01.png") as sheet:
        assert sheet.width > 10 * 112 and np.asarray(sheet).std() > 0
    table, studio = tmp_path / "labels.csv", Studio(device="cpu")
    labels = load_labels(table)
    assert labels.network == studio.digest and labels.seeds == tuple(range(1, 65))

    code, said = run(
        "find", "--method", "interfacegan", "--labels", str(table), "--out", str(tmp_path / "d.safetensors")
    )
    assert code == 2 and "no label is filled in" in said

    ws = sample_ws(studio.G, labels.seeds)
    light = crown(synthesize(studio.G, ws))
    dark = (light < light.median()).double()
    dark[:4] = torch.nan  # could not tell
    save_labels(Labels(labels.network, 1.0, labels.seeds, {**labels.values, "dark_hair": dark}), table)
    out = tmp_path / "hair.safetensors"
    code, said = run("find", "--method", "interfacegan", "--labels", str(table), "--layers", "1-", "--out", str(out))
    assert code == 0, said
    found = load_directions(out)
    hair = found["dark_hair"]
    assert sorted(found.directions) == ["dark_hair"] and isinstance(hair, Direction)
    assert hair.layers[0] == 1 and hair.unit == "half of the way to dark_hair"
    facts = found.provenance["boundaries"]["dark_hair"]
    assert facts["accuracy"] > 0.6 and facts["num_with"] + facts["num_without"] == 60
    assert set(hair.effects) >= {"age", "smile", "yaw"}
    with torch.no_grad():
        darker, lighter = (crown(hair.render(studio.G, ws, s)).mean() for s in (1.0, -1.0))
    assert float(darker) < float(light.mean()) < float(lighter)

    code, said = run("sheet", "--seeds", "1-2", "--names", "hat", "--outdir", str(tmp_path))
    assert code == 0 and "was kept" in said and load_labels(table).seeds == labels.seeds


def test_scores_find_boundaries_and_channels(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.safetensors"
    scored = ("--score", "smile", "--samples", "50", "--out", str(out))
    code, said = run("find", "--method", "interfacegan", "--orthogonal-to", "age,gender", *scored)
    assert code == 0, said
    found = load_directions(out)
    assert isinstance(found["smile"], Direction)
    assert found.provenance["boundaries"]["smile"]["orthogonal_to"] == ["age", "gender"]
    code, said = run("find", "--method", "stylespace", "--orthogonal-to", "age", *scored)
    assert code == 0, said
    found = load_directions(out)
    assert isinstance(found["smile"], StyleDirection) and found.provenance["keep"] == {"smile": ["age"]}
    code, said = run("list", "--file", str(out))
    assert code == 0 and "smile  1 = " in said and "channels " in said and "identity" in said
    code, said = run("show", "smile", "--file", str(out), "--seeds", "1", "--out", str(tmp_path / "show.png"))
    assert code == 0, said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "interfacegan"), "needs something to find"),
        (("--method", "stylespace", "--labels", "a.csv"), "needs something to find"),
        (("--method", "stylespace", "--score", "smile", "--labels", "a.csv"), "does not read labels"),
        (("--method", "stylespace", "--score", "smile", "--layers", "1-"), "moves channels, not rows"),
        (("--method", "stylespace", "--score", "hat"), "nothing measures 'hat'"),
        (("--method", "interfacegan", "--score", "hat", "--samples", "50"), "nothing tells 'hat'"),
        (("--score", "smile"), "--method sefa knows no attributes"),
        (("--method", "interfacegan", "--labels", "none.csv"), "cannot read the labels"),
    ],
)
def test_wrong_use(bundle: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    code, said = run("find", *arguments, "--out", str(tmp_path / "d.safetensors"))
    assert code == 2 and message in " ".join(said.split()), said
    assert not (tmp_path / "d.safetensors").exists()


def test_labels_of_another_generator_are_refused(bundle: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    save_labels(Labels("ab" * 32, 1.0, (1, 2), {"hat": torch.tensor([0.0, 1.0])}), table)
    code, said = run(
        "find", "--method", "interfacegan", "--labels", str(table), "--out", str(tmp_path / "d.safetensors")
    )
    assert code == 2 and "people whom another generator invented" in " ".join(said.split())
