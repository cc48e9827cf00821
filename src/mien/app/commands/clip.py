"""The command that edits the people of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.app.options import ENGINE, Engine
from mien.app.subjects import check_strengths
from mien.app.terminal.items import check_network, check_out
from mien.app.terminal.screen import Bars, note
from mien.app.terminal.spread import spread
from mien.app.terminal.text import parse_settings

__all__ = ["app"]

app = typer.Typer()


@app.command()
@spread
def video(
    clip: Annotated[Path, typer.Argument(help="A clip with people in it.", metavar="CLIP", show_default=False)],
    settings: Annotated[
        list[str], typer.Option("--set", help="Direction and strength, say smile=1.5.", metavar="NAME=X")
    ],
    out: Annotated[Path, typer.Option("--out", help="MP4 to write.")],
    person: Annotated[
        int | None, typer.Option("--person", min=0, help="Only the one of this number, 0 = largest for longest.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="pti (one tuned generator a person), optimize or encoder (quick).")
    ] = "pti",
    engine: Engine = ENGINE,
) -> None:
    """Edit the people of a clip: as many pictures as before, at the same times, with the sound.

    Pictures without a face stay as they are. Directions and strengths are those of `mien edit`.

    Example: mien video holiday.mp4 --set smile=1 --out smiling.mp4
    """
    from mien.edits.video import find_video_method
    from mien.video import clip_info

    strengths = parse_settings(settings)
    check_out(out, [clip], suffix=".mp4")
    config = find_video_method(method)
    clip_info(clip)
    check_network(engine.network)
    studio = engine.studio()
    check_strengths(studio, strengths)
    with Bars() as bars:
        report = studio.edit_clip(clip, out, strengths, config=config, person=person, on_step=bars)
    for i, one in enumerate(report.people if person is None else ()):
        note(f"person {i}: seen in {one.num_seen} of {report.num_frames} pictures, changed in {one.num_changed}")
    typer.echo(out)
