"""From a photo to an FFHQ crop and back: the quad from the landmarks, the crop, the soft mask, paste-back.

Coordinates are continuous pixels: the first pixel covers 0 to 1 and has its centre at 0.5. The crop keeps its quad and
its matrix, so that nothing has to be found a second time when an edited face goes back into its photo.

Source: Karras et al. 2018, "Progressive Growing of GANs", App. C, arXiv:1710.10196 (the quad), as used for FFHQ in
Karras et al. 2019, arXiv:1812.04948.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mien.atomic import write_text
from mien.errors import InputError, UnsupportedFileError
from mien.faces.resample import Array, blur, grid, warp
from mien.images import to_pil, to_tensor

__all__ = [
    "Crop",
    "HasLandmarks",
    "align",
    "crop_quad",
    "ffhq_quad",
    "find_photo",
    "is_in_photo",
    "load_crop",
    "mask",
    "paste_back",
    "paste_change",
    "save_crop",
]

# MediaPipe's mesh: the outlines of the eyes, image-left first, and the corners of the mouth.
MESH_EYES = ((33, 133, 159, 145, 158, 153, 160, 144), (362, 263, 386, 374, 385, 380, 387, 373))
MESH_MOUTH = (61, 291)

# Five-point detectors see the eyes further apart than outlines of the eyes do. Measured on 500 photos as the median
# difference of the two quads; without it their crops would be 3 % too wide and 0.25 % too high up.
FIVE_POINT_SCALE = 0.97
FIVE_POINT_SHIFT = 0.0025  # downwards, as a part of the crop's side

DETAIL_TOLERANCE = 0.12  # change, on the scale of img (2 = black to white), that costs 1/e^(1/2) of the photo's detail

RECORD_HINT = "`mien align` writes it beside every crop"
PHOTO_HINT = "put the photo beside the crop"


class HasLandmarks(Protocol):
    """A face that was found: `landmarks` [5, 2], [68, 2] or [478, 2] px."""

    @property
    def landmarks(self) -> Array: ...


@dataclass(frozen=True, eq=False)
class Crop:
    """A square cut out of a photo, and where it was."""

    image: Image  # RGB, size_px square.
    quad: Array  # [4, 2] px of the photo: top left, bottom left, bottom right, top right of the crop.
    source: str  # The photo's name.
    source_size: tuple[int, int]  # The photo's width and height, px.

    @property
    def size_px(self) -> int:
        return self.image.width

    @property
    def img(self) -> Tensor:
        """The crop as img [1, 3, size_px, size_px]."""
        return to_tensor(self.image)

    @property
    def matrix(self) -> Array:
        """[2, 3], from (x, y, 1) px of the crop to (x, y) px of the photo."""
        return _quad_matrix(self.quad, self.size_px)

    @property
    def record(self) -> dict[str, Any]:
        """Where the crop came from, as JSON can hold it."""
        return {
            "source": self.source,
            "source_size": list(self.source_size),
            "size_px": self.size_px,
            "quad": self.quad.tolist(),
            "matrix": self.matrix.tolist(),
        }

    @property
    def native_px(self) -> int:
        """Side of the crop at which one of its pixels is one of the photo's."""
        return math.ceil(_quad_side(self.quad) - 1e-6)


def _eyes_and_mouth(points: Array) -> tuple[Array, Array]:
    """The centres of the eyes [2, 2] and the corners of the mouth [2, 2], image-left first."""
    if points.shape == (5, 2):
        return points[[0, 1]], points[[3, 4]]
    if points.shape == (68, 2):
        return np.stack([points[36:42].mean(0), points[42:48].mean(0)]), points[[48, 54]]
    if points.shape == (478, 2):
        return np.stack([points[list(eye)].mean(0) for eye in MESH_EYES]), points[list(MESH_MOUTH)]
    raise InputError(f"landmarks must be [5, 2], [68, 2] or [478, 2], got {list(points.shape)}")


