"""Score a generator: how near its samples come to people, what they copy, how smooth its paths are, how its edits work.

    python bench/generator.py faces-64 --data faces128.zip --outdir out/bench-generator
    python bench/generator.py runs/gan/snapshots/G-000400.safetensors --data faces128.zip --run-dir runs/gan

Writes generator.json, index.html and their pictures to --outdir, and the numbers as a table in Markdown to stdout. All
features are those of our own face network, so that the numbers compare generators of this project with one another.
With --run-dir the page shows the curves of the run that made the generator.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mien.app.figures.page import Chapter, chart, page, picture, slug, table
from mien.app.settings import FACE_NET
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.edits.attributes import SHIPPED, face_scorer
from mien.edits.probe import DirectionScore, Probe, sample_spread, score_direction
from mien.images import grid, save_png, to_pil
from mien.latents import sample_ws, synthesize
from mien.losses import perceptual
from mien.nets.features import FaceNet
from mien.training.data import PictureSet, load_pictures, split_people
from mien.training.validation import compare, look, nearest_cosine, path_length, pictures, samples
from mien.weights.load import load_net

PSIS = (0.7, 1.0)
SHOWN_SEEDS = range(1, 65)
NUM_NEAREST = 12
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
CURVES = (
    ("Fréchet distance", ("frechet/held_out", "frechet/trained")),
    ("Kernel distance", ("kernel/held_out",)),
    ("Scores of D", ("score/real", "score/fake")),
    ("Reconstruction", ("loss/reconstruction", "loss/perceptual")),
    ("R1 and augmentation", ("loss/r1", "ada/p", "ada/sign")),
)


class Bench:
    """A generator, the people that it is compared with, and the folder where pictures go."""

    def __init__(
        self, studio: Studio, face_net: FaceNet, people: PictureSet, held_out: PictureSet, outdir: Path, num: int
    ) -> None:
        self.studio, self.face_net, self.outdir, self.num = studio, face_net, outdir, num
        self.people = people
        self.trained, self.held_out = (look(face_net, pictures(s.pixels, most=num)) for s in (people, held_out))

    def distances(self) -> dict[str, dict[str, float]]:
        """Scores of samples by their truncation."""
        return {
            f"psi {psi}": compare(
                look(self.face_net, samples(self.studio.G, self.num, truncation_psi=psi)), self.trained, self.held_out
            )
            for psi in PSIS
        }

    def path_length(self, num: int) -> float:
        return path_length(
            self.studio.G, lambda a, b: perceptual(self.face_net.maps(a), self.face_net.maps(b)), num=num
        )

    def seeds(self) -> Iterator[tuple[Path, str]]:
        """The fixed seeds at each truncation."""
        for psi in PSIS:
            ws = sample_ws(self.studio.G, list(SHOWN_SEEDS), truncation_psi=psi)
            path = self.outdir / f"seeds-psi{psi}.png"
            save_png(grid(to_pil(synthesize(self.studio.G, ws)), columns=16, gap_px=0), path)
            yield path, f"Seeds {SHOWN_SEEDS[0]} to {SHOWN_SEEDS[-1]}, psi {psi}"

    def copies(self) -> tuple[Path, str]:
        """Samples, and under each the person trained on who is most like it."""
        img = synthesize(self.studio.G, sample_ws(self.studio.G, list(SHOWN_SEEDS[:NUM_NEAREST]), truncation_psi=1.0))
        everyone = look(self.face_net, pictures(self.people.pixels, most=len(self.people)))
        rows, cosine = nearest_cosine(look(self.face_net, [img.clamp(-1, 1)]), everyone)
        likest = self.people.pixels[rows].float() / 127.5 - 1
        path = self.outdir / "nearest.png"
        words = [f"{value:.2f}" for value in cosine.tolist()]
        save_png(grid([*to_pil(img), *to_pil(likest)], columns=len(img), col_labels=words), path)
        return path, "Samples, the most similar person trained on, and the cosine between them"

    def directions(self, num: int) -> Iterator[tuple[str, DirectionScore, Path]]:
        """Each shipped direction that lies beside the generator, with a sheet of faces moved along it."""
        G, scorer = self.studio.G, face_scorer(self.face_net)
        found = self.studio.directions.directions
        spread = sample_spread(G, scorer, max(num, 128), truncation_psi=1.0, seed=1)
        ws = sample_ws(G, list(SHOWN_SEEDS[:num]), truncation_psi=0.7)
        probe = Probe(G, ws, scorer, spread)
        for attribute in SHIPPED:
            if attribute.name not in found:
                continue
            direction = found[attribute.name]
            others = [name for name in attribute.keep if name in spread]
            score = score_direction(probe, attribute.name, direction, others=others, strengths=STRENGTHS)
            shown = torch.cat([direction.render(G, ws[:6], strength) for strength in STRENGTHS])
            path = self.outdir / f"direction-{attribute.name}.png"
            labels = [f"{strength:+g}" for strength in STRENGTHS]
            save_png(grid(to_pil(shown), columns=len(ws[:6]), row_labels=labels), path)
            yield attribute.name, score, path


def run_curves(run_dir: Path) -> list[str]:
    """Charts of what a run's stats.jsonl holds."""
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    charts = []
    for title, names in CURVES:
        curves = {name: [(line["kimg"], line[name]) for line in lines if name in line] for name in names}
        charts.append(chart(f"{title} over thousands of pictures", {k: v for k, v in curves.items() if v}))
    return [drawn for drawn in charts if drawn]


