"""`mien worker` and `mien jobs`: do the queue's jobs, and look after them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mien.app.options import ENGINE, Engine
from mien.app.settings import load_settings
from mien.app.terminal.items import check_network
from mien.app.terminal.screen import note
from mien.app.terminal.spread import spread
from mien.errors import InputError, MienError

if TYPE_CHECKING:
    from mien.app.jobs.queue import Queue
    from mien.app.jobs.record import Job

__all__ = ["app", "jobs"]

app = typer.Typer()
jobs = typer.Typer(no_args_is_help=True, help="The queue: list, show, cancel, delete.")

JobIds = Annotated[list[str], typer.Argument(help="Numbers, or their first digits.", metavar="JOB...")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def _queue() -> Queue:
    from mien.app.jobs.queue import open_queue

    return open_queue(load_settings().jobs)


@app.command()
@spread
def worker(
    processes: Annotated[int, typer.Option("--processes", min=1, help="Workers, each with its own networks.")] = 1,
    together: Annotated[
        int, typer.Option("--together", min=1, max=16, help="Jobs at a time in each; their faces go together.")
    ] = 1,
    engine: Engine = ENGINE,
) -> None:
    """Do the jobs of the queue until it is told to stop (SIGTERM); the one at hand is finished first.

    Settings are in mien.toml or MIEN_* variables: docs/service.md.

    Example: mien worker --processes 2
    """
    from mien.app.jobs.supervisor import serve

    load_settings()
    check_network(engine.network)
    note(f"{processes} worker{'s' * (processes > 1)}; SIGTERM or Ctrl-C ends them in good order")
    serve(processes, {**asdict(engine), "together": together})


def _row(job: Job) -> dict[str, object]:
    """What an operator may see: nothing of the user but that there is one."""
    now = time.time()
    started_s = job.started_s or job.finished_s or now
    return {
        "id": job.id,
        "operation": job.operation,
        "state": job.state.value,
        "waited_s": round(max(started_s - job.created_s, 0.0), 1),
        "ran_s": round((job.finished_s or now) - job.started_s, 1) if job.started_s else 0.0,
        "attempt": job.attempt,
        "progress": f"{job.stage} {job.done}/{job.total}" if job.total else "",
        "delivered": bool(job.delivered_s),
        "error": job.message,
    }


def _find(queue: Queue, text: str) -> Job:
    found = [job for job in queue.jobs() if text and job.id.startswith(text)]
    if len(found) != 1:
        many = "more than one job begins" if found else "no job begins"
        raise InputError(f"{many} with {text}", hint="mien jobs list shows them")
    return found[0]


@jobs.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show every job, the oldest first, and how many workers live.

    Example: mien jobs list
    """
    queue = _queue()
    rows = [_row(job) for job in queue.jobs()]
    if as_json:
        typer.echo(json.dumps({"jobs": rows, "counts": queue.counts()}, indent=1))
        return
    for row in rows:
        words = f"{str(row['id'])[:8]}  {row['state']:<9}  {row['operation']}  waited {row['waited_s']} s"
        more = "  ".join(str(row[name]) for name in ("progress", "error") if row[name])
        typer.echo(f"{words}, ran {row['ran_s']} s  {more}".rstrip())
    note("  ".join(f"{name} {count}" for name, count in queue.counts().items()))


@jobs.command()
def show(job: Annotated[str, typer.Argument(help="Number, or its first digits.", metavar="JOB")]) -> None:
    """Show one job: where it is, how many are before it, when it will be done.

    Example: mien jobs show 3f2a
    """
    queue = _queue()
    found = _find(queue, job)
    status = queue.status(found.id)
    where = {"position": status.position, "left_s": status.left_s, "workers": status.num_workers}
    typer.echo(json.dumps(_row(found) | where | {"hint": found.hint, "notes": list(found.notes)}, indent=1))


@jobs.command()
def health(
    workers: Annotated[int, typer.Option("--workers", min=0, help="How many must live at least.")] = 1,
) -> None:
    """Say that the queue answers and that workers live; for supervisors, which look at the exit code.

    Example: mien jobs health
    """
    counts = _queue().counts()
    if counts["workers"] < workers:
        hint = "start `mien worker`, or wait until its networks are loaded"
        raise MienError(f"{counts['workers']} of {workers} workers live", hint=hint)
    typer.echo("  ".join(f"{name} {count}" for name, count in counts.items()))


@jobs.command()
def cancel(ids: JobIds) -> None:
    """Stop jobs: at once where they wait, between two steps where they run.

    Example: mien jobs cancel 3f2a
    """
    queue = _queue()
    for job in [_find(queue, text) for text in ids]:
        typer.echo(
            f"{job.id[:8]}  {'stopping' if (ended := queue.cancel(job.id)).is_cancelling else ended.state.value}"
        )


@jobs.command()
def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="Numbers, or their first digits.", metavar="JOB...")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Everything of this user, say tg:123.")] = None,
) -> None:
    """Delete jobs with their pictures, or all that is known of a user.

    Example: mien jobs delete --user tg:123
    """
    if bool(ids) == (user is not None):
        raise InputError("what is to be deleted?", hint="give jobs, or --user")
    queue = _queue()
    if user is not None:
        typer.echo(f"{queue.delete_user_data(user)} jobs deleted")
    for job in [_find(queue, text) for text in ids or ()]:
        queue.delete(job.id)
        typer.echo(f"{job.id[:8]}  deleted")
