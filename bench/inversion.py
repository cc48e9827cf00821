"""Measure inversion and edits on people who were kept out of all training, with an independent judge.

    python bench/inversion.py faces128.zip --judge JUDGE.py [--num 24] [--network faces-64] [--outdir out/bench]
        [--methods encoder,optimize,pti,hybrid]

Edits are made to what every method but the encoder's found, since changed weights must still let a face be edited.
Each person's crop is enlarged to 256 px; so are the renders, so that sizes agree. JUDGE.py is a program with a class
`Judge` whose `pair(image, image)` gives identity, smile, yaw and SSIM; nothing of it was a loss, a target or a chooser
of anything here. Prints tables in Markdown; pictures go to --outdir.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Mapping
from math import nan
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL.Image import Image

from mien.app.studio import Studio
from mien.images import grid, save_png, to_pil
from mien.inversion.code import Inversion
from mien.training.data import load_pictures, split_people

CROP_PX = 256
DULL_SMILE = 0.2  # who smiles less than this, to the judge, does not smile
BATCH = 4
EDITS: tuple[Mapping[str, float], ...] = ({"smile": 2.0}, {"yaw": -2.0}, {"yaw": 2.0}, {"age": 2.0})


def load_judge(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("judge", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Judge()


def mean(values: list[float]) -> float:
    """Mean, and not a number where there is nothing to average."""
    return fmean(values) if values else nan


def enlarged(image: Image) -> Image:
    return image.resize((CROP_PX, CROP_PX), PIL.Image.Resampling.BICUBIC)


def people(data: Path, num: int, cache: Path, *, skip: int = 0) -> list[Image]:
    """One crop of each of `num` people held out, in an order of a fixed seed, without the first `skip`."""
    _, held_out = split_people(load_pictures(data, size_px=128, cache=cache))
    _, first = np.unique(held_out.labels["identity"], return_index=True)
    rows = np.random.RandomState(0).permutation(first)[skip : skip + num]
    return [enlarged(image) for image in to_pil(held_out.select(rows).pixels.float() / 127.5 - 1)]


class Bench:
    """The people, the judge, and what was measured."""

    def __init__(self, studio: Studio, crops: list[Image], judge: Any, outdir: Path) -> None:
        self.studio, self.crops, self.judge, self.outdir = studio, crops, judge, outdir
        self.img = torch.cat([studio.aligned(crop) for crop in crops])

    def renders(self, codes: list[Inversion]) -> list[Image]:
        return [enlarged(self.studio.picture(code)) for code in codes]

    def invert(self, method: str, steps: int | None) -> tuple[list[Inversion], float]:
        """Codes of all, and seconds a face."""
        begin = time.monotonic()
        codes: list[Inversion] = []
        for img in self.img.split(BATCH):
            codes += self.studio.invert(img, method=method, num_steps=steps)
        return codes, (time.monotonic() - begin) / len(codes)

    def against_crops(self, method: str, codes: list[Inversion], time_s: float) -> str:
        """A row of the table of inversions."""
        pictures = self.renders(codes)
        save_png(grid([*self.crops, *pictures], columns=len(pictures)), self.outdir / f"{method}.png")
        rows = [self.judge.pair(a, b) for a, b in zip(self.crops, pictures, strict=True)]
        good = [row for row in rows if "error" not in row]
        numbers = [median([row[key] for row in good]) for key in ("id", "ssim", "psnr", "yaw", "expression")]
        cells = " | ".join(f"{x:.3f}" for x in numbers)
        return f"| {method} | {cells} | {len(rows) - len(good)} | {time_s:.1f} |"

    def edits(self, method: str, codes: list[Inversion]) -> list[str]:
        """Rows of the table of edits."""
        before = self.renders(codes)
        sheet, lines, turned = list(before), [], {}
        for strengths in EDITS:
            after = self.renders([self.studio.edit(code, strengths) for code in codes])
            sheet += after
            rows = [self.judge.pair(a, b) for a, b in zip(before, after, strict=True)]
            good = [row for row in rows if "error" not in row]
            name = " ".join(f"{k}={v:+g}" for k, v in strengths.items())
            turned |= {name: {i: row["yaw_b"] for i, row in enumerate(rows) if "error" not in row}}
            some = [row for row in good if "smile" not in strengths or row["smile_a"] < DULL_SMILE]
            rise = mean([row["smile_b"] - row["smile_a"] for row in some])
            turn = mean([row["yaw_b"] - row["yaw_a"] for row in some])
            same = mean([row["id"] for row in some])
            lines.append(f"| {name} | {len(some)} | {rise:+.3f} | {turn:+.1f} | {same:.3f} | {len(rows) - len(good)} |")
        left, right = turned["yaw=-2"], turned["yaw=+2"]
        span = mean([right[i] - left[i] for i in left.keys() & right.keys()])
        save_png(grid(sheet, columns=len(codes)), self.outdir / f"edits-{method}.png")
        return [*lines, "", f"From yaw=-2 to yaw=+2 the head turns {span:.1f} degrees in the mean."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--num", type=int, default=24)
    parser.add_argument("--skip", type=int, default=8, help="people that settings were tried on")
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--methods", default="encoder,optimize,pti,hybrid")
    parser.add_argument("--outdir", type=Path, default=Path("out/bench"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    args = parser.parse_args()
    studio = Studio(args.network, device="cpu")
    bench = Bench(studio, people(args.data, args.num, args.cache, skip=args.skip), load_judge(args.judge), args.outdir)
    print("| method | identity | SSIM | PSNR | yaw error, degrees | expression error | no face | seconds a face |")
    print("|---|---|---|---|---|---|---|---|")
    found = {}
    for method in args.methods.split(","):
        found[method], time_s = bench.invert(method, args.steps)
        print(bench.against_crops(method, found[method], time_s), flush=True)
    for method, codes in found.items():
        if studio.directions.directions and method != "encoder":
            print(
                f"\n| edit after {method} | faces | smile | yaw, degrees | identity to the unedited render | no face |"
            )
            print("|---|---|---|---|---|---|")
            print("\n".join(bench.edits(method, codes)))


if __name__ == "__main__":
    main()
