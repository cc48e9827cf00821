"""The main job once, from end to end: a photo and invented people, edited; pictures, one figure and a report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import torch
from PIL.Image import Image

from mien import __version__
from mien.app.figures.figure import PAPER, Section, Tile, draw_face, figure
from mien.app.settings import DEFAULT_STYLE
from mien.app.studio import Studio
from mien.atomic import write_text
from mien.edits.toonify import ToonConfig
from mien.faces.align import align
from mien.faces.detect import Face
from mien.images import grid, save_png
from mien.inversion.code import Inversion, save_inversion
from mien.report import Sink, Step, ignore
from mien.weights.load import bundled_names

__all__ = ["demo_photo", "run_demo"]

PHOTO_EDITS = (("smile", -1.0), ("age", 1.5), ("yaw", -2.0), ("yaw", 2.0))
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
PEOPLE = tuple(range(1, 21))
SWEPT = {"smile": (2, 9), "age": (6, 8), "yaw": (11, 4)}  # direction => seeds of the people who show it
MIXED = ((3, 7, 12), (1, 2, 4, 8, 9, 10, 15, 17, 18))  # seeds of the shapes, seeds of the styles
PSI = 0.5
STAGES = 7


def demo_photo() -> Image:
    """NASA's portrait of the astronaut Eileen Collins, in the public domain, as scikit-image carries it."""
    import skimage.data

    return PIL.Image.fromarray(skimage.data.astronaut())


class _Clock:
    """Seconds by stage, told to a sink as they begin."""

    def __init__(self, on_step: Sink) -> None:
        self.on_step, self.times_s = on_step, dict[str, float]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.on_step(Step("demo", len(self.times_s), STAGES))
        started = time.monotonic()
        yield
        self.times_s[name] = round(time.monotonic() - started, 2)


def _label(name: str, strength: float) -> str:
    return f"{name} {strength:+g}"


def _file(name: str, strength: float) -> str:
    return f"photo_{name}_{'minus' if strength < 0 else 'plus'}{abs(strength):g}.png"


def _sweeps(studio: Studio) -> dict[str, list[Image]]:
    """Some invented people for each direction, each at every strength."""
    found: dict[str, list[Image]] = {}
    for name in sorted(SWEPT.keys() & studio.directions.directions.keys()):
        people = [studio.seed_code(seed, psi=PSI) for seed in SWEPT[name]]
        found[name] = [studio.picture(studio.edit(code, {name: s})) for code in people for s in STRENGTHS]
    return found


@dataclass(frozen=True)
class _Shown:
    """What the demo made: the photo's way, and the people's pictures."""

    photo: Image
    faces: Sequence[Face]
    large: Image  # the aligned face, for the eye
    code: Inversion
    edits: Sequence[tuple[str, float]]
    codes: Sequence[Inversion]
    pasted: Sequence[Image]
    drawn: Mapping[str, Image]
    people: Sequence[Image]
    sweeps: Mapping[str, Sequence[Image]]
    layers: Sequence[int]  # that the style table mixes
    table: Sequence[Sequence[Image]]


