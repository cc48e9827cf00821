"""The judge of pairs on made numbers and tiny networks: fitting, files, what is measured, made-up pairs."""

from __future__ import annotations

import builtins
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from skimage.color import rgb2lab

from mien.errors import InputError, MissingExtraError, UnsupportedFileError, WeightsError
from mien.nets.detector import Detector
from mien.nets.discriminator import Discriminator
from mien.nets.features import FaceNet
from mien.training.pair_features import GROUPS, Measured, PairMeter, measure_pairs, skin_lightness
from mien.training.quality import Quality, QualityConfig, fit_quality, fold_of, load_quality, save_quality
from mien.training.reliability import auc, brier
from mien.training.spoil import WAYS, spoil

needs_sklearn = pytest.mark.usefixtures("sklearn")
CONFIG = QualityConfig(strengths=(0.1, 1.0), num_folds=4)


@pytest.fixture(scope="session")
def sklearn() -> None:
    pytest.importorskip("sklearn.linear_model")


def made(num: int, *, seed: int = 0, bend: bool = False) -> tuple[Measured, np.ndarray]:
    """Pairs whose first signal tells (or the square of it), with a second that says nothing and four features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, 6)).astype(np.float32)
    logits = 3 - 4 * np.square(x[:, 0]) if bend else 2.5 * x[:, 0] + 0.5
    good = rng.random(num) < 1 / (1 + np.exp(-logits))
    names = ("identity", "psi", *(f"source_feature_{i}" for i in range(4)))
    keys = tuple(f"seed-{seed}-{i}" for i in range(num))
    return Measured(keys, names, x, np.zeros((num, 3), np.float32)), good


# ---- Fitting --------------------------------------------------------------------------------------------------------


@needs_sklearn
def test_it_learns_what_tells_and_its_probabilities_are_frequencies() -> None:
    measured, good = made(400)
    fitted = fit_quality(measured, good, CONFIG)
    fresh, truth = made(4000, seed=1)
    said = fitted.quality(fresh)
    best = 1 / (1 + np.exp(-(2.5 * fresh.features[:, 0] + 0.5)))
    assert auc(said, truth) > auc(best, truth) - 0.01
    assert brier(said, truth) < brier(best, truth) + 0.01
    assert np.abs(said - best).mean() < 0.05
    assert len(fitted.unseen) == 400 and fitted.strength in CONFIG.strengths


@needs_sklearn
def test_a_signal_can_be_too_much_and_too_little() -> None:
    measured, good = made(400, bend=True)
    fresh, truth = made(2000, seed=1, bend=True)
    assert auc(fit_quality(measured, good, CONFIG).quality(fresh), truth) > 0.85


@needs_sklearn
def test_unseen_is_said_without_the_fold() -> None:
    """By hand: leave a fold out, fit the rest with one strength, and ask."""
    measured, good = made(80)
    config = replace(CONFIG, strengths=(0.1,))
    fitted = fit_quality(measured, good, config)
    fold = np.array([fold_of(key, 4) for key in measured.keys])
    rows = np.flatnonzero(fold == 1)
    rest = np.flatnonzero(fold != 1)
    alone = fit_quality(measured.rows(rest), good[rest], config).quality
    logits = fitted.quality.slope * alone.decide(measured.rows(rows)) + fitted.quality.offset
    assert np.allclose(fitted.unseen[rows], 1 / (1 + np.exp(-logits)), atol=1e-6)


@needs_sklearn
def test_the_same_key_is_in_one_fold_and_twice_the_same_is_the_same() -> None:
    assert [fold_of("seed-17", 10) for _ in range(3)] == [fold_of("seed-17", 10)] * 3
    assert {fold_of(f"seed-{i}", 10) for i in range(300)} == set(range(10))
    measured, good = made(60)
    one, other = (fit_quality(measured, good, CONFIG).quality for _ in range(2))
    assert one.digest == other.digest


@needs_sklearn
def test_made_up_examples_help_to_fit_but_calibrate_nothing() -> None:
    measured, good = made(60)
    strange, truth = made(60, seed=5)
    strange = replace(strange, features=strange.features[:, [1, 0, 2, 3, 4, 5]])  # there the other signal tells
    without = fit_quality(measured, good, CONFIG)
    with_them = fit_quality(measured, good, replace(CONFIG, extra_weight=1.0), extra=(strange, truth))
    psi = measured.names.index("psi")
    assert with_them.quality.weights[psi] > without.quality.weights[psi] + 0.1
    assert len(with_them.unseen) == 60
    same = fit_quality(measured, good, replace(CONFIG, extra_weight=0.0), extra=(strange, truth))
    assert same.quality.digest == without.quality.digest


@needs_sklearn
def test_what_is_not_known_counts_as_the_mean() -> None:
    measured, good = made(60)
    measured.features[:30, 1] = math.nan
    quality = fit_quality(measured, good, CONFIG).quality
    blank, mean = (replace(measured, features=measured.features.copy()) for _ in range(2))
    blank.features[:, 1] = math.nan
    mean.features[:, 1] = quality.mean[1]
    assert np.isfinite(quality(blank)).all() and np.allclose(quality(blank), quality(mean), atol=1e-6)
    measured.features[:, 1] = math.nan
    assert np.isfinite(fit_quality(measured, good, CONFIG).quality(measured)).all()


@needs_sklearn
def test_too_few_labels() -> None:
    measured, good = made(40)
    with pytest.raises(InputError, match="4 good and 36 bad labels"):
        fit_quality(measured, np.arange(40) < 4, CONFIG)
    with pytest.raises(InputError, match="num_folds must be at least 2"):
        QualityConfig(num_folds=1)
    with pytest.raises(InputError, match="strengths must be above 0"):
        QualityConfig(strengths=())
    assert good.any()


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    measured, good = made(40)
    with pytest.raises(MissingExtraError, match="scikit-learn is not installed") as caught:
        fit_quality(measured, good, CONFIG)
    assert "mien[quality]" in caught.value.hint


# ---- Files ----------------------------------------------------------------------------------------------------------


def judge() -> Quality:
    names = ("identity", "psi", "source_feature_0")
    tables = [np.array(row) for row in ([0.1, 0.7, 0.0], [1.0, 0.2, 2.0], [0.5, -1.0, 0.25], [-0.5, 0.0, 0.0])]
    return Quality(names, *tables, 0.3, 2.0, -0.1, 4.0, {"face_net": "ab"}, {"labels": 3})


def test_its_definition() -> None:
    measured = Measured(("a",), ("psi", "source_feature_0", "identity"), np.array([[1.1, -3.0, 9.0]]), np.zeros((1, 3)))
    z = [4.0, 2.0, -1.5]  # identity is cut off
    scale = 0.5 * z[0] - 1.0 * z[1] + 0.25 * z[2] - 0.5 * z[0] ** 2 + 0.3
    assert judge().decide(measured)[0] == pytest.approx(scale)
    assert judge()(measured)[0] == pytest.approx(1 / (1 + math.exp(-(2 * scale - 0.1))))
    with pytest.raises(InputError, match="measured without psi"):
        judge()(replace(measured, names=("identity", "else", "source_feature_0")))


def test_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    save_quality(judge(), path)
    read = load_quality(path)
    assert read.digest == judge().digest and read.names == judge().names
    assert read.digests == {"face_net": "ab"} and read.facts == {"labels": 3}


def test_files_that_hold_none(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    with pytest.raises(WeightsError, match="holds no judge of quality"):
        load_quality(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="holds no judge of quality"):
        load_quality(path)
    save_file({"mean": np.zeros(3)}, path)
    with pytest.raises(WeightsError, match="holds no judge of quality"):
        load_quality(path)
    save_quality(replace(judge(), weights=np.array([0.5, math.nan, 0.0])), path)
    with pytest.raises(WeightsError, match="cannot be used"):
        load_quality(path)
    save_quality(replace(judge(), weights=np.zeros(4)), path)
    with pytest.raises(WeightsError, match="cannot be used"):
        load_quality(path)


def test_it_refuses_other_networks() -> None:
    judge().check({"face_net": "ab", "detector": "c"})
    with pytest.raises(InputError, match="fitted with another face_net"):
        judge().check({"face_net": "cd"})


# ---- What is measured -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def meter() -> PairMeter:
    torch.manual_seed(0)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    D = Discriminator(0, 16, 3, channel_base=64, channel_max=8)
    return PairMeter(Detector().eval(), net.eval().requires_grad_(False), D)


def test_a_pair_is_measured_alone_as_among_others(meter: PairMeter) -> None:
    rng = torch.Generator().manual_seed(0)
    source, target = (torch.rand(4, 3, 32, 32, generator=rng) * 2 - 1 for _ in range(2))
    together = meter("abcd", source, target, [0.7, 1.0, math.nan, 0.5])
    alone = meter("c", source[2:3], target[2:3], [math.nan])
    assert together.names == meter.names and together.features.shape == (4, len(meter.names))
    assert np.allclose(together.features[2], alone.features[0], atol=1e-4, equal_nan=True)
    assert together.columns(["psi"])[:, 0].tolist()[:2] == [pytest.approx(0.7), 1.0]
    assert together.groups.shape == (4, len(GROUPS)) and together.rows([1, 3]).keys == ("b", "d")
    assert Measured.joined([together, alone]).keys == (*"abcd", "c")


def test_a_picture_and_itself_do_not_differ(meter: PairMeter) -> None:
    img = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    same = meter("ab", img, img, [0.7, 0.7])
    zero = [name for name in same.names if name.endswith("_difference")] + ["landmark_shift", "colour_distance"]
    assert np.abs(same.columns(zero)).max() < 1e-4
    assert np.allclose(same.columns(["identity", "light_likeness"]), 1, atol=1e-4)


def test_without_a_discriminator_its_signal_is_missing(meter: PairMeter) -> None:
    without = PairMeter(meter.filter.detector, meter.face_net)
    assert set(meter.names) - set(without.names) == {"realness"} and "D" not in without.digests
    with pytest.raises(InputError, match="wants labels"):
        PairMeter(meter.filter.detector, meter.face_net, Discriminator(2, 16, 3, channel_base=64, channel_max=8))


@pytest.mark.parametrize("side", [64, 37])
def test_lightness_is_that_of_the_cheeks(side: int) -> None:
    img = torch.full([2, 3, side, side], -1.0)
    colours = torch.tensor([[0.6, 0.1, -0.2], [-0.4, -0.5, -0.6]])
    top, bottom = round(0.55 * side), round(0.65 * side)
    img[:, :, top:bottom] = colours[:, :, None, None]
    expected = rgb2lab((colours.numpy() / 2 + 0.5)[:, None])[:, 0, 0]
    assert skin_lightness(img) == pytest.approx(expected, abs=1e-4)


def test_damaged_samples(meter: PairMeter) -> None:
    whole = {"__key__": "seed-1", "json": b"{}", "source.png": b"", "target.png": b""}
    with pytest.raises(UnsupportedFileError, match=r"seed-1\.source\.png is damaged"):
        next(measure_pairs(meter, [whole]))
    with pytest.raises(UnsupportedFileError, match=r"lack seed-1\.source\.png"):
        next(measure_pairs(meter, [{"__key__": "seed-1", "json": b"{}"}]))


# ---- Made-up bad pairs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_every_way_spoils_every_pair_and_repeats_itself(way: str) -> None:
    rng = torch.Generator().manual_seed(0)
    source, target = (torch.rand(4, 3, 32, 32, generator=rng) * 2 - 1 for _ in range(2))
    kept = target.clone()
    one, other = (spoil(source, target, way, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other) and torch.equal(target, kept)
    assert one.shape == target.shape and one.abs().max() <= 1
    assert ((one - target).abs().flatten(1).mean(1) > 0.01).all()


def test_a_stranger_is_the_next_person() -> None:
    target = torch.arange(3.0)[:, None, None, None].expand(3, 3, 16, 16) / 3
    spoiled = spoil(target, target, "stranger", torch.Generator())
    assert torch.equal(spoiled, target.roll(1, 0))


def test_numbers_are_plain_json(tmp_path: Path) -> None:
    save_quality(judge(), tmp_path / "judge.safetensors")
    data = (tmp_path / "judge.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header) == {"__metadata__", "mean", "std", "weights", "bends"}
    assert json.loads(header["__metadata__"]["mien_quality"])["bias"] == 0.3
