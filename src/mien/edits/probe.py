"""What an edit does to faces: attributes and identity before and after it, told by whoever scores pictures.

Changes are in standard deviations of each attribute over the generator's own faces, so that they compare.

Source: attribute dependency: Wu et al. 2021, Sec. 5.2, arXiv:2011.12799.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mien.edits.directions import AnyDirection, Kind
from mien.errors import InputError
from mien.latents import broadcast, sample_w
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["DirectionScore", "Probe", "Scorer", "Scores", "sample_spread", "score", "score_direction"]

BATCH = 32
EFFECT_STRENGTHS = (-2.0, 2.0)


@dataclass(frozen=True)
class Scores:
    """What is measured of N pictures: `attributes` name => [N], `identity` [N, D] of unit length."""

    attributes: Mapping[str, Tensor]
    identity: Tensor

    def change(self, name: str, before: Scores) -> float:
        """Mean change of an attribute."""
        return float((self.attributes[name] - before.attributes[name]).mean())

    def likeness(self, before: Scores) -> float:
        """Mean cosine of the identities."""
        return float((self.identity * before.identity).sum(dim=1).mean())


Scorer = Callable[[Tensor], Scores]
"""img [N, 3, H, W] in [-1, 1] to `Scores`."""


@torch.no_grad()
def score(
    render: Callable[[Tensor], Tensor], ws: Tensor, scorer: Scorer, batch_size: int = BATCH, on_step: Sink = ignore
) -> Scores:
    """Render ws [N, num_ws, w_dim] in batches and score the pictures, on the CPU."""
    parts: list[Scores] = []
    for rows in ws.split(batch_size):
        parts.append(scorer(render(rows).clamp(-1, 1)))
        on_step(Step("score samples", sum(len(p.identity) for p in parts), len(ws)))
    return Scores(
        {name: torch.cat([p.attributes[name] for p in parts]).float().cpu() for name in parts[0].attributes},
        torch.cat([p.identity for p in parts]).float().cpu(),
    )


def sample_spread(G: Generator, scorer: Scorer, num: int, *, truncation_psi: float, seed: int = 0) -> dict[str, float]:
    """Standard deviation of every attribute over `num` truncated samples."""
    ws = broadcast(G.w_avg.lerp(sample_w(G, num, seed=seed), truncation_psi), G.num_ws)
    scores = score(lambda rows: G.synthesis(rows, noise_mode="const"), ws, scorer)
    return {name: max(float(values.std()), 1e-6) for name, values in scores.attributes.items()}


class Probe:
    """Faces that directions are tried on.

    Args:
        G: the generator.
        ws: the faces' codes, [N, num_ws, w_dim].
        scorer: measures pictures.
        spread: attribute => its standard deviation over the generator's own faces.
        batch_size: faces rendered together.
    """

    def __init__(
        self, G: Generator, ws: Tensor, scorer: Scorer, spread: Mapping[str, float], *, batch_size: int = BATCH
    ) -> None:
        self.G, self.ws, self.scorer, self.spread, self.batch_size = G, ws, scorer, spread, batch_size
        self.before = score(lambda rows: G.synthesis(rows, noise_mode="const"), ws, scorer, batch_size)

    def after(self, direction: AnyDirection, strength: float) -> Scores:
        """Scores of all faces, moved."""
        return score(lambda rows: direction.render(self.G, rows, strength), self.ws, self.scorer, self.batch_size)

    def slope(self, name: str, direction: AnyDirection, strength: float) -> tuple[float, float]:
        """Change of an attribute per unit between -strength and strength, and the mean likeness at both ends."""
        up, down = (self.after(direction, s) for s in (strength, -strength))
        return up.change(name, down) / (2 * strength), (up.likeness(self.before) + down.likeness(self.before)) / 2

    def safe_range(
        self, name: str | None, direction: AnyDirection, *, largest: float, least_identity: float
    ) -> tuple[float, float]:
        """Walk outwards by halves while the face stays the same and the attribute (if measured) goes on changing."""
        ends = []
        for sign in (-1, 1):
            reach, last = 0.0, 0.0
            while reach < largest:
                after = self.after(direction, sign * (reach + 0.5))
                change = 0.0 if name is None else sign * after.change(name, self.before)
                if after.likeness(self.before) < least_identity or change < last:
                    break
                reach, last = reach + 0.5, change
            ends.append(sign * reach)
        return ends[0], ends[1]

    def measured(self, direction: Kind) -> Kind:
        """Return the direction with what strength 1 does to every attribute, and with the identity that it keeps."""
        low, high = (self.after(direction, strength) for strength in EFFECT_STRENGTHS)
        width = EFFECT_STRENGTHS[1] - EFFECT_STRENGTHS[0]
        effects = {name: round(high.change(name, low) / (width * std), 4) for name, std in self.spread.items()}
        same = (low.likeness(self.before) + high.likeness(self.before)) / 2
        return replace(direction, effects=effects, identity=round(same, 4))


@dataclass(frozen=True)
class DirectionScore:
    """What a direction does to faces; changes are in standard deviations of each attribute over the faces.

    Attributes:
        strength: change of its own attribute per unit of strength; 1 is what its calibration promises.
        purity: its own share of all change, from 0, to 1 where nothing else moves.
        identity: mean cosine to the unedited face at the largest strengths.
        curves: attribute => mean change at each of `strengths`.
        identities: mean cosine to the unedited face at each of `strengths`.
        strengths: where it was measured.
    """

    strength: float
    purity: float
    identity: float
    curves: Mapping[str, Sequence[float]]
    identities: Sequence[float]
    strengths: Sequence[float]


def score_direction(
    probe: Probe,
    name: str,
    direction: AnyDirection,
    *,
    others: Sequence[str],
    strengths: Sequence[float] = (-2.0, -1.0, 1.0, 2.0),
    on_step: Sink = ignore,
) -> DirectionScore:
    """Measure what a direction does.

    Args:
        probe: the faces to move.
        name: of the attribute that the direction moves, as the scorer calls it; of another, strength and purity are 0.
        direction: the direction.
        others: attributes that ought to stay as they are.
        strengths: to move by; the outermost ones count for `strength`, `purity` and `identity`.
        on_step: hears of every strength.

    Raises:
        InputError: fewer than two strengths.
    """
    if len(set(strengths)) < 2:
        raise InputError("a curve needs two strengths", hint="write for example --strengths=-2,-1,0,1,2")
    after: list[Scores] = []
    for strength in strengths:
        after.append(probe.after(direction, strength))
        on_step(Step(f"curve of {name}", len(after), len(strengths)))
    curves = {
        attribute: [scores.change(attribute, probe.before) / probe.spread[attribute] for scores in after]
        for attribute in (name, *others)
        if attribute in probe.spread
    }
    identities = [scores.likeness(probe.before) for scores in after]
    first, last = int(np.argmin(strengths)), int(np.argmax(strengths))
    change = {attribute: curve[last] - curve[first] for attribute, curve in curves.items()}
    total = float(np.sqrt(sum(value**2 for value in change.values())))
    return DirectionScore(
        strength=change.get(name, 0.0) / (strengths[last] - strengths[first]),
        purity=max(0.0, change.get(name, 0.0)) / total if total else 0.0,
        identity=(identities[first] + identities[last]) / 2,
        curves=curves,
        identities=identities,
        strengths=tuple(strengths),
    )