def run_demo(studio: Studio, outdir: Path, on_step: Sink = ignore) -> dict[str, object]:
    """Make the demo's files in `outdir` and return its report.

    Args:
        studio: with the networks to show.
        outdir: for the pictures, `overview.png` and `report.json`.
        on_step: hears of every stage, and of the optimiser's steps.
    """
    clock, photo = _Clock(on_step), demo_photo()
    save_png(photo, outdir / "photo.png", origin=None)
    with clock.stage("find and align"):
        faces = studio.detect(photo)
        crop = studio.align(photo, source="photo.png", face=0)[0]
        large = align(photo, faces[0], 256).image
        save_png(large, outdir / "photo_0.png")
    with clock.stage("invert"):
        code = studio.invert(crop.img, on_step=on_step)[0].from_crop(crop.record)
        save_inversion(code, outdir / "photo_0.safetensors")
        save_png(studio.picture(code), outdir / "photo_0_inverted.png")
    with clock.stage("edit and paste"):
        edits = [(n, s) for n, s in PHOTO_EDITS if n in studio.directions.directions]
        codes = [studio.edit(code, {name: strength}) for name, strength in edits]
        pasted = [studio.paste(photo, crop, edited, code) for edited in codes]
        for (name, strength), image in zip(edits, pasted, strict=True):
            save_png(image, outdir / _file(name, strength))
    drawn: dict[str, Image] = {}
    if DEFAULT_STYLE in bundled_names():
        with clock.stage("draw"):
            artist = studio.artist(DEFAULT_STYLE)
            for name, is_whole in (("face", False), ("whole picture", True)):
                drawn[name] = studio.toonify(photo, artist, ToonConfig(is_whole=is_whole), source="photo.png")
                save_png(drawn[name], outdir / f"photo_drawn_{name.split()[0]}.png")
    with clock.stage("invent people"):
        people = studio.generate(PEOPLE, psi=PSI)
        save_png(grid(people, columns=10), outdir / "people.png")
    with clock.stage("edit people"):
        sweeps = _sweeps(studio)
        for name, pictures in sweeps.items():
            save_png(grid(pictures, columns=len(pictures)), outdir / f"people_{name}.png")
    with clock.stage("mix people"):
        layers = range(studio.G.num_ws // 2, studio.G.num_ws)
        shapes, styles = ([studio.seed_code(seed, psi=PSI) for seed in seeds] for seeds in MIXED)
        table = studio.style_table(shapes, styles, layers)
        save_png(grid([image for row in table for image in row], columns=len(table[0])), outdir / "people_mixed.png")
        table[0][0] = PIL.Image.new("RGB", table[0][0].size, PAPER)

    shown = _Shown(photo, faces, large, code, edits, codes, pasted, drawn, people, sweeps, layers, table)
    text = f"mien {__version__} with {studio.network.stem}, {studio.G.img_resolution} px, everything on this machine"
    save_png(figure("From a photo to an edited photo", text, _sections(studio, shown)), outdir / "overview.png")
    report = _report(studio, shown, clock)
    write_text(json.dumps(report, indent=1) + "\n", outdir / "report.json")
    on_step(Step("demo", STAGES, STAGES))
    return report


def _sections(studio: Studio, shown: _Shown) -> list[Section]:
    labels = [_label(name, strength) for name, strength in shown.edits]
    aligned = [
        Tile(draw_face(shown.photo, shown.faces), f"{len(shown.faces)} face{'s' * (len(shown.faces) != 1)} found"),
        Tile(shown.large, "aligned"),
        Tile(studio.picture(shown.code), "inverted"),
        *(Tile(studio.picture(code), label) for code, label in zip(shown.codes, labels, strict=True)),
    ]
    pasted = [Tile(image, label) for image, label in zip(shown.pasted, labels, strict=True)]
    return [
        Section(
            "A photo",
            "Its faces are found with five points, cut out as FFHQ does, found again in the generator, edited there.",
            [aligned],
            208,
        ),
        Section(
            "Back in the photo",
            "Each edit pasted at the photo's own resolution; outside of the face no pixel changes.",
            [[Tile(shown.photo, "the photo"), *pasted]],
            290,
        ),
        *_drawn_section(shown),
        Section(
            "People who do not exist",
            f"Seeds {PEOPLE[0]} to {PEOPLE[-1]}, truncation {PSI}.",
            [[Tile(image) for image in shown.people[:10]], [Tile(image) for image in shown.people[10:]]],
            139,
        ),
        *_direction_section(shown.sweeps),
        Section(
            "Style mixing",
            "Pose and shape (the first half of the rows) from the person on the left, colours from the one above.",
            [[Tile(image) for image in row] for row in shown.table],
            139,
        ),
    ]


def _drawn_section(shown: _Shown) -> list[Section]:
    if not shown.drawn:
        return []
    tiles = [Tile(image, f"the {name}") for name, image in shown.drawn.items()]
    return [Section("Drawn", f"In one pass, by {DEFAULT_STYLE}.", [[Tile(shown.photo, "the photo"), *tiles]], 290)]


def _direction_section(sweeps: Mapping[str, Sequence[Image]]) -> list[Section]:
    if not sweeps:
        return []
    rows = [
        [Tile(image, _label(name, s) if s else name) for image, s in zip(pictures, STRENGTHS * 2, strict=True)]
        for name, pictures in sweeps.items()
    ]
    text = "Two people a row; 1.0 is one standard deviation of the attribute over the generator's own faces."
    return [Section("Directions", text, rows, 139)]


def _report(studio: Studio, shown: _Shown, clock: _Clock) -> dict[str, object]:
    """What was done, with which seeds and weights, how well and in which time."""
    return {
        "mien": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(studio.device),
        "seeds": {
            "optimiser": studio.seed,
            "people": PEOPLE,
            "directions": {name: SWEPT[name] for name in shown.sweeps},
            "mixing": dict(zip(("rows", "columns"), MIXED, strict=True)),
        },
        "psi": PSI,
        "weights": studio.weights(),
        "faces": len(shown.faces),
        "edits": [{"name": n, "strength": s, "file": _file(n, s)} for n, s in shown.edits],
        "sweeps": {name: {"strengths": STRENGTHS, "file": f"people_{name}.png"} for name in shown.sweeps},
        "drawn": sorted(shown.drawn),
        "mixed_layers": list(shown.layers),
        "losses": shown.code.losses,
        "times_s": clock.times_s | {"all": round(sum(clock.times_s.values()), 2)},
    }
