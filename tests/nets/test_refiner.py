"""The refiner's frames are least-squares similarities, and its crops show what the frame says."""

from __future__ import annotations

import math

import pytest
import torch

from mien.nets.refiner import CROP_PX, MEAN_FACE, Frame, Refiner, frame_of, sample_crops

MEAN = torch.tensor(MEAN_FACE)


def similarity(zoom: float, degrees: float, x: float, y: float) -> Frame:
    c, s = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    return Frame(torch.tensor([[[c, -s], [s, c]]]), torch.tensor([[float(x), float(y)]]))


def ramp(height: int, width: int) -> torch.Tensor:
    """A picture whose channels are x, y and 1 at the middle of each pixel."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)])[None]


def test_frame_of_a_moved_mean_face_is_that_motion():
    motion = similarity(1.7, 25, 30, -12)
    frame = frame_of(motion.to_picture(MEAN[None]))
    torch.testing.assert_close(frame.turn, motion.turn)
    torch.testing.assert_close(frame.shift, motion.shift, atol=1e-4, rtol=0)


def test_frame_of_is_the_least_squares_similarity():
    points = similarity(2, -10, 5, 9).to_picture(MEAN[None]) + torch.randn(
        1, 5, 2, generator=torch.Generator().manual_seed(0)
    )
    frame = frame_of(points)
    best = (frame.to_picture(MEAN[None]) - points).square().sum()
    for zoom, degrees, x, y in ((1.01, 0, 0, 0), (1, 1, 0, 0), (1, 0, 0.1, 0), (1, 0, 0, -0.1), (0.99, -1, 0, 0)):
        other = similarity(zoom, degrees, x, y).to_picture(frame.to_picture(MEAN[None]))
        assert (other - points).square().sum() > best


def test_points_go_to_the_crop_and_back():
    frame = similarity(0.3, 70, 8, 8)
    torch.testing.assert_close(frame.to_picture(frame.to_crop(MEAN[None])), MEAN[None])


def test_points_in_one_place_are_no_error():
    frame = frame_of(torch.full((1, 5, 2), 7.0))
    assert frame.turn.isfinite().all()
    assert sample_crops(torch.zeros(1, 3, 32, 32), frame).isfinite().all()


@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.9, 2.1, 4.5])
def test_a_crop_shows_what_its_frame_says(zoom):
    """Halving and linear sampling leave a linear picture as it is, so that each pixel tells where it comes from."""
    frame = similarity(zoom, 30, 200, 150)
    crop = sample_crops(ramp(480, 640), frame)[0]
    steps = torch.arange(CROP_PX) + 0.5
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(1, -1, 2)
    wanted = frame.to_picture(pixels)[0].T.reshape(2, CROP_PX, CROP_PX)
    inside = crop[2] > 0.999
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(crop[:2, inside], wanted[:, inside], atol=0.02, rtol=0)


def test_outside_the_picture_a_crop_is_zero():
    crops = sample_crops(torch.ones(1, 3, 32, 32), similarity(1, 0, -500, 0))
    assert (crops == 0).all()


def test_crops_of_several_scales_keep_their_order():
    frames = [similarity(zoom, 0, 100, 100) for zoom in (4.0, 0.5, 2.0, 1.0)]
    together = Frame(*(torch.cat(parts) for parts in zip(*frames, strict=True)))
    img = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.cat([sample_crops(img, frame) for frame in frames])
    torch.testing.assert_close(sample_crops(img, together), one_by_one)


@pytest.mark.parametrize("num", [0, 3])
def test_refiner_says_a_score_and_five_points_a_crop(num):
    said = Refiner(channels=(4, 4, 4, 8), hidden=8)(torch.zeros(num, 3, CROP_PX, CROP_PX))
    assert said.logits.shape == (num,)
    assert said.points.shape == (num, 5, 2)
    torch.testing.assert_close(said.points, MEAN.expand(num, -1, -1), atol=8.0, rtol=0)  # it starts near the mean face
