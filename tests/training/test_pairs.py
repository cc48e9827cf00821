"""Pairs on tiny networks: the same bytes by seed and after a kill, splits by latent, filters by reason, refusals."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from mien.errors import Cancelled, InputError, UnsupportedFileError
from mien.images import resize, to_pil
from mien.latents import fitted, sample_ws, synthesize
from mien.nets import stylegan3
from mien.nets.detector import Detector
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.report import Step
from mien.training.grow import grow_generator
from mien.training.pair_filter import TEMPLATE, FilterConfig, Look, PairFilter, Signals
from mien.training.pairs import SPLITS, PairsConfig, make_pairs, read_pairs, split_of

pytest.importorskip("webdataset")

CONFIG = PairsConfig(num=24, chunk=10, batch_size=4, val_share=0.2, test_share=0.2, filter=None)
DIGESTS = {"source": "a" * 64, "target": "b" * 64}


def generator(seed: int) -> Any:
    torch.manual_seed(seed)
    G = Generator(8, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), channel_base=256, channel_max=8)
    return G.eval().requires_grad_(False)


def tuned(G: Any) -> Any:
    twin = copy.deepcopy(G)
    for name, tensor in twin.synthesis.named_parameters():
        if name.endswith("weight"):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
    return twin


@pytest.fixture(scope="module")
def people() -> Any:
    return generator(0)


@pytest.fixture(scope="module")
def toons(people: Any) -> Any:
    return tuned(people)


def make(people: Any, toons: Any, outdir: Path, config: PairsConfig = CONFIG, **options: Any) -> dict[str, Any]:
    return make_pairs(people, toons, outdir, config, digests=DIGESTS, **options)


def shards(outdir: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(outdir.glob("*.tar"))}


def samples(outdir: Path) -> Iterator[dict[str, Any]]:
    for split in SPLITS:
        yield from read_pairs(outdir, split)


def pixels(data: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_a_pair_is_the_same_code_through_both(people: Any, toons: Any, tmp_path: Path) -> None:
    report = make(people, toons, tmp_path)
    found = {s["__key__"]: s for s in samples(tmp_path)}
    assert set(found) == {f"seed-{i}" for i in range(24)}
    ws = sample_ws(people, [7], truncation_psi=0.7)
    sample = found["seed-7"]
    for G, name in ((people, "source.png"), (toons, "target.png")):
        aim = np.asarray(to_pil(synthesize(G, ws))[0]).astype(int)
        assert np.abs(pixels(sample[name]).astype(int) - aim).max() <= 1
    assert (pixels(sample["source.png"]) != pixels(sample["target.png"])).any()
    code = np.load(io.BytesIO(sample["ws.npy"]))
    assert code.shape == (1, 8) and np.allclose(code, ws[0, :1].numpy(), atol=1e-6)
    facts = json.loads(sample["json"])
    assert facts == {"seed": 7, "psi": 0.7, "class": None, "source": "a" * 16, "target": "b" * 16}
    assert report["kept"] == {split: sum(1 for _ in read_pairs(tmp_path, split)) for split in SPLITS}
    assert report["drawn"] == sum(report["kept"].values()) == 24 and report["rejected"] == {}
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_a_target_that_has_grown_draws_larger(people: Any, toons: Any, tmp_path: Path) -> None:
    grown, ws = grow_generator(toons, 32), torch.randn(1, people.num_ws, 8)
    img = torch.rand(1, 3, 32, 32) * 2 - 1
    make(people, grown, tmp_path, CONFIG, photos={"photos-000000": [("anna_0", img, ws[0])]})
    found = {s["__key__"]: s for s in samples(tmp_path)}
    photo = found.pop(next(key for key in found if key.startswith("photo")))
    assert (pixels(photo["source.png"]) == np.asarray(to_pil(img)[0])).all() and len(found) == 24
    code = sample_ws(people, [7], truncation_psi=0.7)
    for sample, rows in ((photo, ws), (found["seed-7"], code)):
        aim = np.asarray(to_pil(synthesize(grown, fitted(rows, grown.num_ws)))[0]).astype(int)
        assert np.abs(pixels(sample["target.png"]).astype(int) - aim).max() <= 1
    enlarged = np.asarray(to_pil(resize(synthesize(people, code), 32).clamp(-1, 1))[0]).astype(int)
    assert np.abs(pixels(found["seed-7"]["source.png"]).astype(int) - enlarged).max() <= 1


@pytest.mark.filterwarnings("ignore")  # the library leaves its files to the garbage collector
def test_the_library_reads_the_shards(people: Any, toons: Any, tmp_path: Path) -> None:
    import webdataset

    make(people, toons, tmp_path)
    paths = sorted(map(str, tmp_path.glob("train-*.tar")))
    theirs = [*webdataset.WebDataset(paths, shardshuffle=False)]
    for one, other in zip(theirs, read_pairs(tmp_path), strict=True):
        assert {k: v for k, v in one.items() if k not in ("__url__", "__local_path__")} == other
    gc.collect()


def test_the_split_is_the_latents(people: Any, toons: Any, tmp_path: Path) -> None:
    make(people, toons, tmp_path)
    for split in SPLITS:
        for sample in read_pairs(tmp_path, split):
            assert split_of(sample["__key__"].replace("-", ":"), val_share=0.2, test_share=0.2) == split
    counts = [[split_of(f"seed:{i}") for i in range(4000)].count(split) for split in SPLITS]
    assert counts[0] > 3500 and all(140 < count < 260 for count in counts[1:])


def test_the_same_seed_gives_the_same_bytes(people: Any, toons: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 100)):
        make(people, toons, tmp_path / name, replace(CONFIG, seed=seed))
    assert shards(tmp_path / "a") == shards(tmp_path / "b") != shards(tmp_path / "c")


class Killed(BaseException):
    """As if by a signal that nobody can catch."""


def test_a_killed_run_goes_on_to_the_same_bytes(
    people: Any, toons: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(people, toons, tmp_path / "whole")
    cut, calls = tmp_path / "cut", 0
    real = synthesize

    def dying(G: Any, ws: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:  # in the second chunk
            raise Killed
        return real(G, ws)

    monkeypatch.setattr("mien.training.pairs.synthesize", dying)
    with pytest.raises(Killed):
        make(people, toons, cut)
    assert {p.name.rpartition("-")[2] for p in cut.glob("*.tar")} == {"000000.tar"}  # the second chunk is not there
    calls = 9
    report = make(people, toons, cut)
    assert shards(cut) == shards(tmp_path / "whole") and calls == 9 + 8  # batches of the last two chunks, twice
    assert report["kept"] == json.loads((tmp_path / "whole" / "report.json").read_text())["kept"]
    monkeypatch.setattr("mien.training.pairs.synthesize", None)
    assert "speed" not in make(people, toons, cut)  # nothing is drawn again


def test_a_chunk_without_its_record_is_made_again(people: Any, toons: Any, tmp_path: Path) -> None:
    make(people, toons, tmp_path)
    before = shards(tmp_path)
    (tmp_path / "train-000002.tar").write_bytes(b"no tar")
    with pytest.raises(UnsupportedFileError, match=r"train-000002\.tar is damaged"):
        list(read_pairs(tmp_path))
    (tmp_path / "train-000002.tar").unlink()
    (tmp_path / "chunk-000001.json").unlink()
    next(tmp_path.glob("train-000000.tar")).unlink()
    make(people, toons, tmp_path)
    assert shards(tmp_path) == before


def test_more_pairs_can_be_added_but_no_others(people: Any, toons: Any, tmp_path: Path) -> None:
    make(people, toons, tmp_path / "few")
    make(people, toons, tmp_path / "few", replace(CONFIG, num=40))
    make(people, toons, tmp_path / "many", replace(CONFIG, num=40))
    assert shards(tmp_path / "few") == shards(tmp_path / "many")
    with pytest.raises(InputError, match="other settings: psi"):
        make(people, toons, tmp_path / "few", replace(CONFIG, psi=0.5))
    with pytest.raises(InputError, match="other data"):
        make_pairs(people, toons, tmp_path / "few", CONFIG, digests=DIGESTS | {"target": "c" * 64})


def test_a_share_has_more_variety(people: Any, toons: Any, tmp_path: Path) -> None:
    report = make(people, toons, tmp_path, replace(CONFIG, high_psi_share=0.5, high_psi=0.9))
    drawn = [json.loads(s["json"]) for s in samples(tmp_path)]
    varied = [facts["seed"] for facts in drawn if facts["psi"] == 0.9]
    assert len(varied) == report["drawn_at_high_psi"] and 4 < len(varied) < 20
    sample = next(s for s in [*samples(tmp_path)] if s["__key__"] == f"seed-{varied[0]}")
    aim = sample_ws(people, [varied[0]], truncation_psi=0.9)[0, :1]
    assert np.allclose(np.load(io.BytesIO(sample["ws.npy"])), aim.numpy(), atol=1e-6)


def test_photos_are_decoded_by_the_target(people: Any, toons: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ws, img = torch.randn(people.num_ws, 8), torch.rand(1, 3, 16, 16) * 2 - 1
    report = make(
        people,
        toons,
        tmp_path,
        replace(CONFIG, num=1, val_share=0, test_share=0),
        photos={"photos-000000": [("anna_0", img, ws)]},
    )
    (sample,) = (s for s in read_pairs(tmp_path) if s["__key__"].startswith("photo"))
    assert (pixels(sample["source.png"]) == np.asarray(to_pil(img)[0])).all()
    aim = np.asarray(to_pil(synthesize(toons, ws[None]))[0]).astype(int)
    assert np.abs(pixels(sample["target.png"]).astype(int) - aim).max() <= 1
    assert np.load(io.BytesIO(sample["ws.npy"])).shape == (people.num_ws, 8)
    assert json.loads(sample["json"])["photo"] == "anna_0" and sum(report["kept"].values()) == 2


def test_stylegan3_makes_pairs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = dict(channel_base=64, channel_max=4, num_layers=4, num_critical=2, margin_size=2, first_cutoff=1)
    G: Any = stylegan3.Generator(4, 0, 4, 16, 3, mapping_kwargs=dict(num_layers=1), **sizes)
    G.eval().requires_grad_(False)
    report = make(G, tuned(G), tmp_path, replace(CONFIG, num=3, chunk=3))
    assert sum(report["kept"].values()) == 3


# ---- Filters --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge() -> PairFilter:
    torch.manual_seed(0)
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    return PairFilter(Detector().eval(), net.eval().requires_grad_(False))


def test_a_pair_is_rejected_for_the_first_reason() -> None:
    config, good = FilterConfig(), Signals(0.99, 0.99, 0.05, 0.6)
    assert good.rejected_for(config) is None
    for change, reason in (
        ({"source_score": 0.5, "target_score": 0.1}, "source_face"),
        ({"target_score": 0.1, "landmark_shift": 2.0}, "target_face"),
        ({"landmark_shift": 2.0}, "landmarks"),
        ({"identity": -0.9}, "identity"),
    ):
        assert replace(good, **change).rejected_for(config) == reason


def test_signals_of_a_picture_and_itself(judge: PairFilter) -> None:
    img = torch.rand(3, 3, 32, 32) * 2 - 1
    for signals in judge.measure(img, img):
        assert signals.landmark_shift == 0 and signals.identity == pytest.approx(1, abs=1e-3)
        assert signals.source_score == signals.target_score
    alone = judge.measure(img[1:2], img[2:3])[0]
    among = judge.measure(img, img.roll(-1, 0))[1]
    assert alone.identity == pytest.approx(among.identity, abs=1e-3)
    assert alone.landmark_shift == pytest.approx(among.landmark_shift, abs=1e-3)


def test_the_shift_is_in_eye_distances(judge: PairFilter, monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.tensor([TEMPLATE]) * 100
    sides = iter([Look(torch.ones(1, 2), points), Look(torch.ones(1, 2), points + torch.tensor([3.0, 4.0]))])
    monkeypatch.setattr(judge, "look", lambda img: next(sides))
    (signals,) = judge.measure(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    assert signals.landmark_shift == pytest.approx(5 / 24.6, abs=1e-3)


def test_rejected_pairs_are_counted_by_reason(people: Any, toons: Any, judge: PairFilter, tmp_path: Path) -> None:
    config = replace(CONFIG, filter=FilterConfig(min_source_score=0, min_target_score=0, max_landmark_shift=99))
    kept = make(
        people, toons, tmp_path / "kept", config, judge=PairFilter(judge.detector, judge.face_net, config.filter)
    )
    assert sum(kept["kept"].values()) + sum(kept["rejected"].values()) == 24
    signals = json.loads(list(samples(tmp_path / "kept"))[-1]["json"])["signals"]
    assert set(signals) == {"source_score", "target_score", "landmark_shift", "identity"}
    strict = replace(config, filter=FilterConfig(min_source_score=0.999999))
    judge = PairFilter(judge.detector, judge.face_net, strict.filter)
    none = make(people, toons, tmp_path / "none", strict, judge=judge)
    assert none["rejected"] == {"source_face": 24} and none["kept"] == {"train": 0, "val": 0, "test": 0}
    assert none == {**make(people, toons, tmp_path / "none", strict, judge=judge), "speed": none["speed"]}
    with pytest.raises(InputError, match="no pairs for train"):
        next(read_pairs(tmp_path / "none"))


# ---- Refusals -------------------------------------------------------------------------------------------------------


def test_the_caller_hears_of_chunks_and_may_stop(people: Any, toons: Any, tmp_path: Path) -> None:
    steps: list[Step] = []
    make(people, toons, tmp_path / "a", on_step=steps.append)
    assert [(s.done, s.total, s.scalars["kept"]) for s in steps] == [(1, 3, 10), (2, 3, 10), (3, 3, 4)]

    def stop(step: Step) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        make(people, toons, tmp_path / "b", on_step=stop)
    make(people, toons, tmp_path / "b")
    assert shards(tmp_path / "a") == shards(tmp_path / "b")


def test_wrong_use(people: Any, toons: Any, judge: PairFilter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not related"):
        make(people, generator(5), tmp_path)
    with pytest.raises(InputError, match="filters need their networks"):
        make(people, toons, tmp_path, judge=judge)
    with pytest.raises(InputError, match="more than 1 together"):
        PairsConfig(val_share=0.6, test_share=0.6)
    with pytest.raises(InputError, match="num must be at least 1"):
        PairsConfig(num=0)
    with pytest.raises(InputError, match="psi is nan"):
        PairsConfig(psi=float("nan"))
    with pytest.raises(InputError, match="the last seed would be above"):
        PairsConfig(seed=2**32 - 5, num=10)
    with pytest.raises(InputError, match="min_source_score"):
        FilterConfig(min_source_score=1.5)
    with pytest.raises(InputError, match="max_landmark_shift"):
        FilterConfig(max_landmark_shift=0)
    assert not any(tmp_path.iterdir())
