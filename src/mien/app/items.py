"""Many inputs in one call: every output under its input's name, failures kept for the end while the others go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mien.errors import InputError, MienError, MissingExtraError

__all__ = ["Failures", "check_out", "check_stems"]


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


def check_out(out: Path, inputs: Iterable[Path] = (), *, suffix: str = ".png") -> None:
    """Refuse an output that is no PNG, a folder, or one of the inputs.

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
        except (InputError, MissingExtraError) as err:  # bad weights and a full disk are bad for every item
            self.of[str(item)] = err
