"""Jobs on people: change a photo's faces, mix, swap, blend and morph them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import PIL.Image

from mien.app.jobs.work import Film, Made, Request, Result, Work, check_way
from mien.app.operations import OPERATIONS, Change, code_of, draw
from mien.app.subjects import Subjects
from mien.edits.recipe import Person
from mien.errors import InputError
from mien.marks import Origin
from mien.report import Step

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.inversion.code import Inversion

__all__ = ["BlendFaces", "ChangeFaces", "MixFaces", "MorphFaces", "SwapFace"]

MAX_CHANGES, MAX_BLENDED, MAX_FRAMES, MAX_FILM_FRAMES = 16, 4, 16, 240
FILM_FPS, FILM_PX = 24.0, 256


@dataclass(frozen=True, kw_only=True)
class ChangeFaces(Request):
    """Change every face of a photo, or one, by operations of a recipe, and put them back."""

    op: ClassVar[str] = "change"

    operations: tuple[Change, ...]
    method: str = "optimize"
    steps: int | None = None
    face: int | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        check_way(self.method, self.steps, self.face)
        if not 1 <= len(self.operations) <= MAX_CHANGES:
            raise InputError(f"{len(self.operations)} operations", hint=f"from 1 to {MAX_CHANGES}")

    @property
    def label(self) -> str:
        names = [name for o in self.operations for name, kind in OPERATIONS.items() if kind is type(o)]
        return "+".join(dict.fromkeys(names)) + f" by {self.method}"

    def run(self, work: Work) -> list[Made]:
        from mien.images import to_pil

        studio, photo = work.studio, work.pictures[0]
        subjects = Subjects(studio, work, method=self.method, steps=self.steps, aligned=self.aligned)
        if self.aligned:
            code = subjects.invert(studio.aligned(photo))[0]
            return [Made(to_pil(draw(studio, code, self.operations))[0], Origin.INVENTED)]
        scene = subjects.scene_of(photo, work.crops(photo, self.face))
        image = subjects.redraw(scene, lambda code: draw(studio, code, self.operations))
        return [Made(image, Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class MixFaces(Request):
    """Take rows of the code of another photo's largest face, or of a person in the request."""

    op: ClassVar[str] = "mix"
    num_pictures: ClassVar[tuple[int, int]] = (1, 2)

    layers: tuple[int, ...]
    person: Person | None = None
    method: str = "optimize"
    steps: int | None = None
    face: int | None = None

    def __post_init__(self) -> None:
        check_way(self.method, self.steps, self.face)

    def run(self, work: Work) -> list[Made]:
        if (self.person is None) == (len(work.pictures) == 1):
            raise InputError("a mix needs one other person", hint="give a second picture, or a person by seed or code")
        studio, photo = work.studio, work.pictures[0]
        subjects = Subjects(studio, work, method=self.method, steps=self.steps)
        if self.person is None:
            other = subjects.invert(studio.align(work.pictures[1], face=0)[0].img)[0]
        else:
            other = code_of(studio, self.person)
        scene = subjects.scene_of(photo, work.crops(photo, self.face))
        image = subjects.redraw(scene, lambda code: studio.render(studio.mix(code, other, self.layers)))
        return [Made(image, Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class SwapFace(Request):
    """Put the largest face of the first picture on a face of the second."""

    op: ClassVar[str] = "swap"
    num_pictures: ClassVar[tuple[int, int]] = (2, 2)

    face: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        check_way("editable", self.steps, self.face)

    def run(self, work: Work) -> list[Made]:
        from mien.app.sitters import METHOD, TARGET_METHOD, Sitter, config_of, sharp_px

        studio = work.studio
        one, onto = (
            Sitter(crop.source, crop.img, photo, crop)
            for photo, face in zip(work.pictures, (0, self.face), strict=True)
            for crop in studio.align(photo, face=face)
        )
        codes = studio.invert(one.img, method=METHOD, on_step=work)
        behind = studio.invert(onto.img, method=TARGET_METHOD, on_step=work)
        sharp = [sitter.at(sharp_px(studio, [sitter.crop])) for sitter in (one, onto)]
        config = config_of(self.steps, studio.seed)
        (swapped,) = studio.swap(codes, sharp[0], behind, sharp[1], config=config, on_step=work)
        return [Made(studio.paste_swap(onto.picture, onto.crop, swapped), Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class BlendFaces(Request):
    """Give the largest face of the first picture the mean of everybody's codes, each by a weight."""

    op: ClassVar[str] = "blend"
    num_pictures: ClassVar[tuple[int, int]] = (2, MAX_BLENDED)

    weights: tuple[float, ...]
    method: str = "optimize"
    steps: int | None = None

    def __post_init__(self) -> None:
        check_way(self.method, self.steps, None)
        if not all(0 <= weight <= 1 for weight in self.weights) or abs(sum(self.weights) - 1) > 1e-3:
            raise InputError("the weights of a blend are shares of one", hint="say 0.5 and 0.5")

    def run(self, work: Work) -> list[Made]:
        if len(self.weights) != len(work.pictures):
            raise InputError(f"{len(self.weights)} weights for {len(work.pictures)} pictures", hint="one for each")
        import torch

        subjects = Subjects(work.studio, work, method=self.method, steps=self.steps)
        others = [_largest(subjects, picture) for picture in work.pictures[1:]]
        scene = subjects.scene_of(work.pictures[0], work.crops(work.pictures[0], 0))

        def blended(code: Inversion) -> Tensor:
            codes = torch.stack([one.ws for one in (code, *others)])
            ws = torch.tensordot(torch.tensor(self.weights), codes, dims=1)
            return work.studio.render(code.with_ws(ws))

        return [Made(subjects.redraw(scene, blended), Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class MorphFaces(Request):
    """Show the way from a face of the first picture to the largest of the next: as one picture of two people's way, or
    as a video that walks through everybody and back.
    """

    op: ClassVar[str] = "morph"
    num_pictures: ClassVar[tuple[int, int]] = (2, MAX_BLENDED)

    frames: int = 6
    video: bool = False
    face: int = 0
    method: str = "optimize"
    steps: int | None = None

    def __post_init__(self) -> None:
        check_way(self.method, self.steps, self.face)
        most = MAX_FILM_FRAMES if self.video else MAX_FRAMES
        if not 2 <= self.frames <= most:
            raise InputError(f"{self.frames} pictures of a way", hint=f"from 2 to {most}")

    def run(self, work: Work) -> Sequence[Result]:
        subjects = Subjects(work.studio, work, method=self.method, steps=self.steps)
        first, *others = work.pictures
        codes = [_code(subjects, first, self.face), *(_largest(subjects, picture) for picture in others)]
        return [self._film(work, codes) if self.video else self._strip(work, codes)]

    def _strip(self, work: Work, codes: Sequence[Inversion]) -> Made:
        from mien.images import grid

        if len(codes) != 2:
            raise InputError(f"{len(codes)} people on one way", hint="give two, or ask for a video")
        first, last = codes
        shares = [i / (self.frames - 1) for i in range(self.frames)]
        way = [first.with_ws((1 - share) * first.ws + share * last.ws) for share in shares]
        return Made(grid([work.studio.picture(code) for code in way]), Origin.INVENTED)

    def _film(self, work: Work, codes: Sequence[Inversion]) -> Film:
        frames = []
        for i, image in enumerate(work.studio.walk(codes, self.frames)):
            side = max(FILM_PX, image.width)
            frames.append(image.resize((side, side), PIL.Image.Resampling.BICUBIC))
            work(Step("frames", i + 1, self.frames))
        return Film(frames, FILM_FPS)


def _code(subjects: Subjects, picture: Image, face: int) -> Inversion:
    return subjects.invert(subjects.studio.align(picture, face=face)[0].img)[0]


def _largest(subjects: Subjects, picture: Image) -> Inversion:
    return _code(subjects, picture, 0)
