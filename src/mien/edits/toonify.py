"""Faces of a photo drawn anew, each where it was: one pass for all of them, one seam for each.

A drawing is laid into its photo band by band of frequencies, so that light and colour run on where the drawing ends,
and lines stay sharp. Around the head, what the drawing leaves as it was stays the photo's own, which is sharper. Where
two faces are close, each pixel goes to the nearer one, so that none draws over another.

Source: blending by pyramids: Burt and Adelson 1983, doi:10.1145/245.247.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mien.errors import InputError
from mien.faces.align import Crop, crop_quad, mask, paste_back
from mien.faces.resample import blur
from mien.faces.seams import laplacian_blend
from mien.images import resize, to_pil, to_tensor

__all__ = ["Artist", "ToonConfig", "draw_faces", "draw_whole", "paste_drawing", "toonify"]

MIN_WORK_PX, MAX_WORK_PX = 64, 1024
NEARNESS = 0.15  # width of the border between two faces, in sides of their crops
HEAD_CENTRE, HEAD_RADII = (0.5, 0.5), (0.33, 0.44)  # hair and chin of most people, in sides of the crop
HEAD_EDGE = 0.3  # of the radii, over which the head ends
UNCHANGED = 0.12  # change, on the scale of img (2 = black to white), at which 1/e^(1/2) of the photo stays
MULTIPLE_PX = 32  # of the sides of whole pictures


@dataclass(frozen=True)
class Artist:
    """Who draws.

    Attributes:
        name: for messages.
        size_px: side S of the aligned faces that `draw` takes.
        draw: img [N, 3, S, S] in [-1, 1] to drawings of the same shape.
        is_free: whether it draws pictures of other sides too, any that `MULTIPLE_PX` divides.
    """

    name: str
    size_px: int
    draw: Callable[[Tensor], Tensor]
    is_free: bool = False


@dataclass(frozen=True, kw_only=True)
class ToonConfig:
    """How a photo is drawn."""

    strength: float = 1.0  # 0 leaves the photo, 1 is the drawing
    is_whole: bool = False  # draw what surrounds the faces, too
    whole_px: int = 1024  # longest side at which that is done
    batch_size: int = 16  # faces in one pass

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength is {self.strength:g}", hint="0 leaves the photo, 1 is the drawing")
        if self.batch_size < 1 or self.whole_px < MULTIPLE_PX:
            raise InputError(f"batch_size is {self.batch_size} and whole_px {self.whole_px}")


def draw_faces(artist: Artist, img: Tensor, config: ToonConfig) -> Tensor:
    """Draw aligned faces [N, 3, S, S], many in one pass, at the strength that is wanted.

    Raises:
        InputError: they are not of the artist's side.
    """
    if img.shape[-2:] != (artist.size_px, artist.size_px):
        raise InputError(f"{artist.name} draws faces of {artist.size_px} px, these are {img.shape[-1]} px")
    drawn = torch.cat([artist.draw(some).clamp(-1, 1).cpu() for some in img.split(config.batch_size)])
    return img.cpu().lerp(drawn, config.strength)


def draw_whole(artist: Artist, photo: Image, config: ToonConfig) -> Image:
    """Draw a whole picture in one pass, shrunk for it where it is larger than `whole_px`.

    Raises:
        InputError: the artist draws aligned faces only.
    """
    if not artist.is_free:
        raise InputError(f"{artist.name} draws faces only", hint="leave out --whole-picture")
    scale = min(1.0, config.whole_px / max(photo.size))
    width, height = (max(MULTIPLE_PX, round(side * scale / MULTIPLE_PX) * MULTIPLE_PX) for side in photo.size)
    img = to_tensor(photo)
    drawn = artist.draw(resize(img, (width, height)).clamp(-1, 1)).clamp(-1, 1).cpu()
    return to_pil(img.lerp(resize(drawn, photo.size), config.strength))[0]


def _work_px(crop: Crop) -> int:
    """The power of two, or the largest allowed, at which a drawing of this crop loses nothing of the photo."""
    return int(min(MAX_WORK_PX, max(MIN_WORK_PX, 2 ** (crop.native_px - 1).bit_length())))


def nearer(crop: Crop, others: Sequence[Crop], size_px: int) -> Tensor:
    """Return how far each pixel of a crop is its own face's and no other's, [1, 1, size_px, size_px] from 0 to 1.

    Distances are from the middles of the crops in their own sides, so that a large face owns more.
    """
    at = (np.arange(size_px) + 0.5) * crop.size_px / size_px
    x, y = np.meshgrid(at, at)
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    places = crop.matrix @ points  # [2, P] px of the photo

    def distance(to: Crop) -> np.ndarray:
        side = np.linalg.norm(to.quad[3] - to.quad[0])
        found: np.ndarray = np.linalg.norm(places - to.quad.mean(0)[:, None], axis=0) / side
        return found

    own, share = distance(crop), np.ones(x.size)
    for other in others:
        share = np.minimum(share, 0.5 + (distance(other) - own) / NEARNESS)
    return torch.from_numpy(share.clip(0, 1)).float().reshape(1, 1, size_px, size_px)


def head(size_px: int) -> Tensor:
    """Return the soft mask [1, 1, size_px, size_px] of a head with its hair in an FFHQ crop."""
    at = (torch.arange(size_px) + 0.5) / size_px
    x, y = (at - HEAD_CENTRE[0]) / HEAD_RADII[0], (at - HEAD_CENTRE[1]) / HEAD_RADII[1]
    return ((1 + HEAD_EDGE - torch.hypot(x[None], y[:, None])) / HEAD_EDGE).clamp(0, 1)[None, None]


def drawn_where(img: Tensor, drawn: Tensor) -> Tensor:
    """Return where a drawing replaces its face, both [1, 3, S, S]: on the head, and wherever it changes the picture."""
    size_px = img.shape[-1]
    change = blur((drawn - img).square().mean(1, keepdim=True), 0.02 * size_px)
    return 1 - torch.exp(-change / (2 * UNCHANGED**2)) * (1 - head(size_px))


def paste_drawing(photo: Image, crop: Crop, drawn: Tensor, *, others: Sequence[Crop] = ()) -> Image:
    """Lay a drawing [1, 3, S, S] into the photo that its crop was cut from; the rest of the photo stays to the byte.

    Args:
        photo: RGB; other faces of it may be drawn already.
        crop: where the face is.
        drawn: the drawing.
        others: crops of the photo's other faces, which keep what is nearer to them.
    """
    size_px = _work_px(crop)
    now = crop_quad(photo, crop.quad, size_px=size_px).img
    drawn = drawn.cpu().float()
    changed = drawn_where(resize(crop.img, drawn.shape[-1]), drawn)
    where = mask(size_px) * nearer(crop, others, size_px) * resize(changed, size_px).clamp(0, 1)
    blended = laplacian_blend(resize(drawn, size_px), now, where)
    return paste_back(photo, crop, blended, keep_detail=False, within=(4 * where).clamp(max=1))


def toonify(photo: Image, crops: Sequence[Crop], artist: Artist, config: ToonConfig | None = None) -> Image:
    """Draw a photo's faces, all in as few passes as there are batches, and put them back.

    Args:
        photo: RGB.
        crops: its faces, largest first, of the artist's side; none is allowed for a whole picture.
        artist: who draws.
        config: how.

    Raises:
        InputError: crops of another side, or a whole picture asked of who draws faces only.
    """
    config = config or ToonConfig()
    result = draw_whole(artist, photo, config) if config.is_whole else photo
    if not crops:
        return result
    drawn = draw_faces(artist, torch.cat([crop.img for crop in crops]), config)
    for i in reversed(range(len(crops))):  # the largest last, on top
        others = [other for j, other in enumerate(crops) if j != i]
        result = paste_drawing(result, crops[i], drawn[i : i + 1], others=others)
    return result
