"""`mien pairs make`: shards and a report, photos too, a kill at any time, and clear refusals."""

from __future__ import annotations

import copy
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.settings import DEFAULT_NETWORK
from mien.training.pairs import SPLITS, read_pairs
from mien.weights.load import load_generator, save_generator, weights_digest

pytest.importorskip("webdataset")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["pairs", "make", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def write_toon(path: Path, share: float = 0.1) -> Path:
    torch.manual_seed(1)
    G: Any = copy.deepcopy(load_generator(DEFAULT_NETWORK))
    for tensor in G.synthesis.parameters():
        tensor.mul_(1 - share).add_(share * torch.randn_like(tensor))
    save_generator(G, path)
    return path


@pytest.fixture
def toon(bundle: Path, tmp_path: Path) -> Path:
    return write_toon(tmp_path / "toon.safetensors")


def test_pairs_are_made_and_counted(toon: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    code, said = run("--target", toon, "--num", 6, "--chunk", 4, "--no-filter", "--outdir", out)
    assert code == 0 and str(out / "report.json") in said, said
    report = json.loads((out / "report.json").read_text())
    assert report["weights"] == {"source": weights_digest(DEFAULT_NETWORK), "target": weights_digest(toon)}
    assert report["drawn"] == sum(report["kept"].values()) == 6
    code, said = run("--target", toon, "--num", 6, "--chunk", 4, "--outdir", out)
    assert code == 2 and "holds pairs made with other settings: filter" in said


def test_filters_and_photos_go_through_our_networks(toon: Path, photo: Path, tmp_path: Path) -> None:
    (photo.parent / "empty.jpg").write_bytes(b"")
    out = tmp_path / "pairs"
    options = ["--photos", photo.parent, "--method", "encoder", "--val-share", 0, "--test-share", 0]
    code, said = run("--target", toon, "--num", 2, "--no-filter", "--outdir", out, *options)
    assert code == 0 and "empty.jpg is empty" in said, said
    keys = [sample["__key__"] for sample in read_pairs(out)]
    assert len(keys) == 4 and sum(key.startswith("photo-") for key in keys) == 2  # two faces
    code, said = run("--target", toon, "--num", 2, "--outdir", tmp_path / "filtered")
    assert code == 0 and "rejected" in said, said


def test_wrong_use(toon: Path, bundle: Path, tmp_path: Path) -> None:
    stranger = write_toon(tmp_path / "stranger.safetensors", share=1.0)
    out = tmp_path / "pairs"
    code, said = run("--target", stranger, "--num", 2, "--no-filter", "--outdir", out)
    assert code == 2 and "the generators are not related" in said and not out.exists()
    code, said = run("--target", toon, "--photos", tmp_path / "none", "--outdir", out)
    assert code == 2 and "no photos in" in said
    code, said = run("--target", tmp_path / "none.safetensors", "--outdir", out)
    assert code == 2 and "none.safetensors" in said


@pytest.mark.slow
def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    toon = write_toon(tmp_path / "toon.safetensors", share=0.02)

    mien = [sys.executable, "-c", "from mien.app.cli import main; main()"]
    options = ["--target", str(toon), "--num", "120", "--chunk", "20", "--batch", "4", "--no-filter", "--outdir"]
    run_of = {name: [*mien, "pairs", "make", *options, str(tmp_path / name)] for name in ("whole", "cut")}
    subprocess.run(run_of["whole"], check=True, capture_output=True)
    process = subprocess.Popen(run_of["cut"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "cut" / "chunk-000001.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(run_of["cut"], check=True, capture_output=True)

    def shards(name: str) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / name).glob("*.tar"))}

    assert shards("whole") == shards("cut") and not list((tmp_path / "cut").glob(".*.part"))
    assert sum(1 for split in SPLITS for _ in read_pairs(tmp_path / "cut", split)) == 120
