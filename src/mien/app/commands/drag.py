"""The command that drags points of a face to where they should be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, TUNED, Engine, FaceIdx, Finding, Out, RecipeOut
from mien.app.recipes import check_recipe_out, keep
from mien.app.subjects import is_photo
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.app.terminal.text import parse_point
from mien.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.edits.drag import Dragged, Points
    from mien.faces.align import Crop

__all__ = ["app"]

app = typer.Typer()


def _read_points(starts: list[str], goals: list[str]) -> tuple[Points, Points]:
    """Read as many goals as starts, [K, 2] px each."""
    import numpy as np

    if len(starts) != len(goals):
        counts = f"{len(starts)} --from and {len(goals)} --to"
        raise InputError(f"{counts} make no pairs", hint="give every --from its --to, in the same order")
    return np.array([parse_point(t) for t in starts]), np.array([parse_point(t) for t in goals])


def _to_crop(crop: Crop, points: Points) -> Points:
    """Carry px of the photo to px of the crop."""
    import numpy as np

    matrix = crop.matrix
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _pick(crops: list[Crop], points: Points) -> int:
    """Return the number of the face on which all points lie, of several the one whose middle is nearest."""
    import numpy as np

    local = [_to_crop(crop, points) for crop in crops]
    able = [i for i, p in enumerate(local) if ((p >= 0) & (p <= crops[i].size_px)).all()]
    if not able:
        places = " and ".join(f"{x:g},{y:g}" for x, y in points)
        raise InputError(f"{places} {'lie' if len(points) > 1 else 'lies'} on no face", hint="see mien detect PHOTO")
    return min(able, key=lambda i: float(np.linalg.norm(local[i].mean(0) - crops[i].size_px / 2)))


def _mask(image: Image, like: Image, crop: Crop | None, studio: Studio) -> Tensor:
    """Cut the face's part out of a mask that has the size of its picture: [1, 1, H, H], 0 to 1."""
    from mien.faces.align import crop_quad

    if image.size != like.size:
        sizes = f"{image.width}x{image.height}, the picture {like.width}x{like.height} px"
        raise InputError(f"the mask is {sizes}", hint="paint it over the picture itself")
    part = image if crop is None else crop_quad(image, crop.quad, size_px=crop.size_px).image
    return (studio.aligned(part)[:, :1] + 1) / 2


def _tell(dragged: Dragged, before: np.ndarray, px: float) -> None:
    """Say how far every point came, in px of the picture that the user sees."""
    for i, (was, now) in enumerate(zip(before, dragged.distances_px, strict=True)):
        note(f"point {i}: {was * px:.1f} px from its goal, now {now * px:.1f}")
    note(f"{dragged.num_steps} steps")


@app.command()
@spread
def drag(
    photo: Annotated[str, typer.Argument(help="A photo, a code or seed:N.", metavar="PHOTO")],
    starts: Annotated[list[str], typer.Option("--from", help="A point, px of the picture; repeatable.", metavar="X,Y")],
    goals: Annotated[list[str], typer.Option("--to", help="Where it should go, one for each.", metavar="X,Y")],
    out: Out,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="A picture of PHOTO's size, white where the face may change.")
    ] = None,
    drag_steps: Annotated[int, typer.Option("--drag-steps", min=1, help="Most steps of the dragging.")] = 150,
    recipe: RecipeOut = None,
    face: FaceIdx = None,
    finding: Finding = TUNED,  # what the code alone cannot show would stay behind when the face moves
    engine: Engine = ENGINE,
) -> None:
    """Drag points of a face to where they should be, say a corner of the mouth; what hangs on them follows.

    Points are in px of the photo, of the aligned crop with --aligned, and of the render for a code or a seed.

    Example: mien drag portrait.jpg --from 210,340 --to 200,325 --out dragged.png
    """
    import numpy as np

    from mien.app.operations import Drag
    from mien.edits.drag import DragConfig
    from mien.images import open_photo, save_png

    at, to = _read_points(starts, goals)
    finding.check(out, photo, engine=engine, face=face)
    check_recipe_out(recipe, out)
    if recipe is not None and mask is not None:
        raise InputError("a mask belongs to one photo, a recipe to any", hint="leave out --mask or --recipe")
    studio = engine.studio()
    side = studio.G.img_resolution
    with Bars() as bars:
        subjects = finding.subjects(studio, bars)
        picture, crop = open_photo(Path(photo)) if is_photo(photo) else None, None
        if picture is None:
            code, px = subjects.code(photo), 1.0
        elif finding.aligned:
            code, px = subjects.invert(studio.aligned(picture, source=photo))[0], picture.width / side
        else:
            crops = studio.align(picture, source=photo, face=face)
            number = _pick(crops, at)
            crop, face = crops[number], number if face is None else face
            code, px = subjects.invert(crop.img)[0], float(np.hypot(*crop.matrix[:, 0]))
        before = np.linalg.norm(to - at, axis=1) / px
        at, to = (p / px if crop is None else _to_crop(crop, p) for p in (at, to))
        allowed = None if mask is None else _mask(open_photo(mask), picture or studio.picture(code), crop, studio)
        config = DragConfig(num_steps=drag_steps)
        dragged = studio.drag(code, at, to, mask=allowed, config=config, on_step=bars)
    if recipe is not None:
        done = Drag(starts=tuple(map(tuple, at.tolist())), goals=tuple(map(tuple, to.tolist())), num_steps=drag_steps)
        keep(subjects, [done], recipe, face=face)
    _tell(dragged, before, px)
    if picture is None or crop is None:
        save_png(studio.picture(dragged.inversion), out)
    else:
        save_png(studio.paste(picture, crop, dragged.inversion, code), out)
    typer.echo(out)
