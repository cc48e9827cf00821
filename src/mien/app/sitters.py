"""Who takes part in a swap, one on one or everybody on everybody: a face of a photo, an aligned crop, code or seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mien.app.subjects import Subjects, crops_of, is_photo
from mien.app.terminal.items import Failures, check_stems, for_each
from mien.app.terminal.screen import Bars
from mien.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mien.app.studio import Studio
    from mien.edits.swap import Swap, SwapConfig
    from mien.faces.align import Crop
    from mien.inversion.code import Inversion
    from mien.report import Sink

__all__ = [
    "METHOD",
    "TARGET_METHOD",
    "TILE_PX",
    "Sitter",
    "config_of",
    "everybody",
    "fitted",
    "matrix",
    "put_on",
    "sharp_px",
    "sitter",
    "sitters_of",
    "whole",
]

METHOD, TARGET_METHOD, LAB_METHOD = "editable", "pivot", "lab-swap"
TILE_PX = 192
SHARP_PX = 512  # most that is taken of a face


@dataclass(frozen=True, eq=False)
class Sitter:
    """A face that takes part: its name, img [1, 3, H, W] at the generator's side, its picture and where it is there."""

    name: str
    img: Tensor
    picture: Image
    crop: Crop

    def at(self, size_px: int) -> Tensor:
        """Cut the face out of its picture at another side, [1, 3, size_px, size_px]."""
        from mien.faces.align import crop_quad

        return crop_quad(self.picture, self.crop.quad, size_px=size_px).img


def sitter(studio: Studio, text: str, *, aligned: bool, face: int | None = None, size_px: int | None = None) -> Sitter:
    """Find a face of a photo, by default the largest; an aligned picture, a code or a seed is a face as it is.

    Args:
        studio: that finds faces and renders codes.
        text: a photo, a code's file, or seed:N.
        aligned: pictures are FFHQ crops already.
        face: number of the face in its photo.
        size_px: cut the photo down to the crop, at this side.

    Raises:
        NoFaceError: no face, or none of that number.
    """
    from mien.images import open_photo

    path = Path(text)
    if aligned or not is_photo(text):
        with Bars() as bars:
            picture = open_photo(path) if is_photo(text) else studio.picture(Subjects(studio, bars).code(text))
        return whole(studio, path.stem, picture)
    photo = open_photo(path)
    if size_px is not None:
        return whole(studio, path.stem, studio.align(photo, size_px=size_px, source=path.name, face=face or 0)[0].image)
    (img, crop), *_ = crops_of(studio, photo, path, aligned=False, face=face or 0)
    assert crop is not None
    return Sitter(path.stem, img, photo, crop)


def whole(studio: Studio, name: str, picture: Image) -> Sitter:
    """Take a square picture as the crop that it is."""
    import numpy as np

    from mien.faces.align import crop_quad

    img, side = studio.aligned(picture, source=name), picture.width
    quad = np.array([[0.0, 0], [0, side], [side, side], [side, 0]])
    return Sitter(name, img, picture, crop_quad(picture, quad, size_px=studio.G.img_resolution, source=name))


def sharp_px(studio: Studio, crops: Sequence[Crop]) -> int:
    """Return the side at which faces are swapped: the generator's, doubled until it shows all that the photos have.

    Args:
        studio: whose generator.
        crops: where the faces are in their photos.
    """
    import numpy as np

    most = min(SHARP_PX, max(float(np.hypot(*(crop.quad[3] - crop.quad[0]))) for crop in crops))
    side = studio.G.img_resolution
    while side < most:
        side *= 2
    return side


def fitted(studio: Studio, img: Tensor) -> Tensor:
    """Bring sharp crops img [N, 3, S, S] to the generator's side."""
    from mien.images import resize

    return resize(img, studio.G.img_resolution).clamp(-1, 1)


def put_on(
    subjects: Subjects,
    codes: Sequence[Inversion],
    img: Tensor,
    target: str,
    *,
    method: str = METHOD,
    face: int | None = None,
    steps: int | None = None,
) -> Image:
    """Put the person of some codes and their pictures img [K, 3, S, S] on the largest face (or `face`) of a photo."""
    studio, bars = subjects.studio, subjects.bars
    onto = sitter(studio, target, aligned=subjects.aligned, face=face)
    bars.say("target")
    (behind,) = subjects.invert(onto.img)
    bars.say("")
    if method == LAB_METHOD:
        (swapped,) = studio.lab_swap(fitted(studio, img), [behind], onto.img, on_step=bars)
    else:
        config = config_of(steps, studio.seed)
        sharp = onto.at(sharp_px(studio, [onto.crop]))
        (swapped,) = studio.swap(codes, img, [behind], sharp, config=config, on_step=bars)
    return studio.paste_swap(onto.picture, onto.crop, swapped)


def config_of(steps: int | None, seed: int) -> SwapConfig:
    """Return the settings of a swap, with another number of steps where one is given."""
    from mien.edits.swap import SwapConfig

    return SwapConfig(seed=seed) if steps is None else SwapConfig(num_steps=steps, seed=seed)


def sitters_of(studio: Studio, folder: Path, *, aligned: bool, num: int | None = None) -> tuple[list[Sitter], Failures]:
    """Find the largest face of every picture of a folder; those that fail are left out and reported.

    Raises:
        InputError: no folder, or fewer than two faces.
    """
    from mien.images import PHOTO_SUFFIXES

    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", hint="give a folder with one photo of each person")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)[:num]
    check_stems(paths)
    found: list[Sitter] = []
    failures = for_each(
        paths, "align", lambda path: found.append(sitter(studio, str(path), aligned=aligned, size_px=TILE_PX))
    )
    if len(found) < 2:
        failures.show(len(paths))
        faces = "1 face" if len(found) == 1 else "no faces"
        raise InputError(f"{folder} shows {faces}", hint="a swap needs two photos with a face each")
    return found, failures


Swapped = Callable[[int, int, "Swap", "Image"], None]
"""Hears of source i on target k: what was found, and the picture that it makes."""


def everybody(
    studio: Studio,
    people: Sequence[Sitter],
    codes: Sequence[Inversion],
    on_swap: Swapped,
    *,
    config: SwapConfig,
    on_step: Sink,
) -> None:
    """Put everybody on everybody else."""
    import torch

    side = sharp_px(studio, [one.crop for one in people])
    for i, one in enumerate(people):
        others = [k for k in range(len(people)) if k != i]
        img = torch.cat([people[k].at(side) for k in others])
        found = studio.swap([codes[i]], one.at(side), [codes[k] for k in others], img, config=config, on_step=on_step)
        for k, swapped in zip(others, found, strict=True):
            on_swap(i, k, swapped, studio.paste_swap(people[k].picture, people[k].crop, swapped))


def matrix(people: Sequence[Sitter], swapped: Mapping[tuple[int, int], Image]) -> Image:
    """Draw the figure: rows are whose face, columns on whose photo, the diagonal the photos themselves."""
    import PIL.Image

    from mien.images import grid

    names, num = [one.name[:16] for one in people], len(people)
    tiles = [swapped.get((i, k), people[i].picture) for i in range(num) for k in range(num)]
    shown = [tile.resize((TILE_PX, TILE_PX), PIL.Image.Resampling.BICUBIC) for tile in tiles]
    return grid(shown, row_labels=names, col_labels=names)
