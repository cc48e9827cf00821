"""Training of the face network: labels under movement, losses by definition, resume, a small set learnt by heart."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from mien.errors import Cancelled, InputError
from mien.nets.features import EXPRESSIONS, WINDOW, flip_expression, window
from mien.report import Step
from mien.training.data import is_held_out
from mien.training.distortions import (
    Placement,
    compress,
    cover,
    distort,
    place,
    random_placement,
    relight,
    swap_surroundings,
)
from mien.training.face_views import (
    AGES_EYES,
    FFHQ_EYES,
    ages_frame,
    faces_frame,
    turn_pose,
)
from mien.training.faces import FaceTrainConfig, contrast, evaluate, margin_softmax, train_faces

TINY = FaceTrainConfig(
    channels=(8, 8, 8, 8),
    num_blocks=(0, 0, 0, 0),
    num_steps=6,
    faces_per_step=4,
    ages_per_step=2,
    warmup_steps=2,
    save_steps=3,
)


def placement(
    *, mirrored: bool = False, turn_deg: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> Placement:
    return Placement(
        torch.tensor([mirrored]), *(torch.tensor([x], dtype=torch.float32) for x in (turn_deg, scale, shift))
    )


# ---- Labels move with the picture ----


def test_a_mirror_exchanges_left_and_right() -> None:
    labels = torch.zeros(1, len(EXPRESSIONS))
    labels[0, EXPRESSIONS.index("mouthSmileLeft")] = 0.7
    labels[0, EXPRESSIONS.index("jawOpen")] = 0.4
    labels[0, EXPRESSIONS.index("eyeLookInLeft")] = 0.2
    labels[0, EXPRESSIONS.index("eyeLookUpLeft")] = 0.1
    seen = dict(zip(EXPRESSIONS, flip_expression(labels)[0].tolist(), strict=True))
    assert {name: round(value, 3) for name, value in seen.items() if value} == {
        "mouthSmileRight": 0.7,
        "jawOpen": 0.4,
        "eyeLookOutLeft": 0.2,
        "eyeLookUpLeft": 0.1,
    }
    once = torch.rand(2, len(EXPRESSIONS))
    torch.testing.assert_close(flip_expression(flip_expression(once)), once)


def test_a_mirror_changes_the_signs_of_yaw_and_roll() -> None:
    pose = torch.tensor([[20.0, -10.0, 5.0]])
    torch.testing.assert_close(turn_pose(pose, placement(mirrored=True)), torch.tensor([[-20.0, -10.0, -5.0]]))
    torch.testing.assert_close(turn_pose(pose, placement()), pose)


def test_turning_adds_to_roll_and_carries_the_gaze_along() -> None:
    torch.testing.assert_close(turn_pose(torch.zeros(1, 3), placement(turn_deg=12)), torch.tensor([[0.0, 0.0, 12.0]]))
    up = turn_pose(torch.tensor([[0.0, -30.0, 0.0]]), placement(turn_deg=90))  # a face that looks up, laid to the left
    torch.testing.assert_close(up, torch.tensor([[-30.0, 0.0, 90.0]]), atol=1e-4, rtol=0)


# ---- Pictures move as said ----


@pytest.fixture
def dot() -> torch.Tensor:
    """A bright spot right of the middle of a dark picture."""
    img = torch.full((1, 3, 64, 64), -1.0)
    img[:, :, 30:34, 46:50] = 1
    return img


def spot(img: torch.Tensor) -> tuple[float, float]:
    """Mean place (x, y) of what is bright, in [-1,1]."""
    light = (img[0, 0] + 1).clamp(min=0)
    axis = (torch.arange(64) * 2 + 1 - 64) / 64
    return float((light.sum(0) * axis).sum() / light.sum()), float((light.sum(1) * axis).sum() / light.sum())


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (placement(), (0.5, 0.0)),
        (placement(mirrored=True), (-0.5, 0.0)),
        (placement(turn_deg=90), (0.0, -0.5)),  # counter-clockwise: from the right to the top
        (placement(mirrored=True, turn_deg=90), (0.0, 0.5)),
        (placement(scale=1.5), (0.75, 0.0)),
        (placement(shift=(0.25, -0.5)), (0.75, -0.5)),
        (placement(turn_deg=90, shift=(0.25, 0.0)), (0.25, -0.5)),
    ],
)
def test_place_moves_the_picture_as_said(dot: torch.Tensor, how: Placement, expected: tuple[float, float]) -> None:
    assert spot(place(dot, how, frame=torch.eye(2, 3)[None], size_px=64)) == pytest.approx(expected, abs=0.02)


def test_faces_frame_is_the_window_of_the_network() -> None:
    img = torch.rand(1, 3, 96, 96) * 2 - 1
    torch.testing.assert_close(
        place(img, placement(), frame=faces_frame(1), size_px=WINDOW[2]), window(img), atol=1e-4, rtol=0
    )


def test_ages_frame_brings_eyes_to_where_ffhq_has_them() -> None:
    def in_picture(frame: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return frame[0, :, :2] @ at + frame[0, :, 2]

    eyes_ffhq, eyes_ages = (2 * torch.tensor(eyes) - 1 for eyes in (FFHQ_EYES, AGES_EYES))
    frame = faces_frame(1)[0]
    eyes = torch.linalg.solve(frame[:, :2], eyes_ffhq - frame[:, 2])  # in the window
    torch.testing.assert_close(in_picture(ages_frame(1), eyes), eyes_ages)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_distortions_are_seeded_and_keep_the_form() -> None:
    img = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    kept = img.clone()
    first, second = (distort(img, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(img, kept)
    assert first.shape == img.shape and first.isfinite().all()
    assert (first - img).abs().mean(dim=(1, 2, 3)).min() > 0.01


def test_compress_forgets_more_at_lower_quality() -> None:
    img = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    errors = [float((compress(img, torch.tensor([q])) - img).square().mean()) for q in (10.0, 50.0, 90.0, 100.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4  # steps of 1 in 255
    flat = torch.full((1, 3, 16, 16), 0.25)
    torch.testing.assert_close(compress(flat, torch.tensor([50.0])), flat, atol=16 / 8 / 255, rtol=0)


def test_cover_and_relight_stay_in_range(rng: torch.Generator) -> None:
    img = torch.rand(32, 3, 64, 64, generator=rng) * 2 - 1
    covered = cover(img, rng)
    share = (covered != img).any(1).float().mean(dim=(1, 2))
    assert float(share.min()) > 0 and float(share.max()) <= 0.27
    assert relight(img, rng).abs().max() <= 1


def test_swap_keeps_the_face_and_takes_the_corners() -> None:
    face, other = torch.ones(1, 3, 64, 64), -torch.ones(1, 3, 64, 64)
    mixed = swap_surroundings(face, other)
    assert (mixed[..., 20:48, 20:44] == 1).all()
    assert (mixed[..., :4, :4] == -1).all()


def test_random_placements_have_bounds(rng: torch.Generator) -> None:
    how = random_placement(500, rng, turn_deg=5, scale=0.1, shift=0.04)
    assert how.turn_deg.abs().max() <= 10
    assert how.shift.abs().max() <= 0.08
    assert how.scale.log().abs().max() <= 0.2 + 1e-6
    assert 0.4 < float(how.is_mirrored.float().mean()) < 0.6


# ---- Losses ----


def test_margin_softmax_is_its_definition() -> None:
    """Wang et al. 2018, Eq. 4, one row at a time."""
    gen = torch.Generator().manual_seed(0)
    identity = torch.nn.functional.normalize(torch.randn(3, 4, generator=gen), dim=1)
    centres, classes = torch.randn(5, 4, generator=gen), torch.tensor([0, 3, 3])
    losses = []
    for row, own in zip(identity, classes.tolist(), strict=True):
        cosines = [float(row @ c / c.norm()) for c in centres]
        cosines[own] -= 0.2
        powers = np.exp(16.0 * np.array(cosines))
        losses.append(-np.log(powers[own] / powers.sum()))
    found = margin_softmax(identity, centres, classes, margin=0.2, scale=16)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_contrast_is_its_definition() -> None:
    """Khosla et al. 2020, Eq. 2, one pair at a time."""
    gen = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(5, 4, generator=gen), dim=1)
    classes = [0, 0, 1, 1, 1]
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        own = [j for j in others if classes[j] == classes[i]]
        below = sum(np.exp(float(x[i] @ x[a]) / 0.2) for a in others)
        total += -np.mean([np.log(np.exp(float(x[i] @ x[p]) / 0.2) / below) for p in own])
    found = contrast(x, torch.tensor(classes), temperature=0.2)
    assert float(found) == pytest.approx(total / 5, rel=1e-5)


# ---- The run ----


def write_set(folder: Path, columns: list[str], rows: list[list[object]]) -> Path:
    """Write drawings, the colour of each told by its row number, and their table beside the folder."""
    folder.mkdir()
    for i, row in enumerate(rows):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).resize((128, 128)).save(folder / str(row[0]))
    with open(folder.with_suffix(".csv"), "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder


@pytest.fixture(scope="module")
def other_ages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: list[list[object]] = [[f"u{i}.png", 30.0 + i, "male"] for i in range(6)]
    return write_set(tmp_path_factory.mktemp("other") / "ages", ["file", "age", "gender"], rows)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    names = [name for name in (f"person{i}" for i in range(400)) if is_held_out(name)][:6]
    names += [f"person{i}" for i in range(6)]
    faces = [
        [f"{name}_{k}.png", name, 100.0, *rng.normal(0, 10, 3), *rng.random(len(EXPRESSIONS))]
        for name in names
        for k in range(2)
    ]
    held = [f"{i}.png" for i in range(400) if is_held_out(f"{i}.png")][:4]
    ages = [[name, 20.0 + 7 * i, "male" if i % 2 else "female"] for i, name in enumerate(held)]
    ages += [[f"t{i}.png", 20.0 + 7 * i, "male" if i % 2 else "female"] for i in range(6)]
    columns = ["file", "identity", "sharpness", "yaw_deg", "pitch_deg", "roll_deg", *EXPRESSIONS]
    return {
        "faces": write_set(root / "faces", columns, faces),
        "ages": write_set(root / "ages", ["file", "age", "gender"], ages),
    }


def test_a_stopped_run_goes_on_to_the_same_numbers(sets: dict[str, Path], tmp_path: Path) -> None:
    whole = train_faces(TINY, **sets, run_dir=tmp_path / "whole")
    seen: list[int] = []

    def stop_at_four(step: Step) -> None:
        seen.append(step.done)
        if step.done == 4:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        train_faces(TINY, **sets, run_dir=tmp_path / "parts", on_step=stop_at_four)
    parts = train_faces(TINY, **sets, run_dir=tmp_path / "parts", on_step=lambda step: seen.append(step.done))
    assert seen == [1, 2, 3, 4, 4, 5, 6]  # the state of step 3 was kept
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_small_set_is_learnt_by_heart(sets: dict[str, Path], tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, num_steps=40, margin=0.0, lr=1e-2, faces_per_step=12, ages_per_step=6)
    losses: list[float] = []
    train_faces(config, **sets, run_dir=tmp_path, on_step=lambda step: losses.append(sum(step.scalars.values())))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_other_settings_or_data_need_another_folder(sets: dict[str, Path], other_ages: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, num_steps=1, save_steps=1)
    train_faces(short, **sets, run_dir=tmp_path)
    with pytest.raises(InputError, match="with other settings: margin"):
        train_faces(dataclasses.replace(short, margin=0.3), **sets, run_dir=tmp_path)
    with pytest.raises(InputError, match="on other data"):
        train_faces(short, faces=sets["faces"], ages=other_ages, run_dir=tmp_path)


def test_a_table_without_labels_is_refused(sets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'sharpness'"):
        train_faces(
            TINY,
            faces=write_set(tmp_path / "bare", ["file", "identity"], [["a.png", "a"]]),
            ages=sets["ages"],
            run_dir=tmp_path,
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_steps": 0},
        {"decay_share": 0.0},
        {"save_steps": -1},
        {"warmup_steps": 0},
        {"ema_steps": 0.0},
        {"temperature": -1.0},
        {"seed": -1},
        {"precision": "fp8"},
        {"channels": (8, 0, 8, 8)},
        {"channels": (8, 8)},
    ],
    ids=str,
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        FaceTrainConfig(**wrong)


def test_evaluation_measures_the_people_who_were_kept_out(sets: dict[str, Path], tmp_path: Path) -> None:
    net = train_faces(dataclasses.replace(TINY, num_steps=1), **sets, run_dir=tmp_path)
    found = evaluate(net, **sets)
    assert 0 <= found["verification_accuracy"] <= 1
    assert found["age_error_years"] > 0
    assert all(np.isfinite(value) for value in found.values())
