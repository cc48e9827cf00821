"""Train the second look on what the detector itself proposes: right and wrong ones, with the errors that it makes.

Source: Zhang et al. 2016 (MTCNN: each stage learns from the one before), Sec. II-C, arXiv:1604.02878.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.nets.detector import Predictions, iou
from mien.nets.refiner import CROP_PX, Frame, Refinement, frame_of, sample_crops
from mien.training.mosaics import FACE, Targets

__all__ = ["Proposals", "propose", "refiner_loss"]

MIN_SCORE = 0.1  # Cells that say less are not proposals.
FACE_IOU, OTHER_IOU = 0.5, 0.3  # A proposal that overlaps a face more is it; less than the other with all: it is none.
TURN_STD, SHIFT_STD = 0.12, 0.05  # Errors that are added: relative turn and size, shift in sides of the crop.
POINTS_WEIGHT = 40.0  # Weight of the points' distance in sides of the crop.
POINT_BLUR = 0.01  # Distance under which their loss turns quadratic.


class Proposals(NamedTuple):
    """Crops [K, 3, 64, 64] in [-1, 1], `is_face` bool [K], and the labelled `points` [K, 5, 2] px of the crop."""

    crops: Tensor
    is_face: Tensor
    points: Tensor


@torch.no_grad()
def propose(found: Predictions, img: Tensor, targets: Targets, *, most: int, generator: torch.Generator) -> Proposals:
    """Take up to `most` right and `most` wrong answers `found` in mosaics img [N, 3, H, W], and disturb them a little.

    The right ones are drawn evenly, the wrong ones by how sure the detector was of them.
    """
    score = found.logits.sigmoid()
    overlap = iou(found.boxes[:, :, None], targets.boxes[:, None])  # [N, A, M]
    best, row = overlap.masked_fill(targets.kinds[:, None] != FACE, 0.0).max(-1)
    any_iou = overlap.masked_fill(targets.kinds[:, None] == 0, 0.0).amax(-1)
    order = torch.rand(score.shape, generator=generator).to(score.device)
    right = (score > MIN_SCORE) & (best > FACE_IOU)
    wrong = (score > MIN_SCORE) & (any_iou < OTHER_IOU)
    chosen = torch.cat([_top(order, right, most), _top(order * score, wrong, most)])
    n, a = chosen.div(score.shape[1], rounding_mode="floor"), chosen % score.shape[1]
    frame = _disturb(frame_of(found.points[n, a]), generator)
    crops = img.new_zeros(len(chosen), 3, CROP_PX, CROP_PX)
    for i in range(len(img)):
        crops[n == i] = sample_crops(img[i : i + 1], Frame(frame.turn[n == i], frame.shift[n == i]))
    return Proposals(crops, right[n, a], frame.to_crop(targets.points[n, row[n, a]]))


def _top(value: Tensor, among: Tensor, most: int) -> Tensor:
    """Return the flat indices of the `most` highest values where `among`."""
    flat = value.masked_fill(~among, -1.0).flatten()
    return flat.topk(min(most, int(among.sum()))).indices


def _disturb(frame: Frame, generator: torch.Generator) -> Frame:
    cos, sin, x, y = torch.randn(4, len(frame.turn), generator=generator).to(frame.turn.device)
    cos, sin = 1 + TURN_STD * cos, TURN_STD * sin
    error = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    middle = torch.full((2,), CROP_PX / 2, device=frame.turn.device)
    centre = frame.turn @ middle + frame.shift  # [K, 2], stays where it is but for the shift
    turn = frame.turn @ error.clamp(-1.5, 1.5)
    moved = centre + (frame.turn @ (torch.stack([x, y], -1) * SHIFT_STD * CROP_PX)[..., None])[..., 0]
    return Frame(turn, moved - turn @ middle)


def refiner_loss(said: Refinement, proposals: Proposals) -> dict[str, Tensor]:
    """Return the losses of score and points, and their weighted sum `loss`."""
    score = F.binary_cross_entropy_with_logits(said.logits, proposals.is_face.float())
    miss = (said.points - proposals.points)[proposals.is_face] / CROP_PX
    distance = F.smooth_l1_loss(miss, torch.zeros_like(miss), beta=POINT_BLUR, reduction="sum")
    points = distance / max(miss.numel(), 1)
    return {"score": score, "points": points, "loss": score + POINTS_WEIGHT * points}
