"""Colours that a painted picture keeps: of one picture in another's, or in its brightness alone.

Source: Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer", arXiv:1606.05897; the linear map is
that of Pitie and Kokaram 2007, Eq. 8, doi:10.1049/cp:20070055.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["grey", "match_colours", "match_light", "with_colours_of"]

LUMA = (0.299, 0.587, 0.114)  # Rec. 601
RIDGE = 1e-5


def grey(img: Tensor) -> Tensor:
    """Return the brightness of img [N,3,H,W] as three equal channels."""
    luma = img.new_tensor(LUMA)[:, None, None]
    return (img * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def _statistics(img: Tensor) -> tuple[Tensor, Tensor]:
    flat = img[0].flatten(1).double()
    return flat.mean(1, keepdim=True), flat.cov() + RIDGE * torch.eye(3, dtype=torch.float64, device=img.device)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    return (axes * values.clamp(min=RIDGE**2) ** exponent) @ axes.T


def match_colours(img: Tensor, like: Tensor) -> Tensor:
    """Move the colours of img [1,3,H,W] so that their mean and covariance are those of `like`, by the shortest way."""
    (mean, cov), (aim, aim_cov) = _statistics(img), _statistics(like)
    root, inverse = _power(cov, 0.5), _power(cov, -0.5)
    move = inverse @ _power(root @ aim_cov @ root, 0.5) @ inverse
    moved = move @ (img[0].flatten(1).double() - mean) + aim
    return moved.reshape(img.shape).to(img.dtype).clamp(-1, 1)


def match_light(img: Tensor, like: Tensor) -> Tensor:
    """Return the brightness of img [1,3,H,W] with the mean and deviation of that of `like`, as three equal channels."""
    x, y = grey(img), grey(like)
    return ((x - x.mean()) * (y.std() / (x.std() + RIDGE)) + y.mean()).clamp(-1, 1)


def with_colours_of(img: Tensor, like: Tensor) -> Tensor:
    """Return the brightness of img with the colours of `like`, both [N,3,H,W]: like plus the difference of greys."""
    return (like + grey(img) - grey(like)).clamp(-1, 1)
