"""`mien blend-models`: a file that is an ordinary generator, a sweep's figure and numbers, and clear refusals."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.commands.blend import strictest
from mien.app.settings import DEFAULT_NETWORK
from mien.nets import stylegan3
from mien.weights.load import load_generator, read_recipe, save_generator, weights_digest


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["blend-models", *map(str, arguments)])
    return result.exit_code, result.output


def tuned(path: Path, seed: int, **provenance: Any) -> Path:
    torch.manual_seed(seed)
    G: Any = copy.deepcopy(load_generator(DEFAULT_NETWORK))
    for tensor in G.synthesis.parameters():
        tensor.add_(0.2 * torch.rand_like(tensor))
    path.parent.mkdir(exist_ok=True)
    save_generator(G, path, provenance=provenance)
    return path


@pytest.fixture
def toon(bundle: Path, tmp_path: Path) -> Path:
    return tuned(tmp_path / "toon.safetensors", 1, licence="CC BY-NC 4.0")


def test_a_blend_is_saved_with_its_parents(toon: Path, tmp_path: Path) -> None:
    out = tmp_path / "blended.safetensors"
    code, said = run(DEFAULT_NETWORK, toon, "--schedule", "above:8; affine=0", "--out", out)
    assert code == 0 and str(out) in said.replace("\n", ""), said
    A, B, G = (load_generator(name).synthesis for name in (DEFAULT_NETWORK, toon, out))
    state: Any = {name: net.state_dict() for name, net in (("A", A), ("B", B), ("G", G))}  # type: ignore[attr-defined]
    assert torch.equal(state["G"]["b4.conv1.weight"], state["A"]["b4.conv1.weight"])
    assert torch.equal(state["G"]["b8.conv0.weight"], state["B"]["b8.conv0.weight"])
    assert torch.equal(state["G"]["b8.conv0.affine.weight"], state["A"]["b8.conv0.affine.weight"])
    facts = read_recipe(out).provenance
    assert facts["made_from"] == {DEFAULT_NETWORK: weights_digest(DEFAULT_NETWORK), "toon": weights_digest(toon)}
    assert facts["base"] == DEFAULT_NETWORK and facts["schedules"] == {"toon": "above:8; affine=0.0"}
    assert 0.9 < facts["cosines"]["toon"] < 1 and facts["licence"] == "CC BY-NC 4.0"


def test_three_networks_each_with_its_schedule(toon: Path, tmp_path: Path) -> None:
    other, out = tuned(tmp_path / "more" / "toon.safetensors", 2), tmp_path / "blended.safetensors"
    code, said = run(DEFAULT_NETWORK, toon, other, "--schedule", "0.5", "--schedule", "below:8:1", "--out", out)
    assert code == 2 and "the weights of layer 0 (conv) add up to" in said and not out.exists()
    code, said = run(DEFAULT_NETWORK, toon, other, "--schedule", "0.25", "--schedule", "0.25", "--out", out)
    assert code == 0, said
    assert list(read_recipe(out).provenance["schedules"]) == [f"{tmp_path.name}/toon", "more/toon"]


def test_the_strictest_terms_hold(bundle: Path, tmp_path: Path) -> None:
    paths = [
        str(tuned(tmp_path / f"{i}.safetensors", i, licence=text))
        for i, text in enumerate(("MIT", "Apache-2.0", "research only", "CC BY-NC 4.0"))
    ]
    assert strictest(paths[:1]) == strictest([paths[0]] * 2) == "MIT"
    assert strictest(paths[:2]) == "MIT; Apache-2.0"
    assert strictest(paths[:3]) == "research only"
    assert strictest(paths) == "research only; CC BY-NC 4.0"
    assert strictest([paths[0], str(tuned(tmp_path / "silent.safetensors", 9))]) == "not stated"


def test_a_sweep_is_a_figure_and_numbers(toon: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep.png"
    options = ("--sweep", "--swaps", "8,16", "--widths", "0,1", "--seeds", "1-3", "--out", out)
    code, said = run(DEFAULT_NETWORK, toon, *options)
    assert code == 0 and "toon: --schedule" in said, said
    with PIL.Image.open(out) as figure:
        assert figure.width > 400 and figure.height > 800
    report = json.loads(out.with_suffix(".json").read_text())
    assert [blend["schedule"] for blend in report["blends"]] == ["above:8", "above:8:1", "above:16", "above:16:1"]
    assert any(blend["is_on_front"] for blend in report["blends"])
    assert report["config"]["seeds"] == [1, 2, 3] and report["others"][0]["network"] == "toon"
    assert report["weights"]["toon"] == weights_digest(toon)
    first = out.read_bytes(), out.with_suffix(".json").read_bytes()
    assert run(DEFAULT_NETWORK, toon, *options)[0] == 0
    assert first == (out.read_bytes(), out.with_suffix(".json").read_bytes())


def test_wrong_use(toon: Path, tmp_path: Path) -> None:
    out = tmp_path / "blended.safetensors"
    stranger = tmp_path / "stranger.safetensors"
    G3 = stylegan3.Generator(8, 0, 8, 16, 3, channel_base=256, channel_max=8)
    save_generator(G3, stranger)
    one = ("--schedule", "above:8")
    for arguments, message in (
        ((DEFAULT_NETWORK, *one, "--out", out), "two networks at least"),
        ((toon, toon, *one, "--out", out), "each once"),
        ((DEFAULT_NETWORK, toon, "--out", out), "0 schedules for 1 networks"),
        ((DEFAULT_NETWORK, toon, "--schedule", "above", "--out", out), "is no number of a schedule"),
        ((DEFAULT_NETWORK, toon, *one, "--out", tmp_path / "blended.pt"), "does not end in .safetensors"),
        ((DEFAULT_NETWORK, toon, *one, "--out", toon), "would overwrite its input"),
        ((DEFAULT_NETWORK, toon, *one, "--sweep", "--out", tmp_path / "s.png"), "makes its own schedules"),
        ((DEFAULT_NETWORK, toon, "--sweep", "--swaps", "x", "--out", tmp_path / "s.png"), "are no resolutions"),
        ((DEFAULT_NETWORK, toon, "--sweep", "--swaps", "-8", "--out", tmp_path / "s.png"), "a resolution above 0"),
        ((DEFAULT_NETWORK, "nobody", *one, "--out", out), "no weights at nobody"),
        ((DEFAULT_NETWORK, stranger, *one, "--out", out), "cannot blend a StyleGAN2 with a StyleGAN3"),
        ((DEFAULT_NETWORK, toon, *one, "--min-cosine", "0.9999", "--out", out), "are not related"),
        ((DEFAULT_NETWORK, toon, *one, "--commercial", "--out", out), "commercial"),
    ):
        code, said = run(*arguments)
        assert code in (1, 2) and message in " ".join(said.split()), (arguments, said)
        assert not out.exists() and not (tmp_path / "s.png").exists()
