"""Commands on photos alone: find faces, cut them out, put them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.app.options import ENGINE, Engine, Outdir, Photos
from mien.app.terminal.items import check_out, check_outdir, check_stems, for_each
from mien.app.terminal.spread import spread

__all__ = ["app"]

app = typer.Typer()


@app.command()
@spread
def detect(
    photos: Photos,
    as_json: Annotated[bool, typer.Option("--json", help="Boxes, points and scores as JSON.")] = False,
    engine: Engine = ENGINE,
) -> None:
    """Find every face, largest first.

    Example: mien detect group.jpg --json
    """
    from mien.images import open_photo

    studio = engine.studio()
    found: list[dict[str, Any]] = []

    def look(path: Path) -> None:
        photo = open_photo(path)
        faces = [
            {"box": f.box.tolist(), "landmarks": f.landmarks.tolist(), "score": f.score} for f in studio.detect(photo)
        ]
        found.append({"photo": str(path), "width": photo.width, "height": photo.height, "faces": faces})

    failures = for_each(photos, "detect", look)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for entry in found:
            for i, face in enumerate(entry["faces"]):
                box = " ".join(f"{v:.0f}" for v in face["box"])
                typer.echo(f"{entry['photo']}  face {i}  box {box}  score {face['score']:.2f}")
            if not entry["faces"]:
                typer.echo(f"{entry['photo']}  no face")
    failures.finish(len(photos))


@app.command()
@spread
def align(
    photos: Photos,
    outdir: Outdir,
    size: Annotated[
        int | None, typer.Option("--size", min=1, max=8192, help="Side, px; default: the network's.")
    ] = None,
    engine: Engine = ENGINE,
) -> None:
    """Cut out every face as FFHQ does: <stem>_<i>.png and <stem>_<i>.json.

    Example: mien align group.jpg --outdir crops
    """
    from mien.faces.align import save_crop
    from mien.images import open_photo, save_png

    check_stems(photos)
    check_outdir(outdir)
    studio = engine.studio()
    size_px = size or studio.G.img_resolution

    def cut(path: Path) -> None:
        for i, crop in enumerate(studio.align(open_photo(path), size_px=size_px, source=path.name)):
            out = outdir / f"{path.stem}_{i}.png"
            check_out(out, photos)
            save_png(crop.image, out, origin=None)
            save_crop(crop, out.with_suffix(".json"), photo=path)
            typer.echo(out)

    for_each(photos, "align", cut).finish(len(photos))


@app.command()
def paste(
    crops: Annotated[list[Path], typer.Argument(help="Crops with their .json beside them.", metavar="CROP...")],
    outdir: Outdir,
) -> None:
    """Put every crop back into the photo that its .json names: <stem>.png.

    Example: mien paste crops/group_0.png --outdir pasted
    """
    from mien.faces.align import find_photo, load_crop, paste_back
    from mien.images import open_photo, save_png, to_tensor

    check_stems(crops)
    check_outdir(outdir)

    def put_back(path: Path) -> None:
        out = outdir / f"{path.stem}.png"
        image, record = open_photo(path), path.with_suffix(".json")
        crop, photo = load_crop(record, image), find_photo(record)
        check_out(out, [*crops, photo])
        save_png(paste_back(open_photo(photo), crop, to_tensor(image)), out)
        typer.echo(out)

    for_each(crops, "paste", put_back).finish(len(crops))
