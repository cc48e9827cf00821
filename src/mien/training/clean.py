"""Cleaning: every pair gets its probability of being good, and the ones below a threshold stay behind.

The first pass measures, shard by shard; what it finds stays in `scores-<shard>.json`. When all is known, the threshold
is, and the second pass writes a shard for each, without the bad pairs and with the score in the facts of the others.
What is whole stays, so a stopped run goes on to the same bytes, and only the shards of one are in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.atomic import replacing, write_text
from mien.errors import InputError
from mien.report import Sink, Step, ignore
from mien.training.pair_features import GROUPS, Measured, PairMeter, measure_pairs
from mien.training.pairs import REPORT, SPLITS, read_shard, tar_writer
from mien.training.quality import Quality
from mien.training.reliability import kept_shares, threshold_at
from mien.training.resume import Origin, read_options, write_options

__all__ = ["CleanConfig", "Scored", "clean_pairs", "score_pairs", "shards_in"]

DIGITS = 6  # of a score that is written down and compared


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """What is kept: the best share of all, or whatever is good with that probability; one of both."""

    keep: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.threshold is None):
            raise InputError("give either a share to keep or a threshold", hint="for example --keep 0.9")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InputError(f"the share to keep is {self.keep:g}", hint="write for example 0.9")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"the threshold is {self.threshold:g}", hint="it is a probability, from 0 to 1")


@dataclass(frozen=True, eq=False)
class Scored:
    """The pairs of one shard: its file and sha256, keys, scores [N] from 0 to 1 and groups [N, 3], see `GROUPS`."""

    shard: Path
    digest: str
    keys: tuple[str, ...]
    scores: np.ndarray
    groups: np.ndarray

    @property
    def split(self) -> str:
        """Which of `SPLITS` they are for."""
        return self.shard.stem.partition("-")[0]


def shards_in(folder: Path) -> list[Path]:
    """Return all shards of pairs, split by split.

    Raises:
        InputError: there are none.
    """
    shards = [shard for split in SPLITS for shard in sorted(folder.glob(f"{split}-*.tar"))]
    if not shards:
        raise InputError(f"no pairs in {folder}", hint="make some: mien pairs make")
    return shards


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _held(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a record that is whole and of the same inputs, else None."""
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    return record if all(record.get(name) == value for name, value in wanted.items()) else None


# ---- First pass -----------------------------------------------------------------------------------------------------


def _score(shard: Path, digest: str, meter: PairMeter, quality: Quality, heard: Callable[[int], None]) -> Scored:
    parts: list[Measured] = []
    for part in measure_pairs(meter, read_shard(shard)):
        parts.append(part)
        heard(len(part))
    if not parts:
        return Scored(shard, digest, (), np.zeros(0), np.zeros((0, len(GROUPS))))
    measured = Measured.joined(parts)
    return Scored(shard, digest, measured.keys, quality(measured).round(DIGITS), measured.groups.round(3))


def score_pairs(
    folder: Path, outdir: Path, meter: PairMeter, quality: Quality, *, on_step: Sink = ignore
) -> list[Scored]:
    """Score all pairs of a folder; scores that are in `outdir` already stay, if they are of the same pairs and judge.

    Raises:
        InputError: no pairs, or a judge that was fitted with other networks.
        UnsupportedFileError: a shard is damaged.
    """
    quality.check(meter.digests)
    found: list[Scored] = []
    done = 0
    shards = shards_in(folder)

    def heard(num: int) -> None:
        nonlocal done
        done += num
        on_step(Step("scores", len(found), len(shards), {"pairs": float(done)}))

    for shard in shards:
        wanted = {"shard": _digest(shard), "judge": quality.digest}
        path = outdir / f"scores-{shard.stem}.json"
        if (record := _held(path, wanted)) is not None:
            groups = np.array(record["groups"]).reshape(-1, len(GROUPS))
            found.append(Scored(shard, wanted["shard"], tuple(record["keys"]), np.array(record["scores"]), groups))
            heard(len(record["keys"]))
            continue
        scored = _score(shard, wanted["shard"], meter, quality, heard)
        table = {"keys": scored.keys, "scores": scored.scores.tolist(), "groups": scored.groups.tolist()}
        write_text(json.dumps(wanted | table) + "\n", path)
        found.append(scored)
    on_step(Step("scores", len(shards), len(shards), {"pairs": float(done)}))
    return found


# ---- Second pass ----------------------------------------------------------------------------------------------------


def _with_score(sample: Mapping[str, Any], score: float) -> dict[str, Any]:
    facts = json.loads(sample["json"]) | {"quality": score}
    return {**sample, "json": json.dumps(facts, sort_keys=True).encode()}


