"""What directions do to faces: for each a curve of its attribute's change against the identity that it costs.

Changes are in standard deviations of each attribute over the generator's own truncated samples; the identity is the
cosine of our face network to the unedited render. What a direction does to everything else is drawn beside it.

Source: Wu et al. 2021, Sec. 5.2 (attribute dependency), arXiv:2011.12799; change against identity: Roich et al. 2021,
Sec. 4.3, arXiv:2106.05744.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.figures.chart import Curve, draw_curves
from mien.app.figures.figure import Section, Tile, figure
from mien.app.figures.page import Chapter, chart, page, paragraph, picture, rows
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.edits.attributes import face_scorer
from mien.edits.directions import AnyDirection, DirectionSet
from mien.edits.probe import DirectionScore, Probe, sample_spread, score_direction
from mien.errors import InputError
from mien.images import grid, save_png, to_pil
from mien.nets.generator import Generator
from mien.report import Sink, ignore

__all__ = ["COLUMNS", "STRENGTHS", "evaluate_directions", "table_lines"]

STRENGTHS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
COLUMNS = ("direction", "change per unit", "purity", "identity at the ends", "moves most beside it")
NUM_SPREAD, SPREAD_PSI = 512, 0.7
NUM_SHOWN, NUM_BESIDE, TILE_PX = 2, 4, 128


def _beside(score: DirectionScore, name: str) -> list[str]:
    """The attributes beside its own that a direction moves most, the most moved first."""
    swing = {other: max(map(abs, curve)) for other, curve in score.curves.items() if other != name}
    return sorted(swing, key=lambda other: -swing[other])[:NUM_BESIDE]


@dataclass(frozen=True)
class _Drawn:
    """A direction's words, curves and faces; a row of faces for each person, a column for each strength."""

    name: str
    text: str
    cost_axis: str
    cost: Mapping[str, Curve]
    moves: Mapping[str, Curve]
    strengths: Sequence[float]
    faces: Sequence[Sequence[Image]]

    def charts(self) -> list[Tile]:
        """Its curves as pictures."""
        cost = draw_curves(f"{self.name}: what it costs", self.cost_axis, "identity lost (1 - cosine)", self.cost)
        moves = draw_curves(f"{self.name}: what it moves", "strength", "change, standard deviations", self.moves)
        return [Tile(cost), Tile(moves)]

    def section(self) -> Section:
        """Its faces for the figure."""
        words = [[f"{strength:+g}" for strength in self.strengths], *([[""] * len(self.strengths)] * len(self.faces))]
        rows = [list(map(Tile, row, text)) for row, text in zip(self.faces, words, strict=False)]
        return Section(self.name, self.text, rows, TILE_PX)

    def chapter(self, outdir: Path) -> Chapter:
        """The same for the page, its faces as one picture in `outdir`."""
        labels = [f"{strength:+g}" for strength in self.strengths]
        source = f"{self.name}.png"
        save_png(grid([i for row in self.faces for i in row], columns=len(labels), col_labels=labels), outdir / source)
        svg = [chart(f"identity lost over {self.cost_axis}", self.cost), chart("changes over strength", self.moves)]
        shown = picture(source, "strengths")
        return Chapter(self.name, self.name, [paragraph(self.text, kind="soft"), *svg, shown])


def _drawn(G: Generator, name: str, direction: AnyDirection, score: DirectionScore, ws: Tensor) -> _Drawn:
    is_measured, (low, high) = name in score.curves, direction.safe_range
    renders = [to_pil(direction.render(G, ws, strength)) for strength in score.strengths]
    change = score.curves[name] if is_measured else score.strengths
    shown = [*([name] if is_measured else []), *_beside(score, name)]
    return _Drawn(
        name=name,
        text=f"1 = {direction.unit}; {direction.place}; safe from {low:g} to {high:g}",
        cost_axis="change, standard deviations" if is_measured else "strength",
        cost={name: list(zip(change, (1 - same for same in score.identities), strict=True))},
        moves={one: list(zip(score.strengths, score.curves[one], strict=True)) for one in shown},
        strengths=score.strengths,
        faces=list(zip(*renders, strict=True)),
    )


@torch.no_grad()
def evaluate_directions(
    studio: Studio,
    found: DirectionSet,
    ws: Tensor,
    outdir: Path,
    *,
    strengths: Sequence[float] = STRENGTHS,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Move faces along directions, and write `directions.json`, `.png` and `.html` with the pictures of the page.

    Args:
        studio: generator and face network.
        found: the directions.
        ws: codes of the faces, [N, num_ws, w_dim].
        outdir: folder for everything.
        strengths: to move by.
        on_step: hears of every strength.

    Raises:
        InputError: no faces, no directions, or fewer than two strengths.
    """
    if not len(ws) or not found.directions:
        what = "faces to move" if not len(ws) else "directions to measure"
        raise InputError(f"no {what}", hint="give a folder of faces or --seeds, and a network with directions")
    assert studio.face_net is not None
    scorer, G, ws = face_scorer(studio.face_net), studio.G, ws.to(studio.device)
    spread = sample_spread(G, scorer, NUM_SPREAD, truncation_psi=SPREAD_PSI)
    probe, drawn, results = Probe(G, ws, scorer, spread), [], {}
    for name, direction in sorted(found.directions.items()):
        others = [other for other in spread if other != name]
        score = score_direction(probe, name, direction, others=others, strengths=sorted(strengths), on_step=on_step)
        drawn.append(_drawn(G, name, direction, score, ws[:NUM_SHOWN]))
        results[name] = asdict(score) | {"beside": _beside(score, name), "unit": direction.unit}
    report = {
        "network": studio.network.stem,
        "weights": studio.weights(),
        "num_faces": len(ws),
        "spread": spread,
        "directions": results,
    }
    write_text(json.dumps(report, indent=1), outdir / "directions.json")
    title, text = "Directions", f"{studio.network.stem}, {len(ws)} faces; identity by our own face network"
    curves = Section("Curves", "what directions cost, and what else they move", [one.charts() for one in drawn], 320)
    save_png(figure(title, text, [curves, *(one.section() for one in drawn)]), outdir / "directions.png")
    overview = Chapter("all", "All", [rows(COLUMNS, table_lines(results))])
    write_text(page(title, text, [overview, *(one.chapter(outdir) for one in drawn)]), outdir / "directions.html")
    return report


def table_lines(results: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    """A line of `COLUMNS` for each direction of a report."""
    return [
        [name, *(one[key] for key in ("strength", "purity", "identity")), ", ".join(one["beside"][:2])]
        for name, one in results.items()
    ]
