"""The report of a face lab: its stages one after the other, their figures as PNGs, one page, and every number."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from PIL.Image import Image

from mien import __version__
from mien.app.figures.figure import PAPER, Section, Tile, figure
from mien.app.figures.page import Chapter, Shown, link, page, paragraph, slug, table, tiles, video
from mien.app.figures.shares import shares
from mien.app.lab.faces import expressions, originals, projections, styles
from mien.app.lab.pairs import blends, morphs, swaps
from mien.app.lab.work import Lab, Part, Picture
from mien.atomic import write_text
from mien.errors import MienError
from mien.images import save_png
from mien.report import Step

__all__ = ["STAGES", "drawn", "write_report"]

TILE_PX = 176
STAGES: Sequence[Callable[[Lab], Part]] = (originals, projections, styles, expressions, swaps, blends, morphs)
"""In the order of the report; each needs those before it."""


def _tile(picture: Picture | None) -> Tile:
    """A tile of the figure; an empty place is paper."""
    if picture is None:
        return Tile(PIL.Image.new("RGB", (8, 8), PAPER))
    if picture.shares:
        image = shares(picture.image, list(picture.shares), list(picture.shares.values()))
        return Tile(image, picture.title)
    return Tile(picture.image, picture.title or picture.text)


def drawn(part: Part) -> Image:
    """Draw a part as one figure."""
    section = Section(part.title, part.brief, [[_tile(p) for p in line] for line in part.lines], TILE_PX)
    return figure("Face lab", "", [section])


def _save_tiles(part: Part, folder: Path) -> list[list[Shown]]:
    """Write every picture of a part, and return how the page shows it; what an earlier report had more is removed."""
    left = set((folder / part.key).glob("*.png"))
    shown: list[list[Shown]] = []
    for i, line in enumerate(part.lines):
        shown.append([])
        for j, picture in enumerate(line):
            if picture is None:
                shown[-1].append(Shown(""))
                continue
            path = folder / part.key / f"{i}-{j}{'-' + slug(picture.title) if picture.title else ''}.png"
            save_png(picture.image, path)
            left.discard(path)
            source = f"{folder.name}/{part.key}/{path.name}"
            shown[-1].append(Shown(source, picture.title, picture.text, picture.shares, picture.is_head))
    for path in left:
        path.unlink()
    return shown


def _chapter(part: Part, outdir: Path) -> Chapter:
    """Write a part's pictures and its figure, and return what the page says of it."""
    folder = outdir / "figures"
    parts = [paragraph(part.text), *(paragraph(note, kind="bad") for note in part.notes)]
    if part.lines:
        save_png(drawn(part), folder / f"{part.key}.png")
        parts += [tiles(_save_tiles(part, folder)), link(f"figures/{part.key}.png", "This figure as a PNG")]
    parts += [video(f"figures/{path.name}") for path in part.videos]
    return Chapter(part.key, part.title, [*parts, *part.html])


def _failures(failures: Mapping[str, MienError], folder: Path) -> list[dict[str, str]]:
    """Return what was left out and why, without saying where the folder lies."""
    inside = f"{folder}{os.sep}"
    return [{"error": err.message.replace(inside, ""), "hint": err.hint} for err in failures.values()]


def _left_out(failures: Sequence[Mapping[str, str]]) -> list[Chapter]:
    said = [paragraph(f"{one['error']}: {one['hint']}", kind="bad") for one in failures]
    return [Chapter("failures", "Left out", said)] if said else []


def _making(lab: Lab) -> dict[str, Any]:
    """What made the report, so that it can be made again."""
    studio = lab.studio
    return {
        "mien": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(studio.device),
        "precision": studio.precision,
        "seed": studio.seed,
        "network": studio.network.stem,
        "config": asdict(lab.config),
        "inversion": studio.settings(lab.config.method, lab.config.steps),
        "looks": lab.looks.record,
        "identity": lab.identity.record,
        "weights": studio.weights(),
    }


def _made(making: Mapping[str, Any]) -> Chapter:
    said = {name: making[name] for name in ("mien", "torch", "python", "device", "precision", "seed", "network")}
    said |= {"inversion": making["config"]["method"], "looks": making["looks"]["judge"]}
    said |= {"identity": making["identity"]["judge"]} | making["weights"]
    return Chapter("making", "How it was made", [table(said), link("report.json", "Every number, seed and hash")])


def write_report(lab: Lab, folder: Path, failures: Mapping[str, MienError]) -> dict[str, Any]:
    """Run the stages of a lab and write `index.html`, `report.json` and `figures/` into its folder.

    What was made already of the same photos, weights and settings is kept, so that the same call goes on after it was
    stopped. The page comes last: where it is, the rest is whole.

    Args:
        lab: people, networks, settings.
        folder: that the people were read from.
        failures: name of an input => why it was left out.
    """
    chapters, numbers, seconds = [], dict[str, Any](), dict[str, float]()
    for i, stage in enumerate(STAGES):
        lab.on_step(Step("lab", i, len(STAGES)))
        begin = time.monotonic()
        part = stage(lab)
        chapters.append(_chapter(part, lab.outdir))
        numbers[part.key] = {**part.numbers, "notes": list(part.notes)}
        seconds[part.key] = round(time.monotonic() - begin, 2)
    lab.on_step(Step("lab", len(STAGES), len(STAGES)))
    title, making, said = f"Face lab: {folder.resolve().name}", _making(lab), _failures(failures, folder)
    report = {"title": title, "making": making, "figures": numbers, "failures": said, "seconds": seconds}
    write_text(json.dumps(report, indent=1) + "\n", lab.outdir / "report.json")
    chapters += [*_left_out(said), _made(making)]
    text = (
        f"Made by mien {__version__} with {lab.studio.network.stem}, {lab.studio.G.img_resolution} px, on one machine."
    )
    write_text(page(title, text, chapters, facts=_facts(lab, numbers)), lab.outdir / "index.html")
    return report


def _facts(lab: Lab, numbers: Mapping[str, Any]) -> dict[str, object]:
    middle, swapped = numbers["projections"]["median"], numbers["swaps"].get("median")
    facts = {
        "people": len(lab.people),
        "photos": sum(len(someone.photos) for someone in lab.people),
        "PSNR of projections, median": f"{middle['psnr']:.1f} dB",
        "identity of projections, median": f"{middle['identity']:.2f}",
    }
    return facts | ({"identity of swaps, median": f"{swapped['to_source']:.2f}"} if swapped else {})
