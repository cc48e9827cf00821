"""`mien replay`: do a recipe again, on other photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.app.options import Device, Outdir
from mien.app.recipes import differences, perform, studio_of
from mien.app.subjects import Subjects, is_photo
from mien.app.terminal.items import check_network, check_out, check_outdir, check_stems, for_each
from mien.app.terminal.screen import Bars, note

__all__ = ["app"]

app = typer.Typer()

CPU = "cpu"


def _result(source: str, outdir: Path) -> Path:
    """Return where the result of a source goes."""
    name = source if is_photo(source) else source.replace(":", "")
    return outdir / f"{Path(name).stem}.png"


@app.command()
def replay(
    recipe: Annotated[Path, typer.Argument(help="What --recipe wrote beside a result.", metavar="RECIPE")],
    photos: Annotated[
        list[str], typer.Argument(help="Photos, codes that `mien invert` wrote, or seed:N.", metavar="PHOTO...")
    ],
    outdir: Outdir,
    network: Annotated[str | None, typer.Option("--network", help="The recipe's generator, if not mien's own.")] = None,
    device: Device = "auto",
) -> None:
    """Do to other photos what was done to one: <stem>.png each; to the same photo, the same bytes.

    `mien edit` and its like write a recipe where --recipe FILE says so.

    Example: mien replay smiling.json anna.jpg bert.jpg --outdir smiling
    """
    from mien.app.operations import OPERATIONS
    from mien.edits.recipe import load_recipe

    wanted = load_recipe(recipe, OPERATIONS)
    results = {Path(source): _result(source, outdir) for source in photos}
    check_stems(list(results.values()))
    for out in results.values():
        check_out(out, [*results, recipe])
    check_outdir(outdir)
    if network is not None:
        check_network(network)
    studio = studio_of(wanted, network=network, device=device)
    for difference in differences(wanted, studio):
        note(f"warning: the bytes may differ: {difference}")

    with Bars() as bars:
        subjects = Subjects(studio, bars, method=wanted.method, steps=wanted.steps, aligned=wanted.aligned)

        def again(path: Path) -> None:
            source = str(path)
            face = wanted.face if is_photo(source) and not wanted.aligned else None
            bars.say(path.stem)
            perform(subjects, source, wanted.operations, results[path], face=face)
            typer.echo(results[path])

    failures = for_each(list(results), "replay", again)
    failures.finish(len(photos))
