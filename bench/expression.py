"""Measure expression transfer on people who were kept out of all training, with an independent judge.

    python bench/expression.py faces128.zip --judge JUDGE.py [--num 16] [--network faces-64] [--outdir out/bench]

Everybody gets the expression of another unseen person's picture, of the strongest ones by their labels: smiles, open
jaws, raised brows, lowered brows in turn. Then everybody shows each emotion by its name. Pictures are the person's crop
at the generator's size plus the change of its render, as photos get it: the whole change, or, as the command does, that
of brows, eyes and mouth. Their expression is compared with the source's, identity and pose with the crop's. JUDGE.py is
a program with a class `Judge` whose `faces(image)` gives blendshapes, and `pair(image, image)` identity, yaw and pitch;
nothing of it was a loss or a target here. Prints tables in Markdown; pictures go to --outdir.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from inversion import BATCH, enlarged, load_judge, mean
from mien.app.studio import Studio
from mien.edits.expression import EMOTIONS, held
from mien.images import grid, save_png, to_pil
from mien.inversion.code import Inversion
from mien.nets.features import EXPRESSIONS
from mien.training.data import PictureSet, load_pictures, split_people

KINDS: Mapping[str, tuple[str, ...]] = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "jaw": ("jawOpen",),
    "brows up": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "brows down": ("browDownLeft", "browDownRight"),
}
SHOWS: Mapping[str, tuple[str, ...]] = {
    "happiness": KINDS["smile"],
    "surprise": (*KINDS["jaw"], *KINDS["brows up"]),
    "anger": KINDS["brows down"],
}
"""Emotion => blendshapes in which the judge should see it."""

LARGEST_YAW_DEG = 15.0
SMALLEST_RANK = 4  # the very strongest of each kind grimace


def column(pictures: PictureSet, name: str) -> np.ndarray:
    """A label of every picture as numbers; what is missing is 0."""
    return np.array([float(value or 0) for value in pictures.labels[name]])


def sources(pictures: PictureSet, num: int, without: Sequence[str]) -> list[int]:
    """Rows of pictures that express something, of the kinds in turn, of nobody in `without` and nobody twice."""
    usable = np.abs(column(pictures, "yaw_deg")) < LARGEST_YAW_DEG
    seen, found = set(without), []
    orders = []
    for names in KINDS.values():
        strength = np.mean([column(pictures, name) for name in names], axis=0) * usable
        orders.append(iter(np.argsort(-strength)[SMALLEST_RANK:].tolist()))
    while len(found) < num:
        order = orders[len(found) % len(orders)]
        row = next(row for row in order if pictures.labels["identity"][row] not in seen)
        seen.add(pictures.labels["identity"][row])
        found.append(row)
    return found


class Bench:
    """The people, the judge, and the studio."""

    def __init__(self, studio: Studio, judge: Any, crops: list[Image], method: str, outdir: Path) -> None:
        self.studio, self.judge, self.outdir = studio, judge, outdir
        self.img = torch.cat([studio.aligned(crop) for crop in crops])
        self.codes = [code for some in self.img.split(BATCH) for code in studio.invert(some, method=method)]
        self.before = torch.cat([studio.render(code) for code in self.codes])
        self.pictures = [enlarged(image) for image in to_pil(self.img)]

    def look(self, image: Image) -> Mapping[str, float] | None:
        faces = self.judge.faces(image)
        return faces[0]["blendshapes"] if faces else None

    def changed(self, change: Callable[[int, Inversion], Inversion], name: str, first: list[Image]) -> dict[str, Any]:
        """Change everybody; pictures with the whole change, and with that of the moving parts."""
        begin = time.monotonic()
        after = torch.cat([self.studio.render(change(i, code)) for i, code in enumerate(self.codes)])
        time_s = (time.monotonic() - begin) / len(after)
        made = {"whole": self.img + after - self.before, "parts": self.img + held(after, self.before) - self.before}
        found: dict[str, Any] = {kind: [enlarged(image) for image in to_pil(img)] for kind, img in made.items()}
        save_png(grid([*first, *self.pictures, *found["whole"], *found["parts"]], columns=len(after)), self._file(name))
        return found | {"time_s": time_s}

    def _file(self, name: str) -> Path:
        return self.outdir / f"express-{name}.png"

    def kept(self, pictures: Sequence[Image]) -> str:
        """Identity, yaw and pitch against the crops; faces lost."""
        rows = [self.judge.pair(a, b) for a, b in zip(self.pictures, pictures, strict=True)]
        good = [row for row in rows if "error" not in row]
        cells = " | ".join(f"{mean([row[key] for row in good]):{form}}" for key, form in self.columns)
        return f"{cells} | {len(rows) - len(good)}"

    columns = (("id", ".3f"), ("yaw", ".1f"), ("pitch", ".1f"))

    def from_pictures(self, shown: list[Image]) -> None:
        """Print the table of expressions from other pictures."""
        wanted = [self.studio.expression(self.studio.aligned(image)) for image in shown]
        made = self.changed(lambda i, code: self.studio.express(code, wanted[i]), "from", shown)
        theirs = [self.look(image) for image in shown]
        before = self._distance([self.look(image) for image in self.pictures], theirs)
        print("| change | expression distance before | after | identity | yaw | pitch | no face | seconds a face |")
        print("|---|---|---|---|---|---|---|---|")
        for name in ("whole", "parts"):
            after = self._distance([self.look(image) for image in made[name]], theirs)
            print(f"| {name} | {before} | {after} | {self.kept(made[name])} | {made['time_s']:.1f} |", flush=True)

    @staticmethod
    def _distance(looks: Sequence[Mapping[str, float] | None], theirs: Sequence[Mapping[str, float] | None]) -> str:
        names = [n for n in EXPRESSIONS if n.startswith(("brow", "eyeBlink", "eyeWide", "eyeSquint", "jaw", "mouth"))]
        pairs = [(a, b) for a, b in zip(looks, theirs, strict=True) if a is not None and b is not None]
        return f"{mean([fmean(abs(a[n] - b[n]) for n in names) for a, b in pairs]):.3f}"

    def by_name(self) -> None:
        """Print the table of emotions by name."""
        own = [self.look(image) for image in self.pictures]
        print("\n| emotion | change | what shows it, before | after | identity | yaw | pitch | no face |")
        print("|---|---|---|---|---|---|---|---|")
        for name, shown in EMOTIONS.items():
            made = self.changed(lambda _, code, shown=shown: self.studio.express(code, shown), name, [])
            before = self._shown(own, name)
            for kind in ("whole", "parts"):
                after = self._shown([self.look(image) for image in made[kind]], name)
                print(f"| {name} | {kind} | {before} | {after} | {self.kept(made[kind])} |", flush=True)

    @staticmethod
    def _shown(looks: Sequence[Mapping[str, float] | None], name: str) -> str:
        return f"{mean([fmean(look[n] for n in SHOWS[name]) for look in looks if look is not None]):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--num", type=int, default=16)
    parser.add_argument("--skip", type=int, default=8, help="people that settings were tried on")
    parser.add_argument("--method", default="editable")
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--outdir", type=Path, default=Path("out/bench"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    args = parser.parse_args()
    _, held_out = split_people(load_pictures(args.data, size_px=128, cache=args.cache))
    _, first = np.unique(held_out.labels["identity"], return_index=True)
    rows = np.random.RandomState(0).permutation(first)[args.skip : args.skip + args.num]  # as bench/inversion.py does
    shown = sources(held_out, args.num, [held_out.labels["identity"][row] for row in rows])
    crops, others = ([enlarged(image) for image in pictures(held_out, some)] for some in (rows, np.array(shown)))
    bench = Bench(Studio(args.network, device="cpu"), load_judge(args.judge), crops, args.method, args.outdir)
    bench.from_pictures(others)
    bench.by_name()


def pictures(held_out: PictureSet, rows: np.ndarray) -> list[Image]:
    return to_pil(held_out.select(rows).pixels.float() / 127.5 - 1)


if __name__ == "__main__":
    main()