def ffhq_quad(landmarks: Array) -> Array:
    """Return the quad [4, 2] px of the square that FFHQ would cut around these landmarks.

    Args:
        landmarks: [5, 2] px of a detector (image-left eye, image-right eye, nose, image-left and image-right corner of
            the mouth), [68, 2] px in the order of iBUG 300-W, as FFHQ itself used, or [478, 2] px of MediaPipe's mesh.

    Raises:
        InputError: another number of points, points that are not finite, or all in one place.
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = _eyes_and_mouth(points)
    eye_to_eye = eyes[1] - eyes[0]
    eye_to_mouth = mouth.mean(0) - eyes.mean(0)
    right = eye_to_eye + _quarter_turn(eye_to_mouth)  # both lines vote for the roll
    length = math.hypot(*right)
    if not math.isfinite(length) or length < 1e-6:
        raise InputError("these landmarks make no face: the eyes and the mouth lie in one place")
    right *= max(2.0 * math.hypot(*eye_to_eye), 1.8 * math.hypot(*eye_to_mouth)) / length
    centre = eyes.mean(0) + 0.1 * eye_to_mouth
    if len(points) == 5:
        right *= FIVE_POINT_SCALE
        centre = centre - 2 * FIVE_POINT_SHIFT * _quarter_turn(right)
    down = -_quarter_turn(right)
    return np.stack([centre - right - down, centre - right + down, centre + right + down, centre + right - down])


def mask(size_px: int) -> Tensor:
    """Return the soft mask [1, 1, size_px, size_px] of an FFHQ crop: 1 on the face, 0 at the crop's border."""
    size = (size_px, size_px)
    return _mask_at(grid(np.eye(2, 3), size, size))


def is_in_photo(quad: Array, size: tuple[int, int]) -> bool:
    """Say whether a quad [4, 2] px shows anything of a photo of this width and height."""
    return bool((quad.max(0) > 0).all() and (quad.min(0) < size).all())


def crop_quad(photo: Image, quad: Array, *, size_px: int, source: str = "") -> Crop:
    """Cut a square `quad` out of `photo`, low-passed where it shrinks.

    What lies outside of the photo is its mirror image, more blurred the further out, as in FFHQ.

    Args:
        photo: RGB.
        quad: [4, 2] px, top left first, counter-clockwise; a square, turned as you like.
        size_px: side of the crop.
        source: the photo's name, for the record.

    Raises:
        InputError: a size below 1, or a quad that misses the photo.
    """
    if size_px < 1:
        raise InputError(f"the size of a crop must be at least 1 px, got {size_px}")
    quad = np.asarray(quad, np.float64)
    width, height = photo.size
    if not is_in_photo(quad, photo.size):
        raise InputError(f"the crop lies outside of the {width}x{height} photo")
    low, high = quad.min(0), quad.max(0)
    matrix = _quad_matrix(quad, size_px)
    margin = 4 * max(1.0, _quad_side(quad) / size_px)
    first = np.minimum(low, 2 * np.array(photo.size) - high) - margin  # with what the mirror shows
    last = np.maximum(high, -low) + margin
    box = _whole_box(first, last, photo.size)
    region = to_tensor(photo.crop(box))
    img = warp(region, _moved(matrix, box), (size_px, size_px))
    beyond = grid(matrix, (size_px, size_px), photo.size).abs().sub(1).clamp(min=0)  # [1, S, S, 2]
    if beyond.max() > 0:
        depth = (beyond * torch.tensor(photo.size) / 2).amax(-1)[:, None] / _quad_side(quad)
        img = torch.lerp(img, blur(img, 0.02 * size_px), (depth / 0.05).clamp(0, 1))
    return Crop(image=to_pil(img)[0], quad=quad, source=source, source_size=(width, height))


