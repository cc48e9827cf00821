"""How far a render is from the picture it should show, term by term and picture by picture.

Every term is a vector [N], one number for each picture, so that pictures that are optimised together stay independent.

Source: pixels and features together: Abdal et al. 2019, Eq. 1, arXiv:1904.03189; identity: Richardson et al. 2021
(pSp), Eq. 4, arXiv:2008.00951.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from mien.errors import InputError
from mien.losses import dssim, identity_distance, perceptual, pyramid_l1, squared_error

__all__ = ["FaceFeatures", "FaceModel", "Target", "TermWeights", "check_terms", "picture_terms", "total"]


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

    pixel: float = 4.0  # L1 over a pyramid down to 8 px
    squared: float = 0.0  # mean squared difference
    ssim: float = 2.0  # 1 - structural similarity
    perceptual: float = 1.0  # features of the face network
    identity: float = 0.0  # 1 - cosine of its embeddings; its maps say it already


@dataclass(frozen=True)
class Target:
    """The pictures to reach, with what the face network says of them."""

    img: Tensor
    identity: Tensor | None
    maps: tuple[Tensor, ...]

    @staticmethod
    def of(img: Tensor, face_model: FaceModel | None) -> Target:
        """Look at img [N, 3, H, W] once."""
        if face_model is None:
            return Target(img, None, ())
        seen = face_model(img)
        return Target(img, seen.identity.detach(), tuple(m.detach() for m in seen.maps))

    def select(self, rows: Tensor) -> Target:
        """Keep some of the pictures, by a boolean mask or by indices."""
        identity = None if self.identity is None else self.identity[rows]
        return Target(self.img[rows], identity, tuple(m[rows] for m in self.maps))


def check_terms(weights: TermWeights, face_model: FaceModel | None) -> None:
    """Refuse settings that would compare nothing.

    Raises:
        InputError: no term counts, or only terms of a face network and there is none.
    """
    if not (weights.pixel or weights.squared or weights.ssim) and face_model is None:
        raise InputError("these settings compare features alone", hint="give a face network, or pixels a weight")
    if not any(getattr(weights, f.name) for f in fields(weights)):
        raise InputError("no term of the loss has a weight", hint="give one, say pixel=4")


def picture_terms(
    img: Tensor,
    target: Target,
    weights: TermWeights,
    face_model: FaceModel | None = None,
    *,
    seen: Target | None = None,
) -> dict[str, Tensor]:
    """Compare img [N, 3, H, W] with its target; `seen` is what the face network said of `img`, where that is known.

    Returns:
        name of the term => [N], unweighted; terms of the face network only where one is given.
    """
    terms = {}
    if weights.pixel:
        terms["pixel"] = pyramid_l1(img, target.img)
    if weights.squared:
        terms["squared"] = squared_error(img, target.img)
    if weights.ssim:
        terms["ssim"] = dssim(img, target.img)
    if face_model is not None and (weights.perceptual or weights.identity):
        now = face_model(img) if seen is None else seen
        assert target.identity is not None and now.identity is not None, "made without the face network"
        compare = getattr(face_model, "distance", perceptual)  # a judge brings its own measure, say LPIPS
        terms["perceptual"] = compare(now.maps, target.maps)
        terms["identity"] = identity_distance(now.identity, target.identity)
    return terms


def total(terms: dict[str, Tensor], weights: TermWeights) -> Tensor:
    """Weighted sum of the terms of `picture_terms`, [N]."""
    weighted = torch.stack([getattr(weights, name) * value for name, value in terms.items()])
    return weighted.sum(dim=0)
