"""What the command line shows on stderr: bars for long work, errors with their hints. Results alone go to stdout."""

from __future__ import annotations

import tempfile
import traceback
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mien.errors import MienError
from mien.report import Sink, Step

__all__ = ["Bars", "note", "show_cursor", "show_error", "show_unexpected"]


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Say something that is neither a result nor an error."""
    _console().print(text, markup=False)


def show_cursor() -> None:
    """Give the terminal its cursor back, which a bar hides."""
    _console().show_cursor(True)


def show_error(err: MienError) -> None:
    """Show what happened and what to do about it."""
    console = _console()
    console.print("error:", style="bold red", end=" ")
    console.print(err.message, markup=False)
    if err.hint:
        console.print("hint:", style="bold", end="  ")
        console.print(err.hint, markup=False)


def show_unexpected(err: BaseException) -> None:
    """Keep the traceback in a file and name it: this is our defect, not the user's."""
    with tempfile.NamedTemporaryFile("w", prefix="mien-", suffix=".log", delete=False, encoding="utf-8") as log:
        log.writelines(traceback.format_exception(err))
    console = _console()
    console.print("unexpected error:", style="bold red", end=" ")
    console.print(f"{type(err).__name__}: {err}", markup=False)
    console.print("hint:", style="bold", end="  ")
    console.print(f"this is a defect of mien; please report it with {log.name}", markup=False)


class Bars:
    """A sink that draws one bar for every stage; use it as a context, then call it with steps.

    The numbers of a step that are worth a look (its loss) stand behind the bar. `followers` hear of every step, too.
    """

    followers: ClassVar[list[Sink]] = []  # what `mien --track` opened, for the length of one command

    def __init__(self, *, prefix: str = "") -> None:
        self._prefix = prefix
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=_console(),
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, prefix: str) -> None:
        """Put another name before the stages, say the photo's; the bars start anew."""
        self._prefix = prefix
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()

    def __call__(self, step: Step) -> None:
        name = f"{self._prefix} {step.stage}".strip()
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in list(step.scalars.items())[:4])
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name.replace("[", r"\["), total=step.total, numbers=numbers)
        self._progress.update(self._tasks[name], completed=step.done, total=step.total, numbers=numbers)
        for tell in self.followers:
            tell(step)