def align(photo: Image, face: HasLandmarks, size_px: int, *, source: str = "") -> Crop:
    """Cut one face out of `photo` as FFHQ does: upright, the eyes at 47 % of the height.

    Args:
        photo: RGB.
        face: a detected face, or anything with `landmarks` for `ffhq_quad`.
        size_px: side of the crop.
        source: the photo's name, for the record.

    Raises:
        InputError: landmarks that make no face, or a crop outside of the photo.
    """
    return crop_quad(photo, ffhq_quad(face.landmarks), size_px=size_px, source=source)


def paste_back(
    photo: Image, crop: Crop, img: Tensor, *, keep_detail: bool = True, within: Tensor | None = None
) -> Image:
    """Put an edited crop back into its photo, at the photo's resolution, through the soft mask.

    A generator's picture is coarser than the photo. Where it equals the crop, the photo's own pixels are the better
    picture of it; so the detail that the crop lost (photo minus crop) is added again in the measure in which the edit
    left the place as it was. An unedited crop therefore gives back the photo itself.

    Args:
        photo: RGB, the one that the crop was cut from.
        crop: where to.
        img: [1, 3, S, S] in [-1, 1], the edited crop at any size S.
        keep_detail: add the photo's fine detail where the edit changed little. Turn it off for another rendering
            (drawings), where it would shine through.
        within: [1, 1, S, S] in [0, 1], a mask of the crop that the soft mask is multiplied by.

    Returns:
        A new picture; every pixel outside of the mask is the photo's.

    Raises:
        InputError: `photo` has not the size of the photo that the crop was cut from.
    """
    if img.ndim != 4 or img.shape[:2] != (1, 3) or img.shape[2] != img.shape[3]:
        raise InputError(f"img must be [1, 3, S, S], got {list(img.shape)}")
    if photo.size != crop.source_size:
        sizes = "{}x{}, this one is {}x{}".format(*crop.source_size, *photo.size)
        raise InputError(f"the crop was cut from a photo of {sizes}", hint="paste into the photo that it came from")
    img = img.detach().float().cpu().clamp(-1, 1)
    size_px = img.shape[-1]
    box = _whole_box(crop.quad.min(0), crop.quad.max(0), photo.size)
    size = (box[2] - box[0], box[3] - box[1])
    to_crop = _inverse(_moved(_quad_matrix(crop.quad, size_px), box))  # from px of the box to px of img

    region = to_tensor(photo.crop(box))
    if keep_detail:
        reference = crop_quad(photo, crop.quad, size_px=size_px).img
        warped = warp(torch.cat([img, reference, _unchanged(img, reference)], dim=1), to_crop, size)
        edited, coarse, unchanged = warped.split([3, 3, 1], dim=1)
        edited = edited + unchanged.clamp(0, 1) * (region - coarse)
    else:
        edited = warp(img, to_crop, size)
    alpha = _mask_at(grid(to_crop, size, (size_px, size_px)))
    if within is not None:
        alpha = alpha * warp(within.detach().float().cpu(), to_crop, size).clamp(0, 1)
    pasted = photo.copy()
    pasted.paste(to_pil(torch.lerp(region, edited, alpha))[0], box[:2])
    return pasted


def paste_change(photo: Image, crop: Crop, change: Tensor) -> Image:
    """Put the difference that an edit made of a face into its photo; what no render could show stays the photo's.

    Args:
        photo: that the crop was cut from; other faces of it may have been changed since.
        crop: where to.
        change: [1, 3, S, S], the edited render minus the unedited one.
    """
    now = crop_quad(photo, crop.quad, size_px=change.shape[-1]).img  # a neighbour may be done already
    return paste_back(photo, crop, now + change.detach().float().cpu())


def save_crop(crop: Crop, path: Path, *, photo: Path | None = None) -> None:
    """Write where a crop came from as JSON, whole or not at all; its picture is not in it.

    Args:
        crop: the crop.
        path: the JSON file.
        photo: file of the photo; its way from the JSON file is kept, so that `find_photo` finds it.
    """
    record = crop.record
    if photo is not None:
        record["photo"] = Path(os.path.relpath(photo.resolve(), path.parent.resolve())).as_posix()
    write_text(json.dumps(record, indent=1) + "\n", path)


