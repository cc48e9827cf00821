"""Measure face swaps on people who were kept out of all training, with an independent judge.

    python bench/swap.py faces128.zip --judge JUDGE.py [--num 16] [--skip 8] [--network faces-64] [--outdir out/swap]
        [--method editable] [--set near_weight=3 ...]

The people are those of bench/inversion.py, in its order; each is put on the photo of the next. Crops are enlarged to
256 px, and the swap is pasted into the enlarged crop. JUDGE.py is a program with a class `Judge`, as bench/inversion.py
says; nothing of it was a loss, a target or a chooser of anything here. Prints a table in Markdown; pictures go to
--outdir: rows of sources, targets, swaps. Where the photos' own pixels are carried the picture does not depend on the
source's code: `--method pivot --set num_steps=1 tune_steps=0` gives the same table in a quarter of the time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL.Image import Image

from inversion import BATCH, load_judge, people
from mien.app.sitters import METHOD, Sitter, sharp_px, whole
from mien.app.studio import Studio
from mien.edits.swap import Swap, SwapConfig
from mien.faces.align import paste_back
from mien.images import grid, save_png

WANTED_IDENTITY = 0.30
WANTED = {"yaw": 4.0, "pitch": 4.0, "expression": 0.10, "colour": 8.0}


def config_of(settings: list[str]) -> SwapConfig:
    """Read settings like `near_weight=3`."""
    default = SwapConfig()
    pairs = (text.partition("=")[::2] for text in settings)
    return SwapConfig(**{name: type(getattr(default, name))(float(value)) for name, value in pairs})


def is_kept_outside(target: Sitter, swapped: Swap, picture: Image) -> bool:
    """Say whether every pixel that the mask does not reach is the photo's, byte for byte."""
    black, white = PIL.Image.new("RGB", target.picture.size), torch.ones_like(swapped.img)
    reached = np.asarray(paste_back(black, target.crop, white, keep_detail=False, within=swapped.within)).any(2)
    return bool((np.asarray(picture)[~reached] == np.asarray(target.picture)[~reached]).all())


class Bench:
    """The people, the judge, and what was measured."""

    def __init__(self, studio: Studio, crops: list[Image], judge: Any) -> None:
        self.studio, self.judge = studio, judge
        self.people = [whole(studio, str(i), crop) for i, crop in enumerate(crops)]

    def run(self, config: SwapConfig, method: str) -> tuple[list[Image], list[dict[str, float]], list[float]]:
        """Swapped pictures, what the judge says of each, and seconds a pair for codes and swaps."""
        studio, num = self.studio, len(self.people)
        begin = time.monotonic()
        img = torch.cat([one.img for one in self.people])
        codes = [code for some in img.split(BATCH) for code in studio.invert(some, method=method)]
        times = [(time.monotonic() - begin) / num]
        assert studio.swap_means.describe is None, "a cached ArcFace would steer"
        begin, pictures, rows = time.monotonic(), [], []
        for i, source in enumerate(self.people):
            k = (i + 1) % num
            target = self.people[k]
            side = sharp_px(studio, [source.crop, target.crop])
            (swapped,) = studio.swap([codes[i]], source.at(side), [codes[k]], target.at(side), config=config)
            pictures.append(studio.paste_swap(target.picture, target.crop, swapped))
            rows.append(
                self.judged(source, target, pictures[-1])
                | {
                    "kept": float(is_kept_outside(target, swapped, pictures[-1])),
                }
            )
            print(f"{i}: " + ", ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
        return pictures, rows, [*times, (time.monotonic() - begin) / num]

    def judged(self, source: Sitter, target: Sitter, picture: Image) -> dict[str, float]:
        """Identity to the source and to the target, and how far pose, expression and colour are from the target's."""
        to_source, to_target = (self.judge.pair(picture, one.picture) for one in (source, target))
        if "error" in to_source or "error" in to_target:
            return {"no face": 1.0}
        return {"source": to_source["id"], "target": to_target["id"], **{key: to_target[key] for key in WANTED}}


def table(rows: list[dict[str, float]], times: list[float]) -> str:
    """Medians, means and shares, in Markdown."""
    good = [row for row in rows if "no face" not in row]
    won = [row["source"] >= WANTED_IDENTITY and row["source"] > row["target"] for row in good]
    lines = ["| | median | mean | wanted | pairs that have it |", "|---|---|---|---|---|"]
    for key in ("source", "target", *WANTED):
        values = [row[key] for row in good]
        wanted, share = "", ""
        if key in WANTED:
            wanted = f"below {WANTED[key]:g}"
            share = f"{sum(v < WANTED[key] for v in values)} of {len(rows)}"
        name = f"identity to the {key}" if key in ("source", "target") else key
        lines.append(f"| {name} | {median(values):.3f} | {fmean(values):.3f} | {wanted} | {share} |")
    nearer = sum(row["source"] > row["target"] for row in good)
    lines.append(
        f"| identity to the source at least {WANTED_IDENTITY} and above the target's | | | 85 % | "
        f"{sum(won)} of {len(rows)} |"
    )
    lines.append(f"| identity to the source above the target's | | | | {nearer} of {len(rows)} |")
    lines.append(
        f"| every pixel outside of the mask is the photo's | | | all | {sum(r.get('kept', 0) for r in rows):.0f}"
        f" of {len(rows)} |"
    )
    return "\n".join([*lines, "", f"{times[0]:.1f} s for a code, {times[1]:.1f} s for a swap."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--num", type=int, default=16)
    parser.add_argument("--skip", type=int, default=8, help="people that settings were tried on")
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--method", default=METHOD, help="of inversion")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=X", help="settings of the swap")
    parser.add_argument("--outdir", type=Path, default=Path("out/swap"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    args = parser.parse_args()
    studio = Studio(args.network, device="cpu")
    bench = Bench(studio, people(args.data, args.num, args.cache, skip=args.skip), load_judge(args.judge))
    pictures, rows, times = bench.run(config_of(args.set), args.method)
    shown = [one.picture for one in bench.people]
    save_png(grid([*shown, *shown[1:], shown[0], *pictures], columns=len(shown)), args.outdir / "swaps.png")
    print(table(rows, times))


if __name__ == "__main__":
    main()
