"""Tables of names: each tensor of a foreign format beside ours, and what happens to its shape on the way, both ways.

A format whose networks are ours under other names is read and written by one such table, so that what is written is
exactly what was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor

from mien.errors import WeightsError

__all__ = ["SAME", "Change", "Entry", "count", "listed", "refuse", "state_of", "to_ours", "to_theirs"]


@dataclass(frozen=True)
class Change:
    """A change of shape or scale without loss; `ndim` is the number of axes on their side, None for any."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]
    ndim: int | None = None
    ones: tuple[int, ...] = ()  # axes of theirs that must have length one


SAME = Change(lambda x: x, lambda x: x)


@dataclass(frozen=True)
class Entry:
    """One tensor: its name there, its name here; what is not needed may be absent from a file."""

    theirs: str
    ours: str
    change: Change = SAME
    is_needed: bool = True


def refuse(what: str, hint: str = "get the file again; it is damaged or of another kind") -> NoReturn:
    """Raise the `WeightsError` that ends the reading of a file."""
    raise WeightsError(what, hint=hint)


def listed(names: Iterable[str]) -> str:
    """Name the first three in order, and count the others."""
    names = sorted(names)
    first = ", ".join(ascii(name[:80])[1:-1] for name in names[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def count(names: Iterable[str], pattern: str) -> int:
    """Return one more than the highest number that the group of `pattern` finds in `names`, 0 for none.

    Raises:
        WeightsError: it is much more than there are names, which no network does.
    """
    names = list(names)
    numbers = [found[1] for name in names if (found := re.match(pattern, name))]
    if any(len(number) > 9 or int(number) > 4 * len(names) for number in numbers):
        refuse(f"it numbers its layers up to {max(numbers, key=lambda n: (len(n), n))[:20]}, with {len(names)} tensors")
    return max(map(int, numbers), default=-1) + 1


def state_of(tree: Any, what: str) -> dict[str, Tensor]:
    """Take a tree as a state dict, without the prefix that parallel training leaves.

    Raises:
        WeightsError: it is not made of names and tensors.
    """
    if not isinstance(tree, Mapping) or not tree:
        refuse(f"{what} is not a table of tensors")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            refuse(f"{what}: {name!r:.80} is a {type(value).__name__}, not a tensor")
    prefix = "module." if all(name.startswith("module.") for name in tree) else ""
    return {name.removeprefix(prefix): value for name, value in tree.items()}


def _checked(entry: Entry, tensor: Tensor, what: str) -> Tensor:
    shape, change = tensor.shape, entry.change
    if change.ndim is not None and (tensor.ndim != change.ndim or any(shape[axis] != 1 for axis in change.ones)):
        refuse(f"{what}: {entry.theirs} has the wrong shape {list(shape)}")
    return change.to_ours(tensor)


def to_ours(table: Sequence[Entry], state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Rename and reshape a state dict of theirs.

    Args:
        table: one entry per tensor.
        state: names and tensors as they are in the file.
        what: the network, for errors.

    Raises:
        WeightsError: tensors are missing, do not belong, or have another number of axes.
    """
    if missing := {entry.theirs for entry in table if entry.is_needed} - state.keys():
        refuse(f"{what}: tensors are missing: {listed(missing)}")
    if foreign := state.keys() - {entry.theirs for entry in table}:
        refuse(f"{what}: unknown tensors: {listed(foreign)}", hint="it is a variant that mien does not know")
    return {entry.ours: _checked(entry, state[entry.theirs], what) for entry in table if entry.theirs in state}


def to_theirs(table: Sequence[Entry], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape tensors of ours, every one that the table names, for a file of theirs."""
    return {entry.theirs: entry.change.to_theirs(tensors[entry.ours]).contiguous() for entry in table}