def find_photo(path: Path) -> Path:
    """Return the photo that a crop's JSON names: where it lay then, or else beside the JSON or in this folder.

    Raises:
        UnsupportedFileError: the JSON is missing or damaged.
        InputError: the photo is in none of these places.
    """
    record = _read_record(path)
    names = [str(record[key]) for key in ("photo", "source") if record.get(key)]
    places = [path.parent / name for name in names] + [Path(name) for name in names]
    for place in places:
        if place.is_file():
            return place
    raise InputError(f"the photo that {path} names is gone: {names[0] if names else 'no name'}", hint=PHOTO_HINT)


def load_crop(path: Path, image: Image) -> Crop:
    """Read what `save_crop` wrote and join it with the crop's picture, which may have been edited or resized.

    Raises:
        UnsupportedFileError: the file is missing or is not such a record.
    """
    record = _read_record(path)
    try:
        quad = np.array(record["quad"], np.float64)
        width, height = (int(side) for side in record["source_size"])
        source = str(record["source"])
    except (ValueError, TypeError, KeyError) as err:
        raise UnsupportedFileError(f"{path} does not tell where a crop came from", hint=RECORD_HINT) from err
    if quad.shape != (4, 2) or not _is_square(quad) or image.width != image.height:
        raise UnsupportedFileError(f"{path} or its picture is no square crop", hint="align the photo again")
    return Crop(image=image, quad=quad, source=source, source_size=(width, height))


def _is_square(quad: Array) -> bool:
    """Say whether four corners are those of a square that has a size, in the order of a `Crop`."""
    side = quad[1] - quad[0]
    return bool(np.isfinite(quad).all() and np.abs(side).max() > 1e-3) and np.allclose(
        [quad[2] - quad[1], quad[3] - quad[2], quad[0] - quad[3]],
        [_quarter_turn(side), -side, -_quarter_turn(side)],
        atol=0.01 * float(np.abs(side).max()),
    )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UnsupportedFileError(f"{path} does not tell where a crop came from", hint=RECORD_HINT) from err
    if not isinstance(record, dict):
        raise UnsupportedFileError(f"{path} does not tell where a crop came from", hint=RECORD_HINT)
    return record


# ----- geometry


def _quarter_turn(vector: Array) -> Array:
    """Turn (x, y) by 90 degrees counter-clockwise as seen in the picture: down becomes right."""
    return np.array([vector[1], -vector[0]])


def _quad_side(quad: Array) -> float:
    return math.hypot(*(quad[3] - quad[0]))


def _quad_matrix(quad: Array, size_px: int) -> Array:
    return np.column_stack([(quad[3] - quad[0]) / size_px, (quad[1] - quad[0]) / size_px, quad[0]])


def _inverse(matrix: Array) -> Array:
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def _moved(matrix: Array, box: Sequence[int]) -> Array:
    """The same map into the px of `box`."""
    return matrix - np.array([[0, 0, box[0]], [0, 0, box[1]]])


def _whole_box(first: Array, last: Array, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a photo of `size` that cover `first` to `last`: left, top, right, bottom."""
    left, top = np.floor(np.clip(first, 0, np.array(size) - 1)).astype(int)
    right, bottom = np.ceil(np.clip(last, (left + 1, top + 1), size)).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _mask_at(grid: Tensor) -> Tensor:
    """The mask at points [1, H, W, 2] of the square from -1 to 1: a rounded square, feathered, [1, 1, H, W]."""
    radius = grid.abs().pow(3).sum(-1)[:, None].pow(1 / 3)
    ramp = ((0.965 - radius) / 0.25).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _unchanged(img: Tensor, reference: Tensor) -> Tensor:
    """How far an edit left each place as it was, 0..1, [1, 1, S, S]: 1 where the pictures are equal."""
    change = blur((img - reference).square().mean(1, keepdim=True), 0.01 * img.shape[-1])
    return torch.exp(-change / (2 * DETAIL_TOLERANCE**2))
