"""`mien pairs label`, `fit`, `score`, `clean`: say which pairs are good, fit a judge of that, sort out the bad ones."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.options import Device
from mien.app.settings import DEFAULT_NETWORK
from mien.app.terminal.items import check_network, check_out, check_outdir
from mien.app.terminal.screen import Bars, note
from mien.errors import InputError
from mien.report import Step, ignore

if TYPE_CHECKING:
    from mien.app.figures.page import Shown
    from mien.app.labelling.desk import LabelDesk, PairPool
    from mien.training.pair_features import Measured, PairMeter
    from mien.training.pair_labels import PairLabels
    from mien.training.quality import Fitted

__all__ = ["app"]

KEEPS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NUM_SHOWN = 12
SHOWN_PX = 128

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="Folder of pairs, of mien pairs make.", metavar="DIR", show_default=False)]
Source = Annotated[str, typer.Option("--source", help="Generator of the people: its discriminator and judge serve.")]
Judge = Annotated[Path | None, typer.Option("--judge", help="Of mien pairs fit; default: the one beside --source.")]


# ---- Labelling ------------------------------------------------------------------------------------------------------


@app.command()
def label(
    folder: Folder,
    num: Annotated[int, typer.Option("--num", min=1, help="Pairs that may be asked for, of all splits.")] = 600,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of the page; 0 takes any that is free.")
    ] = 8765,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Only add the labels of this CSV to the folder's.")
    ] = None,
    export: Annotated[Path | None, typer.Option("--export", help="Only write the folder's labels as this CSV.")] = None,
    active: Annotated[
        bool, typer.Option("--active/--random", help="Ask where a judge is unsure, or in any order.")
    ] = True,
    source: Source = DEFAULT_NETWORK,
    device: Device = "auto",
) -> None:
    """Say in the browser which pairs are good: g good, b bad, s skip, u undo. DIR/labels.csv has every verdict at once.

    The page is for this machine alone. Ctrl+C ends it; the same command goes on.

    Example: mien pairs label pairs --num 300
    """
    from mien.app.labelling.desk import LabelDesk, PairPool
    from mien.app.labelling.server import LabelServer
    from mien.training.pair_labels import FILE, LabelBook, load_pair_labels, save_pair_labels

    path = folder / FILE
    if export is not None:
        check_out(export, [path], suffix=".csv")
        save_pair_labels(load_pair_labels(path), export)
        typer.echo(export)
        return
    pool = PairPool(folder, num)
    with LabelBook(path) as book:
        if table is not None:
            _add(PairPool(folder, 1 << 62), book.labels, load_pair_labels(table), path)
            return
        desk = LabelDesk(pool, book)
        with LabelServer(desk, port) as server:
            note("g good, b bad, s skip, u undo; Ctrl+C ends, and everything said is kept")
            typer.echo(server.address)
            if active:
                threading.Thread(target=_learn, args=(desk, pool, source, device), daemon=True).start()
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                note("")
        note(", ".join(f"{count} {name}" for name, count in book.labels.counts().items()))
        typer.echo(path)


def _add(pool: PairPool, labels: PairLabels, more: PairLabels, path: Path) -> None:
    from mien.training.pair_labels import save_pair_labels

    known = set(pool.keys)
    if strangers := [key for key in more.rows if key not in known]:
        hint = "labels belong to the folder whose pairs were judged"
        raise InputError(f"{len(strangers)} of the labels are of other pairs, {strangers[0]} for one", hint=hint)
    joined = labels.joined(more)
    save_pair_labels(joined, path)
    note(f"{len(more)} labels added, {len(joined)} in all")
    typer.echo(path)


def _learn(desk: LabelDesk, pool: PairPool, source: str, device: str) -> None:
    """Measure the pool while somebody labels already; whatever fails, the page goes on in the order that it has."""
    from mien.app.capabilities.quality import load_meter

    try:
        desk.learn(_measured(load_meter(source, device=device), pool.samples()))
    except Exception as err:  # a thread has nobody above it to tell
        note(f"the pairs come in any order: {err}")


def _measured(
    meter: PairMeter, samples: Iterable[Mapping[str, Any]], *, total: int = 0, bars: Any = ignore
) -> Measured:
    from mien.nets.precision import exact_float32
    from mien.training.pair_features import Measured, measure_pairs

    parts: list[Measured] = []
    with exact_float32():
        for part in measure_pairs(meter, samples):
            parts.append(part)
            bars(Step("measure", sum(map(len, parts)), total))
    return Measured.joined(parts)


# ---- Fitting --------------------------------------------------------------------------------------------------------


@app.command()
def fit(
    folders: Annotated[list[Path], typer.Argument(help="Folders of labelled pairs.", metavar="DIR...")],
    out: Annotated[Path, typer.Option("--out", help="Judge to write, .safetensors; its report goes beside it.")],
    source: Source = DEFAULT_NETWORK,
    device: Device = "auto",
) -> None:
    """Fit a judge of pairs on what mien pairs label wrote, and report how good it is on pairs that it has not seen.

    Example: mien pairs fit pairs --out runs/quality.safetensors
    """
    from mien.app.capabilities.quality import load_meter
    from mien.app.figures.quality import fit_page
    from mien.atomic import write_text
    from mien.training.pair_features import Measured
    from mien.training.quality import fit_quality, save_quality

    check_out(out, suffix=".safetensors")
    check_network(source)
    meter = load_meter(source, device=device)
    parts, good = [], []
    with Bars() as bars:
        for folder in folders:
            measured, verdicts = _labelled(meter, folder, bars)
            parts.append(measured)
            good += verdicts
    together = Measured.joined(parts)
    fitted = fit_quality(together, good, digests=meter.digests, facts={"source": source})
    save_quality(fitted.quality, out)
    report = _fit_report(fitted, together, good)
    write_text(json.dumps(report, indent=1) + "\n", out.with_suffix(".json"))
    write_text(fit_page(report), out.with_suffix(".html"))
    note(f"AUC {report['auc']:.3f} on folds that it had not seen, calibration error {report['calibration_error']:.3f}")
    typer.echo(out)


def _labelled(meter: PairMeter, folder: Path, bars: Bars) -> tuple[Measured, list[bool]]:
    from mien.training.clean import shards_in
    from mien.training.pair_labels import FILE, load_pair_labels
    from mien.training.pairs import read_shard

    judged = load_pair_labels(folder / FILE).judged()
    if not judged:
        raise InputError(f"nothing is labelled in {folder}", hint="label some: mien pairs label")
    mine = (sample for shard in shards_in(folder) for sample in read_shard(shard) if sample["__key__"] in judged)
    measured = _measured(meter, mine, total=len(judged), bars=bars)
    if len(measured) < len(judged):
        hint = "labels belong to the folder whose pairs were judged"
        raise InputError(f"{len(judged) - len(measured)} labels in {folder} are of pairs that are not there", hint=hint)
    return measured, [judged[key] for key in measured.keys]


def _fit_report(fitted: Fitted, measured: Measured, verdicts: Sequence[bool]) -> dict[str, Any]:
    from dataclasses import asdict

    import numpy as np

    from mien.training.quality import QualityConfig
    from mien.training.reliability import (
        auc,
        auc_interval,
        brier,
        calibration_error,
        kept_shares,
        precision_at,
        reliability,
        threshold_at,
    )

    said, good = fitted.unseen, np.array(verdicts, dtype=bool)
    bins = reliability(said, good)
    return {
        "good": int(good.sum()),
        "bad": int((~good).sum()),
        "auc": auc(said, good),
        "auc_interval": auc_interval(said, good),
        "brier": brier(said, good),
        "calibration_error": calibration_error(bins),
        "reliability": [asdict(one) for one in bins],
        "precision": {f"{keep:g}": precision_at(said, good, keep) for keep in KEEPS},
        "groups": kept_shares(said >= threshold_at(said, 0.7), measured.groups),
        "strength": fitted.strength,
        "folds": QualityConfig().num_folds,
    }


# ---- Using it -------------------------------------------------------------------------------------------------------


@app.command()
def score(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="CSV to write: key, split, quality, age, gender, skin.")],
    judge: Judge = None,
    source: Source = DEFAULT_NETWORK,
    device: Device = "auto",
) -> None:
    """Write how likely each pair is good, and what is measured of the person, best first.

    Example: mien pairs score pairs --out pairs.csv
    """
    import tempfile

    from mien.app.capabilities.quality import find_quality, load_meter
    from mien.atomic import write_text
    from mien.nets.precision import exact_float32
    from mien.training.clean import score_pairs
    from mien.training.pair_features import GROUPS

    check_out(out, suffix=".csv")
    check_network(source)
    quality, meter = find_quality(judge, source), load_meter(source, device=device)
    with Bars() as bars, exact_float32(), tempfile.TemporaryDirectory() as place:
        scored = score_pairs(folder, Path(place), meter, quality, on_step=bars)
    lines: list[tuple[Any, ...]] = [
        (key, one.split, value, *group)
        for one in scored
        for key, value, group in zip(one.keys, map(float, one.scores), one.groups.tolist(), strict=True)
    ]
    lines.sort(key=lambda line: (-line[2], line[0]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["key", "split", "quality", *GROUPS], *lines])
    write_text(text.getvalue(), out)
    typer.echo(out)


@app.command()
def clean(
    folder: Folder,
    outdir: Annotated[Path, typer.Option("--out", "--outdir", help="Folder for the good pairs; made if missing.")],
    keep: Annotated[float | None, typer.Option("--keep", help="Share of the pairs to keep, the best.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Keep what is good with that probability, whatever share it is.")
    ] = None,
    judge: Judge = None,
    source: Source = DEFAULT_NETWORK,
    device: Device = "auto",
) -> None:
    """Copy the good pairs of a folder into another; a stopped run goes on to the same bytes.

    Reports who was kept, by age, gender and skin lightness, and shows pairs from the best to the worst in report.html.

    Example: mien pairs clean pairs --keep 0.9 --out pairs-good
    """
    from mien.app.capabilities.quality import find_quality, load_meter
    from mien.nets.precision import exact_float32
    from mien.training.clean import CleanConfig, clean_pairs

    config = CleanConfig(keep=keep, threshold=threshold)
    check_outdir(outdir)
    check_network(source)
    quality, meter = find_quality(judge, source), load_meter(source, device=device)
    with Bars() as bars, exact_float32():
        report = clean_pairs(folder, outdir, config, meter, quality, on_step=bars)
    _show(folder, outdir, report)
    note(f"kept {report['kept']} of {report['pairs']}, above {report['threshold']:.3f}")
    typer.echo(outdir / "report.json")


def _show(folder: Path, outdir: Path, report: Mapping[str, Any]) -> None:
    """Write the page, with the best pairs, the last that were kept, the first that were not, and the worst."""
    from mien.app.figures.quality import clean_page
    from mien.atomic import write_text

    scores = _scores(outdir)
    order = sorted(scores, key=lambda key: (-scores[key], key))
    num = sum(scores[key] >= report["threshold"] for key in order)
    chosen = {
        "The best": order[:NUM_SHOWN],
        "The last that were kept": order[max(num - NUM_SHOWN, 0) : num],
        "The first that were not": order[num : num + NUM_SHOWN],
        "The worst": order[max(len(order) - NUM_SHOWN, 0) :],
    }
    wanted = {key for keys in chosen.values() for key in keys}
    _save_pictures(folder, outdir / "pictures", wanted)
    shown = {name: [_tile(key, scores[key]) for key in keys] for name, keys in chosen.items() if keys}
    write_text(clean_page(report, shown), outdir / "report.html")


def _tile(key: str, value: float) -> Shown:
    from mien.app.figures.page import Shown

    return Shown(f"pictures/{key}.png", title=f"{value:.3f}", text=key, is_wide=True)


def _scores(outdir: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for path in sorted(outdir.glob("scores-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found |= dict(zip(record["keys"], record["scores"], strict=True))
    return found


def _save_pictures(folder: Path, place: Path, wanted: set[str]) -> None:
    """Lay both sides of some pairs beside one another."""
    import PIL.Image

    from mien.images import save_png
    from mien.training.clean import shards_in
    from mien.training.pairs import read_shard

    for shard in shards_in(folder):
        for sample in read_shard(shard):
            if sample["__key__"] not in wanted:
                continue
            sheet = PIL.Image.new("RGB", (2 * SHOWN_PX, SHOWN_PX))
            for i, side in enumerate(("source.png", "target.png")):
                with PIL.Image.open(io.BytesIO(sample[side])) as image:
                    small = image.convert("RGB").resize((SHOWN_PX, SHOWN_PX), PIL.Image.Resampling.BICUBIC)
                    sheet.paste(small, (i * SHOWN_PX, 0))
            save_png(sheet, place / f"{sample['__key__']}.png")
