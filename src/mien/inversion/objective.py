"""How far a render is from the picture it should show, term by term and picture by picture.

Every term is a vector [N], one number for each picture, so that pictures that are optimised together stay independent.

Source: pyramid and perceptual terms as in Abdal et al. 2019, arXiv:1904.03189; structural similarity: Wang et al. 2004,
doi:10.1109/TIP.2003.819861; identity term: Richardson et al. 2021 (pSp), Eq. 4, arXiv:2008.00951.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FaceFeatures", "FaceModel", "Target", "TermWeights", "picture_terms", "total"]

SMALLEST_PX = 8  # coarsest level of the pyramid
SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the range of [-1, 1] is 2
FEATURE_EPS = 1e-4


class FaceFeatures(Protocol):
    """What a face network says of N pictures."""

    @property
    def identity(self) -> Tensor:
        """[N, D], of unit length."""
        ...

    @property
    def maps(self) -> Sequence[Tensor]:
        """Maps [N, C, h, w], from shallow to deep."""
        ...


class FaceModel(Protocol):
    """A face network: img [N, 3, H, W] in [-1, 1] of any side to `FaceFeatures`."""

    def __call__(self, img: Tensor) -> FaceFeatures: ...


@dataclass(frozen=True, kw_only=True)
class TermWeights:
    """What each term counts; a term of weight 0 is not computed."""

    pixel: float = 1.0  # L1 over a pyramid down to 8 px
    ssim: float = 0.5  # 1 - structural similarity
    perceptual: float = 1.0  # features of the face network
    identity: float = 0.5  # 1 - cosine of its embeddings


@dataclass(frozen=True)
class Target:
    """The pictures to reach, with what the face network says of them."""

    img: Tensor
    identity: Tensor | None
    features: tuple[Tensor, ...]

    @staticmethod
    def of(img: Tensor, face_model: FaceModel | None) -> Target:
        """Look at img [N, 3, H, W] once."""
        if face_model is None:
            return Target(img, None, ())
        seen = face_model(img)
        return Target(img, seen.identity.detach(), tuple(unit_features(f).detach() for f in seen.maps))

    def select(self, rows: Tensor) -> Target:
        """Keep some of the pictures, by a boolean mask or by indices."""
        identity = None if self.identity is None else self.identity[rows]
        return Target(self.img[rows], identity, tuple(f[rows] for f in self.features))


def unit_features(features: Tensor) -> Tensor:
    """Scale the feature vector [C] at every place of [N, C, h, w] to unit length."""
    features = features.float()
    return features / (features.square().sum(dim=1, keepdim=True) + FEATURE_EPS).sqrt()


def pyramid_l1(img: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, averaged over both pictures' pyramids down to 8 px."""
    levels = []
    while True:
        levels.append((img - target).abs().mean(dim=(1, 2, 3)))
        if img.shape[-1] <= SMALLEST_PX:
            return sum(levels[1:], levels[0]) / len(levels)
        img, target = F.avg_pool2d(img, 2), F.avg_pool2d(target, 2)


def dssim(img: Tensor, target: Tensor) -> Tensor:
    """One minus the structural similarity over windows of 7x7 px: 0 for equal pictures, at most 2."""
    stacked = [F.avg_pool2d(x, SSIM_WINDOW, 1) for x in (img, target, img * img, target * target, img * target)]
    mean_x, mean_y, xx, yy, xy = stacked
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    ssim = (2 * mean_x * mean_y + SSIM_C1) * (2 * cov + SSIM_C2)
    ssim = ssim / ((mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2))
    return 1 - ssim.mean(dim=(1, 2, 3))


def perceptual(features: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Squared distance of unit feature vectors, averaged over places and maps."""
    parts = [(unit_features(x) - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(features, target, strict=True)]
    return sum(parts[1:], parts[0]) / len(parts)


def picture_terms(
    img: Tensor, target: Target, weights: TermWeights, face_model: FaceModel | None = None
) -> dict[str, Tensor]:
    """Compare img [N, 3, H, W] with its target.

    Returns:
        name of the term => [N], unweighted; terms of the face network only where one is given.
    """
    terms = {}
    if weights.pixel:
        terms["pixel"] = pyramid_l1(img, target.img)
    if weights.ssim:
        terms["ssim"] = dssim(img, target.img)
    if face_model is not None and (weights.perceptual or weights.identity):
        seen = face_model(img)
        assert target.identity is not None, "the target was made without the face network"
        terms["perceptual"] = perceptual(seen.maps, target.features)
        terms["identity"] = 1 - (seen.identity * target.identity).sum(dim=1)
    return terms


def total(terms: dict[str, Tensor], weights: TermWeights) -> Tensor:
    """Weighted sum of the terms of `picture_terms`, [N]."""
    weighted = torch.stack([getattr(weights, name) * value for name, value in terms.items()])
    return weighted.sum(dim=0)
