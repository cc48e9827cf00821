"""Find directions from the generator's own samples, scored by a face network.

A linear model tells how every attribute hangs on w. Of all the moves that raise one attribute by one unit and leave the
others as they are, the direction begins as the one that the mapping finds likeliest: with attributes B^T w and
covariance S of w it minimises d' S^-1 d. Then its rows are chosen on renders, descent there lets it keep the identity
(`refine`), and its length is calibrated.

Source: linear boundaries and conditional moves: Shen et al. 2020 (InterFaceGAN), Sec. 3, arXiv:1907.10786.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic

import torch
from torch import Tensor

from mien.edits.directions import Direction, DirectionSet, Kind
from mien.edits.probe import Probe, Scorer, Scores, sample_spread, score
from mien.edits.refine import RefineConfig, refine
from mien.errors import InputError
from mien.latents import broadcast, sample_w
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore

__all__ = ["Attribute", "FindConfig", "Trial", "best_rows", "calibrated", "find_directions", "finished", "sample_probe"]


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
    num_spread: int = 512  # samples that tell the standard deviation of an attribute
    num_probes: int = 32  # faces that rows, length and range are tried on
    truncation_psi: float = 0.7  # of those samples and faces; without it some are none
    batch_size: int = 32
    unit_strength: float = 0.5  # at which the unit is measured: near the face, since smiles end at 0 and 1
    probe_strength: float = 1.5  # at which ranges of rows are compared
    largest_stretch: float = 4.5  # of the linear model's move, where renders answer less than the model says
    least_effect: float = 0.8  # of a range of rows, standard deviations per unit
    found_effect: float = 0.5  # of a direction that counts as found, likewise
    largest_strength: float = 4.0  # that is tried for the safe range
    least_identity: float = 0.6  # cosine to the unedited face inside the safe range
    refine_steps: int = 40  # of descent on renders, 0 for none; needs a scorer that gradients go through
    seed: int = 0
    refining: RefineConfig = field(default_factory=RefineConfig)

    def __post_init__(self) -> None:
        if self.num_samples < 10:
            raise InputError(f"num_samples must be at least 10, got {self.num_samples}")


# ---- The linear model -----------------------------------------------------------------------------------------------


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
    w: Tensor, scores: Scores, attributes: Sequence[Attribute], ridge: float
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """Move and slope [w_dim] of each attribute, as the linear model sees it, and how well it fits every measure."""
    names = list(scores.attributes)
    values = torch.stack([scores.attributes[n] for n in names], dim=1)
    slopes, explained = linear_model(w, values / values.std(dim=0).clamp(min=1e-6), ridge)
    cov = (w - w.mean(0)).double().T.cov()
    likely = torch.linalg.inv(cov + ridge * cov.diagonal().mean() * torch.eye(len(cov)))
    vectors = {}
    for a in attributes:
        columns = [names.index(n) for n in (a.name, *a.keep)]
        vectors[a.name] = likeliest_moves(slopes[:, columns], likely)[:, 0].float()
    grows = {a.name: slopes[:, names.index(a.name)].float() for a in attributes}
    return vectors, grows, {n: float(r) for n, r in zip(names, explained, strict=True)}


# ---- Rows, length, range --------------------------------------------------------------------------------------------


def layer_ranges(num_ws: int) -> list[tuple[int, ...]]:
    """Ranges of rows worth trying: from the first or a little later to the middle or the last."""
    ends = sorted({num_ws // 2 + 1, 4 * num_ws // 5, num_ws})
    return [tuple(range(first, last)) for first in (0, 2) for last in ends if last > first]


@dataclass(frozen=True)
class Trial(Generic[Kind]):
    """A direction, scaled: its effect per unit in standard deviations, and the identity that it leaves."""

    direction: Kind
    effect: float
    same: float

    def rank(self, least_effect: float) -> tuple[bool, float]:
        """Moves that do what they should come first, those that keep the face best first among them."""
        does = self.effect >= least_effect
        return does, self.same if does else self.effect


def calibrated(probe: Probe, name: str, direction: Kind, config: FindConfig) -> Trial[Kind]:
    """Scale a move until one unit around the face changes the attribute by `std`, or as far as it may be stretched."""
    stretch, effect = 1.0, 0.0
    for _ in range(2):
        slope, _ = probe.slope(name, direction.scaled(stretch), config.unit_strength)
        wanted = min(config.largest_stretch, stretch * direction.std / max(slope, 0.05 * direction.std))
        stretch, effect = wanted, wanted / stretch * slope / direction.std
    scaled = direction.scaled(stretch)
    _, same = probe.slope(name, scaled, config.probe_strength)
    return Trial(scaled, effect, same)


def best_rows(probe: Probe, name: str, vector: Tensor, config: FindConfig, **facts: Any) -> Direction:
    """Return a move of w [w_dim] on those rows where, calibrated, it does what it should and keeps the face best."""
    starts = [Direction(vector, layers, **facts) for layers in layer_ranges(probe.G.num_ws)]
    trials = [calibrated(probe, name, start, config) for start in starts]
    return max(trials, key=lambda trial: trial.rank(config.least_effect)).direction


def finished(probe: Probe, name: str | None, direction: Kind, config: FindConfig) -> Kind:
    """Measure where a direction keeps the face, and what else it does; `name` is None where nothing measures it."""
    limits = dict(largest=config.largest_strength, least_identity=config.least_identity)
    return probe.measured(replace(direction, safe_range=probe.safe_range(name, direction, **limits)))


def sample_probe(G: Generator, scorer: Scorer, config: FindConfig) -> Probe:
    """Return truncated samples to calibrate on, others than those that are scored."""
    spread = sample_spread(G, scorer, config.num_spread, truncation_psi=config.truncation_psi, seed=config.seed)
    w = G.w_avg.lerp(sample_w(G, config.num_probes, seed=config.seed + 1), config.truncation_psi)
    return Probe(G, broadcast(w, G.num_ws), scorer, spread, batch_size=config.batch_size)


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

    Those that no move changes by half of what it should are left out; the provenance says so under `not_found`, with
    the effect of strength 1.

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
    scores = score(lambda rows: G.synthesis(rows, noise_mode="const"), ws, scorer, config.batch_size, on_step)
    for a in attributes:
        if missing := {a.name, *a.keep} - set(scores.attributes):
            raise InputError(f"nothing measures {', '.join(sorted(missing))}")
    spread = sample_spread(G, scorer, config.num_spread, truncation_psi=config.truncation_psi, seed=config.seed)
    w = ws.mean(dim=1)
    vectors, slopes, explained = _vectors(w.cpu(), scores, attributes, config.ridge)
    faces = w.mean(0).lerp(ws, config.truncation_psi)
    probe = Probe(G, faces[:: len(ws) // config.num_probes][: config.num_probes], scorer, spread)
    found, missed = {}, {}
    for i, a in enumerate(attributes):
        std = spread[a.name]
        facts = dict(unit=f"{std:.3g} {a.unit}", std=std, safe_range=(0.0, 0.0))
        best = best_rows(probe, a.name, vectors[a.name], config, **facts)
        if config.refine_steps:
            told = (spread, slopes[a.name], config.refine_steps, config.refining)
            refined = refine(G, scorer, faces, best, a.name, a.keep, *told)
            best = calibrated(probe, a.name, refined, config).direction
        done = finished(probe, a.name, best, config)
        if (effect := done.effects[a.name]) >= config.found_effect:
            found[a.name] = done
        else:
            missed[a.name] = effect
        on_step(Step("calibrate", i + 1, len(attributes)))
    provenance = {
        "config": asdict(config),
        "codes": "samples" if codes is None else "encoded",
        "explained": explained,
        "keep": {a.name: a.keep for a in attributes},
        "not_found": missed,
    }
    return DirectionSet(found, network, provenance)
