"""What a job is given and what it makes: `Work` for a request, and results that become files with their marks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from mien.app.settings import MarkSettings, TrustSettings
from mien.app.trust.gate import seal, seal_clip, spare
from mien.edits.recipe import Operation
from mien.errors import InputError
from mien.inversion.invert import find_method
from mien.marks import Origin
from mien.report import Sink, Step

if TYPE_CHECKING:
    from PIL.Image import Image

    from mien.app.studio import Studio
    from mien.faces.align import Crop

__all__ = ["Film", "Made", "Packed", "Request", "Result", "Work", "check_way"]

MAX_STEPS = 2000


class Result(Protocol):
    """What a job made."""

    def file(self, marks: MarkSettings) -> bytes:
        """Return it as a door sends it."""


@dataclass(frozen=True)
class Made:
    """A result: RGB, and who made its pixels."""

    image: Image
    origin: Origin

    def file(self, marks: MarkSettings) -> bytes:
        """Return a PNG that says what it is."""
        return seal(self.image, self.origin, marks)


@dataclass(frozen=True)
class Film:
    """A video that a machine made: RGB pictures of one size, one after another."""

    frames: Sequence[Image]
    fps: float

    def file(self, marks: MarkSettings) -> bytes:
        """Return an MP4 that says what it is.

        Raises:
            MissingExtraError: the extra `video` is not installed.
        """
        return seal_clip(self.frames, Origin.INVENTED, marks, fps=self.fps)


@dataclass(frozen=True)
class Packed:
    """An archive whose pictures say themselves what they are."""

    data: bytes

    def file(self, marks: MarkSettings) -> bytes:  # noqa: ARG002
        """Return it."""
        return self.data


@dataclass
class Work:
    """What a request is done with.

    Attributes:
        studio: networks, warm.
        pictures: what came with the request; RGB, admitted.
        on_step: hears of progress, and stops the work.
        trust: bounds on faces.
        preview: a PNG that may be written to show how the result grows.
        notes: what the user should know of the result.
    """

    studio: Studio
    pictures: Sequence[Image]
    on_step: Sink
    trust: TrustSettings
    preview: Path | None = None
    notes: list[str] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        self.on_step(step)

    def say(self, prefix: str) -> None:
        """Stages are not named after faces here."""

    def crops(self, photo: Image, face: int | None, *, size_px: int | None = None) -> list[Crop]:
        """Cut out the faces of a photo that are worked on, at `size_px` or the network's side."""
        found, told = spare(self.studio.align(photo, size_px=size_px, face=face), self.trust)
        self.notes += [told] if told else []
        return found


class Request(Operation):
    """One call of the studio."""

    op: ClassVar[str]  # its name in JSON
    num_pictures: ClassVar[tuple[int, int]] = (1, 1)  # fewest and most

    @abstractmethod
    def run(self, work: Work) -> Sequence[Result]:
        """Do it.

        Raises:
            InputError: the pictures or the parameters do not fit.
        """

    @property
    def label(self) -> str:
        """What it is called in lists; requests of one label take about as long."""
        return self.op


def check_way(method: str, steps: int | None, face: int | None) -> None:
    """Refuse a method that is none, too many steps, or a face that no photo has.

    Raises:
        InputError: it is one of these.
    """
    find_method(method)
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps", hint=f"from 1 to {MAX_STEPS}")
    if face is not None and face < 0:
        raise InputError(f"no face has number {face}", hint="they are numbered from 0, largest first")
