"""How a face moves: where the points of a face's mesh lie in an aligned crop, by head pose and expression.

Alignment fixes place, size and tilt of a face, so that turn, nod and expression explain most of where its points are;
a linear model of them, quadratic in the pose, is enough. It knows no identity: differences of its points are how
anybody's points move.

Source: shape as a mean with linear modes: Cootes et al. 1995 (active shape models), doi:10.1006/cviu.1995.1004; modes
by the meaning of blendshapes: Cao et al. 2014 (FaceWarehouse), doi:10.1109/TVCG.2013.249.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mien.nets.features import EXPRESSIONS

__all__ = ["MESH_POINTS", "FaceMotion", "motion_terms"]

MESH_POINTS = 478  # of MediaPipe's mesh, whose numbering this is
NUM_POSE_TERMS = 6
POSE_UNIT_DEG = 30.0


def motion_terms(pose: Tensor, expression: Tensor) -> Tensor:
    """Return what the points depend on: 1, the pose up to its squares, the blendshapes, [N, 6 + 32].

    Args:
        pose: [N, 3] degrees, as `FaceReading.pose`; the roll has no part in it.
        expression: [N, 32], as `FaceReading.expression`.
    """
    yaw, pitch = pose[:, 0] / POSE_UNIT_DEG, pose[:, 1] / POSE_UNIT_DEG
    turns = torch.stack([torch.ones_like(yaw), yaw, pitch, yaw * yaw, pitch * pitch, yaw * pitch], dim=1)
    return torch.cat([turns, expression], dim=1)


class FaceMotion(nn.Module):
    """Say where mesh points lie in FFHQ crops, (x, y) in sides of the crop.

    Args:
        num_points: of the mesh.
    """

    modes: Tensor

    def __init__(self, *, num_points: int = MESH_POINTS) -> None:
        super().__init__()
        self.init_kwargs: dict[str, Any] = {"num_points": num_points}
        self.register_buffer("modes", torch.zeros(NUM_POSE_TERMS + len(EXPRESSIONS), num_points, 2))

    def forward(self, pose: Tensor, expression: Tensor) -> Tensor:
        """Return points [N, num_points, 2] of faces with `pose` [N, 3] degrees and `expression` [N, 32]."""
        return torch.einsum("nt,tkc->nkc", motion_terms(pose, expression), self.modes)
