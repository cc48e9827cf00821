"""Commands that measure: how good inversion is on a folder of faces, and what directions do to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, FINDING, Aligned, Engine, Finding, Outdir, Psi, Steps
from mien.app.terminal.items import Failures, check_network, check_outdir, check_stems, for_each
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.app.terminal.text import parse_names, parse_numbers, parse_seeds
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.app.evaluate.inversion import Subject

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Measure what mien does on pictures of your own.")

WhoIdentity = Annotated[str, typer.Option("--identity", help="Who judges identity: auto, shipped, arcface, onnx:FILE.")]
COLUMNS = ("mse", "psnr", "perceptual", "ms_ssim", "identity", "seconds")


def _pictures(folder: Path, num: int | None) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
        InputError: no folder, or two pictures of one stem.
    """
    from mien.images import PHOTO_SUFFIXES

    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", hint="give a folder of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)[:num]
    check_stems(paths)
    return paths


@app.command()
@spread
def inversion(
    folder: Annotated[Path, typer.Argument(help="Folder of photos, or of FFHQ crops.", metavar="DIR")],
    outdir: Outdir,
    methods: Annotated[str, typer.Option("--methods", help="Names of methods.")] = "encoder,optimize,pti,hybrid",
    num: Annotated[int | None, typer.Option("--num", min=1, help="Only the first so many pictures.")] = None,
    looks: Annotated[str, typer.Option("--perceptual", help="Who judges looks: auto, shipped, lpips-vgg...")] = "auto",
    identity: WhoIdentity = "auto",
    steps: Steps = None,
    aligned: Aligned = False,
    engine: Engine = ENGINE,
) -> None:
    """Compare methods of inversion: a table, inversion.json with every face, inversion.png; goes on where it stopped.

    Example: mien eval inversion crops --aligned --methods encoder,optimize,hybrid --outdir out/eval
    """
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise InputError("no methods to compare", hint="say for example --methods encoder,optimize")
    paths = _pictures(folder, num)
    check_outdir(outdir)
    check_network(engine.network)

    from mien.app.evaluate.inversion import evaluate_inversion, find_subject
    from mien.inversion.invert import find_method
    from mien.judges import identity_judge, perceptual_judge

    for name in names:
        find_method(name)
    studio = engine.studio()
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


@app.command()
@spread
def directions(
    outdir: Outdir,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of photos, or of FFHQ crops; default: invented people.", metavar="DIR")
    ] = None,
    people: Annotated[str, typer.Option("--seeds", help="Whom to invent where there is no DIR.")] = "1-24",
    psi: Psi = 0.7,
    names: Annotated[str, typer.Option("--names", help="Directions, say smile,age; default: all.")] = "",
    strengths: Annotated[str, typer.Option("--strengths", help="To move by.")] = "-3,-2,-1,0,1,2,3",
    file: Annotated[Path | None, typer.Option("--file", help="Of directions; default: the network's.")] = None,
    num: Annotated[int | None, typer.Option("--num", min=1, help="Only the first so many pictures.")] = None,
    finding: Finding = FINDING,
    engine: Engine = ENGINE,
) -> None:
    """Draw for each direction what it changes against the identity that it costs: directions.png, .html, .json.

    Example: mien eval directions --seeds 1-24 --outdir out/directions
    """
    wanted, moves = parse_names(names), parse_numbers(strengths)
    paths = None if folder is None else _pictures(folder, num)
    seeds = parse_seeds(people)
    check_outdir(outdir)
    check_network(engine.network)

    import torch

    from mien.app.commands.directions import read_directions
    from mien.app.evaluate.directions import COLUMNS, evaluate_directions, table_lines
    from mien.app.evaluate.inversion import find_subject
    from mien.edits.directions import DirectionSet
    from mien.inversion.invert import find_method
    from mien.latents import sample_ws

    if find_method(finding.method).changes_generator:
        hint = "take optimize or encoder: all faces are moved in one generator"
        raise InputError(f"--method {finding.method} changes the generator for each face", hint=hint)
    studio = engine.studio()
    found = read_directions(studio, file)
    if wanted:
        found = DirectionSet({name: found[name] for name in wanted}, found.network, found.provenance)
    with Bars() as bars:
        if paths is None:
            ws, failures = sample_ws(studio.G, seeds, truncation_psi=psi), Failures()
        else:
            crops: list[torch.Tensor] = []
            failures = for_each(
                paths, "align", lambda p: crops.append(find_subject(studio, p, aligned=finding.aligned).img)
            )
            if not crops:
                failures.show(len(paths))
                raise InputError(f"no faces in {folder}", hint="give a folder of photos, or --aligned for crops")
            codes = studio.invert(torch.cat(crops), method=finding.method, num_steps=finding.steps, on_step=bars)
            ws = torch.stack([code.ws for code in codes])
        report = evaluate_directions(studio, found, ws, outdir, strengths=moves, on_step=bars)
    typer.echo(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for line in table_lines(report["directions"]):
        typer.echo(f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in line)} |")
    typer.echo(outdir / "directions.html")
    failures.finish(len(paths or ()))


@app.command()
@spread
def swap(
    folder: Annotated[Path, typer.Argument(help="Folder with one photo of each person, or FFHQ crops.", metavar="DIR")],
    outdir: Outdir,
    num: Annotated[int | None, typer.Option("--num", min=2, help="Only the first so many pictures.")] = None,
    identity: WhoIdentity = "auto",
    steps: Steps = None,
    aligned: Aligned = False,
    engine: Engine = ENGINE,
) -> None:
    """Put everybody's face on everybody's photo and measure it: swap.json with every pair, swap.png.

    Example: mien eval swap friends --num 4 --outdir out/swap
    """
    check_outdir(outdir)
    check_network(engine.network)

    from mien.app.evaluate.swap import COLUMNS, evaluate_swap
    from mien.app.sitters import config_of, sitters_of
    from mien.judges import identity_judge

    studio = engine.studio()
    people, failures = sitters_of(studio, folder, aligned=aligned, num=num)
    with Bars() as bars:
        judge = identity_judge(identity, on_step=bars)
        report = evaluate_swap(
            studio, people, outdir, identity=judge, config=config_of(steps, engine.seed), on_step=bars
        )
    numbers = report["summary"]
    typer.echo(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    typer.echo(f"| {' | '.join(f'{numbers[key]:.4g}' for key in COLUMNS)} |")
    share = f"{100 * numbers['nearer_to_source']:.0f} % of {len(report['pairs'])} pairs are nearer to the source"
    note(f"medians; {share}; identity by {judge.name}")
    typer.echo(outdir / "swap.png")
    failures.finish(len(people) + len(failures.of))
