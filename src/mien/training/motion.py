"""Fit how faces move: mesh points that a landmarker found, by the pose and the blendshapes that it saw with them."""

from __future__ import annotations

import torch
from torch import Tensor

from mien.errors import InputError
from mien.nets.motion import NUM_POSE_TERMS, FaceMotion, motion_terms

__all__ = ["fit_motion", "motion_error"]


def fit_motion(points: Tensor, pose: Tensor, expression: Tensor, *, ridge: float = 0.5) -> FaceMotion:
    """Fit a `FaceMotion` by least squares, with blendshapes shrunk towards no effect.

    Args:
        points: [N, K, 2] in sides of FFHQ crops.
        pose: [N, 3] degrees.
        expression: [N, 32]; a column that is 0 throughout gets no effect.
        ridge: strength of the shrinkage, in squared units of a blendshape.

    Raises:
        InputError: fewer faces than terms.

    Source: Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634.
    """
    terms = motion_terms(pose.double(), expression.double())
    if len(points) < terms.shape[1]:
        raise InputError(f"{len(points)} faces for {terms.shape[1]} terms", hint="give more labelled faces")
    shrink = torch.full((terms.shape[1],), ridge, dtype=torch.float64)
    shrink[:NUM_POSE_TERMS] = 0
    gram = terms.T @ terms + shrink.diag()
    modes = torch.linalg.solve(gram, terms.T @ points.double().flatten(1))
    motion = FaceMotion(num_points=points.shape[1])
    motion.modes.copy_(modes.view(len(modes), -1, 2))
    return motion.eval()


def motion_error(motion: FaceMotion, points: Tensor, pose: Tensor, expression: Tensor) -> float:
    """Return the mean distance of points from where they are said to be, in sides of the crop."""
    return float((motion(pose, expression) - points).norm(dim=2).mean())
