"""Where the faces of a photo are: a soft mask, for what should leave them alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mien.faces.align import HasLandmarks, ffhq_quad

__all__ = ["face_mask"]

CENTRE, RADII = (0.5, 0.53), (0.3, 0.42)  # of a face in its FFHQ crop: temples, hairline and chin, in the crop's sides
INNER, OUTER = 0.75, 1.15  # of the ellipse, where the mask leaves 1 and reaches 0


def face_mask(size: tuple[int, int], faces: Sequence[HasLandmarks]) -> Tensor:
    """Return a mask [1,1,H,W] of a picture of (width, height) px: 1 inside the faces, softly down to 0 outside.

    Args:
        size: width and height of the picture.
        faces: detected in it; with none the mask is 0 everywhere.
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    found = np.zeros((height, width), np.float32)
    for face in faces:
        quad = ffhq_quad(face.landmarks).astype(np.float32)
        right, down = quad[3] - quad[0], quad[1] - quad[0]
        side = float(right @ right)
        u, v = (((x - quad[0, 0]) * axis[0] + (y - quad[0, 1]) * axis[1]) / side for axis in (right, down))
        radius = np.hypot((u - CENTRE[0]) / RADII[0], (v - CENTRE[1]) / RADII[1])
        ramp = np.clip((OUTER - radius) / (OUTER - INNER), 0, 1)
        found = np.maximum(found, ramp * ramp * (3 - 2 * ramp))
    return torch.from_numpy(found)[None, None]