def _kept(scored: Scored, threshold: float) -> Iterator[dict[str, Any]]:
    for sample, score in zip(read_shard(scored.shard), scored.scores.tolist(), strict=True):
        if score >= threshold:
            yield _with_score(sample, score)


def _write(scored: Scored, outdir: Path, threshold: float, writer: Any) -> None:
    """Write what is kept of a shard, unless it is there; a shard that loses all its pairs does not come to be."""
    record, path = outdir / f"clean-{scored.shard.stem}.json", outdir / scored.shard.name
    facts = {"scores": _digest(outdir / f"scores-{scored.shard.stem}.json"), "threshold": threshold}
    held = _held(record, facts)
    if held is not None and (path.is_file() or not held["kept"]):
        return
    count = 0
    with ExitStack() as stack:
        for sample in _kept(scored, threshold):
            if not count:
                file = stack.enter_context(stack.enter_context(replacing(path)).open("wb"))
                tar = stack.enter_context(writer(file, encoder=False, mtime=0))
            tar.write(sample)
            count += 1
    if not count:
        path.unlink(missing_ok=True)
    write_text(json.dumps(facts | {"kept": count}) + "\n", record)


def _begin(folder: Path, outdir: Path, config: CleanConfig, quality: Quality) -> None:
    if folder.resolve() == outdir.resolve():
        raise InputError(f"{outdir} is the folder of the pairs themselves", hint="choose another one for the good ones")
    origin = Origin({"keep": config.keep, "threshold": config.threshold}, quality.digest)
    if held := read_options(outdir):
        held = {**held, "fixed": {name: held.get(name) for name in origin.fixed}}
        if difference := origin.difference(held):
            hint = "use another folder, or the settings and judge that it was begun with"
            raise InputError(f"{outdir} holds pairs that were cleaned {difference}", hint=hint)
    elif any(outdir.glob("*.tar")):
        raise InputError(f"{outdir} holds other pairs", hint="choose another folder")
    write_options(config, outdir, origin)


def clean_pairs(
    folder: Path,
    outdir: Path,
    config: CleanConfig,
    meter: PairMeter,
    quality: Quality,
    *,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Write the good pairs of a folder into another.

    Args:
        folder: that `make_pairs` wrote; it stays as it is.
        outdir: for the good ones, read as any folder of pairs.
        config: how many.
        meter: measures.
        quality: judges.
        on_step: hears of shards, first of scores and then of those that are written.

    Returns:
        The report, which is in `report.json` too: who was kept, how good they are said to be, and the threshold.

    Raises:
        InputError: no pairs, a judge of other networks, or a folder that holds other pairs.
        UnsupportedFileError: a shard is damaged.
        MissingExtraError: webdataset is not installed.
    """
    writer = tar_writer()
    shards_in(folder)
    _begin(folder, outdir, config, quality)
    scored = score_pairs(folder, outdir, meter, quality, on_step=on_step)
    scores = np.concatenate([one.scores for one in scored])
    threshold = config.threshold if config.keep is None else threshold_at(scores, config.keep)
    assert threshold is not None
    for i, one in enumerate(scored):
        _write(one, outdir, threshold, writer)
        on_step(Step("clean", i + 1, len(scored), {"kept": float((scores >= threshold).sum())}))
    for stray in {*outdir.glob("*.tar")} - {outdir / one.shard.name for one in scored}:
        stray.unlink()  # of a folder that had more shards before
    report = _report(folder, scored, config, threshold, quality)
    write_text(json.dumps(report, indent=1) + "\n", outdir / REPORT)
    return report


def _report(
    folder: Path, scored: Sequence[Scored], config: CleanConfig, threshold: float, quality: Quality
) -> dict[str, Any]:
    scores, groups = (np.concatenate([getattr(one, name) for one in scored]) for name in ("scores", "groups"))
    is_kept = scores >= threshold
    by_split = {split: sum(int((s.scores >= threshold).sum()) for s in scored if s.split == split) for split in SPLITS}
    return {
        "weights": (_held(folder / REPORT, {}) or {}).get("weights", {}),
        "judge": quality.digest,
        "keep": config.keep,
        "threshold": threshold,
        "pairs": len(scores),
        "kept": by_split,
        "said_good": {"all": _mean(scores), "kept": _mean(scores[is_kept])},
        "groups": kept_shares(is_kept, groups),
    }


def _mean(scores: np.ndarray) -> float | None:
    return round(float(scores.mean()), 4) if len(scores) else None
