"""The picture of a swap: where a target's face ends, another put there, and pixels that follow pose and expression.

Light and colour are the target's, by low frequencies; detail gets the target's contrast, half of the way; a Laplacian
pyramid hides the seam.

Source: colour by statistics: Reinhard et al. 2001, doi:10.1109/38.946629; blending by pyramids: Burt and Adelson 1983,
doi:10.1145/245.247; a face in the shape of another's expression: Vlasic et al. 2005, doi:10.1145/1073204.1073209.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.faces.carry import carry, displacement, inner_mouth
from mien.faces.seams import face_mask, laplacian_blend, low_pass
from mien.nets.motion import FaceMotion

__all__ = ["Seam", "carried", "mean_inside"]

STEPS_PX = 64  # at which displacements are found; they are smooth
DETAIL_SIGMA = 0.1  # of the low-pass beyond which everything is detail, in sides of the crop
CONTRASTS = (0.6, 1.5)  # by which detail is multiplied, least and most
SHOWN = (1.02, 1.16)  # a face is sure to be seen within this part of its outline, and nothing of it beyond this


def mean_inside(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [N] of values [N, C, S, S] over a mask [N, 1, S, S]."""
    return (values * mask).mean(dim=(1, 2, 3)) / mask.mean(dim=(1, 2, 3)).clamp(min=1e-6)


@dataclass(frozen=True)
class Seam:
    """Where N targets' faces end, and what is seen there."""

    target: Tensor  # [N, 3, S, S]
    face: Tensor  # [N, 1, S, S], the source's
    within: Tensor  # [N, 1, S, S], beyond which nothing changes
    ring: Tensor  # [N, 1, S, S], around the outline
    colour: Tensor  # [N, 3, S, S], low frequencies of the face
    sigma: float

    @staticmethod
    def of(target: Tensor, yaw_deg: Tensor, seen: Tensor, *, inner: float, outer: float, sigma: float) -> Seam:
        """Find the seams of targets.

        Args:
            target: [N, 3, S, S].
            yaw_deg: [N].
            seen: [N, 1, s, s] of any side, 1 where nothing hides the face, 0 where something does.
            inner: the face is another's up to here, 1 being the outline,
            outer: and the target's from here on.
            sigma: of the low-pass that light and colour are matched by, in sides of the crop.
        """
        side, middle = target.shape[-1], (inner + outer) / 2
        seen = F.interpolate(seen, (side, side), mode="bilinear", align_corners=False)
        face = face_mask(side, yaw_deg, inner=inner, outer=middle) * seen
        within = face_mask(side, yaw_deg, inner=middle, outer=outer) * seen
        return Seam(target, face, within, within * (1 - face), low_pass(target, face, sigma), sigma)

    def compose(self, img: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Blend faces img [N, 3, S, S] into the targets: pictures [N, 3, S, S], and how ill they fit, [N] each."""
        off = self.colour - low_pass(img, self.face, self.sigma)
        lit = img + off
        picture = self.target.lerp(laplacian_blend(lit, self.target, self.face), self.within)
        return picture, {
            "colour": mean_inside(off.abs(), self.face),
            "border": mean_inside((lit - self.target).abs(), self.ring),
        }


def _parted(img: Tensor, face: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Part img [N, 3, S, S] into low frequencies and detail; return both and the detail's contrast, [N, 1, 1, 1]."""
    low = low_pass(img, face, DETAIL_SIGMA)
    detail = img - low
    contrast = mean_inside(detail.mean(1, keepdim=True).square(), face).clamp(min=1e-8).sqrt()
    return low, detail, contrast[:, None, None, None]


def carried(
    motion: FaceMotion, img: Tensor, from_values: Tensor, values: Tensor, seam: Seam, *, contrast: float = 0.5
) -> Tensor:
    """Take the pixels of one face where pose and expression of N targets have them, [N, 3, S, S].

    What the face's picture does not show stays the targets', in its light: mouths that they have open, and cheeks that
    it turns away.

    Args:
        motion: how points of a face move.
        img: [1, 3, H, H], the face.
        from_values: [1, 3 + 32], its pose in degrees and its blendshapes.
        values: [N, 3 + 32], the targets'.
        seam: the targets, of side S.
        contrast: power of the ratio of contrasts by which detail is multiplied, 0 = it stays.
    """
    side, num = seam.target.shape[-1], len(values)
    points, moved = (motion(read[:, :3], read[:, 3:]) for read in (from_values.expand(num, -1), values))
    steps = displacement(points, moved, STEPS_PX)
    face = carry(img.expand(num, -1, -1, -1), steps, side)
    outline = face_mask(img.shape[-1], from_values[:, 0], inner=SHOWN[0], outer=SHOWN[1])
    shown = carry(outline.expand(num, -1, -1, -1), steps, side).clamp(0, 1)
    known = seam.face * shown
    (low, detail, own), (_, _, theirs) = _parted(face, known), _parted(seam.target, known)
    face = low + (theirs / own).pow(contrast).clamp(*CONTRASTS) * detail
    lit = seam.target + low_pass(face, known, seam.sigma) - low_pass(seam.target, known, seam.sigma)
    return face.lerp(lit, torch.maximum(inner_mouth(moved, side), 1 - shown))
