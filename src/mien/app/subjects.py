"""Whom a command works on: the faces of a photo, an aligned crop, the code in a file, or a person by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mien.app.terminal.items import check_network, check_out
from mien.app.terminal.screen import note
from mien.app.terminal.text import parse_seeds
from mien.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.faces.align import Crop
    from mien.inversion.code import Inversion
    from mien.report import Step

__all__ = ["BATCH", "Scene", "Subjects", "Talk", "check_strengths", "check_subjects", "crops_of", "is_photo"]

BATCH = 8  # faces that are optimised together
SEED = "seed:"
CODE_SUFFIXES = (".safetensors", ".mien")


def is_photo(text: str) -> bool:
    """Say whether this names a picture, rather than a code's file or a seed.

    >>> is_photo("anna.jpg"), is_photo("anna_0.mien"), is_photo("seed:7")
    (True, False, False)
    """
    return not text.startswith(SEED) and Path(text).suffix.lower() not in CODE_SUFFIXES


def check_subjects(
    out: Path, *sources: str, method: str, network: str, face: int | None, aligned: bool, suffix: str = ".png"
) -> None:
    """Refuse, before any work, an output that cannot be written, an unknown method, network, or a face of no photo.

    Raises:
        InputError: it is one of these; `face` is of the first source.
    """
    from mien.inversion.invert import find_method

    check_out(out, [Path(text) for text in sources if not text.startswith(SEED)], suffix=suffix)
    find_method(method)
    if face is not None and (aligned or not is_photo(sources[0])):
        what = "an aligned crop" if aligned else sources[0]
        raise InputError(f"--face {face} has no meaning for {what}: it is one face", hint="leave out --face")
    check_network(network)


def check_strengths(studio: Studio, strengths: Mapping[str, float]) -> None:
    """Warn of strengths beyond those at which faces were seen to stay themselves.

    Raises:
        InputError: an unknown direction.
    """
    for name, strength in strengths.items():
        low, high = studio.directions[name].safe_range
        if not low <= strength <= high:
            note(f"warning: {name}={strength:g} is beyond {low:g} to {high:g}, where faces stay themselves")


def crops_of(
    studio: Studio, photo: Image, path: Path, *, aligned: bool, face: int | None = None
) -> list[tuple[Tensor, Crop | None]]:
    """Return img [1, 3, H, W] of every face, largest first, and where it was cut out (an aligned picture: None)."""
    if aligned:
        return [(studio.aligned(photo, source=path.name), None)]
    return [(crop.img, crop) for crop in studio.align(photo, source=path.name, face=face)]


class Talk(Protocol):
    """Hears of progress, and whose it is: `Bars`, or the worker of a queue."""

    def __call__(self, step: Step) -> None: ...

    def say(self, prefix: str) -> None: ...


@dataclass(frozen=True, eq=False)
class Scene:
    """The codes of a photo's faces, largest first, and where each was cut out; of a render: no photo, one code."""

    photo: Image | None
    faces: list[tuple[Crop | None, Inversion]]


@dataclass(frozen=True)
class Subjects:
    """Reads people as one call's options say, and puts them back where they were.

    Args:
        studio: that inverts and renders.
        bars: hears of progress.
        method: of inversion.
        steps: most steps of the method's last refinement, by default its own.
        aligned: pictures are FFHQ crops already.
    """

    studio: Studio
    bars: Talk
    method: str = "optimize"
    steps: int | None = None
    aligned: bool = False

    def code(self, text: str) -> Inversion:
        """Read one person's code: of seed:N, of a file that `mien invert` wrote, or of the largest face of a photo."""
        from mien.images import open_photo
        from mien.inversion.code import load_inversion

        if text.startswith(SEED):
            seeds = parse_seeds(text.removeprefix(SEED))
            if len(seeds) != 1:
                raise InputError(f"{text} is more than one person", hint="write for example seed:7")
            return self.studio.seed_code(seeds[0])
        path = Path(text)
        if not is_photo(text):
            inversion = load_inversion(path)
            self.studio.check(inversion)
            return inversion
        img, _ = crops_of(self.studio, open_photo(path), path, aligned=self.aligned, face=0)[0]
        return self.invert(img)[0]

    def invert(self, img: Tensor) -> list[Inversion]:
        """Find the codes of img [N, 3, H, W]."""
        return self.studio.invert(img, method=self.method, num_steps=self.steps, on_step=self.bars)

    def scene(self, source: str, face: int | None = None) -> Scene:
        """Find the faces of `source` and their codes.

        Args:
            source: as for `code`.
            face: only the face of this number, 0 the largest.
        """
        from mien.images import open_photo

        if self.aligned or not is_photo(source):
            return Scene(None, [(None, self.code(source))])
        path = Path(source)
        photo = open_photo(path)
        return self.scene_of(photo, self.studio.align(photo, source=path.name, face=face))

    def scene_of(self, photo: Image, crops: Sequence[Crop]) -> Scene:
        """Find the codes of faces that were cut out of a photo."""
        import torch

        faces: list[tuple[Crop | None, Inversion]] = []
        for first in range(0, len(crops), BATCH):
            some = crops[first : first + BATCH]
            self.bars.say(f"faces {first + 1}-{first + len(some)} of {len(crops)}:")
            faces += zip(some, self.invert(torch.cat([crop.img for crop in some])), strict=True)
        return Scene(photo, faces)

    def redraw(self, scene: Scene, draw: Callable[[Inversion], Tensor]) -> Image:
        """Draw every face of a scene anew, img [1, 3, H, W] of its code, and put it back; without a photo the face."""
        from mien.images import to_pil

        if scene.photo is None:
            return to_pil(draw(scene.faces[0][1]))[0]
        photo = scene.photo
        for crop, code in scene.faces:
            assert crop is not None
            photo = self.studio.paste_render(photo, crop, draw(code), code)
        return photo

    def change(self, source: str, change: Callable[[Inversion], Inversion], face: int | None = None) -> Image:
        """Invert the faces of `source`, change their codes and put them back; without a photo, the render itself.

        Args:
            source: as for `code`.
            change: makes a face's new code of its code.
            face: only the face of this number, 0 the largest.
        """
        return self.redraw(self.scene(source, face), lambda code: self.studio.render(change(code)))
