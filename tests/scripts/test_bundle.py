"""The chain that makes the shipped networks: what it makes, what it leaves, where its runs lie, and all of it once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mien.edits.find import FindConfig
from mien.nets.features import FaceNet
from mien.training.adapt import AdaptConfig
from mien.training.cartoon import CartoonConfig
from mien.training.detector import DetectorConfig
from mien.training.encoder import EncoderConfig
from mien.training.faces import FaceTrainConfig
from mien.training.gan_step import GanConfig
from mien.training.resume import Origin, save_state
from mien.weights.load import load_generator, load_net, read_recipe, save_net

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bundle.py"
DRAWN = AdaptConfig(
    where="style=comic",
    batch_size=4,
    kimg=0.008,
    snapshot_kimg=0.004,
    evaluate_pictures=4,
    precision="fp32",
    use_compile=False,
)
TOON_32 = "toon-32.safetensors"
DRAWN_32 = "drawn-32.safetensors"
TINY: dict[str, Any] = {
    "detector": DetectorConfig(
        num_steps=1, num_refiner_steps=1, batch_size=1, size_px=64, num_drawings=1, num_proposals=2, precision="fp32"
    ),
    "faces": FaceTrainConfig(
        channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), num_steps=2, faces_per_step=4, ages_per_step=2
    ),
    "generator": GanConfig(
        img_resolution=16,
        z_dim=8,
        w_dim=8,
        channel_base=128,
        channel_max=8,
        encoder_hidden=8,
        encoder_share=0.5,
        batch_size=4,
        kimg=0.008,
        evaluate_pictures=4,
        precision="fp32",
        use_compile=False,
    ),
    "encoder": EncoderConfig(num_steps=2, batch_size=2, hidden=8, precision="fp32", use_compile=False),
    "drawn": DRAWN,
    "painted": replace(DRAWN, where="style=impasto"),
    "grown": DRAWN,
    "cartoon": CartoonConfig(
        widths=(4, 6), num_blocks=(0, 0), ndf=4, kimg=0.004, pre_kimg=0.002, batch_size=2, min_chroma=0.0
    ),
    "directions": FindConfig(num_samples=20, num_probes=2, num_spread=8, largest_strength=0.5, refine_steps=1),
}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("mien_bundle_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["mien_bundle_script"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mien_bundle_script"]


@pytest.fixture
def chain(script: ModuleType, drawn_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    monkeypatch.setattr("mien.weights.load._bundle", lambda: bundle)
    small = dict(widths=(4, 8), num_blocks=(0, 0), ndf=4, num_layers=1, num_scales=1, num_people=24, num_photos=3)
    student = script.StudentConfig(kimg=0.008, batch_size=4, is_filtered=False, **small)
    monkeypatch.setitem(TINY, "student", student)
    return script.Chain(drawn_sets, tmp_path / "runs", "tiny", torch.device("cpu"), bundle=bundle, drawn_px=32)


def put(stage: Any, **facts: object) -> None:
    """Lay a network where a stage's file belongs, with its provenance but for `facts`."""
    net = FaceNet(channels=(4, 4, 4, 4), num_blocks=(0, 0, 0, 0), embedding_dim=8, norm=False)
    save_net(net, stage.out, provenance=stage.provenance | facts)


def test_a_stage_is_done_when_its_header_says_so(script: ModuleType, chain: Any) -> None:
    stage = script.stages(chain, TINY)[1]
    assert not stage.is_done()  # no file
    put(stage)
    assert stage.is_done()
    put(stage, config=stage.provenance["config"] | {"save_steps": 7, "precision": "bf16"})
    assert stage.is_done()  # how, not what
    put(stage, config=stage.provenance["config"] | {"lr": 1.0})
    assert not stage.is_done()
    put(stage, made_from=stage.provenance["made_from"] | {"faces128.zip": "other"})
    assert not stage.is_done()
    put(stage, made_from={k: v for k, v in stage.provenance["made_from"].items() if not k.endswith(".csv")})
    assert stage.is_done()  # older headers do not name the tables
    put(stage, made_from={}, config={})
    assert not stage.is_done()


def test_a_setting_that_a_header_does_not_know_may_have_been_otherwise(script: ModuleType) -> None:
    held = asdict(EncoderConfig())
    assert script.same_settings(EncoderConfig(), held)
    assert script.same_settings(EncoderConfig(), {name: v for name, v in held.items() if name not in script.HOW})
    assert not script.same_settings(EncoderConfig(), {name: v for name, v in held.items() if name != "lr"})
    assert not script.same_settings(EncoderConfig(latent_weight=0.1), held)


