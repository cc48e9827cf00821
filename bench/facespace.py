"""Measure on invented people how far codes are found again, and whether blends of people follow their weights.

    python bench/facespace.py [--network faces-64] [--seeds 1,2,3,4] [--methods optimize,pti] [--cycles 2]

Recovery: pictures of known codes (psi 0.7) are inverted; PSNR against them. Blends: a space is fitted to the recovered
codes; each person's weight rises from 0 to 1 in ninths with the others even, and Spearman's coefficient of the weight
and the likeness to the person (our own face network) says whether it is followed; our detector says whether every blend
is a face. `direct` is the convex combination of the codes. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor

from mien.app.studio import Studio
from mien.app.terminal.text import parse_seeds
from mien.edits import facespace
from mien.images import resize, to_pil
from mien.inversion.code import Inversion
from mien.latents import sample_ws
from mien.metrics import psnr

RAMP = 9
PSI = 0.7
DETECTOR_PX = 256  # blends are enlarged for the detector, with a margin, as photos are


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's coefficient of values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def recovery(studio: Studio, img: Tensor, methods: Sequence[str]) -> list[Inversion]:
    """Print the table of recovery; return the codes of the first method."""
    print("| method | PSNR, median | least | seconds a face |\n|---|---|---|---|")
    found = []
    for method in methods:
        begin = time.process_time()
        found.append(studio.invert(img, method=method))
        seconds = (time.process_time() - begin) / len(img)
        values = [float(psnr(studio.render(code), one[None])) for code, one in zip(found[-1], img, strict=True)]
        print(f"| {method} | {median(values):.1f} | {min(values):.1f} | {seconds:.1f} |", flush=True)
    return found[0]


def ramp(studio: Studio, blend: Callable[[Sequence[float]], Tensor], person: int, people: int) -> tuple[float, int]:
    """Raise one person's weight: Spearman's coefficient of it and the likeness, and how many blends are no face."""
    assert studio.face_net is not None
    weights = np.linspace(0, 1, RAMP).tolist()
    rows = [[w if i == person else (1 - w) / (people - 1) for i in range(people)] for w in weights]
    img = torch.cat([studio.render(Inversion(ws=blend(row))) for row in rows]).clamp(-1, 1)
    with torch.no_grad():
        who = studio.face_net(img).identity
    pictures = to_pil(torch.nn.functional.pad(resize(img, DETECTOR_PX), (DETECTOR_PX // 4,) * 4))
    return spearman(weights, (who @ who[-1]).tolist()), sum(not studio.detect(picture) for picture in pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--seeds", default="1,2,3,4")
    parser.add_argument("--methods", default="optimize,pti")
    parser.add_argument("--cycles", type=int, default=2)
    args = parser.parse_args()
    studio, seeds = Studio(args.network, device="cpu"), parse_seeds(args.seeds)
    with torch.no_grad():
        img = studio.G.synthesis(sample_ws(studio.G, seeds, truncation_psi=PSI), noise_mode="const").clamp(-1, 1)
    codes = torch.stack([code.ws for code in recovery(studio, img, args.methods.split(","))])
    config = facespace.FaceSpaceConfig(num_cycles=args.cycles)
    fitted = facespace.fit(studio.G, codes, img, config=config, face_model=studio.face_net, w_std=studio.stats.w_std)
    kinds: dict[str, Callable[[Sequence[float]], Tensor]] = {
        "fitted": fitted.blend,
        "direct": lambda row: torch.einsum("k,krd->rd", torch.tensor(row), codes),
    }
    print("\n| blends | Spearman, least | median | no face |\n|---|---|---|---|")
    for name, blend in kinds.items():
        found = [ramp(studio, blend, person, len(seeds)) for person in range(len(seeds))]
        values = [value for value, _ in found]
        lost = sum(lost for _, lost in found)
        print(f"| {name} | {min(values):.3f} | {median(values):.3f} | {lost} of {RAMP * len(seeds)} |", flush=True)


if __name__ == "__main__":
    main()
