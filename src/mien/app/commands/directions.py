"""Commands on directions: find them, list them, show what one does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.options import ENGINE, Device, Engine, Network, Out, Outdir, Precision, Psi
from mien.app.settings import DEFAULT_NETWORK
from mien.app.terminal.items import check_network, check_out, check_outdir
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.app.terminal.text import parse_layers, parse_names, parse_seeds
from mien.errors import InputError
from mien.report import Step

if TYPE_CHECKING:
    from mien.app.studio import Studio
    from mien.edits.directions import AnyDirection, DirectionSet
    from mien.edits.find import FindConfig

__all__ = ["app", "read_directions"]

SCORED = ("interfacegan", "stylespace")
METHODS = ("sefa", "ganspace", *SCORED)
PER_SHEET, PER_ROW, TILE_PX = 60, 10, 112
NOTABLE = 0.1  # standard deviations of another attribute by strength 1
STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)

app = typer.Typer(no_args_is_help=True, help="Find, list and show directions.")

File = Annotated[
    Path | None,
    typer.Option("--file", help="A .safetensors, or a published .npy, .npz, .pt; default: the network's."),
]


def read_directions(studio: Studio, file: Path | None) -> DirectionSet:
    """Read a file of directions, ours or a published one, or the network's own.

    Raises:
        WeightsError: no such file, or none that can be read.
        InputError: they were found in another generator.
    """
    from mien.edits.community import read_community
    from mien.edits.directions import load_directions

    if file is None:
        return studio.directions
    if file.suffix.lower() != ".safetensors":
        return read_community(studio.G, file, network=studio.digest)
    found = load_directions(file)
    if found.network not in ("", studio.digest):
        hint = "give the --network that they were found in"
        raise InputError(f"{file.name} was found in another generator than {studio.network.stem}", hint=hint)
    return found


def _side_effects(name: str, direction: AnyDirection) -> str:
    """What a direction does beside what it is for, in words: the largest first."""
    others = sorted((abs(v), other, v) for other, v in direction.effects.items() if other != name)[::-1]
    words = [f"{other} {value:+.2f}" for size, other, value in others[:3] if size >= NOTABLE]
    also = f"  also {', '.join(words)}" if words else ""
    return also + (f"  identity {direction.identity:.2f} at +-2" if direction.identity else "")


def _principal(studio: Studio, method: str, num: int, rows: Sequence[int], seed: int) -> DirectionSet:
    from mien.edits.directions import DirectionSet
    from mien.edits.ganspace import ganspace
    from mien.edits.sefa import principal_directions, sefa

    vectors, values = sefa(studio.G, rows, num) if method == "sefa" else ganspace(studio.G, num, seed=seed)
    found = principal_directions(studio.G, vectors, rows, method, seed=seed)
    facts = {"method": method, "layers": list(rows), "values": [float(v) for v in values], "seed": seed}
    return DirectionSet(found, studio.digest, facts)


def _named(
    studio: Studio,
    method: str,
    names: Sequence[str],
    labels: Path | None,
    keep: Sequence[str] | None,
    rows: Sequence[int] | None,
    config: FindConfig,
) -> DirectionSet:
    from mien.edits.attributes import attribute, face_scorer
    from mien.edits.interfacegan import find_boundaries
    from mien.edits.labels import load_labels
    from mien.edits.stylespace import stylespace

    assert studio.face_net is not None
    scorer = face_scorer(studio.face_net)
    with Bars() as bars:
        known: dict[str, Any] = dict(network=studio.digest, on_step=bars)
        if method == "stylespace":
            wanted = [attribute(name, keep) for name in names]
            return stylespace(studio.G, scorer, wanted, find=config, **known)
        table = None if labels is None else load_labels(labels)
        found = find_boundaries(
            studio.G, scorer, names, labels=table, keep=keep or (), layers=rows, config=config, **known
        )
    for name, accuracy in found.provenance["not_parted"].items():
        note(f"no direction {name}: of faces that its plane had not seen {accuracy:.0%} lie on their side")
    return found.with_provenance({"method": method, "seed": config.seed})


@app.command()
@spread
def find(
    out: Annotated[Path, typer.Option("--out", help="File of directions to write, .safetensors.")],
    method: Annotated[
        str,
        typer.Option("--method", help="sefa (of the weights), ganspace (of samples), interfacegan or stylespace."),
    ] = "sefa",
    num: Annotated[int, typer.Option("--num", min=1, help="How many, of sefa and ganspace.")] = 10,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Rows that they move: 0- all, 4-7 some; default: all or the best.")
    ] = None,
    score: Annotated[
        str, typer.Option("--score", help="Attributes that the face network measures, say smile,age; or labels.")
    ] = "",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Table of `mien directions sheet`, filled in; for interfacegan.")
    ] = None,
    orthogonal_to: Annotated[
        str | None, typer.Option("--orthogonal-to", help="Attributes or labels to leave as they are, say age,gender.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=50, help="People to score.")] = 2000,
    engine: Engine = ENGINE,
) -> None:
    """Find directions: without names by sefa or ganspace (sefa0, sefa1... the strongest first), named by the others.

    interfacegan parts people by a score or by your labels; stylespace finds the few channels of the styles that move a
    score and little else. For all shipped ones together, see mien train directions.

    Example: mien directions find --method interfacegan --score smile --orthogonal-to age,gender --out smile.safetensors
    """
    names, keep = parse_names(score), None if orthogonal_to is None else parse_names(orthogonal_to)
    if method not in METHODS:
        raise InputError(f"no method named {method!r}", hint=f"known: {', '.join(METHODS)}")
    if method in SCORED and not names and (labels is None or method != "interfacegan"):
        raise InputError(f"--method {method} needs something to find", hint="write for example --score smile")
    if labels is not None and method != "interfacegan":
        raise InputError(f"--method {method} does not read labels", hint="use --method interfacegan")
    if method not in SCORED and (names or keep is not None):
        raise InputError(f"--method {method} knows no attributes", hint=f"use --method {' or '.join(SCORED)}")
    if method == "stylespace" and layers is not None:
        raise InputError("--method stylespace moves channels, not rows", hint="leave out --layers")
    check_out(out, suffix=".safetensors")
    check_network(engine.network)
    from mien.edits.directions import save_directions
    from mien.edits.find import FindConfig

    studio = engine.studio()
    rows = None if layers is None else parse_layers(layers, studio.G.num_ws)
    config = FindConfig(num_samples=samples, seed=engine.seed)
    if method in SCORED:
        found = _named(studio, method, names, labels, keep, rows, config)
    else:
        found = _principal(studio, method, num, range(studio.G.num_ws) if rows is None else rows, engine.seed)
    save_directions(found, out)
    typer.echo(out)


@app.command()
def sheet(
    outdir: Outdir,
    people: Annotated[str, typer.Option("--seeds", help="Whom to invent.")] = "1-300",
    names: Annotated[
        str, typer.Option("--names", help="What to look for.")
    ] = "glasses,dark_hair,long_hair,bald,light_from_left",
    psi: Psi = 1.0,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Draw invented people with their numbers, and an empty table beside them, to label what no network measures.

    Writes sheet-01.png, sheet-02.png... and labels.csv: write 1 beside who has it, 0 beside who has not, nothing where
    you cannot tell. A table that is there already is kept. Then: mien directions find --method interfacegan --labels

    Example: mien directions sheet --seeds 1-300 --names glasses,dark_hair --outdir labels
    """
    seeds, wanted = parse_seeds(people), parse_names(names)
    check_outdir(outdir)
    check_network(network)
    from mien.app.figures.figure import Section, Tile, figure
    from mien.app.studio import Studio
    from mien.edits.labels import blank_labels, save_labels
    from mien.images import save_png

    studio = Studio(network, device=device, precision=precision)
    blank = blank_labels(studio.digest, psi, seeds, wanted)
    table = outdir / "labels.csv"
    with Bars() as bars:
        for page, first in enumerate(range(0, len(seeds), PER_SHEET), 1):
            some = seeds[first : first + PER_SHEET]
            tiles = [Tile(p, str(s)) for p, s in zip(studio.generate(some, psi=psi), some, strict=True)]
            rows = [tiles[i : i + PER_ROW] for i in range(0, len(tiles), PER_ROW)]
            section = Section(", ".join(wanted), f"psi {psi:g}; 1 with, 0 without, nothing else", rows, TILE_PX)
            path = outdir / f"sheet-{page:02d}.png"
            save_png(figure(f"People {some[0]} to {some[-1]}", studio.network.stem, [section]), path)
            typer.echo(path)
            bars(Step("sheets", first + len(some), len(seeds)))
    if table.exists():
        note(f"{table} is there already and was kept")
    else:
        save_labels(blank, table)
    typer.echo(table)


