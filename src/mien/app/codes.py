"""Commands on codes: find those of faces, edit and mix them, and put the change back into the photo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.items import check_network, check_out, check_outdir, check_stems, for_each
from mien.app.options import Aligned, Device, FaceIdx, Method, Network, Out, Outdir, Photos, Precision, Seed, Steps
from mien.app.screen import Bars, note
from mien.app.settings import DEFAULT_NETWORK
from mien.app.text import parse_layers, parse_seeds, parse_settings
from mien.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.faces.align import Crop
    from mien.inversion.code import Inversion

__all__ = ["app"]

BATCH = 8  # faces that are optimised together

app = typer.Typer()


def _crops(
    studio: Studio, photo: Image, path: Path, aligned: bool, face: int | None
) -> list[tuple[Tensor, Crop | None]]:
    """Return img [1, 3, H, W] of every face, and where it was cut out; one without a crop for an aligned picture."""
    if aligned:
        return [(studio.aligned(photo, source=path.name), None)]
    return [(crop.img, crop) for crop in studio.align(photo, source=path.name, face=face)]


@app.command()
def invert(
    photos: Photos,
    outdir: Outdir,
    method: Method = "optimize",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Find the code of every face: <stem>_<i>.safetensors, and <stem>_<i>.png as it renders.

    The methods pti and hybrid also change the generator for each person: <stem>_<i>.mien holds everything. Faces that
    are done already are kept, so that the same command goes on after it was stopped.

    Example: mien invert portrait.jpg --outdir codes
    """
    import torch

    from mien.app.studio import Studio
    from mien.images import open_photo

    check_stems(photos)
    check_outdir(outdir)
    _check_method(method)
    check_network(network)
    studio = Studio(network, device=device, precision=precision, seed=seed)
    waiting: list[tuple[Path, Tensor, Crop | None]] = []

    def cut(path: Path) -> None:
        for i, (img, crop) in enumerate(_crops(studio, open_photo(path), path, aligned, None)):
            out = outdir / f"{path.stem}_{i}.png"
            check_out(out, photos)
            if studio.finished(out, img, method=method, num_steps=steps):
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
                some, studio.invert(img, method=method, num_steps=steps, on_step=bars), strict=True
            ):
                studio.save(inversion.from_crop({} if crop is None else crop.record), out)
                typer.echo(out)
    failures.finish(len(photos))


def _check_method(method: str) -> None:
    from mien.inversion.invert import find_method

    find_method(method)


def _is_code(path: Path) -> bool:
    return path.suffix.lower() in (".safetensors", ".mien")


def _code(studio: Studio, text: str, *, aligned: bool, method: str, steps: int | None, bars: Bars) -> Inversion:
    """Read one face's code: of seed:N, of a .safetensors, or of the largest face of a photo."""
    from mien.images import open_photo
    from mien.inversion.code import load_inversion

    if text.startswith("seed:"):
        seeds = parse_seeds(text.removeprefix("seed:"))
        if len(seeds) != 1:
            raise InputError(f"{text} is more than one person", hint="write for example seed:7")
        return studio.seed_code(seeds[0])
    path = Path(text)
    if _is_code(path):
        inversion = load_inversion(path)
        studio.check(inversion)
        return inversion
    img, _ = _crops(studio, open_photo(path), path, aligned, None if aligned else 0)[0]
    return studio.invert(img, method=method, num_steps=steps, on_step=bars)[0]


def _is_photo(text: str) -> bool:
    return not text.startswith("seed:") and not _is_code(Path(text))


def _check_face(source: str, face: int | None, aligned: bool) -> None:
    if face is not None and (aligned or not _is_photo(source)):
        what = "an aligned crop" if aligned else f"{source}"
        raise InputError(f"--face {face} has no meaning for {what}: it is one face", hint="leave out --face")


def _change(
    studio: Studio,
    source: str,
    change: Any,
    *,
    aligned: bool,
    face: int | None,
    method: str,
    steps: int | None,
    bars: Bars,
) -> Image:
    """Invert the faces of `source`, change their codes, and put them back; without a photo, the render itself."""
    import torch

    from mien.images import open_photo

    if aligned or not _is_photo(source):
        code = _code(studio, source, aligned=aligned, method=method, steps=steps, bars=bars)
        return studio.picture(change(code))
    path = Path(source)
    photo = open_photo(path)
    crops = studio.align(photo, source=path.name, face=face)
    for first in range(0, len(crops), BATCH):
        some = crops[first : first + BATCH]
        bars.say(f"faces {first + 1}-{first + len(some)} of {len(crops)}:")
        codes = studio.invert(torch.cat([c.img for c in some]), method=method, num_steps=steps, on_step=bars)
        for crop, code in zip(some, codes, strict=True):
            photo = studio.paste(photo, crop, change(code), code)
    return photo


@app.command()
def edit(
    photo: Annotated[str, typer.Argument(help="A photo, or a code that `mien invert` wrote.", metavar="PHOTO")],
    settings: Annotated[
        list[str], typer.Option("--set", help="Direction and strength, say smile=1.5.", metavar="NAME=X")
    ],
    out: Out,
    face: FaceIdx = None,
    method: Method = "optimize",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Change every face of a photo along directions, in standard deviations, and put it back at full size.

    Example: mien edit portrait.jpg --set smile=1.5 --set age=-1 --out smiling.png
    """
    from mien.app.studio import Studio
    from mien.images import save_png

    strengths = parse_settings(settings)
    check_out(out, [Path(photo)])
    _check_method(method)
    _check_face(photo, face, aligned)
    check_network(network)
    studio = Studio(network, device=device, precision=precision, seed=seed)
    for name, strength in strengths.items():
        low, high = studio.directions[name].safe_range
        if not low <= strength <= high:
            note(f"warning: {name}={strength:g} is beyond {low:g} to {high:g}, where faces stay themselves")
    with Bars() as bars:
        image = _change(
            studio,
            photo,
            lambda code: studio.edit(code, strengths),
            aligned=aligned,
            face=face,
            method=method,
            steps=steps,
            bars=bars,
        )
    save_png(image, out)
    typer.echo(out)


@app.command()
def mix(
    photo: Annotated[str, typer.Argument(help="A photo, a .safetensors code or seed:N.", metavar="PHOTO")],
    style: Annotated[str, typer.Argument(help="Likewise; of a photo the largest face.", metavar="STYLE")],
    layers: Annotated[str, typer.Option("--layers", help="Rows from STYLE: 8- is 8 to the last, 0-3,6 some.")],
    out: Out,
    face: FaceIdx = None,
    method: Method = "optimize",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Take rows of another person's code: the first turn and shape the face, the last colour it.

    Example: mix portrait.jpg seed:7 --layers 6- --out mixed.png
    """
    from mien.app.studio import Studio
    from mien.images import save_png

    check_out(out, [Path(text) for text in (photo, style) if not text.startswith("seed:")])
    _check_method(method)
    _check_face(photo, face, aligned)
    check_network(network)
    studio = Studio(network, device=device, precision=precision, seed=seed)
    rows = parse_layers(layers, studio.G.num_ws)
    options: dict[str, Any] = dict(aligned=aligned, method=method, steps=steps)
    with Bars(prefix="style") as bars:
        other = _code(studio, style, bars=bars, **options)
        bars.say("photo")
        image = _change(studio, photo, lambda code: studio.mix(code, other, rows), face=face, bars=bars, **options)
    save_png(image, out)
    typer.echo(out)
