"""Cells get their faces by definition, the losses fall, and a run that is cut goes on to the same numbers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch

from mien.errors import Cancelled, InputError
from mien.nets.detector import Cells, Detector, Predictions, cells
from mien.nets.refiner import CROP_PX, Refinement, Refiner
from mien.report import Step
from mien.training.detector import DetectorConfig, assign, detector_loss, learning_rate, train
from mien.training.mosaics import FACE, UNSURE, Mosaics, Targets, load_scenes
from mien.training.refiner import Proposals, propose, refiner_loss

FIVE = np.array([[100.0, 105], [150, 105], [125, 130], [105, 155], [145, 155]])
BOX = np.array([80.0, 70, 170, 180])


def targets_of(*boxes: tuple[float, float, float, float], kinds: list[int] | None = None) -> Targets:
    box = torch.tensor([boxes]).float()
    points = (box[..., :2] + box[..., 2:]).div(2)[:, :, None].expand(-1, -1, 5, -1)
    return Targets(box, points, torch.tensor([kinds or [FACE] * len(boxes)]))


def positives(targets: Targets, at: Cells) -> set[tuple[float, float, float]]:
    """The cells that learn a face, as (stride, x, y)."""
    chosen = assign(targets, at).face[0] >= 0
    return {(float(s), *c.tolist()) for s, c in zip(at.strides[chosen], at.centres[chosen], strict=True)}


@pytest.mark.parametrize(
    ("side", "strides"), [(20, {8.0}), (48, {8.0, 16.0}), (70, {16.0}), (100, {16.0, 32.0}), (200, {32.0})]
)
def test_a_face_belongs_to_the_levels_of_its_size(side, strides):
    half = side / 2
    found = positives(targets_of((130 - half, 130 - half, 130 + half, 130 + half)), cells(256, 256))
    assert {stride for stride, _, _ in found} == strides


def test_the_cells_around_the_middle_learn_the_face():
    assert positives(targets_of((50, 50, 70, 70)), cells(128, 128)) == {(8.0, 60.0, 60.0)}
    four = {(8.0, x, y) for x in (60.0, 68.0) for y in (60.0, 68.0)}
    assert positives(targets_of((54, 54, 74, 74)), cells(128, 128)) == four


def test_a_cell_between_two_faces_takes_the_nearer():
    targets = targets_of((40, 40, 60, 60), (47, 40, 67, 60))
    at = cells(128, 128)
    face = assign(targets, at).face[0]
    by_place = {tuple(c.tolist()): int(f) for c, s, f in zip(at.centres, at.strides, face, strict=True) if s == 8}
    assert by_place[(52.0, 52.0)] == 0
    assert by_place[(60.0, 52.0)] == 1


def test_doubtful_faces_and_the_ring_are_not_asked():
    at = cells(128, 128)
    fine = at.strides == 8
    asked = assign(targets_of((20, 20, 100, 100), kinds=[UNSURE]), at).asked[0]
    inside = ((at.centres >= 20) & (at.centres <= 100)).all(-1)
    assert torch.equal(asked, ~inside)
    asked = assign(targets_of((50, 50, 70, 70)), at).asked[0, fine]
    distance = (at.centres[fine] - 60).abs().amax(-1) / 8
    assert torch.equal(asked, (distance < 1) | (distance >= 1.5))


def test_padding_is_no_face():
    learn = assign(
        Targets(torch.zeros(1, 2, 4), torch.zeros(1, 2, 5, 2), torch.zeros(1, 2, dtype=torch.int64)), cells(64, 64)
    )
    assert (learn.face == -1).all()
    assert learn.asked.all()


def test_a_perfect_answer_costs_nothing():
    targets, at = targets_of((40, 40, 80, 90)), cells(128, 128)
    face = assign(targets, at).face
    logits = torch.where(face >= 0, 20.0, -20.0)
    boxes = targets.boxes[:, :1].expand(-1, len(at.strides), -1)
    points = targets.points[:, :1].expand(-1, len(at.strides), -1, -1)
    losses = detector_loss(Predictions(logits, boxes, points), targets, at, DetectorConfig())
    assert losses["loss"] < 1e-5
    worse = detector_loss(Predictions(logits, boxes + 4, points + 4), targets, at, DetectorConfig())
    assert worse["box"] > 0.1
    assert worse["points"] > 0.05
    assert detector_loss(Predictions(-logits, boxes, points), targets, at, DetectorConfig())["score"] > 10


def test_no_face_at_all_gives_a_finite_loss():
    at = cells(64, 64)
    found = Detector(channels=(4, 4, 4, 4, 4), pyramid_channels=4)(torch.zeros(1, 3, 64, 64))
    padded = Targets(torch.zeros(1, 1, 4), torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, dtype=torch.int64))
    assert detector_loss(found, padded, at, DetectorConfig())["loss"].isfinite()


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(step, highest=2.0, warmup_steps=10, num_steps=110) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[10] == max(rates) == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2.0 * 0.505)
    assert rates[110] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"num_refiner_steps": -1}, "num_refiner_steps must be at least 1, got -1"),
        ({"save_steps": 0}, "save_steps must be at least 1, got 0"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"lr": 0.0}, "lr must be above 0, got 0"),
        ({"negative_shares": (0.1,)}, "negative_shares must be two shares"),
        ({"size_px": 100}, "size_px must be a multiple of 32 from 64 up, got 100"),
        ({"precision": "fp8"}, "precision must be fp32 or bf16, got 'fp8'"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        DetectorConfig(**wrong)


def test_refiner_loss_asks_points_of_faces_only():
    is_face = torch.tensor([True, False])
    points = torch.zeros(2, 5, 2)
    said = Refinement(torch.tensor([30.0, -30.0]), torch.stack([points[0], points[1] + 50]))
    assert refiner_loss(said, Proposals(torch.zeros(2, 3, CROP_PX, CROP_PX), is_face, points))["loss"] < 1e-6


def test_proposals_carry_the_labels_into_the_crop():
    """Where the answers are the labels, the points of the crops are the mean face, but for the disturbance."""
    num = len(cells(128, 128).strides)
    points = torch.from_numpy(FIVE).float() / 2
    boxes = torch.from_numpy(BOX).float() / 2
    found = Predictions(torch.full((1, num), 3.0), boxes.expand(1, num, 4), points.expand(1, num, 5, 2))
    targets = Targets(boxes[None, None], points[None, None], torch.tensor([[FACE]]))
    generator = torch.Generator().manual_seed(0)
    proposals = propose(found, torch.zeros(1, 3, 128, 128), targets, most=16, generator=generator)
    assert proposals.crops.shape == (16, 3, CROP_PX, CROP_PX)
    assert proposals.is_face.all()
    assert (proposals.points.mean((0, 1)) - 32).abs().max() < 8
    assert proposals.points.std(0).max() < 10


def test_proposals_that_miss_every_face_are_wrong_ones():
    num = len(cells(128, 128).strides)
    points = torch.rand(1, num, 5, 2, generator=torch.Generator().manual_seed(0)) * 20
    found = Predictions(torch.zeros(1, num), torch.tensor([0.0, 0, 20, 20]).expand(1, num, 4), points)
    doubtful = targets_of((0, 0, 20, 20), kinds=[UNSURE])
    generator = torch.Generator().manual_seed(0)
    img = torch.zeros(1, 3, 128, 128)
    assert not propose(found, img, targets_of((60, 60, 90, 90)), most=8, generator=generator).is_face.any()
    assert len(propose(found, img, doubtful, most=8, generator=generator).crops) == 0


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twenty drawn faces of twenty people, with their table."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    header = "file,score,x0,y0,x1,y1,leye_x,leye_y,reye_x,reye_y,nose_x,nose_y,lmouth_x,lmouth_y,rmouth_x,rmouth_y"
    rows = [header]
    for i in range(20):
        image = PIL.Image.new("RGB", (250, 250), tuple(rng.integers(0, 100, 3).tolist()))
        pen = PIL.ImageDraw.Draw(image)
        pen.ellipse(BOX.tolist(), fill=(220, 170, 140))
        for x, y in FIVE[:3]:
            pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill="black")
        pen.line(FIVE[3:].ravel().tolist(), fill="red", width=8)
        image.save(folder / f"person_{i}_0001.png")
        rows.append(f"person_{i}_0001.png,0.9," + ",".join(str(v) for v in (*BOX, *FIVE.ravel())))
    folder.with_suffix(".csv").write_text("\n".join(rows))
    return folder


def small_config(**changes) -> DetectorConfig:
    values = {"num_steps": 4, "num_refiner_steps": 3, "batch_size": 2, "size_px": 64, "precision": "fp32"}
    return DetectorConfig(
        **(values | {"save_steps": 2, "warmup_steps": 2, "num_proposals": 4, "num_drawings": 2} | changes)
    )


def test_a_run_that_is_cut_goes_on_to_the_same_numbers(scenes, tmp_path):
    whole = train(small_config(), scenes, tmp_path / "whole")
    for stage, last in (("detector", 3), ("refiner", 3)):

        def cut(step: Step, stage: str = stage, last: int = last) -> None:
            if (step.stage, step.done) == (stage, last):
                raise Cancelled("cut")

        with pytest.raises(Cancelled):
            train(small_config(), scenes, tmp_path / "cut", cut)
    again = train(small_config(), scenes, tmp_path / "cut")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=0, rtol=0)
    assert json.loads((tmp_path / "cut" / "options.json").read_text())["num_steps"] == 4
    with pytest.raises(InputError, match="with other settings: batch_size"):
        train(small_config(batch_size=3), scenes, tmp_path / "cut")
    shutil.copytree(scenes, tmp_path / "more")
    shutil.copy(scenes.with_suffix(".csv"), tmp_path / "more.csv")
    PIL.Image.new("RGB", (250, 250)).save(tmp_path / "more" / "person_0_0002.png")
    with pytest.raises(InputError, match="on other data"):
        train(small_config(), tmp_path / "more", tmp_path / "cut")


def test_a_table_without_the_points_is_refused(scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "bare")
    (tmp_path / "bare.csv").write_text("file,score\nperson_0_0001.png,0.9\n")
    with pytest.raises(InputError, match="no column 'x0'"):
        load_scenes(tmp_path / "bare")


def test_both_networks_learn_one_batch(scenes):
    config = small_config(size_px=128)
    mosaics = Mosaics(*load_scenes(scenes), batch_size=2, size_px=128, negative_share=0, num_drawings=2)
    img, targets = mosaics.batch(0)
    torch.manual_seed(0)
    detector = Detector(channels=(8, 16, 16, 16, 16), num_blocks=(1, 1, 1), pyramid_channels=16, norm=True)
    refiner = Refiner(channels=(8, 8, 8, 8), hidden=16)
    at, generator = cells(128, 128), torch.Generator().manual_seed(0)
    proposals = propose(detector(img), img, targets, most=8, generator=generator)
    pairs = {
        detector: lambda: detector_loss(detector(img), targets, at, config),
        refiner: lambda: refiner_loss(refiner(torch.ones(2, 3, 64, 64)), told),
    }
    told = Proposals(torch.ones(2, 3, 64, 64), torch.tensor([True, True]), torch.full((2, 5, 2), 40.0))
    assert proposals.crops.shape[1:] == (3, CROP_PX, CROP_PX)
    for net, loss in pairs.items():
        optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            losses.append(loss()["loss"])
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < 0.5 * losses[0]
