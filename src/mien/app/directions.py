"""Commands on directions: find them, list them, show what one does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.items import check_network, check_out
from mien.app.options import Device, Network, Out, Precision, Psi, Seed
from mien.app.settings import DEFAULT_NETWORK
from mien.app.text import parse_layers, parse_seeds
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.app.studio import Studio
    from mien.edits.directions import AnyDirection, DirectionSet

__all__ = ["app"]

METHODS = ("sefa", "ganspace")
NOTABLE = 0.1  # standard deviations of another attribute by strength 1
STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)

app = typer.Typer(no_args_is_help=True, help="Find, list and show directions.")

File = Annotated[
    Path | None,
    typer.Option("--file", help="A .safetensors, or a published .npy, .npz, .pt; default: the network's."),
]


def _directions(studio: Studio, file: Path | None) -> DirectionSet:
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


@app.command()
def find(
    out: Annotated[Path, typer.Option("--out", help="File of directions to write, .safetensors.")],
    method: Annotated[str, typer.Option("--method", help="sefa (of the weights) or ganspace (of samples).")] = "sefa",
    num: Annotated[int, typer.Option("--num", min=1, help="How many.")] = 10,
    layers: Annotated[str, typer.Option("--layers", help="Rows that they move: 0- all, 4-7 some.")] = "0-",
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Find directions without names: sefa0, sefa1... the strongest first. For smile, age, yaw: mien train directions.

    Example: mien directions find --method sefa --layers 0-5 --num 8 --out sefa.safetensors
    """
    if method not in METHODS:
        raise InputError(f"no method named {method!r}", hint=f"known: {', '.join(METHODS)}")
    check_out(out, suffix=".safetensors")
    check_network(network)
    from mien.app.studio import Studio
    from mien.edits.directions import DirectionSet, save_directions
    from mien.edits.ganspace import ganspace
    from mien.edits.sefa import principal_directions, sefa

    studio = Studio(network, device=device, precision=precision, seed=seed)
    rows = parse_layers(layers, studio.G.num_ws)
    vectors, values = sefa(studio.G, rows, num) if method == "sefa" else ganspace(studio.G, num, seed=seed)
    found = principal_directions(studio.G, vectors, rows, method, seed=seed)
    facts = {"method": method, "layers": rows, "values": [float(v) for v in values], "seed": seed}
    save_directions(DirectionSet(found, studio.digest, facts), out)
    typer.echo(out)


@app.command("list")
def list_(
    file: File = None,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """List directions: name, what strength 1 is, rows, strengths within which a face stays itself.

    Example: mien directions list
    """
    check_network(network)
    from mien.app.studio import Studio

    studio = Studio(network, device=device, precision=precision, seed=seed)
    for name, d in sorted(_directions(studio, file).directions.items()):
        low, high = d.safe_range
        typer.echo(f"{name}  1 = {d.unit}  {d.place}  {low:g} to {high:g}{_side_effects(name, d)}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a direction.")],
    out: Out,
    file: File = None,
    people: Annotated[str, typer.Option("--seeds", help="People to show it on, say 1-4.")] = "1-4",
    psi: Psi = 0.5,
    network: Network = DEFAULT_NETWORK,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
) -> None:
    """Show what a direction does to invented people: one row a person, strengths from -3 to 3.

    Example: mien directions show smile --seeds 1-4 --out smile.png
    """
    seeds = parse_seeds(people)
    check_out(out)
    check_network(network)
    from mien.app.studio import Studio
    from mien.images import grid, save_png

    studio = Studio(network, device=device, precision=precision, seed=seed)
    direction = _directions(studio, file)[name]
    pictures = []
    for number in seeds:
        code = studio.seed_code(number, psi=psi)
        moved = (direction.edit(code, strength) for strength in STRENGTHS)
        pictures += [studio.picture(one) for one in moved]
    save_png(grid(pictures, columns=len(STRENGTHS)), out)
    typer.echo(out)
