"""What a recipe can ask for: each operation is its parameters, and how they change the code of a face."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

from mien.edits.recipe import Operation, Person

if TYPE_CHECKING:
    from mien.app.studio import Studio
    from mien.inversion.code import Inversion

__all__ = ["OPERATIONS", "Change", "Edit", "Mix", "apply", "code_of", "person_of"]


def person_of(studio: Studio, code: Inversion) -> Person:
    """Return somebody as a recipe holds them: whom a seed invents by the seed, everybody else by their code."""
    seed = code.config.get("seed") if code.method == "seed" else None
    if isinstance(seed, int) and torch.equal(studio.seed_code(seed).ws, code.ws):
        return Person(seed=seed)
    return Person(ws=code.ws)


def code_of(studio: Studio, person: Person) -> Inversion:
    """Return the code of somebody in a recipe."""
    from mien.inversion.code import Inversion

    if person.seed is not None:
        return studio.seed_code(person.seed)
    assert person.ws is not None
    return Inversion(ws=person.ws)


class Change(Operation):
    """An operation on one face."""

    @abstractmethod
    def apply(self, studio: Studio, code: Inversion) -> Inversion:
        """Return the changed code.

        Raises:
            InputError: the parameters do not fit the generator.
        """


@dataclass(frozen=True, kw_only=True)
class Edit(Change):
    """Move along directions, by standard deviations each."""

    strengths: Mapping[str, float]

    def apply(self, studio: Studio, code: Inversion) -> Inversion:
        return studio.edit(code, self.strengths)


@dataclass(frozen=True, kw_only=True)
class Mix(Change):
    """Take rows of another person's code."""

    person: Person
    layers: tuple[int, ...]

    def apply(self, studio: Studio, code: Inversion) -> Inversion:
        return studio.mix(code, code_of(studio, self.person), self.layers)


OPERATIONS: Mapping[str, type[Change]] = {"edit": Edit, "mix": Mix}
"""Name in a recipe => operation."""


def apply(studio: Studio, code: Inversion, operations: Sequence[Operation]) -> Inversion:
    """Do operations one after the other."""

    def step(code: Inversion, operation: Operation) -> Inversion:
        assert isinstance(operation, Change)
        return operation.apply(studio, code)

    return reduce(step, operations, code)
