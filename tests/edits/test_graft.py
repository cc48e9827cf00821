"""Faces that are put into others: pixels follow, light and mouth are the target's, beyond the mask nothing changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mien.edits.graft import Seam, carried, mean_inside
from mien.nets.features import EXPRESSIONS
from mien.nets.motion import NUM_POSE_TERMS, FaceMotion

SIDE, PLACE = 64, dict(inner=0.93, outer=1.2, sigma=0.2)


@pytest.fixture
def motion() -> FaceMotion:
    """Points all over the crop, with a yaw that moves them all to the right by a tenth of the side per 30 degrees."""
    net = FaceMotion()
    net.modes[0] = torch.rand(net.modes.shape[1], 2, generator=torch.Generator().manual_seed(0))
    for point, place in ((13, (0.5, 0.7)), (14, (0.5, 0.7)), (78, (0.4, 0.7)), (308, (0.6, 0.7))):  # closed lips
        net.modes[0, point] = torch.tensor(place)
    net.modes[1, :, 0] = 0.1
    return net


def values(yaw: float = 0.0, num: int = 1) -> Tensor:
    return torch.cat([torch.full((num, 1), yaw), torch.zeros(num, 2 + len(EXPRESSIONS))], dim=1)


def smooth(seed: int, num: int = 1, side: int = SIDE) -> Tensor:
    img = torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(img, (side, side), mode="bicubic").clamp(-1, 1)


def seam_of(target: Tensor) -> Seam:
    return Seam.of(target, torch.zeros(len(target)), torch.ones(len(target), 1, 16, 16), **PLACE)


def test_beyond_the_mask_the_target_is_itself_and_inside_it_is_not() -> None:
    target = smooth(1, num=2)
    seam = seam_of(target)
    picture, fit = seam.compose(smooth(2, num=2))
    beyond = (seam.within == 0).expand_as(target)
    assert torch.equal(picture[beyond], target[beyond]) and 0.2 < float(beyond.float().mean()) < 0.8
    assert not torch.allclose(picture, target, atol=0.1)
    assert fit["colour"].shape == fit["border"].shape == (2,)


def test_a_face_in_itself_is_itself(motion: FaceMotion) -> None:
    img = smooth(3)
    seam = seam_of(img)
    face = carried(motion, img, values(), values(), seam)
    picture, fit = seam.compose(face)
    torch.testing.assert_close(picture, img, atol=1e-3, rtol=0)
    assert float(fit["colour"]) < 1e-4


def test_pixels_follow_the_turn(motion: FaceMotion) -> None:
    """Targets that look 15 degrees to the right have the face's pixels 5 % of the side further right."""
    img, side = smooth(4, side=2 * SIDE), 2 * SIDE
    seam = seam_of(smooth(5, num=2, side=side))
    face = carried(motion, img, values(), values(15.0, num=2), seam, contrast=0.0)
    step = round(0.05 * side)
    rows, found, there = slice(56, 96), slice(52, 84), slice(52 - step, 84 - step)  # within the outline
    torch.testing.assert_close(face[1, :, rows, found], img[0, :, rows, there], atol=0.08, rtol=0)


def test_a_cheek_that_is_turned_away_stays_the_targets(motion: FaceMotion) -> None:
    """A face seen from the side does not show what its crop has beyond its outline."""
    img, target = smooth(10), smooth(11)
    motion.modes[1] = 0  # the points stay, so that the outline alone says what is shown
    seam = seam_of(target)
    away, front = (carried(motion, img, values(yaw), values(), seam, contrast=0.0) for yaw in (30.0, 0.0))
    changed = (away - front).abs().mean(1)[0] * seam.face[0, 0]
    assert float(changed[:, :20].max()) > 0.05 or float(changed[:, 44:].max()) > 0.05
    torch.testing.assert_close(away[:, :, 36:44, 28:36], front[:, :, 36:44, 28:36], atol=0.05, rtol=0)


def test_detail_gets_contrast_towards_the_targets(motion: FaceMotion) -> None:
    noise = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6)) * 0.1
    strong, weak = smooth(7) + 2 * noise, smooth(7) + noise
    seam = seam_of(weak)
    spreads = [
        float((carried(motion, strong, values(), values(), seam, contrast=power) * seam.face).std())
        for power in (0.0, 0.5, 1.0)
    ]
    assert spreads[0] > spreads[1] > spreads[2]


def test_between_open_lips_the_target_stays(motion: FaceMotion) -> None:
    jaw = EXPRESSIONS.index("jawOpen")
    motion.modes[NUM_POSE_TERMS + jaw, 14, 1] = 0.2
    shown = values()
    shown[:, 3 + jaw] = 0.5
    target = smooth(8)
    seam = seam_of(target)
    picture, _ = seam.compose(carried(motion, smooth(9), values(), shown, seam))
    mouth = (slice(None), slice(None), slice(46, 50), slice(30, 34))  # around (0.5, 0.75)
    assert float((picture - target)[mouth].abs().mean()) < 0.1
    cheek = (slice(None), slice(None), slice(36, 40), slice(22, 26))
    assert float((picture - target)[cheek].abs().mean()) > 0.1


def test_means_are_over_the_mask() -> None:
    img, mask = torch.ones(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
    img[:, :, 0] = 3.0
    mask[:, :, 0] = 1.0
    assert float(mean_inside(img.mean(1, keepdim=True), mask)) == pytest.approx(3.0)
