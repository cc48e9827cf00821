"""`mien train adapt`: a small set becomes a generator, whole or as a difference, with everything that was tracked."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.latents import sample_ws
from mien.nets import stylegan3
from mien.nets.discriminator import Discriminator
from mien.training.adapt import ADAPT_PRESETS
from mien.weights.load import load_generator, read_recipe, save_generator, save_net, weights_digest

pytestmark = pytest.mark.usefixtures("bundle")
SETTINGS = [
    f"--set={text}"
    for text in (
        "batch_size=4",
        "kimg=0.008",
        "snapshot_kimg=0.004",
        "evaluate_pictures=8",
        "use_compile=false",
        "warmup_kimg=0",
    )
]
D15 = "0.5,0.5,0.5,0.6,0.6,0.7,0.7,0.9,0.9,1,1,1,1,1,1"


def mien(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout.strip() if code == 0 else result.stderr


def adapt(data: Path, run_dir: Path, *args: object, code: int = 0) -> str:
    where = ["--data", data / "toons128.zip", "--outdir", run_dir]
    return mien("train", "adapt", *where, *SETTINGS, "--device", "cpu", "--precision", "fp32", *args, code=code)


def test_a_difference_that_needs_its_base(bundle: Path, drawn_sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn.safetensors"
    args = ["--where", "style=comic", "--difference", "int8", "--out", out, "--track", "jsonl"]
    assert adapt(drawn_sets, tmp_path / "run", *args) == str(out)
    G, base = load_generator(out), load_generator("faces-64")
    assert torch.equal(sample_ws(G, [1, 2]), sample_ws(base, [1, 2]))
    last = "synthesis.b16.conv1.weight"
    assert not torch.equal(G.state_dict()[last], base.state_dict()[last])
    held = read_recipe(out).provenance
    assert held["base"] == "faces-64" and held["pictures"] == 6 and held["config"]["where"] == "style=comic"
    assert (
        held["network"] == weights_digest("faces-64") and "faces-64.safetensors" in held["made_from"]
    )  # for its terms
    assert held["score"].keys() >= {"kimg", "kernel", "diversity", "nearest", "identity", "ada/p", "ada/sign"}
    options = json.loads((tmp_path / "run" / "options.json").read_text())
    assert options["commit"] and options["data"] == held["data_sha256"]
    *steps, end = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [1, 2] and steps[-1]["pictures"]["samples"].endswith(".png")
    assert end["files"] == {"weights": str(out), "settings": str(tmp_path / "run" / "options.json")}
    assert "no coding named 'zip'" in adapt(drawn_sets, tmp_path / "x", "--difference", "zip", code=2)


def test_the_discriminator_beside_the_generator_is_taken(
    bundle: Path, drawn_sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(bundle / "faces-64.safetensors", mine)
    D = Discriminator(0, 16, 3, channel_base=256, channel_max=8)
    beside = tmp_path / "discriminator-mine.safetensors"
    save_net(D, beside, provenance={"network": weights_digest(mine)})
    adapt(drawn_sets, tmp_path / "a", "--from", mine, "--set", "discriminator_lr=1e-9")
    state = torch.load(tmp_path / "a" / "state.pt", weights_only=True)
    torch.testing.assert_close(state["D"]["b4.fc.weight"], D.state_dict()["b4.fc.weight"])
    assert not caplog.records or "begins from nothing" not in caplog.text
    save_net(D, beside, provenance={"network": "other"})
    adapt(drawn_sets, tmp_path / "b", "--from", mine)
    assert "belongs to another generator" in caplog.text and "begins from nothing" in caplog.text


def test_it_goes_on_to_larger_drawings_from_what_it_wrote(
    bundle: Path, drawn_sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, finer = tmp_path / "a" / "generator.safetensors", tmp_path / "finer.safetensors"
    adapt(drawn_sets, tmp_path / "a", "--where", "style=comic")
    assert read_recipe(first.with_name("discriminator-generator.safetensors")).provenance == {
        "network": weights_digest(first)
    }
    caplog.clear()
    adapt(drawn_sets, tmp_path / "b", "--from", first, "--size", "32", "--difference", "int8", "--out", finer)
    assert "begins from nothing" not in caplog.text
    shutil.copy(first, tmp_path / "generator.safetensors")  # the base, beside the difference
    G = load_generator(finer)
    assert G.img_resolution == 32 and torch.equal(sample_ws(G, [1])[:, 0], sample_ws(load_generator(first), [1])[:, 0])
    assert "cannot grow to 24 px" in adapt(drawn_sets, tmp_path / "c", "--size", "24", code=2)


def test_stylegan3s_whole_way(drawn_sets: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    widths = dict(channel_base=128, channel_max=8)
    faces, toon, bot = (tmp_path / f"{name}.safetensors" for name in ("faces", "toon", "bot"))
    save_generator(stylegan3.Generator(8, 0, 8, 16, 3, dict(num_layers=2), widths), faces)
    adapt(drawn_sets, tmp_path / "run", "--from", faces, "--preset", "cartoon-bot", "--out", toon)
    mien("blend-models", faces, toon, "--schedule", D15, "--out", bot)
    G = load_generator(bot)
    assert isinstance(G, stylegan3.Generator) and G.num_ws == 16
    last = "synthesis." + G.synthesis.layer_names[-1] + ".weight"
    torch.testing.assert_close(G.state_dict()[last], load_generator(toon).state_dict()[last])  # whole from the toon


def test_settings_are_shown_and_checked(drawn_sets: Path, tmp_path: Path) -> None:
    shown = adapt(drawn_sets, tmp_path / "run", "--dry-run", "--where", "style=comic", "--seed", 3)
    chosen = dict(
        batch_size=4, kimg=0.008, snapshot_kimg=0.004, evaluate_pictures=8, use_compile=False, warmup_kimg=0.0
    )
    wanted = replace(ADAPT_PRESETS["drawing"], where="style=comic", seed=3, precision="fp32", **chosen)
    assert json.loads(shown) == json.loads(json.dumps(asdict(wanted)))
    assert "no preset named 'x'" in adapt(drawn_sets, tmp_path / "run", "--preset", "x", code=2)
    assert "nothing can be tracked with 'x'" in adapt(drawn_sets, tmp_path / "run", "--track", "x", code=2)
    assert not (tmp_path / "run").exists()
