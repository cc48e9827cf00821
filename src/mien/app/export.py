"""`mien export`: a generator as files of another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.app.items import check_network, check_outdir
from mien.app.options import Precision
from mien.app.screen import Bars, note

__all__ = ["app"]

app = typer.Typer()


@app.command()
def export(
    network: Annotated[str, typer.Argument(help="A name, a file or hf://owner/name.", metavar="NETWORK")],
    out: Annotated[Path, typer.Option("--out", help="New folder for two networks, mapping and synthesis.")],
    format_: Annotated[str, typer.Option("--format", help="openvino or onnx.")] = "openvino",
    precision: Precision = "fp32",
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="The only batch size it takes, a little faster; default: any.")
    ] = None,
) -> None:
    """Write a generator for another engine, once its pictures are found to be ours.

    Example: mien export faces-64 --format openvino --precision bf16 --out out/faces-64
    """
    from mien.weights.export import export_generator
    from mien.weights.load import load_generator

    check_outdir(out)
    check_network(network)
    with Bars() as bars:
        facts = export_generator(
            load_generator(network), out, format=format_, precision=precision, batch=batch, on_step=bars
        )
    note(f"rms error of a picture: {facts['rms_img']:.2g} of its standard deviation")
    typer.echo(out)
