"""`mien stylize`: one picture painted in the style of others."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.options import Device, Out, Seed
from mien.app.settings import DEFAULT_NETWORK
from mien.app.terminal.items import check_out
from mien.app.terminal.screen import Bars, note
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.edits.style_settings import StyleConfig

__all__ = ["app"]

AUTO_PRESET = "auto"

app = typer.Typer()


def _weights(texts: list[str] | None, num_styles: int) -> list[float]:
    try:
        found = [float(text) for text in texts or ["1"] * num_styles]
    except ValueError as err:
        raise InputError(f"{err}: not a weight", hint="write for example --weight 2 --weight 1") from err
    if len(found) != num_styles:
        raise InputError(f"{len(found)} weights for {num_styles} styles", hint="give --weight once for every style")
    return found


def _preset(name: str, features: str) -> StyleConfig:
    """Return a ready setting; `auto` is the classic one where VGG19 looks, and ours where it does not."""
    from mien.edits.looks import VGG19
    from mien.edits.style_settings import PRESETS
    from mien.weights.zoo import in_cache

    if name == AUTO_PRESET:
        has_vgg = features == VGG19 or (features == AUTO_PRESET and in_cache(VGG19) is not None)
        name = "neural-style" if has_vgg else "patches"
    if name not in PRESETS:
        raise InputError(f"no preset named {name!r}", hint=f"known: {', '.join((AUTO_PRESET, *PRESETS))}")
    return PRESETS[name]


@app.command()
def stylize(
    content: Annotated[Path, typer.Argument(help="The picture to paint.", metavar="CONTENT")],
    styles: Annotated[list[Path], typer.Argument(help="Pictures to paint it like.", metavar="STYLE...")],
    out: Out,
    preset: Annotated[
        str,
        typer.Option("--preset", help="auto, patches, neural-style, anishathalye, crowson or pytorch-tutorial."),
    ] = AUTO_PRESET,
    features: Annotated[
        str, typer.Option("--features", help="vgg19 (downloaded once), shipped, or auto: vgg19 where it is at hand.")
    ] = "auto",
    weight: Annotated[
        list[str] | None, typer.Option("--weight", help="Once for each style: what it counts.", metavar="X")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=16, max=2048, help="Longest side of the result, px; default: 512.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps at each size.")] = None,
    content_weight: Annotated[float | None, typer.Option("--content-weight", help="Keeps places and shapes.")] = None,
    style_weight: Annotated[float | None, typer.Option("--style-weight", help="Of all styles together.")] = None,
    style_scale: Annotated[
        float | None, typer.Option("--style-scale", help="Size of the styles, in that of the result: their strokes.")
    ] = None,
    tv_weight: Annotated[float | None, typer.Option("--tv-weight", help="Total variation: less noise.")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="lbfgs or adam.")] = None,
    colours: Annotated[
        str, typer.Option("--colours", help="style; match (the style's moved to the content's); luminance (kept).")
    ] = "style",
    spare_faces: Annotated[
        float, typer.Option("--spare-faces", min=0, max=1, help="How much of each face stays as it is.")
    ] = 0.0,
    preview: Annotated[Path | None, typer.Option("--preview", help="PNG that shows the picture as it grows.")] = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Paint a picture in the style of others; how, and through whose eyes, is in the .json beside the result.

    Example: mien stylize portrait.jpg painting.jpg --spare-faces 0.7 --out painted.png
    """
    from mien.app.studio import Studio
    from mien.atomic import write_text
    from mien.edits.style_settings import for_look
    from mien.images import open_photo, save_png, to_pil

    check_out(out, [content, *styles])
    if preview is not None:
        check_out(preview, [content, *styles, out])
    wishes = {
        "size_px": size,
        "num_steps": steps,
        "num_later_steps": steps,
        "optimizer": optimizer,
        "content_weight": content_weight,
        "style_weight": style_weight,
        "style_scale": style_scale,
        "tv_weight": tv_weight,
    }
    chosen: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    base, weights = _preset(preset, features), _weights(weight, len(styles))
    studio = Studio(DEFAULT_NETWORK, device=device, seed=seed)
    photo, paintings = open_photo(content), [open_photo(path) for path in styles]
    with Bars() as bars:
        look = studio.look(features, on_step=bars)
        suited = for_look(base, look)
        if size is not None:  # one size stays one size
            chosen["min_px"] = size if base.min_px == base.size_px == suited.min_px else min(suited.min_px, size)
        if optimizer == "adam" and suited.optimizer != "adam":
            chosen["lr"] = 0.04
        elif optimizer == "lbfgs" and suited.optimizer != "lbfgs":
            chosen["lr"] = 1.0
        config = replace(suited, **chosen, colours=colours, spare=spare_faces, seed=seed)
        made = studio.stylize(photo, paintings, look, config, style_weights=weights, preview=preview, on_step=bars)
    report = look.record | made.record
    report |= {"content": content.name, "styles": dict(zip([p.name for p in styles], weights, strict=True))}
    report |= {"photo_px": list(photo.size), "preset": preset, "config": asdict(config)}
    save_png(to_pil(made.img)[0], out)
    write_text(json.dumps(report, indent=1) + "\n", out.with_suffix(".json"))
    if max(photo.size) > config.size_px:
        note(f"painted at {config.size_px} px of the photo's {max(photo.size)}: --size paints larger, in more memory")
    if look.stand_ins and base is not suited:
        note("VGG19 is not at hand: the shipped networks looked in its place; `--features vgg19` downloads it")
    typer.echo(out)
