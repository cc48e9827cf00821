"""InterFaceGAN: an attribute's direction is the normal of the plane that best parts codes with it from codes without.

The plane is a linear support vector machine with a squared hinge, found by L-BFGS. Scores that are no classes are made
such by their ends: the faces that have least and most of it. A conditional edit leaves out what lies in the span of
other attributes' normals.

Source: Shen et al. 2020, Sec. 3.1-3.2, arXiv:1907.10786.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mien.errors import InputError

__all__ = ["Boundary", "boundary", "classes_of", "conditional"]

FEWEST = 5  # faces of a class
NUM_FOLDS = 4
STEPS = 200


@dataclass(frozen=True, eq=False)
class Boundary:
    """A plane in W, and what it was found of.

    Attributes:
        normal: [w_dim] of unit length, towards the faces that have the attribute.
        gap: distance between the two classes' means along it.
        accuracy: share of faces on their side of planes that were found without them; one half is chance.
        num_without, num_with: faces of each class.
    """

    normal: Tensor
    gap: float
    accuracy: float
    num_without: int
    num_with: int


def classes_of(values: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Split faces by `values` [N] into those without and those with an attribute, as indices.

    Of two values the smaller is "without"; of more, `share` of the faces at each end are taken. Faces that are not a
    number have no label and are left out.

    >>> classes_of(torch.tensor([1.0, 0.0, float("nan"), 1.0]), 0.1)
    (tensor([1]), tensor([0, 3]))
    >>> classes_of(torch.tensor([0.3, 0.1, 0.9, 0.5]), 0.25)
    (tensor([1]), tensor([2]))
    """
    known = values.isfinite().nonzero()[:, 0]
    if len(kinds := values[known].unique()) <= 2:
        has = values[known] == kinds.max() if len(kinds) == 2 else torch.zeros_like(known, dtype=torch.bool)
        return known[~has], known[has]
    order = known[values[known].argsort()]
    num = max(1, round(share * len(order)))
    return order[:num], order[-num:]


def _plane(x: Tensor, side: Tensor, softness: float) -> tuple[Tensor, Tensor]:
    """Normal [D] and offset of the plane that parts x [N, D] by side [N], -1 or 1; both classes weigh the same."""
    weight = torch.where(side > 0, 0.5 / (side > 0).sum(), 0.5 / (side < 0).sum())
    normal, offset = torch.zeros_like(x[0], requires_grad=True), torch.zeros_like(x[0, 0], requires_grad=True)
    optimiser = torch.optim.LBFGS([normal, offset], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        hinge = (1 - side * (x @ normal + offset)).clamp(min=0).square()
        loss = (weight * hinge).sum() + softness * normal.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return normal.detach(), offset.detach()


def boundary(w: Tensor, values: Tensor, *, share: float = 0.2, softness: float = 0.1) -> Boundary:
    """Find the plane between codes without and with an attribute.

    Args:
        w: [N, w_dim].
        values: [N], 0 and 1, or a score; not a number where a face has no label.
        share: of the faces that are taken at each end of a score; the paper's is 0.02, of half a million.
        softness: how much a wide margin is worth over few mistakes, in units of the variance of w.

    Raises:
        InputError: too few faces of a class.
    """
    without, with_ = classes_of(values, share)
    if min(len(without), len(with_)) < FEWEST:
        what = f"{len(without)} faces without and {len(with_)} with it"
        raise InputError(f"{what} are too few for a boundary", hint=f"it takes {FEWEST} of each; label more faces")
    some = w[torch.cat([without, with_])].detach().cpu().double()
    side = torch.cat([-torch.ones(len(without)), torch.ones(len(with_))]).double()
    middle = some.mean(0)
    unit = (some - middle).square().mean().sqrt().clamp(min=1e-12)  # one scale for all axes: the normal is unit-free
    x = (some - middle) / unit
    fold, right = torch.arange(len(x)) % NUM_FOLDS, 0
    for i in range(NUM_FOLDS):
        normal, offset = _plane(x[fold != i], side[fold != i], softness)
        right += int((side[fold == i] * (x[fold == i] @ normal + offset) > 0).sum())
    normal = torch.nn.functional.normalize(_plane(x, side, softness)[0], dim=0)
    along = some @ normal
    gap = float(along[side > 0].mean() - along[side < 0].mean())
    return Boundary(normal.float(), gap, right / len(x), len(without), len(with_))


def conditional(normal: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Take from `normal` [w_dim] what lies in the span of `others`, each [w_dim]; of unit length again.

    Raises:
        InputError: nothing is left.

    Source: Shen et al. 2020, Sec. 3.2 and Fig. 2.
    """
    rest = normal.double()
    if others:
        span, _ = torch.linalg.qr(torch.stack([other.double().to(rest.device) for other in others], dim=1))
        rest = rest - span @ (span.T @ rest)
    if (length := float(rest.norm())) < 1e-6 * float(normal.norm()):
        raise InputError("nothing is left of the direction without the others", hint="keep fewer of them")
    return (rest / length).to(normal)
