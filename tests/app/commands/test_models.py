"""`mien models`: what each command prints, fetches and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from mien.app.cli import app
from mien.nets.stylegan2 import Generator
from mien.weights import zoo as module
from mien.weights.load import load_generator, save_generator

pytestmark = pytest.mark.usefixtures("cache")


def mien(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    kwargs = dict(channel_base=64, channel_max=4)
    G = Generator(4, 0, 4, 8, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=kwargs)
    save_generator(G, tmp_path / "small.safetensors", provenance={"licence": "CC0-1.0"})
    return tmp_path / "small.safetensors"


def test_the_list_names_everything_on_request_as_json() -> None:
    text = mien("models", "list").stdout
    assert "faces-64" in text and "stylegan2-ffhq-1024" in text and "NVIDIA Source Code License" in text
    listed = json.loads(mien("models", "list", "--json").stdout)
    assert {entry["name"] for entry in listed["zoo"]} == set(module.zoo())
    assert "faces-64" in [entry["name"] for entry in listed["bundled"]]


def test_the_list_can_be_narrowed(cache: Path) -> None:
    (cache / "e4e-ffhq.pt").write_bytes(b"")
    encoders = json.loads(mien("models", "list", "--json", "--kind", "encoder").stdout)["zoo"]
    assert {entry["name"]: entry["cached"] for entry in encoders} == {
        "e4e-ffhq": True,
        "psp-ffhq": False,
        "restyle-e4e-ffhq": False,
    }
    free = json.loads(mien("models", "list", "--json", "--commercial").stdout)
    assert free["bundled"] == []
    assert {entry["commercial"] for entry in free["zoo"]} == {"yes"}
    assert "no kind named 'cat'" in mien("models", "list", "--kind", "cat", code=2).stderr


def test_info_tells_what_a_file_holds(file: Path) -> None:
    facts = json.loads(mien("models", "info", file, "--json").stdout)
    assert facts["networks"]["G_ema"]["img_resolution"] == 8
    assert facts["licence"]["name"] == "CC0-1.0"
    text = mien("models", "info", file).stdout
    assert "format: mien" in text and "    img_resolution: 8" in text


def test_info_of_a_name_needs_no_download() -> None:
    facts = json.loads(mien("models", "info", "stylegan3-t-ffhq-1024", "--json").stdout)["zoo"]
    assert (facts["resolution"], facts["crop"], facts["cached"]) == (1024, "ffhq", False)
    assert facts["commercial"] == "no" and "Research" in facts["terms"]


def test_convert_and_verify(file: Path, tmp_path: Path) -> None:
    assert mien("models", "convert", file, tmp_path / "r.pt").stdout.strip() == str(tmp_path / "r.pt")
    mien("models", "convert", tmp_path / "r.pt", tmp_path / "back.safetensors")
    G, back = load_generator(file), load_generator(tmp_path / "back.safetensors")
    assert torch.equal(G.synthesis.b8.conv1.weight, back.synthesis.b8.conv1.weight)  # type: ignore[attr-defined]
    assert "G_ema  parameters" in mien("models", "verify", file).stdout
    assert json.loads(mien("models", "verify", file, "--json").stdout)["G_ema"]["image_std"] > 0
    assert "no format of weights" in mien("models", "convert", file, tmp_path / "r.zip", code=2).stderr


def test_pull_prints_where_the_file_is_and_its_terms(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = dict(module.zoo())
    entries["lpips-alex"] = replace(entries["lpips-alex"], sha256=None, size_bytes=None)
    monkeypatch.setattr(module, "zoo", lambda: entries)
    (cache / "lpips-alex.pth").write_bytes(b"heads")
    result = mien("models", "pull", "lpips-alex")
    assert result.stdout.strip() == str(cache / "lpips-alex.pth")
    assert "lpips-alex: BSD-2-Clause. Keep the notice." in result.stderr
    assert "the one that came is recorded" in result.stderr
    assert "downloads are off" in mien("models", "pull", "vgg16", code=1).stderr
    assert "no weights named 'vgg-16'" in mien("models", "pull", "lpips-alex", "vgg-16", code=2).stderr


def test_commercial_refuses_before_anything_is_fetched() -> None:
    result = mien("models", "pull", "stylegan2-ffhq-1024", "--commercial", code=1)
    assert "stylegan2-ffhq-1024 forbids commercial use" in result.stderr
    assert "Research and evaluation only" in result.stderr


def test_licences_of_names_files_and_runs(file: Path, tmp_path: Path) -> None:
    text = mien("models", "licence", "toonify", file).stdout
    assert "toonify: MIT, made from NVIDIA's weights; commercial use: no" in text
    assert f"{file}: CC0-1.0; commercial use: yes" in text
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "options.json").write_text(json.dumps({"network": "faces-64"}))
    used = json.loads(mien("models", "licence", tmp_path / "run", "--json").stdout)
    assert [(each["weights"], each["commercial"]) for each in used] == [("faces-64", "no")]
    assert "no weights at nothing" in mien("models", "licence", "nothing", code=2).stderr


def test_push_wants_a_hub_address(file: Path) -> None:
    pytest.importorskip("huggingface_hub")
    result = mien("models", "push", file, "anna/faces", "--licence", "CC0-1.0", code=2)
    assert "no address of the Hub" in result.stderr


def test_generate_can_be_held_to_commercial_terms(file: Path, tmp_path: Path) -> None:
    made = mien("generate", "--seeds", "1", "--network", file, "--outdir", tmp_path / "people", "--commercial")
    assert made.stdout.strip() == str(tmp_path / "people" / "seed1.png")
    refused = mien("generate", "--seeds", "1", "--outdir", tmp_path / "others", "--commercial", code=1)
    assert "faces-64 forbids commercial use: research and demonstration" in refused.stderr
    assert not (tmp_path / "others" / "seed1.png").exists()
