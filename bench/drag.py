"""Drag landmarks of invented people and measure how near they come, by a network that the dragging never sees.

    python bench/drag.py [--num 8] [--first 200] [--outdir out/drag]

Our face detector finds five points in the render, before and after; some of them are dragged by a part of the side,
as in Pan et al. 2023, Sec. 4.2, where landmarks of one face are dragged to those of another. Distances are in px of a
picture of 512, so that networks of all sizes compare. Identity is the face network's, to the render before.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import PIL.ImageDraw
from PIL.Image import Image

from mien.app.studio import Studio
from mien.edits.drag import DragConfig, Dragged
from mien.images import grid, resize, save_png, to_pil
from mien.inversion.code import Inversion

VIEW_PX, UNIT = 256, 512
TASKS = {  # name => points of the five, and where they go, in parts of the side
    "nose to the right": ([2], [(0.08, 0.0)]),
    "nose to the left": ([2], [(-0.08, 0.0)]),
    "corners of the mouth out and up": ([3, 4], [(-0.04, -0.03), (0.04, -0.03)]),
    "all up": ([0, 1, 2, 3, 4], [(0.0, -0.05)] * 5),
}
VARIANTS = {
    "as it is": DragConfig(),
    "without the prior": DragConfig(prior_weight=0.0),
}


class Bench:
    def __init__(self, studio: Studio) -> None:
        assert studio.face_net is not None
        self.studio, self.net, self.side = studio, studio.face_net, studio.G.img_resolution

    def marks(self, code: Inversion) -> np.ndarray | None:
        """The five points of a render in its px, or None where the detector sees no face."""
        faces = self.studio.detect(to_pil(resize(self.studio.render(code), VIEW_PX))[0])
        return faces[0].landmarks * self.side / VIEW_PX if faces else None

    def identity(self, a: Inversion, b: Inversion) -> float:
        one, two = (self.net(self.studio.render(code)).identity for code in (a, b))
        return float((one * two).sum())

    def picture(self, code: Inversion, at: np.ndarray, to: np.ndarray) -> Image:
        """The render with lines from the points to their goals."""
        image = to_pil(resize(self.studio.render(code), VIEW_PX))[0]
        pen, scale = PIL.ImageDraw.Draw(image), VIEW_PX / self.side
        for a, b in zip(at * scale, to * scale, strict=True):
            pen.line([*a, *b], fill="white", width=2)
            pen.ellipse([*(b - 3), *(b + 3)], fill="blue")
            pen.ellipse([*(a - 3), *(a + 3)], fill="red")
        return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=8)
    parser.add_argument("--first", type=int, default=200, help="seed of the first person")
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--outdir", type=Path, default=Path("out/drag"))
    args = parser.parse_args()
    bench = Bench(Studio(args.network, device="cpu"))
    codes = [bench.studio.seed_code(seed) for seed in range(args.first, args.first + args.num)]
    people = [(code, marks) for code in codes if (marks := bench.marks(code)) is not None]
    print("| points | variant | px away before | by features | by the detector | identity | no face | steps | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (points, moves) in TASKS.items():
        sheet: list[Image] = []
        for variant, config in VARIANTS.items():
            rows, begin, lost = [], time.process_time(), 0
            for code, marks in people:
                at = marks[points]
                to = at + bench.side * np.array(moves)
                dragged: Dragged = bench.studio.drag(code, at, to, config=config)
                now = bench.marks(dragged.inversion)
                lost += now is None
                away = np.nan if now is None else np.linalg.norm(now[points] - to, axis=1).mean()
                before = np.linalg.norm(to - at, axis=1).mean()
                lengths = np.array([before, dragged.distances_px.mean(), away]) * UNIT / bench.side
                rows.append([*lengths, bench.identity(code, dragged.inversion), dragged.num_steps])
                sheet.append(bench.picture(dragged.inversion, dragged.points, to))
            seconds = (time.process_time() - begin) / len(people)
            before, own, away, same, steps = np.nanmean(rows, axis=0)
            cells = f"{before:.1f} | {own:.1f} | {away:.1f} | {same:.2f} | {lost} | {steps:.0f} | {seconds:.1f}"
            print(f"| {name} | {variant} | {cells} |", flush=True)
        first = [
            bench.picture(code, marks[points], marks[points] + bench.side * np.array(moves)) for code, marks in people
        ]
        labels = ["before", *VARIANTS]
        path = args.outdir / f"{name.replace(' ', '-')}.png"
        save_png(grid([*first, *sheet], columns=len(people), row_labels=labels), path)


if __name__ == "__main__":
    main()
