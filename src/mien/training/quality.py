"""A judge of pairs, good or bad: logistic regression on what is measured of them, with calibrated probabilities.

The features are standardised, cut off at a few deviations, and those of the face network, hundreds that say much the
same, are scaled down beside the signals. Signals come squared too: of a likeness there can be too little (another
person's drawing) and too much (it still is the photo). The penalty is chosen by folds, and the verdicts of those same
folds calibrate (a logistic curve over the judge's own scale). Folds go by key: a seed is in one fold, whatever was
drawn of it.

scikit-learn fits; what it finds is a table of numbers, which is saved as safetensors and used without it.

Source: calibration: Platt 1999, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized
Likelihood Methods".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mien.atomic import replacing
from mien.errors import InputError, MissingExtraError, WeightsError
from mien.training.pair_features import Measured
from mien.training.reliability import auc
from mien.training.settings import require_above, require_least, require_share

__all__ = ["Fitted", "Quality", "QualityConfig", "fit_quality", "fold_of", "load_quality", "save_quality"]

HEADER, FORMAT = "mien_quality", 1
DEEP = "_feature_"
LEAST = 5  # labels of each kind
TABLES, NUMBERS = ("mean", "std", "weights", "bends"), ("bias", "slope", "offset", "cut")


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """How a judge of pairs is fitted."""

    strengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)  # inverse penalties to choose from
    deep_scale: float = 0.1  # of the face network's features beside the signals
    cut: float = 4.0  # standard deviations beyond which a value counts as no stranger
    num_folds: int = 10
    extra_weight: float = 0.03  # of one made-up example beside one that was judged

    def __post_init__(self) -> None:
        require_least(self, 2, "num_folds")
        require_above(self, 0, "cut", "deep_scale")
        require_share(self, "extra_weight")
        if not self.strengths or not all(strength > 0 for strength in self.strengths):
            raise InputError("strengths must be above 0, at least one", hint="write for example 0.1,1")


@dataclass(frozen=True, eq=False)
class Quality:
    """A fitted judge.

    Attributes:
        names: of the F features that it asks for.
        mean, std: of each, [F].
        weights: of the standardised features, [F].
        bends: of their squares, [F], 0 for those of the face network.
        bias: is added.
        slope, offset: from that to the logit of being good.
        cut: see `QualityConfig`.
        digests: of the networks that measured.
        facts: about its making, which JSON can hold.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    bends: np.ndarray
    bias: float
    slope: float
    offset: float
    cut: float
    digests: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A sha256 of what it computes with."""
        found = hashlib.sha256(json.dumps([self.names, *(getattr(self, name) for name in NUMBERS)]).encode())
        for name in TABLES:
            found.update(np.asarray(getattr(self, name), dtype="<f8").tobytes())
        return found.hexdigest()

    def decide(self, measured: Measured) -> np.ndarray:
        """Return the judge's own scale, [N], before calibration; a value that is not known counts as the mean."""
        standard = _standard(measured.columns(self.names), self.mean, self.std, self.cut)
        return np.asarray(standard @ self.weights + np.square(standard) @ self.bends + self.bias)

    def __call__(self, measured: Measured) -> np.ndarray:
        """Return the probability that each pair is good, [N].

        Raises:
            InputError: the pairs were measured without something that it asks for.
        """
        logits = self.slope * self.decide(measured) + self.offset
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))))

    def check(self, digests: Mapping[str, str]) -> None:
        """Refuse measurements by other networks than those that it was fitted with.

        Raises:
            InputError: one is another, or is missing.
        """
        for name, digest in self.digests.items():
            if digests.get(name) != digest:
                hint = "fit it again by the networks that are here: mien pairs fit"
                raise InputError(f"the judge of quality was fitted with another {name}", hint=hint)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A judge, and what folds that it had not seen tell of it: probabilities [N], and the strength that was best."""

    quality: Quality
    unseen: np.ndarray
    strength: float


def fold_of(key: str, num_folds: int) -> int:
    """Return the fold of a pair, by a hash of its key."""
    return int.from_bytes(hashlib.sha256(f"fold {key}".encode()).digest()[:7], "big") % num_folds


def _standard(features: np.ndarray, mean: np.ndarray, std: np.ndarray, cut: float) -> np.ndarray:
    return np.nan_to_num(np.clip((features - mean) / std, -cut, cut), nan=0.0)


def _regression() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as err:
        raise MissingExtraError("scikit-learn is not installed", hint="pip install 'mien[quality]'") from err
    return LogisticRegression


@dataclass(frozen=True, eq=False)
class _Examples:
    """What is learned from: features [N, F], labels [N], folds [N] and weights [N]; those without a fold have -1."""

    features: np.ndarray
    is_good: np.ndarray
    fold: np.ndarray
    weight: np.ndarray

    def rows(self, mine: np.ndarray) -> _Examples:
        return _Examples(self.features[mine], self.is_good[mine], self.fold[mine], self.weight[mine])


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each column, [F], over the rows that have a number in it."""
    known = np.isfinite(features)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, features, 0).sum(0) / count
    return mean, np.sqrt(np.where(known, np.square(features - mean), 0).sum(0) / count).clip(1e-6)


