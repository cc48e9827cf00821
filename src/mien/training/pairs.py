"""Pairs for a translator: the same code through two related generators, a person and their drawing, in tar shards.

Everything about pair i follows from its seed: the code, whether it is drawn with more variety, and whether it is for
training, validation or test. So a stopped run goes on to the same bytes, and any pair can be made again alone.

A folder of pairs holds `train-000000.tar`, `val-...` and `test-...`, as the library webdataset reads them, for each
chunk of seeds, and `chunk-000000.json`, written last: a chunk is whole or not there. A sample is `source.png`,
`target.png`, `ws.npy` (float32 [1, w_dim] in W, [num_ws, w_dim] in W+) and `json`.

Source: Viazovetskyi et al. 2020, "StyleGAN2 Distillation", Sec. 3, arXiv:2003.03581; Pinkney and Adler 2020,
arXiv:2010.05334.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mien.atomic import replacing, write_text
from mien.edits.blend import MIN_COSINE
from mien.edits.style import check_decodes
from mien.errors import InputError, MissingExtraError, UnsupportedFileError
from mien.images import resize, to_pil
from mien.inversion.code import picture_digest
from mien.latents import MAX_SEED, fitted, sample_ws, synthesize, truncate
from mien.nets.generator import Generator
from mien.report import Sink, Step, ignore
from mien.training.pair_filter import FilterConfig, PairFilter, Signals
from mien.training.resume import Origin, read_options, write_options
from mien.training.settings import fixed_settings, require_least, require_share

__all__ = [
    "REPORT",
    "SPLITS",
    "Pair",
    "PairsConfig",
    "make_pairs",
    "read_pairs",
    "read_shard",
    "split_of",
    "tar_writer",
]

SPLITS = ("train", "val", "test")
REPORT = "report.json"
PNG_LEVEL = 1  # of compression: a sixth larger than the default and three times as fast


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs to make; of one folder's settings, only `num` may change later."""

    num: int = 20_000  # codes that are drawn; filters keep fewer
    psi: float = 0.7  # truncation, towards the source's mean
    high_psi: float = 1.0  # of the pairs with more variety: glasses, beards, age
    high_psi_share: float = 0.0
    seed: int = 0  # of the first pair; the next has the next one
    class_idx: int | None = None  # of generators that have classes
    val_share: float = 0.05
    test_share: float = 0.05
    chunk: int = 1000  # seeds that make one shard of each split
    batch_size: int = 16
    photos: str = ""  # what real photos there are beside the seeds: a digest
    filter: FilterConfig | None = field(default_factory=FilterConfig)  # None keeps everything and measures nothing

    def __post_init__(self) -> None:
        require_least(self, 1, "num", "chunk", "batch_size")
        require_least(self, 0, "seed")
        require_share(self, "high_psi_share", "val_share", "test_share")
        if self.val_share + self.test_share > 1:
            raise InputError("val_share and test_share make more than 1 together")
        if not (np.isfinite(self.psi) and np.isfinite(self.high_psi)):
            raise InputError(f"psi is {self.psi} and {self.high_psi}", hint="1 is all variety, 0 the mean face")
        if self.seed + self.num - 1 > MAX_SEED:
            raise InputError(f"the last seed would be above {MAX_SEED}", hint="give a smaller --seed or --num")


class Pair(NamedTuple):
    """One sample: a name, both sides [3,H,W] in [-1,1], the code [rows, w_dim], and facts for its JSON."""

    key: str
    source: Tensor
    target: Tensor
    ws: Tensor
    facts: Mapping[str, Any]


# ---- What follows from a seed ---------------------------------------------------------------------------------------