@app.command("list")
@spread
def list_(
    file: File = None,
    engine: Engine = ENGINE,
) -> None:
    """List directions: name, what strength 1 is, rows, strengths within which a face stays itself.

    Example: mien directions list
    """
    check_network(engine.network)

    studio = engine.studio()
    for name, d in sorted(read_directions(studio, file).directions.items()):
        low, high = d.safe_range
        typer.echo(f"{name}  1 = {d.unit}  {d.place}  {low:g} to {high:g}{_side_effects(name, d)}")


@app.command()
@spread
def show(
    name: Annotated[str, typer.Argument(help="Name of a direction.")],
    out: Out,
    file: File = None,
    people: Annotated[str, typer.Option("--seeds", help="People to show it on, say 1-4.")] = "1-4",
    psi: Psi = 0.5,
    engine: Engine = ENGINE,
) -> None:
    """Show what a direction does to invented people: one row a person, strengths from -3 to 3.

    Example: mien directions show smile --seeds 1-4 --out smile.png
    """
    seeds = parse_seeds(people)
    check_out(out)
    check_network(engine.network)
    from mien.images import grid, save_png

    studio = engine.studio()
    direction = read_directions(studio, file)[name]
    pictures = []
    for number in seeds:
        code = studio.seed_code(number, psi=psi)
        moved = (direction.edit(code, strength) for strength in STRENGTHS)
        pictures += [studio.picture(one) for one in moved]
    save_png(grid(pictures, columns=len(STRENGTHS)), out)
    typer.echo(out)
