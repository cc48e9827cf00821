"""Commands on codes: find those of faces, edit and mix them, and put the change back into the photo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, FINDING, Engine, FaceIdx, Finding, Out, Outdir, Photos, RecipeOut
from mien.app.recipes import check_recipe_out, perform
from mien.app.subjects import BATCH, check_strengths, crops_of
from mien.app.terminal.items import check_network, check_out, check_outdir, check_stems, for_each
from mien.app.terminal.screen import Bars
from mien.app.terminal.spread import spread
from mien.app.terminal.text import parse_layers, parse_settings

if TYPE_CHECKING:
    from torch import Tensor

    from mien.faces.align import Crop

__all__ = ["app"]

app = typer.Typer()


@app.command()
@spread
def invert(
    photos: Photos,
    outdir: Outdir,
    finding: Finding = FINDING,
    engine: Engine = ENGINE,
) -> None:
    """Find the code of every face: <stem>_<i>.safetensors, and <stem>_<i>.png as it renders.

    The methods pti and hybrid also change the generator for each person: <stem>_<i>.mien holds everything. Faces that
    are done already are kept, so that the same command goes on after it was stopped.

    Example: mien invert portrait.jpg --outdir codes
    """
    import torch

    from mien.images import open_photo
    from mien.inversion.invert import find_method

    check_stems(photos)
    check_outdir(outdir)
    find_method(finding.method)
    check_network(engine.network)
    studio = engine.studio()
    waiting: list[tuple[Path, Tensor, Crop | None]] = []

    def cut(path: Path) -> None:
        for i, (img, crop) in enumerate(crops_of(studio, open_photo(path), path, aligned=finding.aligned)):
            out = outdir / f"{path.stem}_{i}.png"
            check_out(out, photos)
            if studio.finished(out, img, method=finding.method, num_steps=finding.steps):
                typer.echo(out)
            else:
                waiting.append((out, img, crop))

    failures = for_each(photos, "align", cut)
    with Bars() as bars:
        for first in range(0, len(waiting), BATCH):
            some = waiting[first : first + BATCH]
            bars.say(f"faces {first + 1}-{first + len(some)} of {len(waiting)}:")
            img = torch.cat([img for _, img, _ in some])
            for (out, _, crop), inversion in zip(
                some, studio.invert(img, method=finding.method, num_steps=finding.steps, on_step=bars), strict=True
            ):
                studio.save(inversion.from_crop({} if crop is None else crop.record), out)
                typer.echo(out)
    failures.finish(len(photos))


@app.command()
@spread
def edit(
    photo: Annotated[str, typer.Argument(help="A photo, or a code that `mien invert` wrote.", metavar="PHOTO")],
    settings: Annotated[
        list[str], typer.Option("--set", help="Direction and strength, say smile=1.5.", metavar="NAME=X")
    ],
    out: Out,
    recipe: RecipeOut = None,
    face: FaceIdx = None,
    finding: Finding = FINDING,
    engine: Engine = ENGINE,
) -> None:
    """Change every face of a photo along directions, in standard deviations, and put it back at full size.

    Example: mien edit portrait.jpg --set smile=1.5 --set age=-1 --out smiling.png
    """
    from mien.app.operations import Edit

    strengths = parse_settings(settings)
    finding.check(out, photo, engine=engine, face=face)
    check_recipe_out(recipe, out)
    studio = engine.studio()
    check_strengths(studio, strengths)
    with Bars() as bars:
        subjects = finding.subjects(studio, bars)
        perform(subjects, photo, [Edit(strengths=strengths)], out, face=face, recipe=recipe)
    typer.echo(out)


@app.command()
@spread
def mix(
    photo: Annotated[str, typer.Argument(help="A photo, a .safetensors code or seed:N.", metavar="PHOTO")],
    style: Annotated[str, typer.Argument(help="Likewise; of a photo the largest face.", metavar="STYLE")],
    layers: Annotated[str, typer.Option("--layers", help="Rows from STYLE: 8- is 8 to the last, 0-3,6 some.")],
    out: Out,
    recipe: RecipeOut = None,
    face: FaceIdx = None,
    finding: Finding = FINDING,
    engine: Engine = ENGINE,
) -> None:
    """Take rows of another person's code: the first turn and shape the face, the last colour it.

    Example: mien mix portrait.jpg seed:7 --layers 6- --out mixed.png
    """
    from mien.app.operations import Mix, person_of

    finding.check(out, photo, style, engine=engine, face=face)
    check_recipe_out(recipe, out)
    studio = engine.studio()
    rows = parse_layers(layers, studio.G.num_ws)
    with Bars(prefix="style") as bars:
        subjects = finding.subjects(studio, bars)
        other = person_of(studio, subjects.code(style))
        bars.say("photo")
        perform(subjects, photo, [Mix(person=other, layers=tuple(rows))], out, face=face, recipe=recipe)
    typer.echo(out)
