"""InterFaceGAN: an attribute's direction is the normal of the plane that best parts codes with it from codes without.

The plane is a linear support vector machine with a squared hinge, found by L-BFGS. Scores that are no classes are made
such by their ends: the faces that have least and most of it. A conditional edit leaves out what lies in the span of
other attributes' normals.

Source: Shen et al. 2020, Sec. 3.1-3.2, arXiv:1907.10786.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mien.edits.directions import Direction, DirectionSet
from mien.edits.find import FindConfig, best_rows, calibrated, finished, sample_probe
from mien.edits.labels import Labels
from mien.edits.probe import Probe, Scorer, score
from mien.errors import InputError
from mien.latents import broadcast, sample_w, sample_ws
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["Boundary", "boundary", "classes_of", "conditional", "find_boundaries", "interfacegan"]

FEWEST = 5  # faces of a class
SHARE = 0.2  # of the faces at each end of a score; the paper's is 0.02, of half a million
LEAST_ACCURACY = 0.6  # of a boundary that nobody asked for by name
NUM_FOLDS = 4
STEPS = 200
UNMEASURED_RANGE = (-3.0, 3.0)


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


def _folded_accuracy(x: Tensor, side: Tensor, softness: float) -> float:
    """Share of x [N, D] on their side of planes that were found without them."""
    fold, right = torch.arange(len(x)) % NUM_FOLDS, 0
    for i in range(NUM_FOLDS):
        normal, offset = _plane(x[fold != i], side[fold != i], softness)
        right += int((side[fold == i] * (x[fold == i] @ normal + offset) > 0).sum())
    return right / len(x)


def boundary(
    w: Tensor, values: Tensor, *, share: float = SHARE, softness: Sequence[float] = (0.001, 0.01, 0.1, 1, 10)
) -> Boundary:
    """Find the plane between codes without and with an attribute.

    Args:
        w: [N, w_dim].
        values: [N], 0 and 1, or a score; not a number where a face has no label.
        share: of the faces that are taken at each end of a score.
        softness: what a wide margin may be worth over few mistakes, in units of the variance of w; the one that parts
            faces best that the plane was not found with is taken.

    Raises:
        InputError: too few faces of a class.
    """
    without, with_ = classes_of(values.cpu(), share)
    if min(len(without), len(with_)) < FEWEST:
        what = f"{len(without)} faces without and {len(with_)} with it"
        raise InputError(f"{what} are too few for a boundary", hint=f"it takes {FEWEST} of each; label more faces")
    some = w.detach().cpu()[torch.cat([without, with_])].double()
    side = torch.cat([-torch.ones(len(without)), torch.ones(len(with_))]).double()
    middle = some.mean(0)
    x = (some - middle) / (some - middle).square().mean().sqrt().clamp(min=1e-12)  # one scale for all axes
    accuracy, best = max((_folded_accuracy(x, side, one), one) for one in softness)
    normal = torch.nn.functional.normalize(_plane(x, side, best)[0], dim=0)
    along = some @ normal
    gap = float(along[side > 0].mean() - along[side < 0].mean())
    return Boundary(normal.float(), gap, accuracy, len(without), len(with_))


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


def interfacegan(
    G: Generator,
    w: Tensor,
    values: Mapping[str, Tensor],
    name: str,
    *,
    keep: Sequence[str] = (),
    layers: Sequence[int] | None = None,
    share: float = SHARE,
    probe: Probe | None = None,
    config: FindConfig | None = None,
) -> tuple[Direction, dict[str, Any]]:
    """Find the direction of an attribute from scored or labelled codes.

    Strength 1 is one standard deviation of the attribute over the generator's faces where `probe` measures it, and half
    of the way from the mean code without it to the mean code with it where only labels tell.

    Args:
        G: the generator.
        w: codes, [N, w_dim].
        values: name => [N], see `boundary`.
        name: of the attribute.
        keep: names in `values` of the attributes whose normals are taken out.
        layers: rows that it moves; by default all, or those that `probe` finds best.
        share: of the faces at each end of a score.
        probe: faces to calibrate on; its scorer need not know the attribute.
        config: settings of the calibration.

    Returns:
        the direction, and facts about its boundary.

    Raises:
        InputError: a name without values, too few faces of a class, or nothing left of the direction.
    """
    for one in (name, *keep):
        if one not in values:
            raise InputError(f"nothing tells {one!r} of these faces", hint=f"known: {', '.join(values)}")
    config = config or FindConfig()
    found = boundary(w, values[name], share=share)
    normal = conditional(found.normal, [boundary(w, values[other], share=share).normal for other in keep])
    without, with_ = classes_of(values[name].cpu(), share)
    half = float((w.cpu()[with_].mean(0) - w.cpu()[without].mean(0)) @ normal) / 2
    facts = {
        "accuracy": found.accuracy,
        "num_without": found.num_without,
        "num_with": found.num_with,
        "orthogonal_to": list(keep),
        "cosine_to_boundary": float(normal @ found.normal),
    }
    rows = tuple(range(G.num_ws) if layers is None else layers)
    if probe is not None and name in probe.spread:
        std = probe.spread[name]
        known: dict[str, Any] = dict(unit=f"{std:.3g} of {name}", std=std, safe_range=(0.0, 0.0))
        if layers is None:
            direction = best_rows(probe, name, normal * half, config, **known)
        else:
            direction = calibrated(probe, name, Direction(normal * half, rows, **known), config).direction
        return finished(probe, name, direction, config), facts
    direction = Direction(normal * half, rows, f"half of the way to {name}", 0.5, UNMEASURED_RANGE)
    return (direction if probe is None else finished(probe, None, direction, config)), facts


def find_boundaries(
    G: Generator,
    scorer: Scorer,
    names: Sequence[str] = (),
    *,
    labels: Labels | None = None,
    keep: Sequence[str] = (),
    layers: Sequence[int] | None = None,
    config: FindConfig | None = None,
    network: str = "",
    on_step: Sink = ignore,
) -> DirectionSet:
    """Find directions of invented people whom a network has scored or somebody has labelled.

    Args:
        G: the generator.
        scorer: measures pictures: what is to be found or kept, and what else a direction does.
        names: of scores or labels; none for all labels that are filled in. Of those, labels by which codes cannot be
            parted are left out, and the provenance says so under `not_parted`, with the accuracy.
        labels: what somebody saw of people; by default truncated samples are scored.
        keep: names of scores or labels whose normals are taken out.
        layers: rows that they move; by default the best for a score, all for a label.
        config: settings of samples and calibration.
        network: sha256 of the generator's file.
        on_step: hears of scores, then of every direction.

    Raises:
        InputError: labels of another generator, none filled in, a name that nothing tells, or too few faces of a class.
    """
    config = config or FindConfig()
    if labels is not None and labels.network != network:
        hint = "give the --network that invented the people, or label again"
        raise InputError("the labels are of people whom another generator invented", hint=hint)
    if labels is None:
        w = G.w_avg.lerp(sample_w(G, config.num_samples, seed=config.seed), config.truncation_psi)
        ws, told = broadcast(w, G.num_ws), list(names)
    else:
        told = list(names) or _filled(labels)
        ws = sample_ws(G, labels.seeds, truncation_psi=labels.truncation_psi)
    scores = score(lambda rows: G.synthesis(rows, noise_mode="const"), ws, scorer, config.batch_size, on_step)
    values = {**scores.attributes, **({} if labels is None else labels.values)}
    probe = sample_probe(G, scorer, config)
    found, missed, boundaries = {}, {}, {}
    for i, name in enumerate(told):
        others = [other for other in keep if other != name]
        direction, boundaries[name] = interfacegan(
            G, ws.mean(dim=1), values, name, keep=others, layers=layers, probe=probe, config=config
        )
        if not names and (accuracy := boundaries[name]["accuracy"]) < LEAST_ACCURACY:
            missed[name] = accuracy
        else:
            found[name] = direction
        on_step(Step("boundaries", i + 1, len(told)))
    facts = {"boundaries": boundaries, "not_parted": missed, "boundary_codes": len(ws)}
    return DirectionSet(found, network, facts)


def _filled(labels: Labels) -> list[str]:
    """Names of the labels of which enough faces are with and without."""
    classes = {name: classes_of(values, SHARE) for name, values in labels.values.items()}
    filled = [name for name, (without, with_) in classes.items() if min(len(without), len(with_)) >= FEWEST]
    if not filled:
        hint = f"write 1 beside who has it, 0 beside who has not, {FEWEST} of each at least"
        raise InputError("no label is filled in", hint=hint)
    return filled
