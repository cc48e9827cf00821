"""Photo to faces: every face as a box, five points and a score, largest first.

The photo is looked at twice, near its own size for far faces and small for near ones, with a margin around it, so that
a face that fills the picture or is cut by its border is found too. What several cells say of one face is averaged,
then the refiner looks at the face again and corrects its points and score.

Source: Bazarevsky et al. 2019 (BlazeFace: predictions of one face are blended), Sec. 3.3, arXiv:1907.05047.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor

from mien.errors import InputError, NoFaceError
from mien.images import to_tensor
from mien.nets.detector import STRIDES, Detector, iou, nms
from mien.nets.refiner import frame_of, sample_crops
from mien.weights.load import load_net

__all__ = ["MIN_SCORE", "Face", "detect", "load_detector", "one_face"]

MIN_SCORE = 0.65
"""Score from which something is a face; the model card tells how often it errs on either side."""

NEAR_PX = 256  # Longest side of the small view.
MAX_ENLARGE = 2.0  # Of a small photo in the small view; the large one is never enlarged.
MARGIN = 0.2  # Width of the empty margin around the small view, in longest sides; the large one gets a stride.
MAX_CANDIDATES = 1000  # Cells that are compared, best first.
SAME_FACE_IOU, BLEND_IOU = 0.35, 0.6  # Boxes that overlap more are one face; those that agree so well are averaged.


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo, in its pixels (x, y); the middle of the first pixel is at (0.5, 0.5).

    `box` [4] is x0, y0, x1, y1 and may reach beyond the photo; `landmarks` [5, 2] are the image-left eye, the
    image-right eye, the nose, the image-left and the image-right corner of the mouth; `score` is in [0, 1].
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float

    @property
    def area_px(self) -> float:
        """Area of the box."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def one_face(faces: Sequence[Face]) -> Face:
    """Return the largest face.

    Raises:
        NoFaceError: there is none.
    """
    if not faces:
        raise NoFaceError("no face found", hint="try a larger, frontal photo or a lower --min-score")
    return max(faces, key=lambda face: face.area_px)


def load_detector(path_or_name: str | Path = "detector") -> Detector:
    """Load a detector, by default the bundled one, ready for `detect`.

    Raises:
        WeightsError: no such file or name, or it holds another network.
    """
    return load_net(path_or_name, Detector)


@torch.inference_mode()
def detect(net: Detector, photo: Image, *, min_score: float = MIN_SCORE, longest_px: int = 960) -> list[Face]:
    """Find the faces of `photo`, from about ten pixels at the size that is looked at.

    Args:
        net: the detector; its device and number type are used.
        photo: RGB picture of any size.
        min_score: faces with a lower score are left out; in (0, 1).
        longest_px: a photo whose longest side is longer is shrunk to it first; more finds smaller faces, slower.

    Returns:
        Largest first; empty where there is no face.

    Raises:
        InputError: `min_score` or `longest_px` out of range.
    """
    if not 0 < min_score < 1:
        raise InputError(f"min_score must be between 0 and 1, got {min_score}")
    if longest_px < STRIDES[-1]:
        raise InputError(f"longest_px must be at least {STRIDES[-1]}, got {longest_px}")
    longest = max(photo.size)
    far_px = min(longest_px, longest)
    near_px = min(NEAR_PX, longest_px, round(MAX_ENLARGE * longest))
    views = [_View(net, photo, near_px, margin_px=round(MARGIN * near_px))]
    if far_px > near_px:
        views.append(_View(net, photo, far_px, margin_px=STRIDES[0]))
    scores, boxes, points = (
        torch.cat(parts) for parts in zip(*(view.propose(min_score**2) for view in views), strict=True)
    )
    best = scores.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    scores, boxes, points = _blend(scores[best], boxes[best], points[best])
    scores, points = views[-1].refine(scores, points)
    extents = torch.cat([points.amin(1), points.amax(1)], dim=1)
    distinct = nms(extents, scores, max_iou=SAME_FACE_IOU)  # Two proposals of one face have the same points now.
    faces = [
        Face(boxes[i].double().numpy(), points[i].double().numpy(), float(scores[i]))
        for i in distinct.tolist()
        if scores[i] >= min_score
    ]
    return sorted(faces, key=lambda face: -face.area_px)


class _View:
    """The photo at one size, with a margin: what the networks see, and the way back to px of the photo."""

    def __init__(self, net: Detector, photo: Image, longest_px: int, *, margin_px: int) -> None:
        shrink = longest_px / max(photo.size)
        width, height = (max(1, round(side * shrink)) for side in photo.size)
        small = photo
        if photo.size != (width, height):
            small = photo.resize((width, height), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
        padded = [-(-(side + 2 * margin_px) // STRIDES[-1]) * STRIDES[-1] for side in (height, width)]
        self.net = net
        self.weight = next(net.parameters())
        self.img = torch.empty((1, 3, *padded), device=self.weight.device, memory_format=torch.channels_last).zero_()
        self.img[..., margin_px : margin_px + height, margin_px : margin_px + width] = to_tensor(small)
        self.margin_px = margin_px
        self.scale = torch.tensor([photo.width / width, photo.height / height])

    def propose(self, min_score: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores [K], boxes [K, 4] and points [K, 5, 2] px of the cells that say at least `min_score`."""
        logits, boxes, points = (out[0].cpu() for out in self.net(self.img.to(self.weight.dtype)))
        keep = logits > math.log(min_score / (1 - min_score))
        boxes, points = boxes[keep].unflatten(1, (2, 2)), points[keep]
        return logits[keep].sigmoid(), self._to_photo(boxes).flatten(1), self._to_photo(points)

    def refine(self, scores: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Look closer at faces with `scores` [K] and `points` [K, 5, 2] px: the same, corrected.

        The score becomes the geometric mean of both; a proposal under the square of a score never reaches it.
        """
        frame = frame_of((points / self.scale + self.margin_px).to(self.img.device))
        said = self.net.refiner(sample_crops(self.img, frame).to(self.weight.dtype))
        closer = self._to_photo(frame.to_picture(said.points).cpu())
        return (scores * said.logits.sigmoid().cpu()).sqrt(), closer

    def _to_photo(self, points: Tensor) -> Tensor:
        return (points - self.margin_px) * self.scale


def _blend(scores: Tensor, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Make one face of each heap of candidates: the best score, and the mean of those that agree with the best box."""
    best = nms(boxes, scores, max_iou=SAME_FACE_IOU)
    weights = scores * (iou(boxes[best, None], boxes) > BLEND_IOU)  # [faces, candidates]
    weights = weights / weights.sum(1, keepdim=True)
    return scores[best], weights @ boxes, torch.einsum("fk,kpc->fpc", weights, points)
