"""Jobs that draw: paintings, cartoons, people who do not exist."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mien.app.jobs.work import Made, Request, Work, check_way
from mien.errors import InputError
from mien.latents import MAX_SEED
from mien.marks import Origin
from mien.report import Step

__all__ = ["Generate", "Stylize", "Toonify"]

MAX_PEOPLE, MAX_STYLE_PX, MAX_STYLES = 16, 1024, 4


@dataclass(frozen=True, kw_only=True)
class Stylize(Request):
    """Paint the first picture like the others."""

    op: ClassVar[str] = "stylize"
    num_pictures: ClassVar[tuple[int, int]] = (2, 1 + MAX_STYLES)

    preset: str = "patches"
    size: int = 512
    steps: int | None = None
    spare_faces: float = 0.0
    colours: str = "style"

    def __post_init__(self) -> None:
        from mien.edits.style_settings import PRESETS

        check_way("encoder", self.steps, None)
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

    op: ClassVar[str] = "toonify"

    style: str
    strength: float = 1.0
    face: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        from mien.app.artists import bundled_styles

        check_way("encoder", None, self.face)
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

    op: ClassVar[str] = "generate"
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
