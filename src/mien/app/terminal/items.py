"""Many inputs in one call: every output under its input's name, failures kept for the end while the others go on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from mien.app.terminal.screen import Bars, note, show_error
from mien.errors import InputError, MienError, MissingExtraError, WeightsError
from mien.report import Step

__all__ = ["Failures", "check_network", "check_out", "check_outdir", "check_stems", "for_each"]


def check_stems(paths: Sequence[Path]) -> None:
    """Refuse inputs whose outputs would have one name.

    Raises:
        InputError: two inputs of one stem, in any case of letters.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        stem = path.stem.casefold()
        if stem in seen:
            hint = "rename one, or give them in two calls with two folders"
            raise InputError(f"{seen[stem]} and {path} would have one name in the output folder", hint=hint)
        seen[stem] = path


def check_outdir(folder: Path) -> None:
    """Refuse a folder that cannot be made, or that nothing can be written into.

    Raises:
        InputError: it, or a folder above it, is a file or closed to us.
    """
    place = folder
    try:
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise InputError(f"{place} is a file, not a folder", hint="choose another folder")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as err:
        hint = "choose another folder, or change its permissions"
        raise InputError(f"cannot write into {place}: {err.strerror or err}", hint=hint) from err


def check_out(out: Path, inputs: Iterable[Path] = (), *, suffix: str = ".png") -> None:
    """Refuse an output of another kind, in a folder that cannot be written, a folder itself, or one of the inputs.

    Raises:
        InputError: it is one of these.
    """
    if out.suffix.lower() != suffix:
        raise InputError(f"{out} does not end in {suffix}", hint=f"write for example {out.with_suffix(suffix)}")
    if out.is_dir():
        raise InputError(f"{out} is a folder", hint="name a file in it")
    for path in inputs:
        if out.resolve() == path.resolve():
            raise InputError(f"{out} would overwrite its input", hint="choose another name or folder")
    check_outdir(out.parent)


def check_network(network: str, *, commercial: bool = False) -> None:
    """Refuse a generator that is not there, or whose terms forbid commercial use where that is asked, before any work.

    Raises:
        WeightsError: there is none of that name, or it must not be used.
    """
    from mien.weights.licences import require_commercial
    from mien.weights.load import find_weights

    if commercial:
        require_commercial([network])
    with Bars() as bars:
        find_weights(network, on_step=bars)


class Failures:
    """What went wrong with which input."""

    exit_code = 3

    def __init__(self) -> None:
        self.of: dict[str, MienError] = {}

    @contextmanager
    def keep(self, item: object) -> Iterator[None]:
        """Keep an error of `item` itself for the end, so that the next one gets its turn."""
        try:
            yield
        except WeightsError:  # bad weights and a full disk are bad for every item
            raise
        except (InputError, MissingExtraError) as err:
            self.of[str(item)] = err

    def show(self, num_inputs: int) -> None:
        """List what failed, if anything did."""
        for err in self.of.values():
            show_error(err)
        if self.of:
            note(f"{len(self.of)} of {num_inputs} inputs failed: {', '.join(self.of)}")

    def finish(self, num_inputs: int) -> None:
        """List what failed, if anything did, and leave with exit code 3."""
        self.show(num_inputs)
        if self.of:
            raise typer.Exit(self.exit_code)


def for_each(paths: Sequence[Path], stage: str, work: Callable[[Path], None]) -> Failures:
    """Do the same to every input behind a bar; what fails is kept, the others go on."""
    failures = Failures()
    with Bars() as bars:
        for i, path in enumerate(paths):
            bars(Step(stage, i, len(paths)))
            with failures.keep(path):
                work(path)
    return failures
