"""Edit a clip of invented people and measure it: flicker, steadiness of the quads, time.

    python bench/video.py [--num 48] [--set smile=1.5] [--methods encoder,optimize,pti] [--outdir out/video]

Two people who do not exist walk past one another in front of a drifting picture; each walks through W meanwhile, so
that the face changes too. Somebody enters late, one is hidden for a few pictures, and the last pictures are empty.

Flicker is the mean absolute difference from one picture to the next, in grey levels, over the pixels that the edit
changed by more than a level somewhere in the clip: edited minus original. 0 is an edit that moves as the face does.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import PIL.Image
from PIL.Image import Image

from mien.app.studio import Studio
from mien.app.terminal.text import parse_settings
from mien.edits.video import find_video_method
from mien.faces.align import mask
from mien.images import grid, resize, save_png, to_pil
from mien.video import clip_frames, save_mp4

SIZE, FACE_PX, FPS = (400, 240), 150, 25.0
PEOPLE = ((3, 8), (11, 5))  # seeds at both ends of the walk of each


def background(t: int) -> Image:
    """A drifting pattern of soft stripes."""
    x, y = np.meshgrid(np.arange(SIZE[0]) + 1.5 * t, np.arange(SIZE[1]))
    waves = [np.sin(x / 37 + k) + np.cos(y / 29 + x / 91 + 2 * k) for k in range(3)]
    return PIL.Image.fromarray((120 + 30 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8))


def walker(studio: Studio, seeds: tuple[int, int], num: int) -> list[Image]:
    """Somebody who becomes somebody else by the sixth part of the way, turning the head and back."""
    a, b = (studio.seed_code(seed, psi=0.5) for seed in seeds)
    pictures = []
    for t in range(num):
        turn = np.sin(2 * np.pi * t / num)
        code = studio.edit(a.with_ws(a.ws.lerp(b.ws, t / num / 6)), {"yaw": float(turn)})
        pictures += to_pil(resize(studio.render(code), FACE_PX))
    return pictures


def make_clip(studio: Studio, num: int) -> list[Image]:
    """The clip: one walks to the right, one comes in later from there, hides for a moment, and all are gone at last."""
    alpha = PIL.Image.fromarray((mask(FACE_PX)[0, 0] * 255).byte().numpy())
    faces = [walker(studio, seeds, num) for seeds in PEOPLE]
    frames = []
    for t in range(num):
        frame, way = background(t), t / num
        places = [(10 + 90 * way, 40 + 8 * np.sin(6 * way)), (250 - 60 * way, 60 + 5 * np.cos(7 * way))]
        is_there = [t < num - 4, num // 8 <= t < num - 4 and not num // 2 <= t < num // 2 + 3]
        for pictures, (x, y), there in zip(faces, places, is_there, strict=True):
            if there:
                frame.paste(pictures[t], (round(x), round(y)), alpha)
        frames.append(frame)
    return frames


def grey(path: Path) -> np.ndarray:
    """Every picture of a clip, [T, H, W]."""
    return np.stack([np.asarray(image).mean(-1) for image in clip_frames(path)])


def flicker(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """From picture to picture, in grey levels: the original, the edited clip, and the edit alone, where it edits."""
    where = (np.abs(after - before) > 1).any(0)
    steps = [np.abs(np.diff(clip, axis=0))[:, where].mean() for clip in (before, after, after - before)]
    return float(steps[0]), float(steps[1]), float(steps[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=48)
    parser.add_argument("--set", dest="settings", action="append")
    parser.add_argument("--methods", default="encoder,optimize,pti")
    parser.add_argument("--network", default="faces-64")
    parser.add_argument("--outdir", type=Path, default=Path("out/video"))
    args = parser.parse_args()
    strengths = parse_settings(args.settings or ["smile=1.5"])
    studio = Studio(args.network, device="cpu")
    source = args.outdir / "source.mp4"
    save_mp4(make_clip(studio, args.num), source, fps=FPS)
    before, sheets = grey(source), {"source": list(clip_frames(source))}
    print("| method | seen, changed | flicker: clip, edited, edit | jitter, px: raw, steadied | s a frame | of these |")
    print("|---|---|---|---|---|---|")
    for method in args.methods.split(","):
        path = args.outdir / f"{method}.mp4"
        begin, ends = time.process_time(), {}
        report = studio.edit_clip(
            source,
            path,
            strengths,
            config=find_video_method(method),
            on_step=lambda step, ends=ends: ends.update({step.stage: time.process_time()}),
        )
        assert report.num_frames == args.num
        sheets[method] = list(clip_frames(path))
        spent = dict(zip(ends, np.diff([begin, *ends.values()]) / args.num, strict=True))
        levels = ", ".join(f"{x:.2f}" for x in flicker(before, grey(path)))
        seen = ", ".join(f"{one.num_seen} {one.num_changed}" for one in report.people)
        jitter = ", ".join(f"{x:.2f}" for x in np.mean([(p.raw_jitter_px, p.jitter_px) for p in report.people], 0))
        parts = ", ".join(f"{name} {x:.2f}" for name, x in spent.items())
        print(f"| {method} | {seen} | {levels} | {jitter} | {sum(spent.values()):.2f} | {parts} |", flush=True)
    picks = np.linspace(0, args.num - 1, 6).round().astype(int)
    pictures = [frames[i] for frames in sheets.values() for i in picks]
    save_png(grid(pictures, columns=6, row_labels=list(sheets)), args.outdir / "sheet.png")


if __name__ == "__main__":
    main()