def write_page(bench: Bench, report: dict[str, Any], scores: list[tuple[str, DirectionScore, Path]], title: str) -> str:
    sections: dict[str, list[str]] = {
        f"Samples at {name}": [table(numbers)] for name, numbers in report["distances"].items()
    }
    sections["Paths"] = [table({"perceptual path length": report["path_length"]})]
    sections["Fixed seeds"] = [picture(path.name, words) for path, words in bench.seeds()]
    nearest, words = bench.copies()
    sections["Nearest people"] = [picture(nearest.name, words)]
    for name, score, sheet in scores:
        curves = {k: list(zip(score.strengths, values, strict=True)) for k, values in score.curves.items()}
        numbers = {"strength": score.strength, "purity": score.purity, "identity": score.identity}
        drawn = chart("Mean change in standard deviations over the direction's strength", curves)
        sections[f"Direction {name}"] = [table(numbers), drawn, picture(sheet.name, "Six faces, one strength a row")]
    if report["run_dir"]:
        sections["The run"] = run_curves(Path(report["run_dir"]))
    text = "Features are those of mien's own face network."
    return page(title, text, [Chapter(slug(name), name, parts) for name, parts in sections.items()])


def markdown(report: dict[str, Any]) -> str:
    """The numbers as tables."""
    columns = report["distances"]
    lines = ["| samples | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name in next(iter(columns.values())):
        cells = [f"{numbers[name]:.4g}" for numbers in columns.values()]
        lines += [f"| {name} | {' | '.join(cells)} |"]
    lines += ["", f"Perceptual path length in W: {report['path_length']:.4g}."]
    if report["directions"]:
        lines += ["", "| direction | strength | purity | identity |", "|---|---|---|---|"]
        for name, score in report["directions"].items():
            lines.append(f"| {name} | {score['strength']:.2f} | {score['purity']:.2f} | {score['identity']:.2f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="a generator's file or bundled name")
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of faces, its table beside it")
    parser.add_argument("--num", type=int, default=1000, help="samples, and pictures of each set of people")
    parser.add_argument("--num-paths", type=int, default=500)
    parser.add_argument("--num-probes", type=int, default=32, help="faces that directions are tried on")
    parser.add_argument("--run-dir", type=Path, help="run whose curves are shown")
    parser.add_argument("--outdir", type=Path, default=Path("out/bench-generator"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    begin = time.monotonic()
    studio = Studio(args.network, device=args.device)
    face_net = load_net(FACE_NET, FaceNet).to(studio.device)
    people, held_out = split_people(load_pictures(args.data, size_px=studio.G.img_resolution, cache=args.cache))
    bench = Bench(studio, face_net, people, held_out, args.outdir, args.num)
    scores = list(bench.directions(args.num_probes))
    report: dict[str, Any] = {
        "network": studio.network.name,
        "sha256": studio.digest,
        "face_net": studio.weights().get(f"{FACE_NET}.safetensors"),
        "data": people.digest,
        "num": args.num,
        "distances": bench.distances(),
        "path_length": bench.path_length(args.num_paths),
        "directions": {name: asdict(score) for name, score, _ in scores},
        "run_dir": str(args.run_dir) if args.run_dir else "",
    }
    write_text(write_page(bench, report, scores, f"{studio.network.stem}: validation"), args.outdir / "index.html")
    report["seconds"] = round(time.monotonic() - begin, 1)
    write_text(json.dumps(report, indent=1), args.outdir / "generator.json")
    print(markdown(report))


if __name__ == "__main__":
    main()
