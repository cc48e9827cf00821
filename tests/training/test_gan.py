"""Training of the generator: steps by their definition, and runs that go on as if nothing had happened."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mien.errors import Cancelled, InputError
from mien.report import Step
from mien.training.data import PictureSet
from mien.training.gan import Beginning, collapse_warning, train_gan
from mien.training.gan_step import GanConfig, GanTrainer
from mien.weights.load import load_generator

TINY: dict[str, Any] = dict(
    img_resolution=8,
    z_dim=8,
    w_dim=8,
    channel_base=64,
    channel_max=8,
    encoder_hidden=8,
    batch_size=4,
    r1_interval=3,
    precision="fp32",
    use_compile=False,
)


def pictures(num: int = 12, size_px: int = 8) -> PictureSet:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, [num, 3, size_px, size_px], generator=rng, dtype=torch.uint8)
    return PictureSet(pixels, [f"{i}.png" for i in range(num)], {}, "digest")


def maps(img: torch.Tensor) -> list[torch.Tensor]:
    return [img - img.roll(1, 3)]


def weights_after(run_dir: Path, config: GanConfig, **kwargs: Any) -> dict[str, torch.Tensor]:
    G = train_gan(config, pictures(), run_dir, **kwargs)
    assert isinstance(G, torch.nn.Module)
    return G.state_dict()


@pytest.mark.parametrize(
    "kind", [{}, dict(encoder_share=0.5, autoencoder_kimg=0.008), dict(pl_weight=2.0, pl_interval=2)], ids=str
)
def test_a_run_in_two_parts_equals_one_run(tmp_path: Path, kind: dict[str, Any]) -> None:
    steps = dict(save_kimg=0.012, snapshot_kimg=100)
    whole = weights_after(tmp_path / "whole", GanConfig(kimg=0.024, **TINY, **kind, **steps), maps=maps)
    weights_after(tmp_path / "parts", GanConfig(kimg=0.012, **TINY, **kind, **steps), maps=maps)
    parts = weights_after(tmp_path / "parts", GanConfig(kimg=0.024, **TINY, **kind, **steps), maps=maps)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_leaves_what_it_was(tmp_path: Path) -> None:
    config = GanConfig(kimg=0.012, encoder_share=0.5, **TINY)
    seen: list[Step] = []
    train_gan(config, pictures(), tmp_path, seen.append, evaluate=lambda G: {"score": float(G.num_ws)})
    assert [step.done for step in seen] == [1, 2, 3] and seen[-1].total == 3
    assert seen[-1].scalars["score"] == 4 and seen[-1].pictures["samples"].is_file()
    options = json.loads((tmp_path / "options.json").read_text())
    assert options["kimg"] == 0.012 and options["data"] == "digest" and options["pictures"] == 12
    G = load_generator(tmp_path / "snapshots" / "G-000000.safetensors")
    assert (G.img_resolution, G.z_dim) == (8, 8)


def test_other_networks_in_the_folder_are_refused(tmp_path: Path) -> None:
    train_gan(GanConfig(kimg=0.004, **TINY), pictures(), tmp_path)
    with pytest.raises(InputError, match="other settings: w_dim"):
        train_gan(GanConfig(kimg=0.008, **TINY | dict(w_dim=4)), pictures(), tmp_path)
    with pytest.raises(InputError, match=r"\[3, 16, 16\], the network wants \[3, 8, 8\]"):
        train_gan(GanConfig(kimg=0.008, **TINY), pictures(size_px=16), tmp_path)


@pytest.mark.parametrize("has_critic", [True, False])
def test_a_critic_neither_comes_nor_goes_within_a_run(has_critic: bool, tmp_path: Path) -> None:
    train_gan(GanConfig(kimg=0.004, **TINY), pictures(), tmp_path, maps=maps if has_critic else None)
    with pytest.raises(InputError, match=f"begun with{'' if has_critic else 'out'} a second critic"):
        train_gan(GanConfig(kimg=0.008, **TINY), pictures(), tmp_path, maps=None if has_critic else maps)


def test_impossible_batches_and_sizes_are_refused() -> None:
    for encoder_share in (0.1, 0.3, 0.8):
        with pytest.raises(InputError, match="of batch_size 4 is"):
            GanConfig(**TINY, encoder_share=encoder_share)
    for side in (0, 2, 100):
        with pytest.raises(InputError, match="power of two"):
            GanConfig(img_resolution=side)


def test_a_run_that_goes_on_takes_new_rates_but_no_new_pictures(tmp_path: Path) -> None:
    train_gan(GanConfig(kimg=0.004, **TINY), pictures(), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    trainer = GanTrainer(GanConfig(lr=0.001, **TINY), pictures().pixels, torch.device("cpu"))
    trainer.load_state_dict(state)
    assert trainer.opt_G.param_groups[0]["lr"] == 0.001
    other = dataclasses.replace(pictures(), digest="other")
    with pytest.raises(InputError, match="on other data"):
        train_gan(GanConfig(kimg=0.008, **TINY), other, tmp_path)


def test_options_name_the_pictures_of_an_older_state(tmp_path: Path) -> None:
    train_gan(GanConfig(kimg=0.004, **TINY), pictures(), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["data"]
    torch.save(state, tmp_path / "state.pt")
    train_gan(GanConfig(kimg=0.008, **TINY), pictures(), tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["data"] == "digest"
    torch.save(state, tmp_path / "state.pt")
    (tmp_path / "options.json").unlink()
    with pytest.raises(InputError, match="on other data"):
        train_gan(GanConfig(kimg=0.012, **TINY), pictures(), tmp_path)


def test_scores_are_taken_as_often_as_is_said(tmp_path: Path) -> None:
    config = GanConfig(kimg=0.02, evaluate_kimg=0.008, snapshot_kimg=100, **TINY)
    seen: list[Step] = []
    train_gan(config, pictures(), tmp_path / "some", seen.append, evaluate=lambda G: {"score": 1.0})
    assert [step.done for step in seen if "score" in step.scalars] == [2, 4, 5]
    lines = [json.loads(line) for line in (tmp_path / "some" / "stats.jsonl").read_text().splitlines()]
    assert [line["kimg"] for line in lines if "score" in line] == [0.008, 0.016, 0.02]
    never = dataclasses.replace(config, evaluate_kimg=0)
    train_gan(never, pictures(), tmp_path / "never", evaluate=lambda G: 1 / 0)


def test_a_run_can_begin_with_a_smaller_generator(tmp_path: Path) -> None:
    small = GanTrainer(GanConfig(**TINY), pictures().pixels, torch.device("cpu"))
    start = Beginning(small.G, small.D)
    config = GanConfig(kimg=0.004, lr=1e-9, **TINY | dict(img_resolution=16))
    G = train_gan(config, pictures(size_px=16), tmp_path / "grown", start=start)
    torch.testing.assert_close(G.synthesis.b8.conv1.weight, small.G.synthesis.b8.conv1.weight)
    with pytest.raises(InputError, match="do not fit"):
        train_gan(GanConfig(kimg=0.004, **TINY | dict(w_dim=4)), pictures(), tmp_path / "other", start=start)


def test_a_run_can_begin_where_another_ended(tmp_path: Path) -> None:
    kind = TINY | dict(encoder_share=0.5, lr=1e-9, discriminator_lr=1e-9, encoder_lr=1e-9)
    other = GanTrainer(GanConfig(seed=7, **kind), pictures().pixels, torch.device("cpu"))
    train_gan(GanConfig(kimg=0.004, **kind), pictures(), tmp_path, start=Beginning(other.G, other.D, other.E))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for name, net in other.nets().items():
        for key, tensor in net.state_dict().items():
            if key != "mapping.w_avg":  # moves at every step
                torch.testing.assert_close(state[name][key], tensor, msg=f"{name} {key}")


def test_a_sink_can_stop_the_run(tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        train_gan(GanConfig(kimg=1, **TINY), pictures(), tmp_path, stop)


def test_r1_is_the_squared_gradient_on_real_pictures() -> None:
    half = pictures().pixels[..., :4]
    symmetric = torch.cat([half, half.flip(3)], dim=3)  # so that flips change nothing
    trainer = GanTrainer(GanConfig(ada_target=0, **TINY), symmetric, torch.device("cpu"))
    D = copy.deepcopy(trainer.D)
    img = (symmetric[trainer.batches.at(0)].float() / 127.5 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(D(img).sum(), img)
    expected = float(gradient.square().sum(dim=[1, 2, 3]).mean())
    assert float(trainer.train_step()["loss/r1"]) == pytest.approx(expected, rel=1e-4)
    assert "loss/r1" not in trainer.train_step()  # lazily: every third step


def test_the_moving_average_has_its_half_life() -> None:
    config = GanConfig(ema_kimg=0.008, ema_rampup=1e9, **TINY)
    trainer = GanTrainer(config, pictures().pixels, torch.device("cpu"))
    trainer.train_step()
    before, after = trainer.G_ema.synthesis.b4.const.clone(), trainer.G.synthesis.b4.const.detach() + 1
    with torch.no_grad():
        trainer.G.synthesis.b4.const.copy_(after)
    trainer.average()  # four pictures are half of the half-life
    expected = before + (after - before) * (1 - 0.5**0.5)
    torch.testing.assert_close(trainer.G_ema.synthesis.b4.const, expected)


def test_reconstruction_is_learnt() -> None:
    trainer = GanTrainer(
        GanConfig(encoder_share=0.5, autoencoder_kimg=1, lr=0.01, **TINY), pictures(4).pixels, torch.device("cpu")
    )
    losses = [float(trainer.train_step()["loss/reconstruction"]) for _ in range(60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="fp32 or bf16"):
        GanConfig(precision="int4")
    with pytest.raises(InputError, match="evaluate_pictures must be at least 2"):
        GanConfig(evaluate_pictures=1)
    with pytest.raises(InputError, match="encoder_share"):
        GanConfig(encoder_share=1.0)
    with pytest.raises(InputError, match="needs an encoder"):
        GanConfig(autoencoder_kimg=5)
    with pytest.raises(InputError, match="batch_size"):
        GanConfig(batch_size=1)
    with pytest.raises(InputError, match="r1_interval must be above 0"):
        GanConfig(r1_interval=0)


def test_early_signs_of_collapse() -> None:
    healthy = {"score/real": 1.0, "score/fake": -1.0, "ada/sign": 0.5}
    assert collapse_warning(healthy) is None and collapse_warning({}) is None
    assert "far ahead" in str(collapse_warning(healthy | {"score/fake": -25.0}))
    assert "overfits" in str(collapse_warning(healthy | {"ada/sign": 0.99}))
    assert "not finite" in str(collapse_warning(healthy | {"score/real": float("nan")}))


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from test_gan import TINY, pictures
from mien.training.gan import train_gan
from mien.training.gan_step import GanConfig
torch.set_num_threads(1)
train_gan(GanConfig(kimg=0.24, save_kimg=0.008, snapshot_kimg=100, **TINY), pictures(), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT.format(here=str(Path(__file__).parent))]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=200)
    for _ in range(3):
        process = subprocess.Popen([*command, str(tmp_path / "killed")])
        deadline = time.monotonic() + 60
        while not (tmp_path / "killed" / "state.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.4)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, timeout=200)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "killed")]
    for name, tensor in states[0]["G_ema"].items():
        assert torch.equal(tensor, states[1]["G_ema"][name]), name