def _uniform(*names: object) -> float:
    """Return a number in [0,1) that names alone decide."""
    digest = hashlib.sha256(" ".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def split_of(key: str, *, val_share: float = 0.05, test_share: float = 0.05) -> str:
    """Return which of `SPLITS` a latent is for, by a hash of what it comes from; the same in every run.

    >>> [split_of(f"seed:{i}", val_share=0.5, test_share=0.25) for i in (2, 4, 11)]
    ['test', 'val', 'train']
    """
    at = _uniform("split", key)
    return "val" if at < val_share else "test" if at < val_share + test_share else "train"


def _is_varied(seed: int, config: PairsConfig) -> bool:
    return _uniform("psi", seed) < config.high_psi_share


def _psi_of(seed: int, config: PairsConfig) -> float:
    return config.high_psi if _is_varied(seed, config) else config.psi


def _codes(G: Generator, seeds: Sequence[int], config: PairsConfig) -> Tensor:
    """Return ws [N, num_ws, w_dim] of seeds, each at its truncation."""
    ws = sample_ws(G, seeds, class_idx=config.class_idx)
    return torch.cat([truncate(w[None], G.w_avg, _psi_of(s, config)) for w, s in zip(ws, seeds, strict=True)])


# ---- Shards ---------------------------------------------------------------------------------------------------------


def _png(img: Tensor) -> bytes:
    with io.BytesIO() as file:
        to_pil(img[None])[0].save(file, format="PNG", compress_level=PNG_LEVEL)
        return file.getvalue()


def _sample(pair: Pair) -> dict[str, Any]:
    ws = pair.ws[:1] if bool((pair.ws == pair.ws[:1]).all()) else pair.ws
    with io.BytesIO() as file:
        np.save(file, ws.cpu().float().numpy())
        code = file.getvalue()
    facts = json.dumps(dict(pair.facts), sort_keys=True).encode()
    sides = {"source.png": _png(pair.source), "target.png": _png(pair.target)}
    return {"__key__": pair.key, **sides, "ws.npy": code, "json": facts}


def tar_writer() -> Any:
    """Return webdataset's writer of tars, or say what to install."""
    try:
        from webdataset.writer import TarWriter
    except ImportError as err:
        raise MissingExtraError("webdataset is not installed", hint="pip install 'mien[pairs]'") from err
    return TarWriter


class _Shards:
    """The shards of one chunk, one of each split that has samples; they appear together with its record, or not."""

    def __init__(self, outdir: Path, name: str, tar_writer: Any) -> None:
        self.outdir, self.name, self.tar_writer = outdir, name, tar_writer

    @property
    def record(self) -> Path:
        return self.outdir / f"chunk-{self.name}.json"

    def path(self, split: str) -> Path:
        return self.outdir / f"{split}-{self.name}.tar"

    def held(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the record of a chunk that is whole and of the same inputs, else None."""
        try:
            record = dict(json.loads(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None
        is_whole = all(self.path(split).is_file() for split in record.get("kept", {}))
        return record if is_whole and all(record.get(k) == v for k, v in wanted.items()) else None

    def write(
        self, pairs: Iterable[tuple[str, Pair]], facts: Mapping[str, Any], rejected: Mapping[str, int]
    ) -> dict[str, Any]:
        """Write (split, pair) in their order, PNGs made in the background, then the record.

        `rejected` counts while the pairs are drawn.
        """
        kept: Counter[str] = Counter()
        with ExitStack() as stack, ThreadPoolExecutor(1) as encoder:
            writers: dict[str, Any] = {}
            waiting = ((split, encoder.submit(_sample, pair)) for split, pair in pairs)
            for split, sample in _ahead(waiting, 64):
                if split not in writers:
                    part = stack.enter_context(replacing(self.path(split)))
                    file = stack.enter_context(part.open("wb"))
                    writers[split] = stack.enter_context(self.tar_writer(file, encoder=False, mtime=0))
                writers[split].write(sample.result())
                kept[split] += 1
        for split in set(SPLITS) - set(kept):
            self.path(split).unlink(missing_ok=True)  # of a chunk that was shorter before
        record = {**facts, "kept": dict(sorted(kept.items())), "rejected": dict(sorted(rejected.items()))}
        write_text(json.dumps(record) + "\n", self.record)
        return record


def _ahead(items: Iterator[Any], num: int) -> Iterator[Any]:
    """Yield items in their order, drawing `num` more than were asked for."""
    queue: list[Any] = []
    for item in items:
        queue.append(item)
        if len(queue) > num:
            yield queue.pop(0)
    yield from queue


# ---- Making them ----------------------------------------------------------------------------------------------------


class _Maker:
    """Draws chunks, filters them and counts."""

    def __init__(
        self,
        source: Generator,
        target: Generator,
        config: PairsConfig,
        judge: PairFilter | None,
        facts: Mapping[str, str],
    ) -> None:
        self.source, self.target, self.config, self.judge = source, target, config, judge
        self.facts = facts
        self.drawing_s = 0.0
        self.rejected: Counter[str] = Counter()

    def seeds(self, seeds: range) -> Iterator[tuple[str, Pair]]:
        """Yield the pairs of a chunk that are kept, with their splits."""
        for first in range(0, len(seeds), self.config.batch_size):
            some = list(seeds[first : first + self.config.batch_size])
            began = time.perf_counter()
            ws = _codes(self.source, some, self.config)
            people = resize(synthesize(self.source, ws), self.target.img_resolution).clamp(-1, 1).cpu()
            drawings = self._drawings(ws)
            self.drawing_s += time.perf_counter() - began
            known = [{"seed": s, "psi": _psi_of(s, self.config), "class": self.config.class_idx} for s in some]
            yield from self._kept([f"seed:{s}" for s in some], people, drawings, ws.cpu(), known)

    def photos(self, photos: Iterable[tuple[str, Tensor, Tensor]]) -> Iterator[tuple[str, Pair]]:
        """Yield the pairs of photos: name, img [1,3,H,H] and ws [num_ws, w_dim]."""
        for name, img, ws in photos:
            origin = f"photo:{picture_digest(img)[:16]}"
            person = resize(img, self.target.img_resolution).clamp(-1, 1).cpu()
            yield from self._kept([origin], person, self._drawings(ws[None]), ws[None].cpu(), [{"photo": name}])

    def _drawings(self, ws: Tensor) -> Tensor:
        G = self.target
        return synthesize(G, fitted(ws, G.num_ws).to(G.w_avg.device)).clamp(-1, 1).cpu()

    def _kept(
        self, origins: list[str], people: Tensor, drawings: Tensor, ws: Tensor, known: list[dict[str, Any]]
    ) -> Iterator[tuple[str, Pair]]:
        c = self.config
        measured: list[Signals | None] = [None] * len(ws)
        if self.judge is not None:
            device = next(self.judge.face_net.parameters()).device
            measured = list(self.judge.measure(people.to(device), drawings.to(device)))
        for i, origin in enumerate(origins):
            facts = {**known[i], **self.facts}
            if (signals := measured[i]) is not None:
                assert self.judge is not None
                if (reason := signals.rejected_for(self.judge.config)) is not None:
                    self.rejected[reason] += 1
                    continue
                facts["signals"] = asdict(signals)
            split = split_of(origin, val_share=c.val_share, test_share=c.test_share)
            yield split, Pair(origin.replace(":", "-"), people[i], drawings[i], ws[i], facts)


def _begin(outdir: Path, config: PairsConfig, digests: Mapping[str, str]) -> None:
    """Refuse a folder of other pairs, and write down what these are."""
    fixed = json.loads(json.dumps(fixed_settings(config, free=("num",))))
    origin = Origin(fixed, [digests["source"], digests["target"]])
    if held := read_options(outdir):
        held = {**held, "fixed": {name: held.get(name) for name in fixed}}
        if difference := origin.difference(held):
            raise InputError(f"{outdir} holds pairs made {difference}", hint="use another folder, or those settings")
    write_options(config, outdir, origin)


def make_pairs(
    source: Generator,
    target: Generator,
    outdir: Path,
    config: PairsConfig,
    *,
    digests: Mapping[str, str],
    judge: PairFilter | None = None,
    photos: Mapping[str, Iterable[tuple[str, Tensor, Tensor]]] | None = None,
    min_cosine: float = MIN_COSINE,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Write pairs; whatever of them is whole in `outdir` already stays.

    Args:
        source: draws people; codes and their mean are its own.
        target: draws the same codes in its way, at a larger side where it has grown; people are enlarged to it.
        outdir: folder of the shards.
        config: which pairs.
        digests: sha256 of the weights of `source` and `target`, stored with every pair.
        judge: measures and rejects; needed where `config.filter` is set.
        photos: by the name of a shard, (name, img [1,3,H,H] in [-1,1], ws [num_ws, w_dim]) of real faces; lazily.
        min_cosine: how alike the generators must be, see `blend`.
        on_step: hears of each chunk; its scalars are what was kept, and its pairs a second.

    Returns:
        The report, which is in `report.json` too.

    Raises:
        InputError: the generators are not related, or the folder holds other pairs.
        MissingExtraError: webdataset is not installed.
    """
    writer = tar_writer()
    check_decodes(source, target, min_cosine)
    if (judge is None) != (config.filter is None):
        raise InputError("filters need their networks", hint="give a judge with config.filter, or neither")
    _begin(outdir, config, digests)
    maker = _Maker(source, target, config, judge, {name: digests[name][:16] for name in ("source", "target")})
    jobs: list[tuple[str, dict[str, Any], Any]] = []
    for i, first in enumerate(range(config.seed, config.seed + config.num, config.chunk)):
        seeds = range(first, min(first + config.chunk, config.seed + config.num))
        jobs.append((f"{i:06d}", {"first": seeds[0], "drawn": len(seeds)}, maker.seeds(seeds)))
    jobs += [(name, {"photos": name}, maker.photos(some)) for name, some in (photos or {}).items()]
    records, num_made, began = [], 0, time.perf_counter()
    for name, facts, pairs in jobs:
        shards = _Shards(outdir, name, writer)
        record = shards.held(facts)
        if record is None:
            maker.rejected.clear()
            record = shards.write(pairs, facts, maker.rejected)
            num_made += facts.get("drawn", 0)
        records.append(record)
        rate = num_made / max(time.perf_counter() - began, 1e-9)
        scalars = {"kept": float(sum(record["kept"].values())), "pairs_per_s": rate}
        on_step(Step("pairs", len(records), len(jobs), scalars))
    report = _report(records, config, digests, maker.drawing_s, time.perf_counter() - began, num_made)
    write_text(json.dumps(report, indent=1) + "\n", outdir / REPORT)
    return report


def _report(
    records: Sequence[Mapping[str, Any]],
    config: PairsConfig,
    digests: Mapping[str, str],
    drawing_s: float,
    all_s: float,
    num_made: int,
) -> dict[str, Any]:
    kept: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for record in records:
        kept.update(record["kept"])
        rejected.update(record["rejected"])
    seeds = range(config.seed, config.seed + config.num)
    report: dict[str, Any] = {
        "weights": dict(digests),
        "config": asdict(config),
        "drawn": config.num,
        "drawn_at_high_psi": sum(_is_varied(s, config) for s in seeds),
        "kept": {split: kept[split] for split in SPLITS},
        "rejected": dict(sorted(rejected.items())),
    }
    if num_made:
        report["speed"] = {"pairs_per_s": num_made / all_s, "share_of_generators": drawing_s / all_s}
    return report


def read_pairs(outdir: Path, split: str = "train") -> Iterator[dict[str, Any]]:
    """Yield the samples of a split in their order: `__key__`, and the bytes of each of its files by extension.

    Raises:
        InputError: there are none.
        UnsupportedFileError: a shard is damaged.
    """
    shards = sorted(outdir.glob(f"{split}-*.tar"))
    if not shards:
        raise InputError(f"no pairs for {split} in {outdir}", hint="make some: mien pairs make")
    for shard in shards:
        yield from read_shard(shard)


def read_shard(shard: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of one shard, as `read_pairs` does.

    Raises:
        UnsupportedFileError: it is damaged.
    """
    try:
        yield from _samples_of(shard)
    except (tarfile.TarError, OSError, EOFError) as err:
        hint = "remove it, and make the pairs again: the rest stays"
        raise UnsupportedFileError(f"{shard} is damaged: {err}", hint=hint) from err


def _samples_of(shard: Path) -> Iterator[dict[str, Any]]:
    """Group the members of a tar by what stands before the first dot of their names, as webdataset does."""
    sample: dict[str, Any] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            file = tar.extractfile(member)
            assert file is not None, "shards hold files only"
            sample |= {"__key__": key, extension: file.read()}
    if sample:
        yield sample
