"""Choose the settings of inversion by our own networks alone, on people held out and in no table of results.

    python bench/inversion_settings.py faces128.zip [--skip 24] [--num 8] [--only optimize|tune|hybrid] [--steps 100]

Every variant is scored by PSNR and SSIM, by the identity of our face network over views that were not optimised
(mirrored, moved, enlarged, blurred), and by what an edit does to it: how much smile=+2 raises the smile, and how much
of the identity stays, by the same network over the same views. Optimising a network's identity raises that number
without meaning, which is why it is read on other views and never alone. The rule: of the variants whose edits keep an
identity within 0.03 of the best, the one with the highest SSIM.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from inversion import people
from mien.app.studio import Studio
from mien.inversion.code import Inversion
from mien.inversion.hybrid import HybridConfig
from mien.inversion.invert import PIVOT, Method, invert
from mien.inversion.objective import TermWeights
from mien.inversion.project import ProjectConfig
from mien.inversion.starts import Means
from mien.inversion.tune import TuneConfig
from mien.metrics import psnr, ssim

TERMS = TermWeights()


def optimize_variants() -> Iterator[tuple[str, Method]]:
    base = ProjectConfig()
    yield "as it is", Method("auto", (base,))
    for changes in ({"pixel": 2.0}, {"ssim": 1.0}, {"perceptual": 0.3}, {"perceptual": 3.0}, {"identity": 0.5}):
        yield f"{changes}", Method("auto", (replace(base, terms=replace(TERMS, **changes)),))
    former = {"pixel": 2.0, "ssim": 1.0, "identity": 0.5}
    for changes in (former, {**former, "identity": 0.0}):
        yield f"{changes}", Method("auto", (replace(base, terms=replace(TERMS, **changes)),))
    for offset, prior in ((0.02, 0.01), (0.3, 0.15)):
        changed = replace(base, offset_weight=offset, prior_weight=prior)
        yield f"offset {offset}, prior {prior}", Method("auto", (changed,))


def tune_variants() -> Iterator[tuple[str, Method]]:
    base = TuneConfig()
    yield "as it is", Method("auto", (PIVOT, base))
    for changes in ({"lr": 0.01}, {"lr": 0.03}, {"num_steps": 100}, {"locality_weight": 0.0}, {"locality_weight": 1.0}):
        yield f"{changes}", Method("auto", (PIVOT, replace(base, **changes)))
    longer = ({"num_steps": 120}, {"num_steps": 120, "lr": 0.03}, {"num_steps": 120, "rank": 32}, {"num_steps": 240})
    for changes in longer:
        yield f"longer {changes}", Method("auto", (PIVOT, replace(base, **changes)))
    yield "pivot with noise", Method("auto", (replace(PIVOT, noise_lr=0.05), base))


def hybrid_variants() -> Iterator[tuple[str, Method]]:
    base = HybridConfig()
    yield "as it is", Method("auto", (PIVOT, base))
    for changes in ({"near": 0.05, "far": 0.15}, {"feature_share": 0.5}, {"lr": 0.05}):
        yield f"{changes}", Method("auto", (PIVOT, replace(base, **changes)))
    for steps, features in ((120, 30), (120, 60)):
        tune = replace(base.tune, num_steps=steps)
        yield f"longer {steps}, {features}", Method("auto", (PIVOT, replace(base, tune=tune, num_steps=features)))


VARIANTS = {"optimize": optimize_variants, "tune": tune_variants, "hybrid": hybrid_variants}


def views(img: Tensor) -> Tensor:
    """Four views of img [N, 3, H, H] that no loss looks at, [4N, 3, H, H]."""
    side = img.shape[-1]
    margin = max(1, side // 16)
    enlarged = F.interpolate(img[:, :, margin:-margin, margin:-margin], (side, side), mode="bilinear")
    blurred = F.avg_pool2d(F.pad(img, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.cat([img.flip(3), img.roll((margin, -margin), (2, 3)), enlarged, blurred])


class Scores:
    """Numbers of a variant, by our own networks."""

    def __init__(self, studio: Studio, img: Tensor) -> None:
        assert studio.face_net is not None
        self.studio, self.img, self.net = studio, img, studio.face_net

    def identity(self, a: Tensor, b: Tensor) -> float:
        return float((self.net(views(a)).identity * self.net(views(b)).identity).sum(1).mean())

    @torch.no_grad()
    def __call__(self, codes: list[Inversion]) -> list[float]:
        """PSNR, SSIM, identity, smile of an edit, identity after it."""
        renders = torch.cat([code.render(self.studio.G) for code in codes])
        edited = torch.cat([self.studio.edit(code, {"smile": 2.0}).render(self.studio.G) for code in codes])
        rise = self.net(views(edited)).smile.mean() - self.net(views(renders)).smile.mean()
        medians = [float(metric(renders, self.img).median()) for metric in (psnr, ssim)]
        return [*medians, self.identity(renders, self.img), float(rise), self.identity(edited, self.img)]


def chosen(scores: Mapping[str, Sequence[float]]) -> str:
    """Apply the rule: of those whose edits keep an identity within 0.03 of the best, the highest SSIM."""
    best = max(numbers[-1] for numbers in scores.values())
    return max((name for name, numbers in scores.items() if numbers[-1] >= best - 0.03), key=lambda n: scores[n][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--num", type=int, default=8)
    parser.add_argument("--skip", type=int, default=24, help="people of the tables of results, and before them")
    parser.add_argument("--only", choices=sorted(VARIANTS))
    parser.add_argument("--names", default="", help="only variants whose names hold this")
    parser.add_argument("--steps", type=int, help="of the last refinement, by default its own")
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    args = parser.parse_args()
    studio = Studio(args.network, device="cpu")
    img = torch.cat([studio.aligned(c) for c in people(args.data, args.num, args.cache, skip=args.skip)])
    scores = Scores(studio, img)
    means = Means(stats=studio.stats, encode=studio.encode, face_model=studio.face_net)
    for kind in [args.only] if args.only else sorted(VARIANTS):
        print(f"\n| {kind} | PSNR | SSIM | identity | smile of smile=+2 | identity after it | core seconds a face |")
        print("|---|---|---|---|---|---|---|")
        found: dict[str, list[float]] = {}
        for name, method in VARIANTS[kind]():
            if args.names not in name:
                continue
            begin = time.process_time()
            codes = invert(studio.G, img, method if args.steps is None else method.with_steps(args.steps), means)
            seconds = (time.process_time() - begin) / len(codes)
            codes = [replace(code, network=studio.digest) for code in codes]
            found[name] = scores(codes)
            print(f"| {name} | {' | '.join(f'{x:.3f}' for x in found[name])} | {seconds:.1f} |", flush=True)
        print(f"\nBy the rule: {chosen(found)}.", flush=True)


if __name__ == "__main__":
    main()
