"""How good methods of inversion are on a folder of faces: numbers for every face and method, medians, a figure.

The protocol is the one that papers share: pictures and renders are brought to 256 px and rounded to 8 bits, then
compared in [-1, 1]: MSE, PSNR, LPIPS, MS-SSIM, identity, and seconds a face. What is done is written down
face by face, so that the same call goes on after it was stopped.

Source: Richardson et al. 2021, Sec. 4.1, arXiv:2008.00951; the table of github.com/caopulan/GANInverter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from mien.app.figures.figure import Section, Tile, figure
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.errors import InputError
from mien.images import open_photo, resize, save_png, to_pil, to_tensor
from mien.judges import Identity, Perceptual
from mien.metrics import ms_ssim, psnr
from mien.report import Sink, Step, ignore

__all__ = ["EVAL_PX", "Subject", "compare", "evaluate_inversion", "find_subject", "measure"]

EVAL_PX = 256
MOST_COLUMNS, TILE_PX = 12, 144


@dataclass(frozen=True)
class Subject:
    """A face to invert: its name, the crop at `EVAL_PX`, and the crop at the generator's side, [1, 3, H, H] each."""

    name: str
    picture: Tensor
    img: Tensor


def find_subject(studio: Studio, path: Path, *, aligned: bool) -> Subject:
    """Cut the largest face out of a photo, or take an FFHQ crop as it is.

    Raises:
        NoFaceError: no face.
        UnsupportedFileError: not a picture.
    """
    photo = open_photo(path)
    if aligned:
        img = studio.aligned(photo, source=path.name)
        return Subject(path.stem, resize(to_tensor(photo), EVAL_PX).clamp(-1, 1), img)
    picture, img = (
        studio.align(photo, size_px=side, source=path.name, face=0)[0].img
        for side in (EVAL_PX, studio.G.img_resolution)
    )
    return Subject(path.stem, picture, img)


def _seen(img: Tensor) -> Tensor:
    """Bring img [1, 3, H, W] to `EVAL_PX` and 8 bits."""
    return to_tensor(to_pil(resize(img.cpu(), EVAL_PX))[0])


@torch.no_grad()
def compare(render: Tensor, picture: Tensor, *, looks: Perceptual, identity: Identity) -> dict[str, float]:
    """Compare a render with the picture that it should be, [1, 3, H, W] each, both at `EVAL_PX`."""
    a, b = _seen(render), _seen(picture)
    return {
        "mse": float((a - b).square().mean()),
        "psnr": float(psnr(a, b)),
        "perceptual": float(looks(a, b)),
        "ms_ssim": float(ms_ssim(a, b)),
        "identity": float(identity(a, b)),
    }


def _medians(faces: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    keys = next(iter(faces.values()), {}).keys()
    return {key: median(face[key] for face in faces.values()) for key in keys}


def measure(
    studio: Studio, subject: Subject, method: str, num_steps: int | None, folder: Path, judges: Mapping[str, Any]
) -> dict[str, float]:
    """Invert and compare one face, or read what was found of it before."""
    out, record = folder / f"{subject.name}.png", folder / f"{subject.name}.json"
    judging = {key: judge.record for key, judge in judges.items()}
    if record.is_file() and studio.finished(out, subject.img, method=method, num_steps=num_steps):
        kept: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if kept["judges"] == judging:
            return dict(kept["numbers"])
    begin = time.monotonic()
    (inversion,) = studio.invert(subject.img, method=method, num_steps=num_steps)
    seconds = time.monotonic() - begin
    numbers = compare(studio.render(inversion), subject.picture, **judges) | {"seconds": seconds}
    write_text(json.dumps({"numbers": numbers, "judges": judging}), record)
    studio.save(inversion, out)
    return numbers


def evaluate_inversion(
    studio: Studio,
    subjects: Sequence[Subject],
    methods: Sequence[str],
    outdir: Path,
    *,
    looks: Perceptual,
    identity: Identity,
    num_steps: int | None = None,
    on_step: Sink = ignore,
) -> dict[str, Any]:
    """Invert every face by every method, and write `<method>/<name>.*`, `inversion.json` and `inversion.png`.

    Args:
        studio: generator, encoder, face network.
        subjects: faces.
        methods: names that `find_method` knows.
        outdir: folder for everything.
        looks: who says how different pictures look.
        identity: who says whose face it is.
        num_steps: of the last refinement of every method, by default its own.
        on_step: hears of every face.

    Raises:
        InputError: no faces.
    """
    if not subjects:
        raise InputError("no faces to invert", hint="give a folder of photos, or --aligned for crops")
    judges = {"looks": looks, "identity": identity}
    studio.invert(subjects[0].img, method="average+none")  # networks are loaded before the clock starts
    results = {}
    for method in methods:
        faces = {}
        for i, subject in enumerate(subjects):
            faces[subject.name] = measure(studio, subject, method, num_steps, outdir / method, judges)
            on_step(Step(method, i + 1, len(subjects)))
        results[method] = {"median": _medians(faces), "faces": faces}
    report = {
        "network": studio.network.stem,
        "weights": studio.weights(),
        "size_px": EVAL_PX,
        "perceptual": looks.record,
        "identity": identity.record,
        "num_faces": len(subjects),
        "methods": results,
    }
    write_text(json.dumps(report, indent=1), outdir / "inversion.json")
    save_png(_sheet(subjects, methods, outdir, report), outdir / "inversion.png")
    return report


def _sheet(subjects: Sequence[Subject], methods: Sequence[str], outdir: Path, report: Mapping[str, Any]) -> Image:
    some = subjects[:MOST_COLUMNS]
    text = f"{report['num_faces']} faces; identity by {report['identity']['judge']}"
    sections = [Section("Pictures", text, [[Tile(to_pil(s.picture)[0], s.name[:16]) for s in some]], TILE_PX)]
    for method in methods:
        numbers = report["methods"][method]["median"]
        text = "medians: " + ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())
        row = [Tile(open_photo(outdir / method / f"{s.name}.png")) for s in some]
        sections.append(Section(method, text, [row], TILE_PX))
    return figure("Inversion", str(report["network"]), sections)
