"""Where a face ends in an FFHQ crop, and how another face is put there without a seam.

The outline of the face is a superellipse that leans with the head's turn, since alignment fixes all else: its numbers
are the mean face oval of MediaPipe's mesh over 350 crops, less the upper forehead. Inside it the low frequencies are
the target's, so light and colour stay; a Laplacian pyramid hides the rest of the seam; what a generator could not show
is taken for an occluder.

Source: blending by pyramids: Burt and Adelson 1983, doi:10.1145/245.247.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.faces.resample import blur

__all__ = ["face_mask", "face_radius", "laplacian_blend", "low_pass", "visible"]

CENTRE, HALF_WIDTH = (0.5, 0.602), 0.275  # of the outline, in sides of the crop
UPPER_HALF, LOWER_HALF = 0.26, 0.33  # its heights; the mesh goes up to 0.33, where another's fringe may hang
UPPER_POWER, LOWER_POWER = 3.0, 2.0  # a broad forehead, a round chin
LEAN, LEAN_AT_ENDS = -0.0048, 0.0010  # sides that the outline moves per degree of yaw, at the ears and at its ends
COARSEST = 8  # cells a side at which the pyramid ends
COARSE_SIGMA_PX = 13  # of a Gaussian for which pixels are made coarser
HIDDEN = (0.25, 0.4)  # residual of 0..2 where something may hide the face, and where it does; faces leave up to 0.2
RESIDUAL_SIGMA = 0.03  # of the residual's blur, in sides of the crop


def face_radius(size_px: int, yaw_deg: Tensor) -> Tensor:
    """Return how far each pixel is from the middle of the face, [N, 1, S, S]: 1 on the face's outline.

    Args:
        size_px: side S of the crop.
        yaw_deg: [N], above 0 where the face looks to the right of the picture, as `FaceReading.pose` has it.
    """
    at = (torch.arange(size_px, device=yaw_deg.device) + 0.5) / size_px
    down = (at - CENTRE[1])[:, None]  # [S, 1]
    v = torch.where(down < 0, down / UPPER_HALF, down / LOWER_HALF)
    lean = LEAN + (LEAN_AT_ENDS - LEAN) * (down / LOWER_HALF).square().clamp(max=1)
    u = (at - CENTRE[0] - yaw_deg[:, None, None].clamp(-45, 45) * lean) / HALF_WIDTH  # [N, S, S]
    upper = (u.abs() ** UPPER_POWER + v.abs() ** UPPER_POWER) ** (1 / UPPER_POWER)
    lower = (u.abs() ** LOWER_POWER + v.abs() ** LOWER_POWER) ** (1 / LOWER_POWER)
    return torch.where(v < 0, upper, lower)[:, None]


def face_mask(size_px: int, yaw_deg: Tensor, *, inner: float = 0.9, outer: float = 1.05) -> Tensor:
    """Return the soft mask [N, 1, S, S] of a face: 1 within `inner` of `face_radius`, exactly 0 beyond `outer`."""
    ramp = ((outer - face_radius(size_px, yaw_deg)) / (outer - inner)).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def low_pass(img: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """Return the low frequencies of what img [N, 3, S, S] shows inside the mask [N, 1, S, S], as if it went on outside.

    Args:
        img: the pictures.
        mask: 0..1; what lies outside of it has no part in the means.
        sigma: of the Gaussian, in sides of the picture.
    """
    side = img.shape[-1]
    coarse = min(side, max(1, round(COARSE_SIGMA_PX / sigma)))  # what is so blurred needs no finer pixels
    inside, weight = (blur(F.adaptive_avg_pool2d(x, coarse), sigma * coarse) for x in (img * mask, mask))
    return F.interpolate(inside / weight.clamp(min=1e-3), (side, side), mode="bilinear", align_corners=False)


def _halved(img: Tensor) -> Tensor:
    return F.avg_pool2d(img, 2)


def _doubled(img: Tensor) -> Tensor:
    return F.interpolate(img, scale_factor=2, mode="bilinear", align_corners=False)


def laplacian_blend(front: Tensor, back: Tensor, mask: Tensor) -> Tensor:
    """Blend two pictures [N, 3, S, S] by a mask [N, 1, S, S], each band of frequencies over a width of its own.

    Where the mask is 1 (or 0) far around, the result is `front` (or `back`) itself.
    """
    if front.shape[-1] % 2 or front.shape[-1] <= COARSEST:
        return back.lerp(front, mask)
    fronts, backs = _halved(front), _halved(back)
    coarse = laplacian_blend(fronts, backs, _halved(mask))
    return _doubled(coarse) + (back - _doubled(backs)).lerp(front - _doubled(fronts), mask)


def visible(img: Tensor, inverted: Tensor) -> Tensor:
    """Return where a face is seen and not something before it, [N, 1, S, S] from 0, hidden, to 1.

    Args:
        img: [N, 3, S, S], the picture.
        inverted: its inversion's render: faces alone come back, a hand or a microphone leaves a residual.
    """
    residual = blur((img - inverted).abs().mean(1, keepdim=True), RESIDUAL_SIGMA * img.shape[-1])
    low, high = HIDDEN
    return ((high - residual) / (high - low)).clamp(0, 1)
