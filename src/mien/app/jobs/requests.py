"""What can be asked of the queue: each request is its parameters, how many pictures it takes, and how it is done.

A request is JSON with the name of its kind under `op`; it is read as strictly as a recipe, twice: by the door that
takes it and by the worker that does it. No request names a file, an address or weights.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mien.app.operations import OPERATIONS, Change, code_of, draw
from mien.app.settings import TrustSettings
from mien.app.subjects import Subjects
from mien.app.trust.gate import spare
from mien.edits.recipe import Operation, Person, parse_operation, parse_operations
from mien.errors import InputError
from mien.inversion.invert import find_method
from mien.latents import MAX_SEED
from mien.marks import Origin
from mien.report import Sink, Step

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.faces.align import Crop
    from mien.inversion.code import Inversion

__all__ = [
    "REQUESTS",
    "BlendFaces",
    "ChangeFaces",
    "Generate",
    "Made",
    "MixFaces",
    "MorphFaces",
    "Request",
    "Stylize",
    "SwapFace",
    "Toonify",
    "Work",
    "check",
]

MAX_BYTES = 1 << 20
MAX_CHANGES, MAX_PEOPLE, MAX_STEPS, MAX_STYLE_PX, MAX_STYLES, MAX_BLENDED = 16, 16, 2000, 1024, 4, 4


@dataclass(frozen=True)
class Made:
    """A result: RGB, and who made its pixels."""

    image: Image
    origin: Origin


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

    num_pictures: ClassVar[tuple[int, int]] = (1, 1)  # fewest and most

    @abstractmethod
    def run(self, work: Work) -> list[Made]:
        """Do it.

        Raises:
            InputError: the pictures or the parameters do not fit.
        """

    @property
    def label(self) -> str:
        """What it is called in lists; requests of one label take about as long."""
        return next(name for name, kind in REQUESTS.items() if kind is type(self))


def _check_way(method: str, steps: int | None, face: int | None) -> None:
    find_method(method)
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps", hint=f"from 1 to {MAX_STEPS}")
    if face is not None and face < 0:
        raise InputError(f"no face has number {face}", hint="they are numbered from 0, largest first")


@dataclass(frozen=True, kw_only=True)
class ChangeFaces(Request):
    """Change every face of a photo, or one, by operations of a recipe, and put them back."""

    operations: tuple[Change, ...]
    method: str = "optimize"
    steps: int | None = None
    face: int | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        _check_way(self.method, self.steps, self.face)
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

    num_pictures: ClassVar[tuple[int, int]] = (1, 2)

    layers: tuple[int, ...]
    person: Person | None = None
    method: str = "optimize"
    steps: int | None = None
    face: int | None = None

    def __post_init__(self) -> None:
        _check_way(self.method, self.steps, self.face)

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

    num_pictures: ClassVar[tuple[int, int]] = (2, 2)

    face: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        _check_way("editable", self.steps, self.face)

    def run(self, work: Work) -> list[Made]:
        from mien.app.sitters import METHOD, TARGET_METHOD, config_of

        studio, (source, target) = work.studio, work.pictures
        (one,), (onto,) = studio.align(source, face=0), studio.align(target, face=self.face)
        codes = studio.invert(one.img, method=METHOD, on_step=work)
        behind = studio.invert(onto.img, method=TARGET_METHOD, on_step=work)
        config = config_of(self.steps, studio.seed)
        (swapped,) = studio.swap(codes, one.img, behind, onto.img, config=config, on_step=work)
        return [Made(studio.paste_swap(target, onto, swapped), Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class BlendFaces(Request):
    """Give the largest face of the first picture the mean of everybody's codes, each by a weight."""

    num_pictures: ClassVar[tuple[int, int]] = (2, MAX_BLENDED)

    weights: tuple[float, ...]
    method: str = "optimize"
    steps: int | None = None

    def __post_init__(self) -> None:
        _check_way(self.method, self.steps, None)
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
    """Show the way from the largest face of the first picture to that of the second, as one picture of rows."""

    num_pictures: ClassVar[tuple[int, int]] = (2, 2)

    frames: int = 6
    method: str = "optimize"
    steps: int | None = None

    def __post_init__(self) -> None:
        _check_way(self.method, self.steps, None)
        if not 2 <= self.frames <= MAX_PEOPLE:
            raise InputError(f"{self.frames} pictures of a way", hint=f"from 2 to {MAX_PEOPLE}")

    def run(self, work: Work) -> list[Made]:
        from mien.images import grid

        subjects = Subjects(work.studio, work, method=self.method, steps=self.steps)
        first, last = (_largest(subjects, picture) for picture in work.pictures)
        shares = [i / (self.frames - 1) for i in range(self.frames)]
        codes = [first.with_ws((1 - share) * first.ws + share * last.ws) for share in shares]
        return [Made(grid([work.studio.picture(code) for code in codes]), Origin.INVENTED)]


def _largest(subjects: Subjects, picture: Image) -> Inversion:
    return subjects.invert(subjects.studio.align(picture, face=0)[0].img)[0]


