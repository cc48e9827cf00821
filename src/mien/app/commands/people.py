"""Commands on people whom the generator invents: pictures, the style-mixing table, a walk from one to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, Class, Commercial, Engine, Out, Outdir, Psi
from mien.app.settings import NOISE_MODES
from mien.app.terminal.items import check_network, check_out, check_outdir
from mien.app.terminal.screen import Bars
from mien.app.terminal.spread import spread
from mien.app.terminal.text import CODE_SUFFIX, parse_classes, parse_layers, parse_people, parse_seeds
from mien.errors import InputError
from mien.report import Step

if TYPE_CHECKING:
    from PIL.Image import Image

    from mien.app.studio import Studio
    from mien.inversion.code import Inversion

__all__ = ["app"]

app = typer.Typer()

PEOPLE_HELP = "seeds, or codes that `mien invert` wrote: 1,2,5-10 or anna_0.safetensors,7"


def _people(studio: Studio, people: Iterable[int | Path], psi: float, class_idx: int | None) -> list[Inversion]:
    """Return the codes of seeds and of files."""
    from mien.inversion.code import load_inversion

    codes = []
    for person in people:
        if isinstance(person, int):
            codes.append(studio.seed_code(person, psi=psi, class_idx=class_idx))
            continue
        code = load_inversion(person)
        studio.check(code)
        if code.changes:
            hint = f"give the {CODE_SUFFIX} beside it: the code alone"
            raise InputError(f"{person} changes the generator for one person", hint=hint)
        codes.append(code)
    return codes


@app.command()
@spread
def generate(
    seeds: Annotated[str, typer.Option("--seeds", help="Say 1,2,5-10.")],
    outdir: Outdir,
    psi: Psi = 0.7,
    noise_mode: Annotated[str, typer.Option("--noise-mode", help=f"{', '.join(NOISE_MODES)}.")] = "const",
    classes: Annotated[
        str | None, typer.Option("--classes", help="Of a generator that has classes: every seed in each, say 0,3-5.")
    ] = None,
    engine: Engine = ENGINE,
    commercial: Commercial = False,
) -> None:
    """Invent people: seed<N>.png, or seed<N>_class<K>.png.

    Example: mien generate --seeds 1-8 --psi 0.7 --outdir people
    """
    from mien.images import save_png
    from mien.marks import Origin

    numbers = parse_seeds(seeds)
    kinds = [None] if classes is None else parse_classes(classes)
    check_outdir(outdir)
    check_network(engine.network, commercial=commercial)
    studio = engine.studio()
    wanted = [(number, kind) for number in numbers for kind in kinds]
    with Bars() as bars:
        for i, (number, kind) in enumerate(wanted):
            out = outdir / (f"seed{number}.png" if kind is None else f"seed{number}_class{kind}.png")
            save_png(studio.generate([number], psi=psi, noise_mode=noise_mode, class_idx=kind)[0], out, Origin.INVENTED)
            typer.echo(out)
            bars(Step("generate", i + 1, len(wanted)))


@app.command("style-grid")
@spread
def style_grid(
    rows: Annotated[str, typer.Option("--rows", help=f"Who gives the other rows of the codes: {PEOPLE_HELP}.")],
    cols: Annotated[str, typer.Option("--cols", help="Who gives LAYERS; likewise.")],
    layers: Annotated[str, typer.Option("--layers", help="Rows taken from COLS: 0-6, or 8- for 8 to the last.")],
    out: Out,
    psi: Psi = 0.7,
    class_idx: Class = None,
    engine: Engine = ENGINE,
    commercial: Commercial = False,
) -> None:
    """Mix styles as the papers' tables do: every person on the left with LAYERS of everyone above.

    Example: mien style-grid --rows 1,2,3 --cols 4,5,6 --layers 0-6 --out table.png
    """
    from mien.images import grid, save_png
    from mien.marks import Origin

    shapes, styles = parse_people(rows), parse_people(cols)
    check_out(out)
    check_network(engine.network, commercial=commercial)
    studio = engine.studio()
    idx = parse_layers(layers, studio.G.num_ws)
    table = studio.style_table(_people(studio, shapes, psi, class_idx), _people(studio, styles, psi, class_idx), idx)
    save_png(grid([image for row in table for image in row], columns=len(styles) + 1), out, Origin.INVENTED)
    typer.echo(out)


def _shown(frames: Iterable[Image], total: int) -> Iterator[Image]:
    """Hand pictures on behind a bar."""
    with Bars() as bars:
        for i, frame in enumerate(frames):
            yield frame
            bars(Step("frames", i + 1, total))


@app.command()
@spread
def interpolate(
    out: Annotated[Path, typer.Option("--out", help="MP4 to write.")],
    codes: Annotated[
        list[Path] | None, typer.Argument(help="Codes that `mien invert` wrote, to be walked through first.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Say 1,2,5-10.")] = None,
    frames: Annotated[int, typer.Option("--frames", min=1, max=100_000, help="Of the whole loop.")] = 240,
    fps: Annotated[float, typer.Option("--fps", min=0.1, max=240, help="Frames a second.")] = 30,
    psi: Psi = 0.7,
    class_idx: Class = None,
    engine: Engine = ENGINE,
    commercial: Commercial = False,
) -> None:
    """Walk from person to person and back to the first, smoothly, as a video that can be looped.

    Example: mien interpolate --seeds 1,2,3 --frames 240 --out walk.mp4
    """
    from mien.video import save_mp4

    people: list[int | Path] = [*(codes or []), *([] if seeds is None else parse_seeds(seeds))]
    if not people:
        raise InputError("nobody to walk to", hint="give --seeds 1,2,3, or codes that `mien invert` wrote")
    check_out(out, codes or [], suffix=".mp4")
    check_network(engine.network, commercial=commercial)
    studio = engine.studio()
    walk = studio.walk(_people(studio, people, psi, class_idx), frames)
    save_mp4(_shown(walk, frames), out, fps=fps)
    typer.echo(out)
