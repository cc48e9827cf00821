"""`mien swap` and `mien swap-matrix`: one person's face on another's photo, and everybody's on everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import EDITABLE, ENGINE, Aligned, Engine, FaceIdx, Finding, Out, RecipeOut, Steps
from mien.app.recipes import check_recipe_out, keep
from mien.app.sitters import (
    METHOD,
    TARGET_METHOD,
    config_of,
    everybody,
    fitted,
    matrix,
    put_on,
    sharp_px,
    sitter,
    sitters_of,
)
from mien.app.subjects import Subjects, is_photo
from mien.app.terminal.items import check_network, check_out
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mien.edits.swap import Swap

__all__ = ["app"]

Method = Annotated[str, typer.Option("--method", help="How the source is inverted; lab-swap: as a face lab swaps.")]

app = typer.Typer()


@app.command()
@spread
def swap(
    source: Annotated[str, typer.Argument(help="Whose face: a photo, a code or seed:N.", metavar="SOURCE")],
    target: Annotated[str, typer.Argument(help="On whose photo; likewise.", metavar="TARGET")],
    out: Out,
    more: Annotated[
        list[str] | None, typer.Option("--source", help="Another photo of the source; identities are averaged.")
    ] = None,
    recipe: RecipeOut = None,
    face: FaceIdx = None,
    finding: Finding = EDITABLE,
    engine: Engine = ENGINE,
) -> None:
    """Put the face of SOURCE on the largest face (or --face) of TARGET, whose pose, expression and light stay.

    Example: mien swap anna.jpg bert.jpg --out anna-as-bert.png
    """
    finding.check(out, target, source, *(more or []), engine=engine, face=face)
    check_recipe_out(recipe, out)
    import torch

    from mien.app.operations import Face, Swap, person_of
    from mien.images import save_png

    studio = engine.studio()
    texts = [source, *(more or [])]
    faces = [sitter(studio, text, aligned=finding.aligned) for text in texts]
    side = sharp_px(studio, [one.crop for one in faces])
    img = torch.cat([one.at(side) for one in faces])
    with Bars() as bars:
        bars.say("source")
        readers = Subjects(studio, bars, method=finding.method, aligned=finding.aligned)
        codes = [
            readers.invert(fitted(studio, img[i : i + 1]))[0] if is_photo(text) else readers.code(text)
            for i, text in enumerate(texts)
        ]
        people = [None if is_photo(text) else code for text, code in zip(texts, codes, strict=True)]
        if recipe is not None and any(code is not None and code.changes for code in people):
            hint = "give the photo, or leave out --recipe"
            raise InputError("a recipe holds no generator of one person's own", hint=hint)
        subjects = Subjects(studio, bars, method=TARGET_METHOD, aligned=finding.aligned)
        save_png(put_on(subjects, codes, img, target, method=finding.method, face=face, steps=finding.steps), out)
        if recipe is not None:
            sources = tuple(
                Face(picture=one, person=None if code is None else person_of(studio, code))
                for one, code in zip(img, people, strict=True)
            )
            keep(subjects, [Swap(sources=sources, method=finding.method, steps=finding.steps)], recipe, face=face)
    typer.echo(out)


# ---- Everybody on everybody -----------------------------------------------------------------------------------------


@app.command("swap-matrix")
@spread
def swap_matrix(
    folder: Annotated[Path, typer.Argument(help="Folder with one photo of each person.", metavar="DIR")],
    out: Out,
    steps: Steps = None,
    aligned: Aligned = False,
    engine: Engine = ENGINE,
) -> None:
    """Put everybody's face on everybody's photo: rows are whose face, columns on whose photo.

    Example: mien swap-matrix friends --out matrix.png
    """
    check_out(out)
    check_network(engine.network)
    import torch

    from mien.images import save_png

    studio = engine.studio()
    people, failures = sitters_of(studio, folder, aligned=aligned)
    pictures: dict[tuple[int, int], Image] = {}
    with Bars() as bars:
        codes = studio.invert(torch.cat([one.img for one in people]), method=METHOD, on_step=bars)

        def keep(i: int, k: int, _swapped: Swap, picture: Image) -> None:
            pictures[i, k] = picture
            bars.say(f"{people[i].name}:")

        everybody(studio, people, codes, keep, config=config_of(steps, engine.seed), on_step=bars)
    save_png(matrix(people, pictures), out)
    note(f"{len(people)} people; the diagonal shows their photos")
    typer.echo(out)
    failures.finish(len(people) + len(failures.of))
