"""`mien express`: give the faces of a photo the expression of another picture, of a name, or of a direction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import EDITABLE, ENGINE, Engine, FaceIdx, Finding, Out, RecipeOut
from mien.app.recipes import check_recipe_out, perform
from mien.app.subjects import Subjects, check_strengths, crops_of, is_photo
from mien.app.terminal.screen import Bars
from mien.app.terminal.spread import spread
from mien.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

__all__ = ["app", "shown_in"]

READERS = ("network", "mediapipe")

app = typer.Typer()


def shown_in(subjects: Subjects, source: str, reader: str) -> dict[str, float]:
    """Read the expression of the largest face of a photo, or of the render of a code.

    Args:
        subjects: that read and render.
        source: a photo, a code, or seed:N.
        reader: one of `READERS`; MediaPipe's landmarker reads the photo at its own size, and sees brows better.

    Raises:
        InputError: an unknown reader, no photo where one is needed, or no face.
        MissingExtraError: MediaPipe is not installed.
    """
    from mien.images import open_photo
    from mien.nets.features import FRAME_PX

    studio = subjects.studio
    if not is_photo(source):
        if reader != READERS[0]:
            raise InputError(f"--reader {reader} reads photos, not {source}", hint=f"use --reader {READERS[0]}")
        return studio.expression(studio.render(subjects.code(source)))
    photo, name = open_photo(Path(source)), Path(source).name
    if reader == READERS[0]:
        if subjects.aligned:
            return studio.expression(crops_of(studio, photo, Path(source), aligned=True)[0][0])
        return studio.expression(studio.align(photo, size_px=FRAME_PX, source=name, face=0)[0].img)
    return _by_mediapipe(subjects, photo, name)


def _by_mediapipe(subjects: Subjects, photo: Image, name: str) -> dict[str, float]:
    from mien.edits.expression import MOVING
    from mien.errors import NoFaceError
    from mien.faces.landmarks import load_landmarker
    from mien.nets.features import EXPRESSIONS

    faces = subjects.studio.detect(photo)
    if not faces:
        raise NoFaceError(f"no face found in {name}", hint="try a larger or more frontal photo")
    with load_landmarker(on_step=subjects.bars) as landmarker:
        seen = landmarker.read(photo, faces[0]).blendshapes
    return {EXPRESSIONS[i]: seen[EXPRESSIONS[i]] for i in MOVING}


@app.command()
@spread
def express(
    photo: Annotated[str, typer.Argument(help="A photo, a code or seed:N.", metavar="PHOTO")],
    out: Out,
    source: Annotated[
        str | None, typer.Option("--from", help="Whose expression: a photo (its largest face), a code or seed:N.")
    ] = None,
    emotion: Annotated[str | None, typer.Option("--emotion", help="happiness, surprise or anger.")] = None,
    direction: Annotated[
        str | None, typer.Option("--direction", help="What a direction of the network makes the face show.")
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", help="Share of the way; of a direction, standard deviations.")
    ] = 1.0,
    preset: Annotated[
        str | None, typer.Option("--preset", help="lab-emotion: move along --direction as published, hold nothing.")
    ] = None,
    reader: Annotated[str, typer.Option("--reader", help="Who reads --from: network or mediapipe.")] = READERS[0],
    recipe: RecipeOut = None,
    face: FaceIdx = None,
    finding: Finding = EDITABLE,
    engine: Engine = ENGINE,
) -> None:
    """Give faces an expression, and keep who they are, how they are turned, and everything else.

    Example: mien express portrait.jpg --emotion happiness --out happy.png
    """
    from mien.app.operations import Express
    from mien.edits.expression import emotion as find_emotion

    if [source, emotion, direction].count(None) != 2:
        raise InputError("one expression at a time", hint="give --from, --emotion or --direction")
    if reader not in READERS:
        raise InputError(f"no reader named {reader!r}", hint=f"known: {', '.join(READERS)}")
    if preset is not None and direction is None:
        raise InputError(f"--preset {preset} moves along a direction", hint="give --direction")
    shown: Mapping[str, float] = {} if emotion is None else find_emotion(emotion)
    inputs = [photo] if source is None else [photo, source]
    finding.check(out, *inputs, engine=engine, face=face)
    check_recipe_out(recipe, out)
    studio = engine.studio()
    with Bars() as bars:
        subjects = finding.subjects(studio, bars)
        if source is not None:
            shown = shown_in(subjects, source, reader)
        if direction is not None and preset is None:
            check_strengths(studio, {direction: strength})
        operation = Express(shown=shown, strength=strength, direction=direction, preset=preset)
        perform(subjects, photo, [operation], out, face=face, recipe=recipe)
    typer.echo(out)
