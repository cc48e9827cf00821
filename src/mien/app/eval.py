"""Commands that measure: how good inversion is on a folder of faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.items import check_network, check_outdir, check_stems, for_each
from mien.app.options import Aligned, Device, Network, Outdir, Precision, Seed, Steps
from mien.app.screen import Bars, note
from mien.app.settings import DEFAULT_NETWORK
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.app.evaluate import Subject

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Measure what mien does on pictures of your own.")

COLUMNS = ("mse", "psnr", "perceptual", "ms_ssim", "identity", "seconds")


@app.callback()
def _eval() -> None:
    """Keep the commands of this group as such, also while there is only one."""


@app.command()
def inversion(
    folder: Annotated[Path, typer.Argument(help="Folder of photos, or of FFHQ crops.", metavar="DIR")],
    outdir: Outdir,
    methods: Annotated[str, typer.Option("--methods", help="Names of methods.")] = "encoder,optimize,pti,hybrid",
    num: Annotated[int | None, typer.Option("--num", min=1, help="Only the first so many pictures.")] = None,
    looks: Annotated[str, typer.Option("--perceptual", help="Who judges looks: auto, shipped, lpips-vgg...")] = "auto",
    identity: Annotated[
        str, typer.Option("--identity", help="Who judges identity: auto, shipped, arcface, onnx:FILE.")
    ] = "auto",
    steps: Steps = None,
    aligned: Aligned = False,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Compare methods of inversion: a table, inversion.json with every face, inversion.png; goes on where it stopped.

    Example: mien eval inversion crops --aligned --methods encoder,optimize,hybrid --outdir out/eval
    """
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise InputError("no methods to compare", hint="say for example --methods encoder,optimize")
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", hint="give a folder of pictures")
    check_outdir(outdir)
    check_network(network)

    from mien.app.evaluate import evaluate_inversion, find_subject
    from mien.app.studio import Studio
    from mien.images import PHOTO_SUFFIXES
    from mien.inversion.invert import find_method
    from mien.judges import identity_judge, perceptual_judge

    for name in names:
        find_method(name)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)[:num]
    check_stems(paths)
    studio = Studio(network, device=device, precision=precision, seed=seed)
    subjects: list[Subject] = []
    failures = for_each(paths, "align", lambda path: subjects.append(find_subject(studio, path, aligned=aligned)))
    with Bars() as bars:
        judges = perceptual_judge(looks, on_step=bars), identity_judge(identity, on_step=bars)
        report = evaluate_inversion(
            studio, subjects, names, outdir, looks=judges[0], identity=judges[1], num_steps=steps, on_step=bars
        )
    typer.echo(f"| method | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name in names:
        numbers = report["methods"][name]["median"]
        typer.echo(f"| {name} | {' | '.join(f'{numbers[key]:.4g}' for key in COLUMNS)} |")
    note(f"medians of {len(subjects)} faces; looks by {judges[0].name}, identity by {judges[1].name}")
    typer.echo(outdir / "inversion.png")
    failures.finish(len(paths))
