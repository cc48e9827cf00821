"""From faces to drawings: what stays, what moves, when it ends; StyleGAN2 and StyleGAN3; stopped and gone on with."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien.edits.blend import blend, parts
from mien.edits.schedule import parse_schedule
from mien.edits.style import check_decodes
from mien.errors import InputError
from mien.latents import sample_ws, synthesize
from mien.nets import stylegan1, stylegan2, stylegan3
from mien.nets.discriminator import Discriminator
from mien.report import Step
from mien.training.adapt import (
    ADAPT_PRESETS,
    AdaptConfig,
    AdaptTrainer,
    adapt,
    best,
    is_enough,
    structure_distance,
)
from mien.training.data import PictureSet, select

CPU = torch.device("cpu")
TINY: dict[str, Any] = dict(
    batch_size=4, kimg=0.012, snapshot_kimg=0.004, save_kimg=0.004, evaluate_pictures=8, patience=0, least_diversity=0.0
) | dict(precision="fp32", use_compile=False, r1_interval=2, warmup_kimg=0.0)
WIDTHS = dict(channel_base=128, channel_max=8)


def faces(kind: Any = stylegan2, side: int = 16) -> Any:
    torch.manual_seed(0)
    layers = dict(num_layers=14) if kind is stylegan3 else {}
    return kind.Generator(8, 0, 8, side, 3, dict(num_layers=2), WIDTHS | layers).eval().requires_grad_(False)


def critic(side: int = 16) -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(0, side, 3, **WIDTHS).eval().requires_grad_(False)


def drawings(num: int = 8, side: int = 16) -> PictureSet:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, [num, 3, side, side], generator=rng, dtype=torch.uint8)
    styles = np.array(["comic", "ink"] * num)[:num]
    return PictureSet(pixels, [f"{i}.png" for i in range(num)], {"style": styles}, "digest")


def trained(config: AdaptConfig, num: int = 2, G: Any = None, D: Any = None) -> AdaptTrainer:
    trainer = AdaptTrainer(config, G or faces(), D or critic(), drawings().pixels, CPU)
    for _ in range(num):
        trainer.train_step()
    return trainer


# ---- What stays -----------------------------------------------------------------------------------------------------


def test_the_mapping_stays_and_so_does_every_w() -> None:
    source = faces()
    G = trained(AdaptConfig(**TINY), G=source).G_ema
    for name, tensor in source.mapping.state_dict().items():
        assert torch.equal(tensor, G.mapping.state_dict()[name]), name
    assert not torch.equal(source.synthesis.b16.conv1.weight, G.synthesis.b16.conv1.weight)
    assert torch.equal(sample_ws(source, [3]), sample_ws(G, [3]))
    free: Any = trained(AdaptConfig(**TINY, is_mapping_frozen=False)).G
    assert not torch.equal(source.mapping.fc0.weight, free.mapping.fc0.weight)
    assert not torch.equal(source.mapping.w_avg, free.mapping.w_avg)


def test_frozen_blocks_of_d_keep_their_eyes() -> None:
    before = critic()
    D = trained(AdaptConfig(**TINY, freeze_d=1), D=before).D
    for name, tensor in D.state_dict().items():
        changed = not torch.equal(tensor, before.state_dict()[name])
        assert changed == (not name.startswith("b16.") and not name.endswith("filter")), name


@pytest.mark.parametrize("kind", [stylegan2, stylegan3])
def test_frozen_affines_keep_how_early_styles_act(kind: Any) -> None:
    source = faces(kind)
    G = trained(AdaptConfig(**TINY, freeze_affines=2), G=source).G
    for old, new in zip(parts(source), parts(G), strict=True):
        if old.kind == "affine":
            assert torch.equal(old.tensor, new.tensor) == (old.layer_idx < 2), (old.layer_idx, old.name)


def test_nothing_given_is_changed() -> None:
    source, D = faces(), critic()
    before = copy.deepcopy((source.state_dict(), D.state_dict()))
    trained(AdaptConfig(**TINY), G=source, D=D)
    for now, old in zip((source.state_dict(), D.state_dict()), before, strict=True):
        assert all(torch.equal(now[name], old[name]) for name in now)


def test_rates_rise_and_p_begins_where_it_is_told() -> None:
    config = AdaptConfig(**TINY | dict(warmup_kimg=0.016), ada_start=0.3, ada_kimg=0.1, lr=0.004)
    trainer = trained(config, num=1)
    assert trainer.opt_G.param_groups[0]["lr"] == pytest.approx(0.001)
    assert abs(float(trainer.ada_p) - 0.3) == pytest.approx(4 / 100, abs=1e-6)  # one batch of the way of 100 pictures
    for _ in range(5):
        trainer.train_step()
    assert trainer.opt_G.param_groups[0]["lr"] == pytest.approx(0.004)


# ---- Structure ------------------------------------------------------------------------------------------------------


def test_structure_is_light_and_shade_and_nothing_else() -> None:
    img = torch.rand(3, 3, 32, 32)
    assert structure_distance(img, img, 8).abs().max() < 1e-2
    assert structure_distance(img * 0.5 + 0.2, img, 8).abs().max() < 1e-2  # flatter, brighter
    shifted = img + torch.tensor([1.0, -0.299 / 0.587, 0.0])[:, None, None]  # another colour of the same luminance
    assert structure_distance(shifted, img, 8).abs().max() < 1e-2
    torch.testing.assert_close(structure_distance(-img, img, 8), torch.full([3], 2.0), atol=3e-2, rtol=0)
    fine = img + 0.5 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2 - 1)  # a pattern of single pixels
    assert structure_distance(fine, img, 8).abs().max() < 1e-2


def test_drawings_are_held_to_their_faces() -> None:
    ws = sample_ws(faces(), range(16))
    before = synthesize(faces(), ws)
    apart = [
        float(structure_distance(synthesize(trainer.G, ws), before, 16).mean())
        for trainer in (trained(AdaptConfig(**TINY, structure_weight=w, lr=0.01), num=12) for w in (0.0, 20.0))
    ]
    assert apart[1] < 0.8 * apart[0]


# ---- Which pictures, and when it is enough --------------------------------------------------------------------------


def test_pictures_are_chosen_by_their_table() -> None:
    data = drawings()
    assert (
        select(data, "") is data and len(select(data, "style=ink")) == 4 and len(select(data, "style=ink,comic")) == 8
    )
    for where, message in (
        ("ink", "chooses no pictures"),
        ("look=ink", "no column 'look'"),
        ("style=oil", "no picture"),
    ):
        with pytest.raises(InputError, match=message):
            select(data, where)


def score(kernel: float, diversity: float = 1.0) -> dict[str, float]:
    return {"kernel": kernel, "diversity": diversity}


def test_a_run_ends_when_nothing_is_gained_or_all_is_one() -> None:
    config = AdaptConfig(patience=2, least_diversity=0.4)
    assert not is_enough([], config) and not is_enough([score(3), score(2), score(4)], config)
    assert is_enough([score(3), score(2), score(4), score(2.5)], config)
    assert is_enough([score(3), score(1, 0.3)], config)
    assert not is_enough([score(3), score(1, 0.3)], replace(config, patience=0))
    assert best([score(3), score(2), score(1, 0.3)], config) == score(2)
    assert best([score(3, 0.1), score(2, 0.2)], config) == score(2, 0.2)  # nothing is diverse


def test_a_run_that_ends_early_stays_ended(tmp_path: Path) -> None:
    config = AdaptConfig(**TINY | dict(kimg=1.0, patience=1, lr=1e-9))  # it does not move: the second brings nothing
    first = adapt(config, faces(), drawings(), tmp_path, D=critic())
    stats = (tmp_path / "stats.jsonl").read_text()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] < 250
    again = adapt(config, faces(), drawings(), tmp_path, D=critic())
    assert again.score == first.score and (tmp_path / "stats.jsonl").read_text() == stats


# ---- The run --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_scores_signs_and_the_best_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Step] = []
    config = AdaptConfig(**TINY, where="style=ink", ada_start=0.7)
    found = adapt(config, faces(), drawings(), tmp_path, seen.append, D=critic())
    scored = [step.scalars for step in seen if "kernel" in step.scalars]
    assert len(scored) == 3 and scored[0].keys() >= {"ada/p", "ada/sign", "diversity", "nearest", "frechet"}
    assert found.score["kernel"] == min(s["kernel"] for s in scored) and seen[-1].pictures["samples"].is_file()
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert all("ADA's p" in line["warning"] for line in lines if "ada/p" in line)
    assert "augmentations may leak" in caplog.text
    options = json.loads((tmp_path / "options.json").read_text())
    assert options["where"] == "style=ink" and options["pictures"] == 4 and options["data"] == "digest"


def test_a_run_in_two_parts_equals_one_run(tmp_path: Path) -> None:
    config = AdaptConfig(**TINY | dict(snapshot_kimg=0.008))
    adapt(config, faces(), drawings(), tmp_path / "whole", D=critic())
    adapt(replace(config, kimg=0.008), faces(), drawings(), tmp_path / "parts", D=critic())
    adapt(config, faces(), drawings(), tmp_path / "parts", D=critic())
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")]
    for role in ("G", "D", "G_ema"):
        assert all(torch.equal(states[0][role][name], states[1][role][name]) for name in states[0][role])
    assert states[0]["scores"] == states[1]["scores"]


def test_a_folder_of_another_source_is_refused(tmp_path: Path) -> None:
    adapt(AdaptConfig(**TINY), faces(), drawings(), tmp_path, D=critic())
    other = faces()
    other.synthesis.b4.const.data += 1
    with pytest.raises(InputError, match="for another generator"):
        adapt(AdaptConfig(**TINY), other, drawings(), tmp_path, D=critic())
    with pytest.raises(InputError, match="other settings: where"):
        adapt(AdaptConfig(**TINY, where="style=ink"), faces(), drawings(), tmp_path, D=critic())


def test_stylegan3_is_adapted_and_blended_with_fifteen_weights(tmp_path: Path) -> None:
    source = faces(stylegan3)
    found = adapt(AdaptConfig(**TINY), source, drawings(), tmp_path, D=critic())
    assert isinstance(found.G, stylegan3.Generator)
    moved = [float(layer.magnitude_ema) for layer in found.G.synthesis.layers()]
    assert moved != [float(layer.magnitude_ema) for layer in source.synthesis.layers()]  # training follows its maps
    weights = [0.5, 0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.9, 0.9, 1, 1, 1, 1, 1, 1]
    mixed = blend(source, [(found.G, parse_schedule(",".join(map(str, weights))))])
    for own, a, b in zip(parts(mixed), parts(source), parts(found.G), strict=True):
        torch.testing.assert_close(own.tensor, torch.lerp(a.tensor, b.tensor, weights[own.layer_idx]))
    assert synthesize(mixed, sample_ws(source, [1])).isfinite().all()


def test_without_a_discriminator_a_new_one_begins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapt(AdaptConfig(**TINY | dict(kimg=0.004), freeze_d=2), faces(), drawings(), tmp_path)
    assert "a new one begins from nothing" in caplog.text
    D = torch.load(tmp_path / "state.pt", weights_only=True)["D"]
    assert D["b16.conv0.weight"].shape == critic().b16.conv0.weight.shape  # of the generator's widths


def test_what_cannot_be_adapted_is_refused(tmp_path: Path) -> None:
    old: Any = stylegan1.Generator(8, 0, 8, 16, 3, dict(num_layers=2), WIDTHS)
    classes: Any = stylegan2.Generator(8, 3, 8, 16, 3, dict(num_layers=2), WIDTHS)
    for G in (old, classes):
        with pytest.raises(InputError, match="cannot be adapted"):
            adapt(AdaptConfig(**TINY), G, drawings(), tmp_path)
    with pytest.raises(InputError, match=r"\[3, 8, 8\], the network wants \[3, 16, 16\]"):
        adapt(AdaptConfig(**TINY), faces(), drawings(side=8), tmp_path)
    with pytest.raises(InputError, match="2 pictures are too few"):
        adapt(AdaptConfig(**TINY), faces(), drawings(2), tmp_path)
    with pytest.raises(InputError, match="need the face network"):
        adapt(AdaptConfig(**TINY, identity_weight=1.0), faces(), drawings(), tmp_path)
    with pytest.raises(InputError, match="ada_kimg must be above 0"):
        AdaptConfig(ada_kimg=0)
    with pytest.raises(InputError, match="least_diversity must be from 0 to 1"):
        AdaptConfig(least_diversity=2)
    assert not list(tmp_path.iterdir())


def test_a_generator_grows_to_larger_drawings(tmp_path: Path) -> None:
    source = faces()
    config = AdaptConfig(**TINY, freeze_d=1)
    found = adapt(config, source, drawings(side=32), tmp_path / "a", D=critic())
    assert (found.G.img_resolution, found.G.num_ws) == (32, source.num_ws + 2)
    assert torch.equal(sample_ws(source, [3])[:, 0], sample_ws(found.G, [3])[:, 0])
    assert found.G.synthesis.b32.torgb.weight.abs().sum() > 0
    check_decodes(source, found.G)
    held = adapt(config, source, drawings(side=32), tmp_path / "a", D=critic())  # goes on where it ended
    assert held.score == found.score
    with pytest.raises(InputError, match="only a StyleGAN2 grows"):
        adapt(config, faces(stylegan3), drawings(side=32), tmp_path / "b")
    with pytest.raises(InputError, match="cannot grow to 24 px"):
        adapt(config, source, drawings(side=24), tmp_path / "b")
    with pytest.raises(InputError, match=r"the network wants \[3, 16, 16\]"):
        adapt(config, source, drawings(side=8), tmp_path / "b")


def test_the_cartoon_bots_settings() -> None:
    config = ADAPT_PRESETS["cartoon-bot"]
    assert (config.kimg, config.batch_size, config.r1_gamma, config.ada_kimg) == (160, 16, 6.6, 100)
    assert not config.is_mapping_frozen and config.freeze_d == 0 and config.structure_weight == 0


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from test_adapt import TINY, critic, drawings, faces
from mien.training.adapt import AdaptConfig, adapt
torch.set_num_threads(1)
config = AdaptConfig(**TINY | dict(kimg=0.16, snapshot_kimg=0.012, save_kimg=0.008))
adapt(config, faces(), drawings(), Path(sys.argv[1]), D=critic())
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT.format(here=str(Path(__file__).parent))]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=250)
    for wait_s in (0.3, 0.9, 1.7):
        process = subprocess.Popen([*command, str(tmp_path / "killed")])
        deadline = time.monotonic() + 60
        while not (tmp_path / "killed" / "state.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(wait_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, timeout=250)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "killed")]
    assert states[0]["scores"] == states[1]["scores"]
    for name, tensor in states[0]["G_ema"].items():
        assert torch.equal(tensor, states[1]["G_ema"][name]), name
