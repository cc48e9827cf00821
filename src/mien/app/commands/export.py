"""`mien export`: a generator, or a network from picture to picture, as files of another engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.settings import DEFAULT_NETWORK
from mien.app.terminal.items import check_network, check_outdir
from mien.app.terminal.screen import Bars, note

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["app"]

NUM_FACES, PSI = 128, 0.7

app = typer.Typer()


@app.command()
def export(
    network: Annotated[str, typer.Argument(help="A name, a file or hf://owner/name.", metavar="NETWORK")],
    out: Annotated[Path, typer.Option("--out", help="New folder for its networks.")],
    format_: Annotated[str, typer.Option("--format", help="openvino or onnx.")] = "openvino",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, bf16 (OpenVINO), or int8 (of networks from picture to picture).")
    ] = "fp32",
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="The only batch size it takes, a little faster; default: any.")
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option("--faces", help="Aligned faces that int8 is fitted to, zip or folder; default: invented ones."),
    ] = None,
) -> None:
    """Write a generator or a translator for another engine, once its pictures are found to be ours.

    `mien toonify --style FOLDER` draws by a translator's folder.

    Example: mien export faces-64 --format openvino --precision bf16 --out out/faces-64
    """
    from mien.app.artists import drawing_side
    from mien.weights.export import export_generator
    from mien.weights.export_translator import export_translator
    from mien.weights.load import find_weights, load_generator, load_net

    check_outdir(out)
    check_network(network)
    path = find_weights(network)
    side = drawing_side(path)
    with Bars() as bars:
        options: dict[str, Any] = dict(format=format_, precision=precision, batch=batch, on_step=bars)
        if side is None:
            facts = export_generator(load_generator(path), out, **options)
        else:
            if precision == "int8":
                options["faces"] = _aligned(faces, side)
            facts = export_translator(load_net(path), out, name=path.stem, img_resolution=side, **options)
    note(f"rms error of a picture: {facts['rms_img']:.2g} of its standard deviation")
    typer.echo(out)


def _aligned(faces: Path | None, side_px: int) -> Tensor:
    """Return up to `NUM_FACES` aligned faces [N, 3, S, S]: those given, evenly chosen, or people of our generator."""
    from mien.images import resize
    from mien.latents import sample_ws, synthesize
    from mien.training.data import load_pictures
    from mien.weights.load import load_generator

    if faces is not None:
        pixels = load_pictures(faces, size_px=side_px).pixels
        return pixels[:: max(1, len(pixels) // NUM_FACES)][:NUM_FACES].float() / 127.5 - 1
    G = load_generator(DEFAULT_NETWORK)
    ws = sample_ws(G, range(NUM_FACES), truncation_psi=PSI)
    return resize(synthesize(G, ws), side_px).clamp(-1, 1)
