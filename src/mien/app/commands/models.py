"""`mien models`: what weights there are, what is in a file of them, and on which terms they may be used."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.app.options import Commercial
from mien.app.terminal.screen import Bars, note
from mien.errors import InputError

if TYPE_CHECKING:
    from mien.weights.licences import Used
    from mien.weights.zoo import Entry

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Weights: list, look into, fetch, convert, check, terms.")

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Weights = Annotated[str, typer.Argument(help="A file, a name, or hf://owner/name.", metavar="FILE-or-NAME")]


def _megabytes(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.0f} MB" if size_bytes > 1e6 else "< 1 MB"


def _row(entry: Entry, is_here: bool) -> dict[str, Any]:
    facts = asdict(entry)
    return {**facts, "licence": entry.licence.name, "commercial": entry.licence.commercial, "cached": is_here}


@app.command("list")
def list_(
    as_json: AsJson = False,
    commercial: Commercial = False,
    kind: Annotated[str | None, typer.Option("--kind", help="generator, encoder or features.")] = None,
) -> None:
    """Show every name: what comes with mien, and what can be fetched.

    Example: mien models list --kind encoder
    """
    from mien.weights.download import default_cache
    from mien.weights.licences import licence_of
    from mien.weights.load import bundled_names
    from mien.weights.zoo import KINDS, zoo

    if kind is not None and kind not in KINDS:
        raise InputError(f"no kind named {kind!r}", hint=f"known: {', '.join(KINDS)}")
    cache = default_cache()
    entries = [
        entry
        for entry in zoo().values()
        if (kind is None or entry.kind == kind) and (not commercial or entry.licence.commercial == "yes")
    ]
    bundled = {name: licence_of(name) for name in bundled_names()}
    if commercial:
        bundled = {name: licence for name, licence in bundled.items() if licence.commercial == "yes"}
    if as_json:
        rows = [_row(entry, (cache / entry.download.name).is_file()) for entry in entries]
        shipped = [
            {"name": name, "licence": licence.name, "commercial": licence.commercial, "cached": True}
            for name, licence in bundled.items()
        ]
        typer.echo(json.dumps({"bundled": shipped, "zoo": rows}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "what", "family", "px", "crop", "size", "licence", ""):
        table.add_column(title, overflow="fold")
    for name, licence in bundled.items():
        table.add_row(name, "comes with mien", "", "", "", "", licence.name, "here")
    for entry in entries:
        mark = "here" if (cache / entry.download.name).is_file() else "by hand" if entry.manual else ""
        size, px = _megabytes(entry.size_bytes), str(entry.resolution or "")
        table.add_row(entry.name, entry.about, entry.family, px, entry.crop, size, entry.licence.name, mark)
    console = Console(highlight=False)
    console.print(table, soft_wrap=not console.is_terminal)


@app.command()
def info(weights: Weights, as_json: AsJson = False) -> None:
    """Tell what is in a file of weights, whatever its format; none of its code is run.

    A name of the zoo that is not in the cache is described by what is known of it, without fetching it.

    Example: mien models info stylegan2-ffhq-1024
    """
    from mien.weights.formats import describe
    from mien.weights.licences import licence_of
    from mien.weights.load import bundled_names, find_weights
    from mien.weights.zoo import in_cache, zoo

    facts: dict[str, Any] = {}
    is_entry = weights in zoo() and weights not in bundled_names() and not Path(weights).is_file()
    if is_entry:
        facts["zoo"] = _row(zoo()[weights], False) | {"terms": zoo()[weights].licence.terms}
    path = in_cache(weights) if is_entry else find_weights(weights)
    if path is not None:
        facts |= describe(path)
        if is_entry:
            facts["zoo"]["cached"] = True
        else:
            facts["licence"] = asdict(licence_of(weights))
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    for line in _lines(facts):
        typer.echo(line)


def _lines(facts: Any, indent: str = "") -> list[str]:
    """Write nested facts as indented lines, empty ones left out."""
    lines: list[str] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, f"{indent}  ")] if value else []
        elif isinstance(value, list):
            lines += [f"{indent}{key}: {item}" for item in value]
        elif value not in (None, ""):
            lines.append(f"{indent}{key}: {value}")
    return lines


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(help="Names that mien models list shows, or hf://owner/name.")],
    commercial: Commercial = False,
) -> None:
    """Fetch weights into the cache (MIEN_CACHE moves it) and print where they are; a cut download goes on.

    Example: mien models pull lpips-vgg vgg16
    """
    from mien.weights.hub import SCHEME, pull_from_hub
    from mien.weights.licences import require_commercial
    from mien.weights.zoo import find
    from mien.weights.zoo import pull as pull_entry

    listed = [name for name in names if not name.startswith(SCHEME)]
    for name in listed:
        find(name)
    if commercial:
        require_commercial(listed)
    with Bars() as bars:
        for name in names:
            path = pull_from_hub(name) if name.startswith(SCHEME) else pull_entry(name, on_step=bars)
            if commercial and name not in listed:
                require_commercial([path])
            typer.echo(path)
    for entry in map(find, listed):
        note(f"{entry.name}: {entry.licence.name}. {entry.licence.terms}")
        if not entry.download.is_pinned:
            note(f"{entry.name}: nobody states its whole hash; the one that came is recorded, and holds from now on")


@app.command()
def push(
    weights: Annotated[Path, typer.Argument(help="A .safetensors file of mien.", metavar="FILE")],
    address: Annotated[str, typer.Argument(help="hf://owner/name[/file].", metavar="ADDRESS")],
    licence: Annotated[str, typer.Option("--licence", help="On which terms others may use them, say Apache-2.0.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository for everybody.")] = False,
) -> None:
    """Put weights on the Hugging Face Hub, with a model card made from their recipe.

    Example: mien models push small.safetensors hf://anna/small --licence CC0-1.0
    """
    from mien.weights.hub import push_to_hub
    from mien.weights.load import read_recipe

    typer.echo(push_to_hub(weights, read_recipe(weights), address, licence=licence, private=not public))


@app.command()
def convert(
    source: Weights,
    target: Annotated[Path, typer.Argument(help="What to write: .safetensors, .pt or .pth.", metavar="OUT")],
    format_: Annotated[
        str | None, typer.Option("--format", help="safetensors, rosinality, nvidia or pix2pix; default: as OUT ends.")
    ] = None,
    role: Annotated[str | None, typer.Option("--role", help="G_ema, G, D or E; default: what fits.")] = None,
) -> None:
    """Write weights in another format: ours, rosinality's names or NVIDIA's.

    Example: mien models convert ffhq.pkl ffhq.safetensors
    """
    from mien.app.terminal.items import check_out
    from mien.weights.formats import convert as convert_file
    from mien.weights.load import find_weights

    path = find_weights(source)
    check_out(target, [path], suffix=target.suffix.lower())
    typer.echo(convert_file(path, target, format=format_, role=role))


@app.command()
def verify(weights: Weights, as_json: AsJson = False) -> None:
    """Build every network of a file and let each generator make a picture.

    Example: mien models verify faces-64
    """
    from mien.weights.formats import verify as verify_file
    from mien.weights.load import find_weights

    checked = verify_file(find_weights(weights))
    if as_json:
        typer.echo(json.dumps(checked, indent=1))
        return
    for role, facts in checked.items():
        typer.echo(f"{role}  " + "  ".join(f"{key} {value:,.4g}" for key, value in facts.items()))


@app.command()
def licence(
    of: Annotated[
        list[str],
        typer.Argument(
            help="Names or files of weights, or a run: its folder, report.json or options.json.", metavar="WHAT"
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print the terms of weights, or of everything that a run used.

    Example: mien models licence out/demo
    """
    used = [each for what in of for each in _used(what)]
    if as_json:
        typer.echo(json.dumps([{"weights": each.name, **asdict(each.licence)} for each in used], indent=1))
        return
    for each in used:
        typer.echo(f"{each.name}: {each.licence.name}; commercial use: {each.licence.commercial}")
        typer.echo(f"  {' '.join(filter(None, (each.licence.terms, each.licence.url)))}")


def _used(what: str) -> list[Used]:
    from mien.weights.licences import Used, licence_of, used_by

    path = Path(what)
    if path.is_dir() or path.suffix == ".json":
        return used_by(path)
    return [Used(what, licence_of(what))]
