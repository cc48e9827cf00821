"""The command line: each command reads what was typed, calls the studio once, and shows the result.

Exit codes: 0 done; 2 wrong usage; 3 some inputs of several failed, the others are done; 130 stopped; 1 anything else.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from mien import __version__
from mien.app.commands import (
    blend,
    bot,
    clip,
    codes,
    directions,
    drag,
    export,
    express,
    facespace,
    jobs,
    lab,
    models,
    pairs,
    people,
    photos,
    replay,
    style,
    stylize,
    swap,
    toonify,
    train,
    web,
)
from mien.app.commands import eval as evaluation
from mien.app.options import ENGINE, Engine, Outdir, Track
from mien.app.terminal.items import check_network, check_outdir
from mien.app.terminal.screen import Bars, note, show_cursor, show_error, show_unexpected
from mien.app.terminal.spread import spread
from mien.errors import Cancelled, MienError

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """The one place where errors become words and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            show_error(Cancelled("stopped"))
            raise typer.Exit(Cancelled.exit_code) from None
        except MienError as err:
            show_error(err)
            raise typer.Exit(err.exit_code) from err
        except (
            OSError,
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as err:
            if isinstance(err, BrokenPipeError) or type(err).__module__.startswith("typer"):
                raise
            show_unexpected(err)
            raise typer.Exit(1) from err


app = typer.Typer(
    name="mien",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Faces with StyleGAN: find, align, invert, edit, paste back.",
)

for commands in (
    photos,
    codes,
    drag,
    clip,
    style,
    express,
    stylize,
    toonify,
    swap,
    replay,
    lab,
    people,
    blend,
    export,
    jobs,
    bot,
    web,
):
    app.add_typer(commands.app)
app.add_typer(train.app, name="train")
app.add_typer(pairs.app, name="pairs")
app.add_typer(models.app, name="models")
app.add_typer(evaluation.app, name="eval")
app.add_typer(directions.app, name="directions")
app.add_typer(facespace.app, name="facespace")
app.add_typer(jobs.jobs, name="jobs")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mien {__version__}")
        raise typer.Exit


def _follow(ctx: typer.Context, places: list[str]) -> None:
    """Let the places hear of every step of the command that follows, as a run of its own."""
    from mien.track import About, follow
    from mien.training.provenance import commit

    name = str(ctx.invoked_subcommand)
    folder = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    about = About(name, folder, {"command": shlex.join(sys.argv[1:])}, {"commit": commit()})
    Bars.followers.append(ctx.with_resource(follow(places, about)))
    ctx.call_on_close(Bars.followers.clear)


@app.callback()
def _common(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    track: Track = None,
) -> None:
    if track:
        _follow(ctx, track)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)


@app.command()
@spread
def demo(
    outdir: Outdir = Path("out/demo"),
    engine: Engine = ENGINE,
) -> None:
    """Show everything once, on a real photo and on invented people; the figure is overview.png.

    Example: mien demo --outdir out/demo
    """
    from mien.app.demo import run_demo

    check_outdir(outdir)
    check_network(engine.network)
    studio = engine.studio()
    with Bars() as bars:
        report = run_demo(studio, outdir, bars)
    times: Any = report["times_s"]
    note(f"done in {times['all']:.0f} s. Look at")
    typer.echo(outdir / "overview.png")
    note(f"and at the other pictures in {outdir}; seeds, hashes, losses and times are in {outdir / 'report.json'}")


def _leave(_signal: int, _frame: object) -> NoReturn:
    """Leave at once; what is half written lies aside and is swept later."""
    show_cursor()
    os._exit(Cancelled.exit_code)


def _stop(_signal: int, _frame: object) -> NoReturn:
    """Stop in good order, unless the user asks again."""
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def main() -> None:
    """Start the command line."""
    signal.signal(signal.SIGINT, _stop)
    app()
