"""How long work speaks to the outside: it calls a sink with a `Step`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Sink", "Step", "ignore"]


@dataclass(frozen=True)
class Step:
    """What long work tells after each step: `done` of `total` in `stage`, with numbers, pictures and files by name."""

    stage: str
    done: int
    total: int
    scalars: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)  # weights, their cards, settings


Sink = Callable[[Step], None]
"""A bar, a web page, a chat message, a log; it may raise `Cancelled` to stop the work between two steps."""


def ignore(step: Step) -> None:
    """Listen to nothing."""
