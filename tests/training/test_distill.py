"""Distilling into tiny networks: it learns four pairs by heart, goes on to the same bits, says what is wrong."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mien.errors import Cancelled, InputError, UnsupportedFileError
from mien.nets.features import FaceNet
from mien.nets.pix2pix import UnetGenerator
from mien.nets.student import Student
from mien.report import Step
from mien.training.distill import DISTILL_PRESETS, DistillConfig, distill, gan_loss, make_translator
from mien.training.distortions import degrade
from mien.training.pair_set import Pairs, cut_at_random, load_pairs, moved, sharpened, worsened

pytestmark = pytest.mark.usefixtures("one_thread")
STUDENT = DistillConfig(
    kimg=0.024,
    batch_size=4,
    widths=(6, 8, 12),
    num_blocks=(0, 0, 1),
    ndf=4,
    perceptual_weight=0.0,
    identity_weight=0.0,
    num_layers=1,
    save_kimg=0.008,
)
UNET = replace(DISTILL_PRESETS["pix2pix"], kimg=0.006, ngf=4, ndf=4, num_layers=1, save_kimg=0.002)
WEIGHTS = ("gan_weight", "l1_weight", "perceptual_weight", "identity_weight", "feature_weight")
RUNS = {"student": STUDENT, "pix2pix": UNET}


def some_pairs(num: int = 4, side: int = 16, seed: int = 0) -> Pairs:
    """Smooth pictures, and the same with their channels turned: what a small network can learn."""
    rng = torch.Generator().manual_seed(seed)
    img = torch.nn.functional.interpolate(torch.rand(num, 3, 4, 4, generator=rng), side, mode="bilinear")
    source = (img * 255).to(torch.uint8)
    return Pairs(source, source.roll(1, dims=1), f"digest {num} {side} {seed}")


def face_net() -> FaceNet:
    torch.manual_seed(0)
    return FaceNet(channels=(4, 4, 4), num_blocks=(0, 0, 0), embedding_dim=4, norm=False)


def write_shard(folder: Path, sizes: list[tuple[int, int]], *, split: str = "train", broken: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{split}-000000.tar", "w") as tar:
        for i, size in enumerate(sizes):
            for j, side in enumerate(("source", "target")):
                name = f"seed-{i}.{side}.png"
                if broken == "missing" and side == "target":
                    continue
                with io.BytesIO() as file:
                    PIL.Image.new("RGB", size, (50 * i, 100 * j, 0)).save(file, format="PNG")
                    held = b"no picture" if broken == "damaged" else file.getvalue()
                info = tarfile.TarInfo(name)
                info.size = len(held)
                tar.addfile(info, io.BytesIO(held))
    return folder


# ---- Pairs ----------------------------------------------------------------------------------------------------------


def test_shards_are_read_as_they_are(tmp_path: Path) -> None:
    pairs = load_pairs(write_shard(tmp_path, [(16, 16)] * 3))
    assert (len(pairs), pairs.side_px) == (3, 16)
    assert pairs.source[2, :, 5, 5].tolist() == [100, 0, 0] and pairs.target[1, :, 0, 0].tolist() == [50, 100, 0]
    source, _ = pairs.at(torch.tensor([0, 2]))
    assert source.shape == (2, 3, 16, 16) and source[0, 1].max() == -1
    assert load_pairs(tmp_path).digest == pairs.digest
    assert load_pairs(write_shard(tmp_path / "fewer", [(16, 16)] * 2)).digest != pairs.digest


@pytest.mark.parametrize(
    ("sizes", "broken", "error", "message"),
    [
        ([(16, 16), (24, 24)], "", InputError, "seed-1.source.png is 24x24 px, the first one 16x16"),
        ([(16, 24)], "", InputError, "are 16x24 px"),
        ([(20, 20)], "", InputError, "are 20x20 px"),
        ([(8, 8)], "", InputError, "are 8x8 px"),
        ([(16, 16)], "missing", UnsupportedFileError, "the pairs lack seed-0.target.png"),
        ([(16, 16)], "damaged", UnsupportedFileError, "seed-0.source.png is damaged"),
    ],
)
def test_bad_pairs_are_refused(
    tmp_path: Path, sizes: list[tuple[int, int]], broken: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_pairs(write_shard(tmp_path, sizes, broken=broken))


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pairs for train"):
        load_pairs(tmp_path)


def test_both_sides_move_together() -> None:
    img = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4) * 2 - 1, 32, mode="bilinear")
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        for source, target in (moved(img, img.clone(), rng, share=1.0), cut_at_random(img, img.clone(), rng)):
            torch.testing.assert_close(source, target)
            assert (source - img).abs().mean() > 0.01


def test_pairs_that_are_not_moved_are_mirrored_or_left_to_the_pixel() -> None:
    img = torch.rand(16, 3, 16, 16)
    source, _ = moved(img, img.clone(), torch.Generator().manual_seed(0), share=0.0)
    is_same = [bool(torch.equal(a, b)) for a, b in zip(source, img, strict=True)]
    is_mirrored = [bool(torch.equal(a, b.flip(2))) for a, b in zip(source, img, strict=True)]
    assert all(a != b for a, b in zip(is_same, is_mirrored, strict=True)) and 0 < sum(is_same) < 16


def test_a_cut_is_a_window_of_the_enlarged_picture() -> None:
    ramp = (torch.arange(64) + 0.5).div(32).sub(1).expand(4, 3, 64, 64)
    cut, _ = cut_at_random(ramp, ramp, torch.Generator().manual_seed(1))
    slope = cut[:, 0, 32].diff(dim=1)[:, 8:-8].abs().mean(1) * 32
    torch.testing.assert_close(slope, torch.full([4], 64 / 72), atol=3e-3, rtol=0)  # 64 * 286/256 is 71.5 px
    assert cut.abs().max() <= 1


def test_a_worse_camera_moves_nothing_and_is_decided_by_the_seed() -> None:
    img = torch.nn.functional.interpolate(torch.rand(12, 3, 4, 4) * 2 - 1, 32, mode="bilinear")
    before = img.clone()
    a, b = (worsened(img, torch.Generator().manual_seed(3), share=0.6) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(img, before) and a.abs().max() <= 1
    assert not torch.equal(a, img) and worsened(img, torch.Generator(), share=0) is img
    assert torch.equal(degrade(img, torch.Generator(), 0.0), img)
    bright, dark = img + 0, a
    corr = torch.corrcoef(torch.stack([bright.mean(1).flatten(), dark.mean(1).flatten()]))[0, 1]
    assert corr > 0.7


def test_edges_are_raised_and_what_is_flat_stays() -> None:
    step = torch.full([8, 3, 32, 32], -0.5)
    step[..., 16:] = 0.5
    sharp = sharpened(step, torch.Generator().manual_seed(0), share=0.5)
    is_raised = ((sharp - step).abs() > 1e-3).flatten(1).any(1)
    assert 0 < is_raised.sum() < 8 and sharp.abs().max() <= 1
    assert (sharp - step)[..., :12].abs().max() < 1e-5 and (sharp - step)[..., 20:].abs().max() < 1e-5
    assert bool((sharp[is_raised][..., 16] > 0.5).all()) and bool((sharp[is_raised][..., 15] < -0.5).all())
    assert sharpened(step, torch.Generator(), share=0) is step


# ---- Learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_four_pairs_are_learned_by_heart(name: str, tmp_path: Path) -> None:
    still = dict(
        is_cut=False, move_share=0.0, degrade_share=0.0, sharpen_share=0.0, ema_kimg=0.0, lr=1e-2, gan_weight=0.01
    )
    config = replace(RUNS[name], kimg=0.2, batch_size=4, save_kimg=9.0, **still)  # type: ignore[arg-type]
    steps: list[Step] = []
    pairs = some_pairs()
    net = distill(config, pairs, tmp_path, steps.append)
    first, last = (np.mean([s.scalars["l1"] for s in some]) for some in (steps[:5], steps[-5:]))
    assert last < 0.5 * first
    source, target = pairs.at(torch.arange(4))
    if name == "student":
        assert (net(source) - target).abs().mean() < 0.15
    assert not any(p.requires_grad for p in net.parameters()) and not net.training


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    config, pairs = RUNS[name], some_pairs(6)

    def stop(step: Step) -> None:
        if step.done == config.save_steps + 1:
            raise Cancelled("killed")

    whole = distill(config, pairs, tmp_path / "whole", held=some_pairs(2, seed=1))
    with pytest.raises(Cancelled):
        distill(config, pairs, tmp_path / "cut", stop, held=some_pairs(2, seed=1))
    again = distill(config, pairs, tmp_path / "cut", held=some_pairs(2, seed=1))
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    stats = [(tmp_path / run / "stats.jsonl").read_text().splitlines()[-1] for run in ("whole", "cut")]
    assert stats[0] == stats[1] and {"val_l1", "l1", "gan", "discriminator"} <= json.loads(stats[0]).keys()
    assert (tmp_path / "cut" / f"samples-{config.num_steps:07d}.png").is_file()


def test_faces_are_compared_by_the_face_network(tmp_path: Path) -> None:
    config, pairs = replace(STUDENT, perceptual_weight=2.0, identity_weight=1.0, kimg=0.008), some_pairs(4, 32)
    steps: list[Step] = []
    distill(config, pairs, tmp_path, steps.append, face_net=face_net(), held=pairs)
    found = steps[-1].scalars
    terms = ("l1", "perceptual", "identity", "gan", "feature")
    assert found["loss"] == pytest.approx(sum(getattr(config, f"{name}_weight") * found[name] for name in terms))
    assert 0 < found["val_perceptual"] < 4
    with pytest.raises(InputError, match="perceptual_weight needs a face network"):
        distill(config, pairs, tmp_path)


def test_the_average_follows_the_weights_and_the_seed_decides(tmp_path: Path) -> None:
    nets = [distill(replace(STUDENT, seed=seed), some_pairs(), tmp_path / f"{i}") for i, seed in enumerate((0, 0, 1))]
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_losses_are_those_of_the_papers() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    assert gan_loss(logits, True, "lsgan").item() == pytest.approx((1 + 1) / 2)
    expected = (np.log(2) + np.log1p(np.exp(-2.0))) / 2
    assert gan_loss(logits, True, "bce").item() == pytest.approx(expected)


def test_pix2pix_is_as_published() -> None:
    config = DISTILL_PRESETS["pix2pix"]
    assert (config.l1_weight, config.lr, config.beta1, config.beta2) == (100, 2e-4, 0.5, 0.999)
    assert (config.batch_size, config.num_layers, config.gan, config.num_scales) == (1, 3, "bce", 1)
    net = make_translator(replace(config, ngf=2), 64)
    assert isinstance(net, UnetGenerator) and net.num_downs == 6
    assert isinstance(make_translator(STUDENT, 64), Student)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    config = replace(STUDENT, kimg=0.008)
    distill(config, some_pairs(), tmp_path)
    distill(replace(config, kimg=0.016), some_pairs(), tmp_path)  # a run may be made longer
    with pytest.raises(InputError, match="with other settings: l1_weight"):
        distill(replace(config, l1_weight=3.0), some_pairs(), tmp_path)
    with pytest.raises(InputError, match="on other data"):
        distill(config, some_pairs(5), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": "resnet"}, "no network named 'resnet'"),
        ({"gan": "hinge"}, "no gan named 'hinge'"),
        ({"norm": "group"}, "no norm named 'group'"),
        ({"kimg": 0.0}, "kimg must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"degrade_share": 2.0}, "degrade_share must be from 0 to 1"),
        ({"widths": (4, 8)}, "make no student"),
        ({"precision": "fp8"}, "precision must be"),
        (dict.fromkeys(WEIGHTS, 0.0), "no term"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(STUDENT, **wrong)  # type: ignore[arg-type]


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs sides of 16 px, not 24"):
        make_translator(replace(STUDENT, widths=(2,) * 5, num_blocks=(0,) * 5), 24)
    with pytest.raises(InputError, match="cannot halve 25 px"):
        make_translator(UNET, 25)
    with pytest.raises(InputError, match="for validation are 24 px, the others 16"):
        distill(STUDENT, some_pairs(), tmp_path, held=some_pairs(2, 24))
    with pytest.raises(InputError, match="4 scales are too many"):
        distill(replace(STUDENT, num_scales=4), some_pairs(), tmp_path)