@dataclass(frozen=True, kw_only=True)
class Stylize(Request):
    """Paint the first picture like the others."""

    num_pictures: ClassVar[tuple[int, int]] = (2, 1 + MAX_STYLES)

    preset: str = "patches"
    size: int = 512
    steps: int | None = None
    spare_faces: float = 0.0
    colours: str = "style"

    def __post_init__(self) -> None:
        from mien.edits.style_settings import PRESETS

        _check_way("encoder", self.steps, None)
        if self.preset not in PRESETS:
            raise InputError(f"no preset named {self.preset!r}", hint=f"known: {', '.join(PRESETS)}")
        if not 16 <= self.size <= MAX_STYLE_PX:
            raise InputError(f"a size of {self.size} px", hint=f"from 16 to {MAX_STYLE_PX}")
        replace(PRESETS[self.preset], spare=self.spare_faces, colours=self.colours)

    def run(self, work: Work) -> list[Made]:
        from mien.edits.style_settings import PRESETS, for_look
        from mien.images import to_pil

        studio, (photo, *styles) = work.studio, work.pictures
        look = studio.look("shipped", on_step=work)
        config = for_look(PRESETS[self.preset], look)
        chosen: dict[str, Any] = dict(size_px=self.size, min_px=min(config.min_px, self.size), seed=studio.seed)
        if self.steps is not None:
            chosen |= dict(num_steps=self.steps, num_later_steps=self.steps)
        config = replace(config, **chosen, spare=self.spare_faces, colours=self.colours)
        made = studio.stylize(photo, styles, look, config, preview=work.preview, on_step=work)
        return [Made(to_pil(made.img)[0], Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class Toonify(Request):
    """Draw the faces of a photo, or one of them, in a style of the package; or the whole picture."""

    style: str
    strength: float = 1.0
    face: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        from mien.app.artists import bundled_styles

        _check_way("encoder", None, self.face)
        if self.style not in (known := bundled_styles()):
            raise InputError(f"no style named {self.style!r}", hint=f"known: {', '.join(known)}")
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength is {self.strength:g}", hint="0 leaves the photo, 1 is the drawing")
        if self.whole and self.face is not None:
            raise InputError("a whole picture is more than one face", hint="leave out the face, or the whole picture")

    def run(self, work: Work) -> list[Made]:
        from mien.edits.toonify import ToonConfig, draw_whole, toonify

        studio, photo = work.studio, work.pictures[0]
        work(Step("toonify", 0, 1))
        artist, config = studio.artist(self.style), ToonConfig(strength=self.strength, is_whole=self.whole)
        if self.whole and not studio.detect(photo):
            return [Made(draw_whole(artist, photo, config), Origin.CHANGED)]
        crops = work.crops(photo, self.face, size_px=artist.size_px)
        return [Made(toonify(photo, crops, artist, config), Origin.CHANGED)]


@dataclass(frozen=True, kw_only=True)
class Generate(Request):
    """Invent people."""

    num_pictures: ClassVar[tuple[int, int]] = (0, 0)

    seeds: tuple[int, ...]
    psi: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= len(self.seeds) <= MAX_PEOPLE:
            raise InputError(f"{len(self.seeds)} people", hint=f"from 1 to {MAX_PEOPLE} at a time")
        if not all(0 <= seed <= MAX_SEED for seed in self.seeds) or not -2 <= self.psi <= 2:
            raise InputError("a seed or psi is out of range", hint=f"seeds to {MAX_SEED}, psi from -2 to 2")

    def run(self, work: Work) -> list[Made]:
        made = []
        for i, seed in enumerate(self.seeds):
            work(Step("generate", i, len(self.seeds)))
            made += [Made(image, Origin.INVENTED) for image in work.studio.generate([seed], psi=self.psi)]
        return made


REQUESTS: Mapping[str, type[Request]] = {
    "change": ChangeFaces,
    "mix": MixFaces,
    "swap": SwapFace,
    "blend": BlendFaces,
    "morph": MorphFaces,
    "stylize": Stylize,
    "toonify": Toonify,
    "generate": Generate,
}
"""Name => kind of request; a capability of the studio becomes a job by a class here."""


def check(request: Mapping[str, Any], num_pictures: int) -> Request:
    """Read a request.

    Args:
        request: JSON.
        num_pictures: that come with it.

    Raises:
        InputError: an unknown kind or field, a value of another type or out of range, too few or too many pictures.
    """
    try:
        if len(json.dumps(request, allow_nan=False)) > MAX_BYTES:
            raise InputError(f"the request is longer than {MAX_BYTES >> 20} MiB", hint="send less")
    except (ValueError, TypeError, RecursionError):
        raise InputError("the request is no JSON that can be used", hint="see docs/service.md") from None
    try:
        made = _parse(dict(request))
    except InputError as err:
        raise InputError(
            err.message.replace("recipe:", "request:"), hint=err.hint.replace("--recipe", "a door")
        ) from err
    fewest, most = made.num_pictures
    if not fewest <= num_pictures <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise InputError(f"{num_pictures} pictures for {made.label}", hint=f"it takes {wanted}")
    return made


def _parse(request: dict[str, Any]) -> Request:
    ready = {}
    if request.get("op") == "change":
        ready["operations"] = parse_operations(request.pop("operations", None), OPERATIONS)
    made = parse_operation(request, REQUESTS, "the request", **ready)
    assert isinstance(made, Request)
    return made
