"""`mien train`: settings are read and shown, small runs leave networks that the studio takes, errors are clear."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mien.app.cli import app
from mien.app.studio import Studio
from mien.app.train import configured
from mien.edits.find import FindConfig
from mien.errors import InputError
from mien.training.encoder import EncoderConfig
from mien.training.faces import FaceTrainConfig
from mien.training.gan_step import PRESETS

from .conftest import draw_photo

pytestmark = pytest.mark.usefixtures("bundle")


def mien_train(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["train", *(str(arg) for arg in args)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for radius in range(20, 36, 2):
        draw_photo((radius,)).crop((0, 10, 100, 110)).resize((16, 16)).save(folder / f"{radius}.png")
    return folder


def test_settings_are_read_by_their_type() -> None:
    assert configured(EncoderConfig, ["num_steps=7", "lr=0.5", "precision=fp32"]) == EncoderConfig(
        num_steps=7, lr=0.5, precision="fp32"
    )
    assert configured(FaceTrainConfig, ["channels=1,2", "use_bf16=true"]) == FaceTrainConfig(
        channels=(1, 2), use_bf16=True
    )
    for text, message in [("beard=1", "no setting named 'beard'"), ("num_samples=x", "does not fit num_samples")]:
        with pytest.raises(InputError, match=message):
            configured(FindConfig, [text])
    with pytest.raises(InputError, match="no setting named 'terms'"):
        configured(EncoderConfig, ["terms=1"])


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
    settings = ["--set", "num_steps=2", "--set", "batch_size=2", "--set", "hidden=8", "--set", "precision=fp32"]
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
    settings = ["--set", "num_samples=20", "--set", "num_probes=2", "--set", "largest_strength=0.5"]
    mien_train("directions", "--run-dir", tmp_path / "d", *settings, *beside, tmp_path / "directions-mine.safetensors")
    studio = Studio(mine, device="cpu")
    assert studio.encoder is not None
    assert sorted(studio.directions.directions) == ["age", "smile", "yaw"]
    assert studio.encode(studio.aligned(draw_photo(()).crop((0, 0, 100, 100)))).shape == (1, studio.G.num_ws, 8)


def test_errors_are_those_of_the_command_line(tmp_path: Path) -> None:
    missing = mien_train("encoder", "--data", tmp_path / "none.zip", "--run-dir", tmp_path / "r", code=2)
    assert "no data at" in missing
    assert "no preset named 'x'" in mien_train("gan", "--data", "d", "--run-dir", tmp_path, "--preset", "x", code=2)
    assert "no setting named" in mien_train("directions", "--run-dir", tmp_path, "--set", "x=1", code=2)
    assert "does not end in .safetensors" in mien_train("directions", "--run-dir", tmp_path, "--out", "a.bin", code=2)
