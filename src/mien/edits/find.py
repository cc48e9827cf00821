"""Find directions from the generator's own samples, scored by a face network.

A linear model tells how every attribute hangs on w. Of all the moves that raise one attribute by one unit and leave the
others as they are, the direction is the one that the mapping finds likeliest and that changes the identity least: with
attributes B^T w, identity A^T w and covariance S of w it minimises d' (S^-1 + c A A') d. Then its rows are chosen and
its length is calibrated on renders.

Source: linear boundaries and conditional moves: Shen et al. 2020 (InterFaceGAN), Sec. 3, arXiv:1907.10786.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from mien.edits.directions import Direction, DirectionSet
from mien.errors import InputError
from mien.latents import broadcast, sample_w
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["Attribute", "FindConfig", "Scores", "find_directions"]


@dataclass(frozen=True)
class Scores:
    """What is measured of N pictures: `attributes` name => [N], `identity` [N, D] of unit length."""

    attributes: Mapping[str, Tensor]
    identity: Tensor


Scorer = Callable[[Tensor], Scores]
"""img [N, 3, H, W] in [-1, 1] to `Scores`."""


@dataclass(frozen=True)
class Attribute:
    """An attribute to find a direction for; `keep` are the others that its direction must leave as they are."""

    name: str
    unit: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FindConfig:
    """Settings of `find_directions`."""

    num_samples: int = 4000  # samples that are rendered and scored
    ridge: float = 0.3  # shrinkage of the linear model, share of the mean variance of w
    identity_weight: float = 0.0  # c above, in units that make both terms of one size; for generators that invent well
    num_spread: int = 512  # samples that tell the standard deviation of an attribute
    num_probes: int = 32  # faces that rows, length and range are tried on
    truncation_psi: float = 0.7  # of those samples and faces; without it some are none
    batch_size: int = 32
    probe_strength: float = 1.5  # at which ranges of rows are compared
    largest_stretch: float = 4.5  # of the linear model's move, where renders answer less than the model says
    least_effect: float = 0.8  # of a range of rows, standard deviations per unit
    largest_strength: float = 4.0  # that is tried for the safe range
    least_identity: float = 0.6  # cosine to the unedited face inside the safe range
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 10:
            raise InputError(f"num_samples must be at least 10, got {self.num_samples}")


def _score(G: Generator, ws: Tensor, scorer: Scorer, batch_size: int, on_step: Sink = ignore) -> Scores:
    parts: list[Scores] = []
    for rows in ws.split(batch_size):
        with torch.no_grad():
            parts.append(scorer(G.synthesis(rows, noise_mode="const")))
        on_step(Step("score samples", sum(len(p.identity) for p in parts), len(ws)))
    names = parts[0].attributes
    return Scores(
        {name: torch.cat([p.attributes[name] for p in parts]).float().cpu() for name in names},
        torch.cat([p.identity for p in parts]).float().cpu(),
    )


def linear_model(w: Tensor, values: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Fit `values` [N, K] as a linear function of w [N, w_dim].

    Returns:
        slopes [w_dim, K], and the share of each variance that they explain, [K].
    """
    x, y = (w - w.mean(0)).double(), (values - values.mean(0)).double()
    gram = x.T @ x / len(x)
    slopes = torch.linalg.solve(gram + ridge * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ y / len(x))
    residual = (y - x @ slopes).square().sum(0)
    return slopes, 1 - residual / y.square().sum(0).clamp(min=1e-12)


def likeliest_moves(slopes: Tensor, metric: Tensor) -> Tensor:
    """Moves [w_dim, K], each raising its own attribute by 1 and no other, shortest in `metric` [w_dim, w_dim]."""
    cheap = torch.linalg.solve(metric, slopes)  # M^-1 B
    moves: Tensor = cheap @ torch.linalg.inv(slopes.T @ cheap)
    return moves