def _linear(examples: _Examples, names: tuple[str, ...], config: QualityConfig, strength: float) -> Quality:
    """Fit a judge that is not calibrated; both kinds weigh the same together."""
    mean, std = _moments(examples.features[examples.fold >= 0])
    standard = _standard(examples.features, mean, std, config.cut)
    is_deep = np.array([DEEP in name for name in names])
    scale = np.where(is_deep, config.deep_scale, 1.0)
    design = np.concatenate([standard * scale, np.square(standard[:, ~is_deep])], axis=1)
    model = _regression()(C=strength, class_weight="balanced", max_iter=2000)
    model.fit(design, examples.is_good, sample_weight=examples.weight)
    weights, bends = model.coef_[0, : len(names)] * scale, np.zeros(len(names))
    bends[~is_deep] = model.coef_[0, len(names) :]
    return Quality(names, mean, std, weights, bends, float(model.intercept_[0]), 1.0, 0.0, config.cut)


def _unseen(examples: _Examples, measured: Measured, config: QualityConfig, strength: float) -> np.ndarray:
    """Return the scale of every judged pair by a judge that was fitted without its fold, [num judged]."""
    found = np.full(len(measured), np.nan)
    for fold in range(config.num_folds):
        rows = examples.fold == fold
        if rows.any():
            judge = _linear(examples.rows(~rows), measured.names, config, strength)
            mine = np.flatnonzero(rows)
            found[mine] = judge.decide(measured.rows(mine))
    return found


def _platt(scores: np.ndarray, is_good: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of the logistic curve of being good over scores, by Platt's smoothed targets."""
    good, bad = is_good.sum(), (~is_good).sum()
    targets = np.where(is_good, (good + 1) / (good + 2), 1 / (bad + 2))
    both = np.concatenate([scores, scores])[:, None]
    labels = np.repeat([True, False], len(scores))
    model = _regression()(C=1e6, max_iter=2000).fit(both, labels, sample_weight=np.concatenate([targets, 1 - targets]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def fit_quality(
    measured: Measured,
    is_good: Sequence[bool] | np.ndarray,
    config: QualityConfig | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    extra: tuple[Measured, np.ndarray] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit a judge.

    Args:
        measured: N pairs that somebody judged.
        is_good: the verdicts, [N].
        config: how.
        digests: of the networks that measured, see `PairMeter`.
        extra: made-up examples and what they are; they help to fit and are never calibrated by.
        facts: about the labels, kept with the judge.

    Raises:
        InputError: fewer than 5 labels of a kind, or all of a kind in one fold.
        MissingExtraError: scikit-learn is not installed.
    """
    config = config or QualityConfig()
    verdicts = np.asarray(is_good, dtype=bool)
    if min(verdicts.sum(), (~verdicts).sum()) < LEAST:
        counts = f"{verdicts.sum()} good and {(~verdicts).sum()} bad labels"
        raise InputError(f"there are {counts}", hint=f"label at least {LEAST} of each: mien pairs label")
    folds = np.array([fold_of(key, config.num_folds) for key in measured.keys])
    examples = _Examples(measured.features.astype(np.float64), verdicts, folds, np.ones(len(verdicts)))
    if extra is not None and config.extra_weight > 0:
        more, truth = extra
        features = np.concatenate([examples.features, more.columns(measured.names).astype(np.float64)])
        examples = _Examples(
            features,
            np.concatenate([verdicts, np.asarray(truth, dtype=bool)]),
            np.concatenate([folds, np.full(len(more), -1)]),
            np.concatenate([examples.weight, np.full(len(more), config.extra_weight)]),
        )
    for fold in range(config.num_folds):
        if len(np.unique(examples.is_good[examples.fold != fold])) < 2:
            raise InputError("all labels of one kind fall into one fold", hint="label some more pairs")
    tried = {strength: _unseen(examples, measured, config, strength) for strength in config.strengths}
    strength = max(tried, key=lambda one: auc(tried[one], verdicts))
    slope, offset = _platt(tried[strength], verdicts)
    about = {"config": asdict(config), "strength": strength, "labels": len(verdicts), **dict(facts or {})}
    quality = replace(
        _linear(examples, measured.names, config, strength),
        slope=slope,
        offset=offset,
        digests=dict(digests or {}),
        facts=json.loads(json.dumps(about)),
    )
    unseen = 1 / (1 + np.exp(-(slope * tried[strength] + offset)))
    return Fitted(quality, unseen, strength)


# ---- Files ----------------------------------------------------------------------------------------------------------


def save_quality(quality: Quality, path: Path) -> None:
    """Write a judge: tables of numbers, and how to use them as JSON in the header; whole or not at all."""
    numbers = {name: getattr(quality, name) for name in NUMBERS}
    facts = {"format": FORMAT, "names": quality.names, **numbers, "digests": quality.digests, "facts": quality.facts}
    tables = {name: torch.from_numpy(np.asarray(getattr(quality, name), dtype=np.float64)) for name in TABLES}
    data = save(tables, metadata={HEADER: json.dumps(facts, allow_nan=False)})
    with replacing(path) as part:
        part.write_bytes(data)


def load_quality(path: Path) -> Quality:
    """Read what `save_quality` wrote.

    Raises:
        WeightsError: not there, damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            tables = {name: file.get_tensor(name).double().numpy() for name in TABLES}
        if facts["format"] != FORMAT:
            raise WeightsError(f"{path} has another format", hint="a newer mien may read it")
        names, numbers = tuple(map(str, facts["names"])), {name: float(facts[name]) for name in NUMBERS}
        known: dict[str, Any] = {**tables, **numbers}
        quality = Quality(names=names, **known, digests=dict(facts["digests"]), facts=dict(facts["facts"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise WeightsError(f"{path} holds no judge of quality", hint="fit one with `mien pairs fit`") from err
    is_finite = all(np.isfinite(value).all() for value in known.values())
    if not is_finite or any(table.shape != (len(names),) for table in tables.values()):
        raise WeightsError(f"{path} holds a judge that cannot be used", hint="fit it again with `mien pairs fit`")
    return quality
