"""Which pairs of a person and a drawing show a face on both sides, the same one: rejected by reason, before any labels.

Three questions: does the detector's close look see a face on each side; are its five points in the same places; does
the face network see about the same person. The pictures are aligned, so nobody has to search: the close look begins at
the mean face of FFHQ, and looks once more from where it found the points. What was measured goes with every pair that
is kept, for whoever cleans further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mien.errors import InputError
from mien.nets.detector import Detector
from mien.nets.features import FaceNet
from mien.nets.refiner import frame_of, sample_crops

__all__ = ["REASONS", "FilterConfig", "Look", "PairFilter", "Signals", "landmark_shift"]

REASONS = ("source_face", "target_face", "landmarks", "identity")
TEMPLATE = ((0.377, 0.469), (0.623, 0.469), (0.501, 0.613), (0.393, 0.725), (0.612, 0.725))
"""The five points of an aligned face, in the crop's sides."""


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What a pair must reach to be kept."""

    min_source_score: float = 0.9  # of the close look, for the person
    min_target_score: float = 0.7  # for the drawing, which is no photo
    max_landmark_shift: float = 0.35  # mean distance of the five points, in distances between the person's eyes
    min_identity: float = -0.2  # cosine of both faces; a drawing is nobody whom the network has learnt

    def __post_init__(self) -> None:
        for name in ("min_source_score", "min_target_score"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if not (self.max_landmark_shift > 0 and -1 <= self.min_identity <= 1):
            raise InputError("max_landmark_shift must be above 0 and min_identity from -1 to 1")


@dataclass(frozen=True)
class Signals:
    """What was measured of a pair: how sure both sides are faces, from 0 to 1; a shift in eye distances; a cosine."""

    source_score: float
    target_score: float
    landmark_shift: float
    identity: float

    def rejected_for(self, config: FilterConfig) -> str | None:
        """Return the first of `REASONS` to reject the pair, or None to keep it."""
        if self.source_score < config.min_source_score:
            return "source_face"
        if self.target_score < config.min_target_score:
            return "target_face"
        if self.landmark_shift > config.max_landmark_shift:
            return "landmarks"
        return "identity" if self.identity < config.min_identity else None


class Look(NamedTuple):
    """What the close look says of N aligned pictures: `logits` [N,2] of a face, first and last; `points` [N,5,2] px."""

    logits: Tensor
    points: Tensor


def landmark_shift(people: Look, drawings: Look) -> Tensor:
    """Return the mean distance of both sides' points, [N], in distances between the person's eyes."""
    eyes = (people.points[:, 1] - people.points[:, 0]).norm(dim=1).clamp(min=1e-6)
    return (people.points - drawings.points).norm(dim=2).mean(1) / eyes


class PairFilter:
    """Measures pairs.

    Args:
        detector: finds faces.
        face_net: compares them.
        config: what `keeps` asks.
    """

    def __init__(self, detector: Detector, face_net: FaceNet, config: FilterConfig | None = None) -> None:
        self.detector, self.face_net, self.config = detector, face_net, config or FilterConfig()

    @torch.no_grad()
    def measure(self, source: Tensor, target: Tensor) -> list[Signals]:
        """Measure pairs of aligned faces, both [N,3,H,H] in [-1,1]."""
        cosines = (self.face_net(source).identity * self.face_net(target).identity).sum(1)
        people, drawings = self.look(source), self.look(target)
        rows = [look.logits[:, 1].sigmoid() for look in (people, drawings)]
        rows += [landmark_shift(people, drawings), cosines]
        return [Signals(*(round(value, 4) for value in row)) for row in torch.stack(rows, 1).tolist()]

    @torch.no_grad()
    def look(self, img: Tensor) -> Look:
        """Look closely at aligned faces [N,3,H,H] in [-1,1], twice."""
        points = (torch.tensor(TEMPLATE, device=img.device) * img.shape[-1]).expand(len(img), -1, -1)
        logits = []
        for _ in range(2):
            frame = frame_of(points)
            frames = [frame_of(some) for some in points.split(1)]
            crops = torch.cat([sample_crops(one, at) for one, at in zip(img.split(1), frames, strict=True)])
            said = self.detector.refiner(crops)
            points = frame.to_picture(said.points)
            logits.append(said.logits)
        return Look(torch.stack(logits, 1), points)
