"""Commands on a space of a few people: fit it, blend them by weights, morph from one to another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, Aligned, Engine, Method, Out
from mien.app.terminal.items import check_network, check_out, check_stems, for_each
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.errors import InputError
from mien.report import Step

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.edits.facespace import FaceSpace

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Blend and morph a few people by weights.")

Space = Annotated[Path, typer.Argument(help="What `mien facespace fit` wrote.", metavar="SPACE")]


def parse_weights(text: str) -> list[float]:
    """Read weights.

    >>> parse_weights("0.5,0.3,0.2")
    [0.5, 0.3, 0.2]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as err:
        raise InputError(f"{text!r} are no weights", hint="write for example 0.5,0.3,0.2") from err


def _load(studio: Studio, path: Path) -> FaceSpace:
    from mien.edits.facespace import load_facespace

    space = load_facespace(path).to(studio.device)
    if space.network != studio.digest:
        hint = "give the --network that it was fitted with"
        raise InputError(f"{path.name} belongs to another generator than {studio.network.stem}", hint=hint)
    return space


@app.command()
@spread
def fit(
    folder: Annotated[Path, typer.Argument(help="Folder with one photo of each person.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", help="Space to write, .safetensors.")],
    cycles: Annotated[int, typer.Option("--cycles", min=0, help="0 = straight blends of the codes.")] = 2,
    method: Method = "optimize",
    aligned: Aligned = False,
    engine: Engine = ENGINE,
) -> None:
    """Fit a space to the people of a folder; of every photo the largest face counts.

    Example: mien facespace fit friends --out friends.safetensors
    """
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", hint="give a folder with one photo of each person")
    check_out(out, suffix=".safetensors")
    check_network(engine.network)
    import torch

    from mien.edits import facespace
    from mien.images import PHOTO_SUFFIXES, open_photo
    from mien.inversion.invert import find_method

    if find_method(method).changes_generator:
        hint = "take optimize: people share one generator in a space"
        raise InputError(f"--method {method} changes the generator for each person", hint=hint)
    studio = engine.studio()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    check_stems(paths)
    faces: dict[str, Tensor] = {}

    def cut(path: Path) -> None:
        photo = open_photo(path)
        crop = (
            studio.aligned(photo, source=path.name) if aligned else studio.align(photo, source=path.name, face=0)[0].img
        )
        faces[path.stem] = crop

    failures = for_each(paths, "align", cut)
    if len(faces) < 2:
        failures.show(len(paths))
        raise InputError(f"{folder} shows {len(faces)} face{'s' * (len(faces) != 1)}", hint="a space needs two people")
    img = torch.cat(list(faces.values())).to(studio.device)
    if studio.face_net is not None:
        for warning in facespace.differences(img, studio.face_net(img).pose[:, 0]):
            note(f"warning: {warning}")
    config = facespace.FaceSpaceConfig(num_cycles=cycles, seed=engine.seed)
    with Bars() as bars:
        ws = torch.stack([code.ws for code in studio.invert(img, method=method, on_step=bars)])
        space = facespace.fit(
            studio.G,
            ws,
            img,
            names=tuple(faces),
            config=config,
            face_model=studio.face_net,
            w_std=studio.stats.w_std,
            on_step=bars,
        )
    space.network = studio.digest
    facespace.save_facespace(space, out, config=config)
    typer.echo(out)
    failures.finish(len(paths))


@app.command()
@spread
def blend(
    space: Space,
    weights: Annotated[str, typer.Option("--weights", help="One for each person, say 0.5,0.3,0.2.")],
    out: Out,
    engine: Engine = ENGINE,
) -> None:
    """Blend the people: the face, and beside it a bar for every person's share.

    Example: mien facespace blend friends.safetensors --weights 0.5,0.3,0.2 --out blend.png
    """
    parts = parse_weights(weights)
    check_out(out)
    check_network(engine.network)
    from mien.app.figures.shares import shares
    from mien.images import save_png
    from mien.inversion.code import Inversion

    studio = engine.studio()
    people = _load(studio, space)
    image = studio.picture(Inversion(ws=people.blend(parts)))
    save_png(shares(image, people.names, parts), out)
    typer.echo(out)


@app.command()
@spread
def morph(
    space: Space,
    start: Annotated[str, typer.Argument(help="Name of the first person.", metavar="A")],
    end: Annotated[str, typer.Argument(help="Name of the last.", metavar="B")],
    out: Annotated[Path, typer.Option("--out", help="MP4 to write.")],
    frames: Annotated[int, typer.Option("--frames", min=2, max=100_000, help="How many.")] = 120,
    fps: Annotated[float, typer.Option("--fps", min=0.1, max=240, help="Frames a second.")] = 30,
    engine: Engine = ENGINE,
) -> None:
    """Go from one person to another, as a video.

    Example: mien facespace morph friends.safetensors anna bert --out morph.mp4
    """
    check_out(out, suffix=".mp4")
    check_network(engine.network)
    from mien.inversion.code import Inversion
    from mien.video import save_mp4

    studio = engine.studio()
    people = _load(studio, space)
    for name in (start, end):
        if name not in people.names:
            raise InputError(f"nobody named {name!r} in {space.name}", hint=f"known: {', '.join(people.names)}")
    codes = people.morph(people.names.index(start), people.names.index(end), frames)

    def shown(bars: Bars) -> Iterator[Image]:
        for i, ws in enumerate(codes):
            yield studio.picture(Inversion(ws=ws))
            bars(Step("frames", i + 1, frames))

    with Bars() as bars:
        save_mp4(shown(bars), out, fps=fps)
    typer.echo(out)