def _vectors(
    w: Tensor, scores: Scores, attributes: Sequence[Attribute], config: FindConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Direction of each attribute for one standard deviation, as the linear model sees it, and how well it fits."""
    names = list(scores.attributes)
    values = torch.stack([scores.attributes[n] for n in names], dim=1)
    spread = values.std(dim=0).clamp(min=1e-6)
    slopes, explained = linear_model(w, values / spread, config.ridge)
    identity, _ = linear_model(w, scores.identity, config.ridge)
    cov = (w - w.mean(0)).double().T.cov()
    floor = config.ridge * cov.diagonal().mean() * torch.eye(len(cov))
    likely = torch.linalg.inv(cov + floor)
    same_face = identity @ identity.T
    metric = likely + config.identity_weight * likely.trace() / same_face.trace() * same_face
    vectors = {}
    for a in attributes:
        columns = [names.index(n) for n in (a.name, *a.keep)]
        vectors[a.name] = likeliest_moves(slopes[:, columns], metric)[:, 0].float()
    return vectors, {n: float(r) for n, r in zip(names, explained, strict=True)}


def layer_ranges(num_ws: int) -> list[tuple[int, ...]]:
    """Ranges of rows worth trying: from the first or a little later to the middle or the last."""
    ends = sorted({num_ws // 2 + 1, 4 * num_ws // 5, num_ws})
    return [tuple(range(first, last)) for first in (0, 2) for last in ends if last > first]


@dataclass(frozen=True)
class _Probe:
    """Faces on which a move is tried, and what they were before."""

    G: Generator
    ws: Tensor
    scorer: Scorer
    before: Scores
    batch_size: int

    def effect(self, name: str, move: Tensor, layers: Sequence[int], strength: float) -> tuple[float, float]:
        """Mean change of the attribute, and mean cosine of the identity, of a move of `strength`."""
        moved = self.ws.clone()
        moved[:, list(layers)] += strength * move.to(moved)
        after = _score(self.G, moved, self.scorer, self.batch_size)
        change = (after.attributes[name] - self.before.attributes[name]).mean()
        same = (after.identity * self.before.identity).sum(dim=1).mean()
        return float(change), float(same)

    def slope(self, name: str, move: Tensor, layers: Sequence[int], strength: float) -> tuple[float, float]:
        """Change per unit between -strength and +strength, and the mean identity at both ends."""
        (up, same_up), (down, same_down) = (self.effect(name, move, layers, s) for s in (strength, -strength))
        return (up - down) / (2 * strength), (same_up + same_down) / 2


@dataclass(frozen=True)
class _Trial:
    """A move on some rows, scaled: its effect per unit in standard deviations, and the identity that it leaves."""

    move: Tensor
    layers: tuple[int, ...]
    effect: float
    same: float

    def rank(self, least_effect: float) -> tuple[bool, float]:
        """Moves that do what they should come first, those that keep the face best first among them."""
        does = self.effect >= least_effect
        return does, self.same if does else self.effect


def _calibrated(
    probe: _Probe, name: str, move: Tensor, layers: tuple[int, ...], std: float, config: FindConfig
) -> _Trial:
    """Scale `move` until strength 1 changes the attribute by `std`, or until it is stretched as far as allowed."""
    stretch = 1.0
    for _ in range(2):
        slope, _ = probe.slope(name, move * stretch, layers, config.probe_strength)
        stretch = min(config.largest_stretch, stretch * std / max(slope, 0.05 * std))
    slope, same = probe.slope(name, move * stretch, layers, config.probe_strength)
    return _Trial(move * stretch, layers, slope / std, same)


def _safe_range(
    probe: _Probe, name: str, move: Tensor, layers: Sequence[int], config: FindConfig
) -> tuple[float, float]:
    """Walk outwards by halves while the face stays the same and the attribute goes on changing."""
    ends = []
    for sign in (-1, 1):
        reach, last = 0.0, 0.0
        while reach < config.largest_strength:
            change, same = probe.effect(name, move, layers, sign * (reach + 0.5))
            if same < config.least_identity or sign * change < last:
                break
            reach, last = reach + 0.5, sign * change
        ends.append(sign * reach)
    return ends[0], ends[1]


def find_directions(
    G: Generator,
    scorer: Scorer,
    attributes: Sequence[Attribute],
    *,
    codes: Tensor | None = None,
    config: FindConfig | None = None,
    network: str = "",
    on_step: Sink = ignore,
) -> DirectionSet:
    """Find, place and calibrate a direction for each of `attributes`.

    Args:
        G: the generator.
        codes: ws [N, num_ws, w_dim] to render and score, such as an encoder's of many pictures; by default samples of
            the mapping. Where a young generator invents worse than it reconstructs, codes tell more.
        scorer: measures pictures; its attributes must hold every name in `attributes` and what they keep.
        attributes: what to find.
        config: settings.
        network: sha256 of the generator's file, for the record.
        on_step: hears of every batch of samples, then of every attribute.

    Raises:
        InputError: the scorer does not measure an attribute.
    """
    config = config or FindConfig()
    ws = broadcast(sample_w(G, config.num_samples, seed=config.seed), G.num_ws) if codes is None else codes
    if len(ws) < 2 * config.num_probes:
        raise InputError(
            f"{len(ws)} codes are too few for {config.num_probes} probes", hint="give more, or probe fewer"
        )
    scores = _score(G, ws, scorer, config.batch_size, on_step)
    for a in attributes:
        if missing := {a.name, *a.keep} - set(scores.attributes):
            raise InputError(f"nothing measures {', '.join(sorted(missing))}")
    some = G.w_avg.lerp(sample_w(G, config.num_spread, seed=config.seed), config.truncation_psi)
    invented = _score(G, broadcast(some, G.num_ws), scorer, config.batch_size)
    w = ws.mean(dim=1)
    vectors, explained = _vectors(w.cpu(), scores, attributes, config)
    faces = w.mean(0).lerp(ws[:: len(ws) // config.num_probes][: config.num_probes], config.truncation_psi)
    probe = _Probe(G, faces, scorer, _score(G, faces, scorer, config.batch_size), config.batch_size)
    found = {}
    for i, a in enumerate(attributes):
        std = float(invented.attributes[a.name].std())
        trials = [_calibrated(probe, a.name, vectors[a.name], layers, std, config) for layers in layer_ranges(G.num_ws)]
        best = max(trials, key=lambda trial: trial.rank(config.least_effect))
        range_ = _safe_range(probe, a.name, best.move, best.layers, config)
        found[a.name] = Direction(best.move, best.layers, f"{std:.3g} {a.unit}", std, range_)
        on_step(Step("calibrate", i + 1, len(attributes)))
    provenance = {
        "config": asdict(config),
        "codes": "samples" if codes is None else "encoded",
        "explained": explained,
        "keep": {a.name: a.keep for a in attributes},
    }
    return DirectionSet(found, network, provenance)
