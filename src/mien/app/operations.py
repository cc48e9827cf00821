"""What a recipe can ask for: each operation is its parameters, and how they change a face's code and its render."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mien.edits.recipe import Operation, Person
from mien.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mien.app.studio import Studio
    from mien.app.subjects import Subjects
    from mien.inversion.code import Inversion

__all__ = [
    "OPERATIONS",
    "Change",
    "Drag",
    "Edit",
    "Express",
    "Face",
    "Mix",
    "Remake",
    "Style",
    "Swap",
    "apply",
    "code_of",
    "draw",
    "person_of",
]


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

    def finish(self, studio: Studio, before: Inversion, img: Tensor) -> Tensor:  # noqa: ARG002
        """Change the render img [1, 3, H, W] of everything; `before` is the code that `apply` was given."""
        return img


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


@dataclass(frozen=True, kw_only=True)
class Style(Change):
    """Take colour, light and texture from another person's last rows; or all of them but the colour."""

    person: Person
    rows: tuple[int, ...]
    psi: float
    keep_colour: bool = False

    def apply(self, studio: Studio, code: Inversion) -> Inversion:
        return studio.restyle(code, code_of(studio, self.person), self.rows, self.psi)

    def finish(self, studio: Studio, before: Inversion, img: Tensor) -> Tensor:
        from mien.edits.style import with_chroma_of

        return with_chroma_of(img, studio.render(before)) if self.keep_colour else img


@dataclass(frozen=True, kw_only=True)
class Drag(Change):
    """Move points of the aligned face, px of the render (x, y), each from a start to its goal."""

    starts: tuple[tuple[float, ...], ...]
    goals: tuple[tuple[float, ...], ...]
    num_steps: int

    def __post_init__(self) -> None:
        if not self.starts or len(self.starts) != len(self.goals) or {len(p) for p in self.starts + self.goals} != {2}:
            raise InputError("a drag has as many goals as starts, x and y each", hint="see mien drag --help")

    def apply(self, studio: Studio, code: Inversion) -> Inversion:
        from mien.edits.drag import DragConfig

        starts, goals = (np.array(points) for points in (self.starts, self.goals))
        return studio.drag(code, starts, goals, config=DragConfig(num_steps=self.num_steps)).inversion


@dataclass(frozen=True, kw_only=True)
class Express(Change):
    """Give the face an expression, blendshape => 0..1, or what a direction makes it show; the rest of it stays.

    A preset moves along the direction as published, and holds nothing.
    """

    shown: Mapping[str, float]
    strength: float = 1.0
    direction: str | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        if bool(self.shown) == (self.direction is not None) or (self.preset is not None and self.direction is None):
            raise InputError("an expression is given by blendshapes or by a direction", hint="see mien express --help")

    def apply(self, studio: Studio, code: Inversion) -> Inversion:
        from mien.inversion.invert import find_edit

        if self.direction is None:
            return studio.express(code, self.shown, self.strength)
        if self.preset is not None:
            move = find_edit(self.preset)
            return studio.move_rows(code, self.direction, replace(move, weight=move.weight * self.strength))
        moved = studio.edit(code, {self.direction: self.strength})
        return studio.express(code, studio.expression(studio.render(moved)))

    def finish(self, studio: Studio, before: Inversion, img: Tensor) -> Tensor:
        from mien.edits.expression import held

        return img if self.preset is not None else held(img, studio.render(before))


class Remake(Operation):
    """An operation that makes a photo anew; it stands alone in its recipe."""

    @abstractmethod
    def remake(self, subjects: Subjects, source: str, face: int | None) -> Image:
        """Return the photo, code's render or aligned picture `source` after the operation.

        Raises:
            InputError: the parameters do not fit the generator.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Face:
    """Somebody as a picture [3, S, S] in [-1, 1], with their code where it is a render."""

    picture: Tensor
    person: Person | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Swap(Remake):
    """Put a person, by one or more pictures, on the largest face of a photo."""

    sources: tuple[Face, ...]
    method: str
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.sources or any(one.picture.shape[:1] != (3,) or one.picture.ndim != 3 for one in self.sources):
            raise InputError("a swap has pictures [3, H, H] of its source", hint="see mien swap --help")
        if len({one.picture.shape for one in self.sources}) > 1:
            raise InputError("the pictures of a swap's source have several sizes", hint="see mien swap --help")

    def remake(self, subjects: Subjects, source: str, face: int | None) -> Image:
        from mien.app.sitters import fitted, put_on

        studio, side = subjects.studio, subjects.studio.G.img_resolution
        img = torch.stack([one.picture for one in self.sources])
        if img.shape[2] != img.shape[3] or img.shape[3] % side:
            raise InputError(f"the swap's source is {list(img.shape[2:])} px, the generator {side}")
        codes = [
            studio.invert(fitted(studio, one.picture[None]), method=self.method, on_step=subjects.bars)[0]
            if one.person is None
            else code_of(studio, one.person)
            for one in self.sources
        ]
        return put_on(subjects, codes, img, source, method=self.method, face=face, steps=self.steps)


OPERATIONS: Mapping[str, type[Operation]] = {
    "edit": Edit,
    "mix": Mix,
    "style": Style,
    "drag": Drag,
    "express": Express,
    "swap": Swap,
}
"""Name in a recipe => operation."""


def _steps(studio: Studio, code: Inversion, operations: Sequence[Operation]) -> Iterator[tuple[Change, Inversion]]:
    """Yield each operation with the code that it makes."""
    for operation in operations:
        if not isinstance(operation, Change):
            raise InputError(
                "a swap stands alone in its recipe", hint="do the other operations in a recipe of their own"
            )
        code = operation.apply(studio, code)
        yield operation, code


def apply(studio: Studio, code: Inversion, operations: Sequence[Operation]) -> Inversion:
    """Return the code after operations one after the other."""
    return [code, *(after for _, after in _steps(studio, code, operations))][-1]


def draw(studio: Studio, code: Inversion, operations: Sequence[Operation]) -> Tensor:
    """Render a code after operations as img [1, 3, H, W]."""
    finishes = []
    for operation, after in _steps(studio, code, operations):
        finishes.append(partial(operation.finish, studio, code))
        code = after
    return reduce(lambda img, finish: finish(img), finishes, studio.render(code))
