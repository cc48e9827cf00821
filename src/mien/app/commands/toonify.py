"""`mien toonify`: every face of every photo drawn at once, and put back; every picture of a clip, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import Aligned, Device, FaceIdx, Network, Outdir, Precision
from mien.app.settings import DEFAULT_NETWORK, DEFAULT_STYLE
from mien.app.terminal.items import check_out, check_outdir, check_stems, for_each
from mien.app.terminal.screen import Bars
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.app.studio import Studio
    from mien.edits.toonify import Artist, ToonConfig

__all__ = ["app", "photos_of"]

app = typer.Typer()

CLIP_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


def photos_of(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by the photos in them.

    Raises:
        InputError: a folder without photos.
    """
    from mien.images import PHOTO_SUFFIXES

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES)
        if not inside:
            raise InputError(f"no photos in {path}", hint="give a folder of pictures")
        found += inside
    return found


@app.command()
def toonify(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos, folders of them, or clips.", metavar="PHOTO...", show_default=False)
    ],
    outdir: Outdir,
    style: Annotated[
        str, typer.Option("--style", help="Who draws: name or file of a translator, or of an adapted generator.")
    ] = DEFAULT_STYLE,
    strength: Annotated[float, typer.Option("--strength", min=0, max=1, help="0 the photo, 1 the drawing.")] = 1.0,
    crop: Annotated[bool, typer.Option("--crop", help="Write each drawn face alone, <stem>_<i>.png.")] = False,
    whole: Annotated[bool, typer.Option("--whole-picture", help="Draw what surrounds the faces, too.")] = False,
    face: FaceIdx = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Draw every face of a photo in one pass and put it back: <stem>.png; of a clip, <stem>.mp4.

    Example: mien toonify group.jpg --whole-picture --outdir drawn
    """
    from mien.app.studio import Studio
    from mien.edits.toonify import ToonConfig

    if whole and (crop or aligned):
        raise InputError("--whole-picture has no meaning for faces alone", hint="leave out --crop and --aligned")
    if face is not None and aligned:
        raise InputError(f"--face {face} has no meaning for an aligned crop: it is one face", hint="leave out --face")
    sources = photos_of(photos)
    clips = [path for path in sources if _is_clip(path)]
    if clips and (crop or aligned or face is not None):
        raise InputError(f"{clips[0].name} is a clip", hint="leave out --crop, --aligned and --face")
    check_stems(sources)
    check_outdir(outdir)
    studio = Studio(network, device=device, precision=precision)
    job = _Job(studio, studio.artist(style), ToonConfig(strength=strength, is_whole=whole), outdir, sources)

    def draw(path: Path) -> None:
        if _is_clip(path):
            job.clip(path)
        elif crop or aligned:
            job.faces(path, face, aligned=aligned)
        else:
            job.photo(path, face)

    for_each(sources, "toonify", draw).finish(len(sources))


def _is_clip(path: Path) -> bool:
    return path.suffix.lower() in CLIP_SUFFIXES


class _Job:
    """What one call does to each of its photos."""

    def __init__(
        self, studio: Studio, artist: Artist, config: ToonConfig, outdir: Path, sources: Sequence[Path]
    ) -> None:
        self.studio, self.artist, self.config = studio, artist, config
        self.outdir, self.sources = outdir, sources

    def photo(self, path: Path, face: int | None) -> None:
        """Draw a photo's faces where they are."""
        from mien.images import open_photo, save_png

        out = self.outdir / f"{path.stem}.png"
        check_out(out, self.sources)
        photo = open_photo(path)
        save_png(self.studio.toonify(photo, self.artist, self.config, source=path.name, face=face), out)
        typer.echo(out)

    def clip(self, path: Path) -> None:
        """Draw the people of a clip, picture by picture."""
        out = self.outdir / f"{path.stem}.mp4"
        check_out(out, self.sources, suffix=".mp4")
        with Bars() as bars:
            self.studio.toonify_clip(path, out, self.artist, self.config, on_step=bars)
        typer.echo(out)

    def faces(self, path: Path, face: int | None, *, aligned: bool) -> None:
        """Draw a photo's faces, or an aligned one, and write them alone."""
        import torch

        from mien.edits.toonify import draw_faces
        from mien.images import open_photo, resize, save_png, to_pil, to_tensor

        photo, side = open_photo(path), self.artist.size_px
        if aligned:
            if photo.width != photo.height:
                size = f"{photo.width}x{photo.height} px"
                raise InputError(f"{path.name} is {size}, no aligned crop", hint="leave out --aligned")
            img = resize(to_tensor(photo), side).clamp(-1, 1)
        else:
            crops = self.studio.align(photo, size_px=side, source=path.name, face=face)
            img = torch.cat([one.img for one in crops])
        for i, picture in enumerate(to_pil(draw_faces(self.artist, img, self.config))):
            out = self.outdir / (f"{path.stem}.png" if aligned else f"{path.stem}_{i if face is None else face}.png")
            check_out(out, self.sources)
            save_png(picture, out)
            typer.echo(out)
