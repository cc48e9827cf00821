"""Cleaning on tiny networks: who is kept, the same bytes after a kill, what is reported, refusals."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien.errors import Cancelled, InputError, UnsupportedFileError
from mien.nets.detector import Detector
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.report import Step
from mien.training.clean import CleanConfig, clean_pairs, score_pairs
from mien.training.pair_features import PairMeter
from mien.training.pair_set import load_pairs
from mien.training.pairs import SPLITS, PairsConfig, make_pairs, read_pairs
from mien.training.quality import Quality

pytest.importorskip("webdataset")

HALF = CleanConfig(keep=0.5)


@pytest.fixture(scope="module")
def meter() -> PairMeter:
    torch.manual_seed(0)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    return PairMeter(Detector().eval(), net.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    G: Any = Generator(8, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), channel_base=256, channel_max=8)
    G.eval().requires_grad_(False)
    toon = copy.deepcopy(G)
    for name, tensor in toon.synthesis.named_parameters():
        if name.endswith("weight"):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
    folder = tmp_path_factory.mktemp("pairs")
    config = PairsConfig(num=24, chunk=10, batch_size=8, val_share=0.2, test_share=0.2, filter=None)
    make_pairs(G, toon, folder, config, digests={"source": "a" * 64, "target": "b" * 64})
    return folder


@pytest.fixture
def quality(meter: PairMeter) -> Quality:
    """Light drawings are good."""
    num = len(meter.names)
    weights = np.array([0.1 if name == "target_lightness" else 0.0 for name in meter.names])
    mean, std = np.full(num, 50.0), np.full(num, 10.0)
    return Quality(meter.names, mean, std, weights, np.zeros(num), 0.0, 1.0, 0.0, 99.0, dict(meter.digests))


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.tar"))}


def samples(folder: Path) -> dict[str, dict[str, Any]]:
    shards = {path.name.partition("-")[0] for path in folder.glob("*.tar")}
    return {s["__key__"]: s for split in SPLITS if split in shards for s in read_pairs(folder, split)}


def test_the_best_half_is_kept_as_it_was(pairs: Path, meter: PairMeter, quality: Quality, tmp_path: Path) -> None:
    report = clean_pairs(pairs, tmp_path, HALF, meter, quality)
    scored = {
        k: v
        for one in score_pairs(pairs, tmp_path, meter, quality)
        for k, v in zip(one.keys, one.scores.tolist(), strict=True)
    }
    best = sorted(scored, key=lambda key: -scored[key])[:12]
    before, after = samples(pairs), samples(tmp_path)
    assert set(after) == set(best) and len(before) == 24
    for key, sample in after.items():
        assert json.loads(sample["json"]) == json.loads(before[key]["json"]) | {"quality": scored[key]}
        assert {k: v for k, v in sample.items() if k != "json"} == {k: v for k, v in before[key].items() if k != "json"}
    assert sum(report["kept"].values()) == 12 and report["pairs"] == 24
    assert report["threshold"] == min(scored[key] for key in best)
    assert report["said_good"]["kept"] == pytest.approx(np.mean([scored[key] for key in best]), abs=1e-4)
    assert sum(one["count"] for one in report["groups"]["skin"].values()) == 24
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert load_pairs(tmp_path).made_by == {"source": "a" * 64, "target": "b" * 64}


def test_a_threshold_is_a_probability(pairs: Path, meter: PairMeter, quality: Quality, tmp_path: Path) -> None:
    all_of_them = clean_pairs(pairs, tmp_path / "all", CleanConfig(threshold=0), meter, quality)
    none = clean_pairs(pairs, tmp_path / "none", CleanConfig(threshold=1), meter, quality)
    assert sum(all_of_them["kept"].values()) == 24 and sum(none["kept"].values()) == 0
    assert not list((tmp_path / "none").glob("*.tar")) and none["said_good"]["kept"] is None
    assert set(samples(tmp_path / "all")) == set(samples(pairs))


class Killed(BaseException):
    """As if by a signal that nobody can catch."""


@pytest.mark.parametrize("stage", ["scores", "clean"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    stage: str, pairs: Path, meter: PairMeter, quality: Quality, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean_pairs(pairs, tmp_path / "whole", HALF, meter, quality)

    def dying(step: Step) -> None:
        if step.stage == stage and step.done == 2:
            raise Killed

    with pytest.raises(Killed):
        clean_pairs(pairs, tmp_path / "cut", HALF, meter, quality, on_step=dying)
    assert not (tmp_path / "cut" / "report.json").exists()
    if stage == "clean":  # all that was measured is there
        monkeypatch.setattr("mien.training.clean.measure_pairs", None)
    clean_pairs(pairs, tmp_path / "cut", HALF, meter, quality)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    kept = (tmp_path / "cut" / "report.json").read_bytes()
    assert kept == (tmp_path / "whole" / "report.json").read_bytes()


def test_what_is_whole_stays_and_what_is_not_is_made_again(
    pairs: Path, meter: PairMeter, quality: Quality, tmp_path: Path
) -> None:
    clean_pairs(pairs, tmp_path, HALF, meter, quality)
    before = digests(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    clean_pairs(pairs, tmp_path, HALF, meter, quality)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    next(iter(times)).unlink()
    (tmp_path / "train-000099.tar").write_bytes(b"of a larger folder")
    clean_pairs(pairs, tmp_path, HALF, meter, quality)
    assert digests(tmp_path) == before


def test_it_can_be_stopped_between_batches(pairs: Path, meter: PairMeter, quality: Quality, tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        clean_pairs(pairs, tmp_path, HALF, meter, quality, on_step=stop)


def test_wrong_use(pairs: Path, meter: PairMeter, quality: Quality, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="either a share to keep or a threshold"):
        CleanConfig()
    with pytest.raises(InputError, match="either a share to keep or a threshold"):
        CleanConfig(keep=0.5, threshold=0.5)
    with pytest.raises(InputError, match=r"the share to keep is 1\.5"):
        CleanConfig(keep=1.5)
    with pytest.raises(InputError, match="the threshold is -1"):
        CleanConfig(threshold=-1)
    with pytest.raises(InputError, match="no pairs in"):
        clean_pairs(tmp_path, tmp_path / "out", HALF, meter, quality)
    with pytest.raises(InputError, match="is the folder of the pairs themselves"):
        clean_pairs(pairs, pairs, HALF, meter, quality)
    with pytest.raises(InputError, match="fitted with another detector"):
        score_pairs(pairs, tmp_path, meter, replace(quality, digests={"detector": "x"}))
    clean_pairs(pairs, tmp_path / "out", HALF, meter, quality)
    with pytest.raises(InputError, match="cleaned with other settings: keep"):
        clean_pairs(pairs, tmp_path / "out", CleanConfig(keep=0.6), meter, quality)
    with pytest.raises(InputError, match="cleaned on other data"):
        clean_pairs(pairs, tmp_path / "out", HALF, meter, replace(quality, bias=1.0))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train-000000.tar").write_bytes(b"")
    with pytest.raises(InputError, match="holds other pairs"):
        clean_pairs(pairs, tmp_path / "theirs", HALF, meter, quality)
    with pytest.raises(UnsupportedFileError, match=r"train-000000\.tar is damaged"):
        score_pairs(tmp_path / "theirs", tmp_path, meter, quality)
