"""`mien lab`: a folder of people becomes the whole report of a face lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.app.commands.style import names_of
from mien.app.options import ENGINE, FINDING, Engine, Finding
from mien.app.subjects import Subjects
from mien.app.terminal.items import Failures, check_network, check_outdir
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.report import Step

__all__ = ["app"]

STYLES = ("seed:5", "seed:8", "seed:12")

app = typer.Typer()


@app.command()
@spread
def lab(
    folder: Annotated[Path, typer.Argument(help="Folder with photos of four to six people.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report; made if missing.")],
    styles: Annotated[
        list[str] | None,
        typer.Option("--style", help="A style: picture, code or seed:N. Give several.", metavar="STYLE"),
    ] = None,
    photos: Annotated[int, typer.Option("--photos", min=1, help="Most photos of each person, frontal ones first.")] = 4,
    cycles: Annotated[int, typer.Option("--cycles", min=0, help="Of the space of faces, 0 = straight blends.")] = 2,
    blends: Annotated[int, typer.Option("--blends", min=0, max=100, help="Drawn by the seed.")] = 7,
    frames: Annotated[int, typer.Option("--frames", min=2, max=1000, help="Of each morph to the next person.")] = 24,
    edit_steps: Annotated[
        int | None, typer.Option("--edit-steps", min=1, help="Of each expression and swap, by default their own.")
    ] = None,
    finding: Finding = FINDING,
    engine: Engine = ENGINE,
) -> None:
    """Make a report of a few people: projections, styles, expressions, swaps, blends, morphs; a page and every number.

    Each sub-folder is a person; files beside them are grouped by name (anna_1.jpg, anna_2.jpg). What cannot be used is
    reported, and the rest goes on; the same command goes on where it was stopped.

    Example: mien lab people --out report
    """
    check_outdir(out)
    check_network(engine.network)

    from mien.app.lab.people import read_people
    from mien.app.lab.report import write_report
    from mien.app.lab.work import Lab, LabConfig
    from mien.inversion.invert import find_method
    from mien.judges import identity_judge, perceptual_judge

    find_method(finding.method)
    config = LabConfig(
        method=finding.method, steps=finding.steps, cycles=cycles, edit_steps=edit_steps, blends=blends, frames=frames
    )
    names = names_of(styles or STYLES)
    studio = engine.studio()
    failures = Failures()
    with Bars() as bars:
        people = read_people(
            studio,
            folder,
            failures,
            aligned=finding.aligned,
            most=photos,
            on_photo=lambda done, total: bars(Step("find faces", done, total)),
        )
        subjects = Subjects(studio, bars, method=finding.method, steps=finding.steps)
        codes = {name: subjects.code(text) for name, text in zip(names, styles or STYLES, strict=True)}
        made = Lab(
            studio,
            people,
            codes,
            out,
            perceptual_judge(on_step=bars),
            identity_judge(on_step=bars),
            config,
            bars,
        )
        report = write_report(made, folder, failures.of)
    for figure in report["figures"].values():
        for said in figure["notes"]:
            note(f"warning: {said}")
    typer.echo(out / "index.html")
    failures.finish(len(people) + len(failures.of))
