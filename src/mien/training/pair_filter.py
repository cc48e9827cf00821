"""Which pairs of a person and a drawing show a face on both sides, the same one: rejected by reason, before any labels.

Three questions: does our detector see a face on each side; are its five points in the same places; does the face
network see about the same person. What was measured goes with every pair that is kept, for whoever cleans further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mien.errors import InputError
from mien.faces.detect import Face, detect, one_face
from mien.images import to_pil
from mien.nets.detector import Detector
from mien.nets.features import FaceNet

__all__ = ["REASONS", "FilterConfig", "PairFilter", "Signals"]

REASONS = ("source_face", "target_face", "landmarks", "identity")
DETECT_FROM = 0.05  # score from which something is measured as a face at all


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What a pair must reach to be kept."""

    min_source_score: float = 0.65  # of the detector, for the person
    min_target_score: float = 0.35  # for the drawing, which is no photo
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
    """What was measured of a pair: scores in [0,1], 0 without a face; a shift in eye distances; a cosine."""

    source_score: float
    target_score: float
    landmark_shift: float | None  # where both sides have a face
    identity: float

    def rejected_for(self, config: FilterConfig) -> str | None:
        """Return the first of `REASONS` to reject the pair, or None to keep it."""
        if self.source_score < config.min_source_score:
            return "source_face"
        if self.target_score < config.min_target_score:
            return "target_face"
        if self.landmark_shift is not None and self.landmark_shift > config.max_landmark_shift:
            return "landmarks"
        return "identity" if self.identity < config.min_identity else None


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
        cosines = (self.face_net(source).identity * self.face_net(target).identity).sum(1).tolist()
        people, drawings = self._faces(source), self._faces(target)
        return [_signals(*pair) for pair in zip(people, drawings, cosines, strict=True)]

    def _faces(self, img: Tensor) -> list[Face | None]:
        found = (detect(self.detector, image, min_score=DETECT_FROM) for image in to_pil(img))
        return [one_face(faces) if faces else None for faces in found]


def _signals(source: Face | None, target: Face | None, identity: float) -> Signals:
    shift = None
    if source is not None and target is not None:
        eyes = float(np.hypot(*(source.landmarks[1] - source.landmarks[0])))
        shift = float(np.hypot(*(source.landmarks - target.landmarks).T).mean()) / max(eyes, 1e-6)
    scores = [0.0 if face is None else round(face.score, 4) for face in (source, target)]
    return Signals(scores[0], scores[1], None if shift is None else round(shift, 4), round(identity, 4))