def test_runs_of_one_kind_share_a_folder(script: ModuleType, chain: Any) -> None:
    def folder(name: str, **changes: object) -> Path:
        stage = next(s for s in script.stages(chain, TINY | {name: replace(TINY[name], **changes)}) if s.name == name)
        return stage.run_dir(chain.runs)

    first = folder("generator")
    assert first.parent == chain.runs and first.name.startswith("generator-")
    assert folder("generator", kimg=5, lr=0.1, save_kimg=1.0) == first  # may change on the way
    assert folder("generator", w_dim=16) != first
    assert folder("faces", num_steps=7) == folder("faces") != folder("faces", margin=0.1)


def test_a_folder_without_a_hash_is_gone_on_with_where_it_fits(script: ModuleType, chain: Any) -> None:
    stage = script.stages(chain, TINY)[2]
    plain = chain.runs / "generator"
    digest = script.source_digest(chain.source("faces128"))
    save_state({"step": 1}, plain / "state.pt", Origin(TINY["generator"].fixed(), digest))
    assert stage.run_dir(chain.runs) == plain
    save_state({"step": 1}, plain / "state.pt", Origin(TINY["generator"].fixed(), "other"))
    assert stage.run_dir(chain.runs) != plain


def test_the_plan_is_told_and_nothing_made(
    script: ModuleType, chain: Any, drawn_sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(drawn_sets), "--runs", str(chain.runs), "--bundle", str(chain.bundle), "--plan"]
    script.main([*arguments, "--stage", "faces", "--device", "cpu"])
    said = capsys.readouterr().err.replace("\n", " ")
    assert "faces: face-features.safetensors is to be made in" in said
    assert "encoder: follows" in said
    assert not list(chain.bundle.iterdir()) and not chain.runs.exists()
    with pytest.raises(SystemExit):
        script.main([*arguments, "--set", "lr=1"])


def test_every_shipped_file_says_how_it_was_made(script: ModuleType) -> None:
    fitted = ("quality-", "face-motion")  # in closed form, by scripts of their own
    files = sorted(path for path in script.BUNDLE.glob("*.safetensors") if not path.name.startswith(fitted))
    headers = {path.name: script.read_header(path) for path in files}
    for name, held in headers.items():
        assert held.keys() >= {"made_from", "config", "data", "data_sha256", "licence", "pictures"}, name
        assert held["licence"] == script.LICENCE
        assert name.startswith("directions-") or "steps" in held or "kimg" in held, name
    for path in files:
        for source, digest in headers[path.name]["made_from"].items():
            if source.endswith(".safetensors"):
                assert digest == script.net_digest(load_net(script.BUNDLE / source)), (path.name, source)
    for name in ("detector", "faces"):  # what no better generator makes stale
        stage = {"detector": "detector", "faces": "face-features"}[name]
        config = script.settings("faces-64")[name]
        assert script.same_settings(config, headers[f"{stage}.safetensors"]["config"]), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")  # correlations of sets this small are not defined
def test_the_whole_chain_once(script: ModuleType, chain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    card = chain.bundle / "encoder-tiny.md"
    card.write_text("# Card\n<!-- numbers -->\n<!-- /numbers -->\n", encoding="utf-8")
    script.run(script.stages(chain, TINY), chain.runs)
    names = {path.name for path in chain.bundle.glob("*.safetensors")}
    beside = {f"{kind}-tiny.safetensors" for kind in ("encoder", "directions", "discriminator", "drawn", "painted")}
    assert (
        names == {"detector.safetensors", "face-features.safetensors", "tiny.safetensors", DRAWN_32, TOON_32} | beside
    )
    assert "| SSIM |" in card.read_text(encoding="utf-8")
    for name in names:
        held = script.read_header(chain.bundle / name)
        assert held["licence"] == script.LICENCE and held["data"] and held["pictures"], name
        assert held["made_from"] and held["config"] and held["data_sha256"], name
    capsys.readouterr()

    script.run(script.stages(chain, TINY), chain.runs)
    assert capsys.readouterr().err.count("is up to date") == len(script.STAGES) == 10

    face_net = chain.bundle / "face-features.safetensors"  # other numbers in an early stage re-make what hangs on it
    before = {path.name: path.read_bytes() for path in chain.bundle.glob("*.safetensors")}
    net, recipe = load_net(face_net, FaceNet), read_recipe(face_net)
    with torch.no_grad():
        net.embed[1].bias += 0.1
    save_net(net, face_net, provenance=recipe.provenance, use_half=True)
    script.run(script.stages(chain, TINY), chain.runs)
    said = capsys.readouterr().err
    assert said.count("is up to date") == 3
    assert before["encoder-tiny.safetensors"] != (chain.bundle / "encoder-tiny.safetensors").read_bytes()
    assert len(list(chain.runs.glob("encoder-*"))) == len(list(chain.runs.glob("drawn-*"))) == 2
    drawn = load_generator("drawn-tiny")
    assert torch.equal(drawn.w_avg, load_generator("tiny").w_avg)  # the same w is the same person
