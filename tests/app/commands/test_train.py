"""`mien train`: settings are read and shown, small runs leave networks that the studio takes, errors are clear."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from mien.app.studio import Studio
from mien.edits.attributes import SHIPPED
from mien.nets.detector import Detector
from mien.nets.features import FaceNet
from mien.nets.student import Student
from mien.nets.stylegan2 import Generator
from mien.training.gan_step import PRESETS, GanConfig, GanTrainer
from mien.weights.load import load_net, read_recipe, save_net

from ..conftest import draw_photo, printed

pytestmark = pytest.mark.usefixtures("bundle")


def mien_train(*args: object, code: int = 0) -> str:
    return printed("train", *args, code=code)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for radius in range(20, 36, 2):
        draw_photo((radius,)).crop((0, 10, 100, 110)).resize((16, 16)).save(folder / f"{radius}.png")
    return folder


def test_dry_run_prints_the_settings_and_does_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shown = mien_train("gan", "--data", "none.zip", "--run-dir", run_dir, "--set", "kimg=3", "--dry-run")
    assert json.loads(shown) == json.loads(json.dumps(asdict(replace(PRESETS["faces-64"], kimg=3))))
    for args in (["encoder"], ["faces", "--ages", "a.zip"], ["detector"]):
        mien_train(*args, "--data", "none.zip", "--run-dir", run_dir, "--dry-run")
    mien_train("directions", "--run-dir", run_dir, "--dry-run")
    assert not run_dir.exists()


def test_encoder_and_directions_fit_their_generator(bundle: Path, faces: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(bundle / "faces-64.safetensors", mine)
    chosen = ("num_steps=2", "batch_size=2", "hidden=8", "precision=fp32", "use_compile=false")
    settings = [word for setting in chosen for word in ("--set", setting)]
    beside = ["--network", mine, "--out"]
    mien_train(
        "encoder",
        "--data",
        faces,
        "--run-dir",
        tmp_path / "e",
        *settings,
        *beside,
        tmp_path / "encoder-mine.safetensors",
    )
    chosen = ("num_samples=20", "num_probes=2", "num_spread=8", "largest_strength=0.5", "refine_steps=1")
    settings = [word for setting in chosen for word in ("--set", setting)]
    mien_train("directions", "--run-dir", tmp_path / "d", *settings, *beside, tmp_path / "directions-mine.safetensors")
    studio = Studio(mine, device="cpu")
    assert studio.encoder is not None
    assert studio.weights().keys() >= {"mine.safetensors", "encoder-mine.safetensors"}
    held = read_recipe(tmp_path / "encoder-mine.safetensors").provenance
    assert (held["network"], held["steps"], held["pictures"]) == (studio.digest, 2, 8)
    assert set(studio.directions.provenance["made_from"]) == {"mine.safetensors"}
    missed = studio.directions.provenance["not_found"]
    assert sorted([*studio.directions.directions, *missed]) == sorted(a.name for a in SHIPPED)
    assert studio.encode(studio.aligned(draw_photo(()).crop((0, 0, 100, 100)))).shape == (1, studio.G.num_ws, 8)


TINY_GAN = GanConfig(
    img_resolution=16,
    z_dim=8,
    w_dim=8,
    channel_base=128,
    channel_max=8,
    encoder_hidden=8,
    encoder_share=0.5,
    batch_size=4,
    kimg=0.008,
    evaluate_kimg=0.004,
    evaluate_pictures=8,
    precision="fp32",
    use_compile=False,
)
DEVICE = ["--device", "cpu", "--precision", "fp32", "--seed", 0]


def set_all(**settings: object) -> list[str]:
    return [f"--set={name}={value}" for name, value in settings.items()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard
def test_a_generator_begins_with_another_and_is_scored(drawn_sets: Path, tmp_path: Path) -> None:
    start = GanTrainer(replace(TINY_GAN, seed=1), torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.device("cpu"))
    mine, run_dir = tmp_path / "start" / "mine.safetensors", tmp_path / "run"
    save_net(start.G, mine)
    args = ["gan", "--data", drawn_sets / "faces128.zip", "--run-dir", run_dir, "--from", mine]
    args += ["--track", "tensorboard"]
    settings = set_all(**asdict(replace(TINY_GAN, lr=1e-9)))
    assert "no weights at" in mien_train(*args, *settings, code=2)  # no discriminator beside it
    save_net(start.D, mine.with_name("discriminator-mine.safetensors"))
    out = Path(mien_train(*args, *settings, *DEVICE).strip())
    assert out == run_dir / "generator.safetensors"
    G = load_net(out, Generator)
    torch.testing.assert_close(G.synthesis.b4.const, start.G.synthesis.b4.const.detach(), atol=1e-3, rtol=1e-2)
    held = read_recipe(out).provenance
    assert (held["kimg"], held["pictures"], held["config"]["seed"]) == (0.008, 36, 0)
    assert set(held["made_from"]) == {"faces128.zip", "faces128.csv"}
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "frechet/held_out" in line]
    assert [line["kimg"] for line in scored] == [0.004, 0.008]  # every evaluate_kimg
    assert all(line["frechet/trained"] > 0 for line in scored)
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs mien[track]")
    read = events.EventAccumulator(str(run_dir / "tensorboard")).Reload()
    assert [scalar.step for scalar in read.Scalars("gan/frechet/held_out")] == [1, 2]


def test_the_face_network_is_trained_to_a_file(drawn_sets: Path, tmp_path: Path) -> None:
    settings = set_all(channels="4,4,4,4", num_blocks="0,0,0,0", num_steps=1, faces_per_step=4, ages_per_step=2)
    sets = ["--data", drawn_sets / "faces128.zip", "--ages", drawn_sets / "ages128.zip"]
    out = Path(mien_train("faces", *sets, "--run-dir", tmp_path / "run", *settings, *DEVICE).strip())
    net, held = load_net(out, FaceNet), read_recipe(out).provenance
    assert net(torch.zeros(1, 3, 32, 32)).identity.shape == (1, 256)
    assert (held["steps"], held["pictures"]) == (1, [36, 38])
    (tmp_path / "bare.zip").write_bytes((drawn_sets / "ages128.zip").read_bytes())
    (tmp_path / "bare.csv").write_text("file,age\n0.png,30\n")
    sets[-1] = tmp_path / "bare.zip"
    assert "no column 'gender'" in mien_train("faces", *sets, "--run-dir", tmp_path / "other", *settings, code=2)


def test_a_translator_learns_without_pairs(drawn_sets: Path, tmp_path: Path) -> None:
    nets = dict(widths="4,6", num_blocks="0,0", ndf=4, sharp_share=1)
    settings = set_all(**nets, kimg=0.004, pre_kimg=0.002, batch_size=2, save_kimg=0.004)
    data = drawn_sets / "faces128.zip"
    args = ["cartoon", "--data", data, "--drawings", data, "--size", 32, "--outdir", tmp_path / "run", *settings]
    out = Path(mien_train(*args, *DEVICE).strip())
    held = read_recipe(out)
    assert held.kwargs["img_resolution"] == held.provenance["img_resolution"] == 32
    assert (held.provenance["pictures"], held.provenance["drawings"]) == (36, 48)  # photos: of people not held out
    assert load_net(out, Student)(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert [path.name for path in (tmp_path / "run").glob("samples-*.png")] == ["samples-0000002.png"]
    assert "no column 'style'" in mien_train(*args, "--where", "style=ink", "--outdir", tmp_path / "other", code=2)


@pytest.mark.slow
def test_the_detector_is_trained_to_a_file(drawn_sets: Path, tmp_path: Path) -> None:
    settings = set_all(
        num_steps=1, num_refiner_steps=1, batch_size=1, size_px=64, num_drawings=1, num_proposals=2, warmup_steps=1
    )
    args = ["detector", "--data", drawn_sets / "scenes250.zip", "--run-dir", tmp_path / "run", *settings, *DEVICE]
    out = Path(mien_train(*args).strip())
    assert load_net(out, Detector)(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 84)
    held = read_recipe(out).provenance
    assert (held["steps"], held["pictures"]) == ([1, 1], 9)
    assert "with other settings: seed" in mien_train(*args, "--seed", 1, code=2)


def test_settings_have_short_names_too(tmp_path: Path) -> None:
    for command in (["gan"], ["encoder"], ["faces", "--ages", "a.zip"], ["detector"]):
        args = [*command, "--data", "none.zip", "--run-dir", tmp_path, "--dry-run", "--set", "seed=3"]
        shown = json.loads(mien_train(*args, "--precision", "fp32", "--seed", 5))
        assert (shown["precision"], shown["seed"]) == ("fp32", 5)
        assert json.loads(mien_train(*args))["seed"] == 3
        assert "precision must be fp32 or bf16, got 'fp8'" in mien_train(*args, "--precision", "fp8", code=2)


def test_errors_are_those_of_the_command_line(tmp_path: Path) -> None:
    missing = mien_train("encoder", "--data", tmp_path / "none.zip", "--run-dir", tmp_path / "r", code=2)
    assert "no data at" in missing
    assert "no preset named 'x'" in mien_train("gan", "--data", "d", "--run-dir", tmp_path, "--preset", "x", code=2)
    assert "no setting named" in mien_train("directions", "--run-dir", tmp_path, "--set", "x=1", code=2)
    assert "does not end in .safetensors" in mien_train("directions", "--run-dir", tmp_path, "--out", "a.bin", code=2)
