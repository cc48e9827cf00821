"""Mosaics of photos with their faces: many scales, angles and lights side by side, and things without a face.

What a tile shows is a similarity of the photo; its labels go through the same map. A batch is a function of the seed
and the step alone.

Source: Bochkovskiy et al. 2020 (mosaics), Sec. 3.3, arXiv:2004.10934.
"""

from __future__ import annotations

import functools
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError
from mien.training.data import PictureSet, check_columns, is_held_out, load_pictures, read_table

__all__ = ["FACE", "UNSURE", "Mosaics", "Targets", "load_scenes"]

SCENE_PX = 250
FACE, UNSURE = 1, 2  # Kinds of a labelled box; 0 is padding.
CORNERS = "x0 y0 x1 y1 leye_x leye_y reye_x reye_y nose_x nose_y lmouth_x lmouth_y rmouth_x rmouth_y".split()


class Targets(NamedTuple):
    """Labels of N mosaics: `boxes` [N, M, 4] px, `points` [N, M, 5, 2] px, `kinds` int64 [N, M], 0 where padded."""

    boxes: Tensor
    points: Tensor
    kinds: Tensor


def load_scenes(data: Path, cache: Path | None = None) -> tuple[PictureSet, dict[str, np.ndarray]]:
    """Read the photos of people that are not held out, and the table of all their faces.

    Raises:
        InputError: no zip or folder there, no table beside it, or one without the columns that it needs.
    """
    table = data.with_suffix(".csv")
    if not table.is_file():
        raise InputError(f"no table of faces at {table}", hint="it stands beside the photos, with their name and .csv")
    pictures = load_pictures(data, size_px=SCENE_PX, table=Path(os.devnull), cache=cache)
    keep = np.array([not is_held_out(name.rsplit("_", 1)[0]) for name in pictures.names])
    faces = read_table(table)
    check_columns(faces, table, texts=["file"], numbers=["score", *CORNERS])
    return pictures.select(keep), faces


def _drawing(rng: np.random.Generator) -> PIL.Image.Image:
    """Draw something that is not a face: lines, discs and boxes over a gradient, or noise of several octaves."""
    if rng.random() < 0.4:
        start = int(rng.choice([2, 4, 8, 16]))
        total = np.zeros((SCENE_PX, SCENE_PX, 3), np.float32)
        for octave in range(5):
            cells_px = min(start * 2**octave, SCENE_PX)
            noise = rng.integers(0, 256, (cells_px, cells_px, 3), np.uint8)
            smooth = PIL.Image.fromarray(noise).resize((SCENE_PX, SCENE_PX), PIL.Image.Resampling.BICUBIC)
            total += (np.asarray(smooth, np.float32) - 127.5) * 0.6**octave
        colour = rng.uniform(30, 225, 3)
        return PIL.Image.fromarray((total * rng.uniform(0.2, 1.0) + colour).clip(0, 255).astype(np.uint8))
    corners = PIL.Image.fromarray(rng.integers(0, 256, (2, 2, 3), np.uint8))
    image = corners.resize((SCENE_PX, SCENE_PX), PIL.Image.Resampling.BILINEAR)
    draw = PIL.ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 40))):
        x, y = rng.uniform(-30, SCENE_PX + 30, 2)
        half = rng.lognormal(2.8, 0.8, 2)
        skin = (rng.uniform(60, 255) * np.array([1, rng.uniform(0.6, 0.85), rng.uniform(0.4, 0.8)])).astype(int)
        paint = tuple(int(v) for v in (skin if rng.random() < 0.4 else rng.integers(0, 256, 3)))
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        match rng.integers(4):
            case 0:
                draw.ellipse(box, fill=paint)
            case 1:
                draw.rectangle(box, fill=paint)
            case 2:
                draw.line(rng.uniform(0, SCENE_PX, (3, 2)).ravel().tolist(), fill=paint, width=int(rng.integers(1, 9)))
            case _:
                draw.ellipse(box, outline=paint, width=int(rng.integers(1, 6)))
    return image


FACE_FREE = (
    "brick cell clock_motion color gravel horse hubble_deep_field ihc logo moon motorcycle_left page retina text"
)
"""Pictures without a face that scikit-image carries; coins show heads, and four others are for tests."""


@functools.cache
def _face_free_tiles(num_drawings: int, seed: int) -> Tensor:
    """Return tiles without a face, uint8 [N, 3, 250, 250]: drawings, and pieces of scikit-image's pictures."""
    import skimage.data

    rng = np.random.default_rng((seed, 1))
    tiles = [np.asarray(_drawing(rng)) for _ in range(num_drawings)]
    for path in sorted(Path(skimage.data.__file__).parent.iterdir()):
        if path.stem in FACE_FREE.split():
            image = PIL.Image.open(path).convert("RGB")
            for _ in range(12):
                side = int(rng.integers(min(128, *image.size), min(image.size) + 1))
                left, top = (int(rng.integers(0, extent - side + 1)) for extent in image.size)
                piece = image.resize((SCENE_PX, SCENE_PX), box=(left, top, left + side, top + side), reducing_gap=2)
                tiles.append(np.asarray(piece))
    return torch.from_numpy(np.stack(tiles).transpose(0, 3, 1, 2).copy())


class Mosaics:
    """Mosaics of photos with their faces; batch `step` is a function of (seed, step) alone.

    Args:
        pictures: uint8 photos of 250 px; their names are looked up in `table`.
        table: columns of `scenes250.csv`: file, score, box and five points of each face, px of the photo.
        batch_size: mosaics in a batch.
        size_px: side of a mosaic.
        min_face_px: smaller faces are UNSURE.
        min_label_score: labels with a lower score are UNSURE.
        negative_share: tiles that show no face at all.
        num_drawings: drawn tiles without a face, beside pieces of scikit-image's pictures.
        seed: start of the random numbers.

    Raises:
        InputError: no photo has a labelled face.
    """

    def __init__(
        self,
        pictures: PictureSet,
        table: dict[str, np.ndarray],
        *,
        batch_size: int,
        size_px: int,
        min_face_px: float = 10.0,
        min_label_score: float = 0.7,
        negative_share: float = 0.12,
        num_drawings: int,
        seed: int = 0,
    ) -> None:
        self.batch_size, self.size_px, self.seed = batch_size, size_px, seed
        self.min_face_px, self.min_label_score, self.negative_share = min_face_px, min_label_score, negative_share
        self.pixels = pictures.pixels
        self.face_free = _face_free_tiles(num_drawings, seed)
        row_of = {name: i for i, name in enumerate(pictures.names)}
        values = np.stack([table[name] for name in CORNERS], axis=1).reshape(-1, 7, 2)
        self.faces: list[list[tuple[np.ndarray, float]]] = [[] for _ in pictures.names]  # Per photo: [7, 2] and score.
        people: dict[str, list[int]] = {}
        for file, score, face in zip(table["file"], table["score"], values, strict=True):
            if file in row_of:
                photo = row_of[file]
                if not self.faces[photo]:
                    people.setdefault(str(file).rsplit("_", 1)[0], []).append(photo)
                self.faces[photo].append((face, float(score)))
        if not people:
            raise InputError("no photo of the set has a labelled face", hint="give scenes250.zip with its .csv")
        self.people = list(people.values())

    def batch(self, step: int) -> tuple[Tensor, Targets]:
        """Return img [N, 3, size_px, size_px] in [-1, 1] and its labels."""
        rng = np.random.default_rng((self.seed, 2, step))
        drawn = [self._mosaic(rng) for _ in range(self.batch_size)]
        most = max(1, *(len(kinds) for _, _, kinds in drawn))
        faces = torch.zeros(len(drawn), most, 7, 2)
        kinds = torch.zeros(len(drawn), most, dtype=torch.int64)
        for i, (_, found, kind) in enumerate(drawn):
            faces[i, : len(kind)] = torch.from_numpy(found).float()
            kinds[i, : len(kind)] = torch.from_numpy(kind)
        img = torch.stack([canvas for canvas, _, _ in drawn])
        return img, Targets(faces[:, :, :2].flatten(2), faces[:, :, 2:], kinds)

    def _mosaic(self, rng: np.random.Generator) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Return a canvas [3, S, S], its faces [M, 7, 2] px and their kinds [M]."""
        size = self.size_px
        num = int(rng.choice([1, 2, 3, 4, 6, 8], p=[0.3, 0.3, 0.18, 0.12, 0.07, 0.03]))
        xs, ys = (_cuts(rng, num, size) for _ in range(2))
        canvas = torch.empty(3, size, size)
        faces, kinds = [np.zeros((0, 7, 2))], [np.zeros(0, np.int64)]
        for y0, y1 in pairwise(ys):
            for x0, x1 in pairwise(xs):
                tile, face, kind = self._tile(rng, x1 - x0, y1 - y0)
                canvas[:, y0:y1, x0:x1] = tile
                faces.append(face + np.array([x0, y0]))
                kinds.append(kind)
        return canvas, np.concatenate(faces), np.concatenate(kinds)

    def _tile(self, rng: np.random.Generator, width: int, height: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Return a view [3, height, width] of one photo, its faces [M, 7, 2] px of the view, and their kinds [M]."""
        spot = rng.uniform(0.15, 0.85, 2) * (width, height)
        angle = math.radians(rng.uniform(-38, 38) if rng.random() < 0.4 else rng.normal(0, 6))
        flip = rng.random() < 0.5
        labelled: list[tuple[np.ndarray, float]] = []
        if rng.random() < self.negative_share:
            picture = self.face_free[int(rng.integers(len(self.face_free)))]
            focus, zoom = rng.uniform(0.2, 0.8, 2) * SCENE_PX, math.exp(rng.uniform(-1.2, 1.2))
        else:
            person = self.people[int(rng.integers(len(self.people)))]
            photo = person[int(rng.integers(len(person)))]
            picture, labelled = self.pixels[photo], self.faces[photo]
            face = labelled[int(rng.integers(len(labelled)))][0]
            side = math.sqrt(np.prod(face[1] - face[0]))
            wanted = max(width, height) * math.exp(rng.uniform(math.log(0.25), math.log(1.15)))
            focus, zoom = face[:2].mean(0), min(max(wanted / side, 0.06), 4.0)
            if rng.random() < 0.15:
                focus = rng.uniform(0, SCENE_PX, 2)
        turn = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        if flip:
            turn[:, 0] *= -1
        to_view = np.column_stack([turn, spot - turn @ focus])  # [2, 3], photo to view
        view = _look(picture, to_view, width, height, padding="border" if rng.random() < 0.6 else "zeros")
        faces, kinds = self._labels(labelled, to_view, flip, width, height)
        return _recolour(view, rng), faces, kinds

    def _labels(
        self, labelled: list[tuple[np.ndarray, float]], to_view: np.ndarray, flip: bool, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        faces, kinds = [np.zeros((0, 7, 2))], []
        for face, score in labelled:
            # The upright box of the turned ellipse that fills the box.
            half = np.sqrt(np.square(to_view[:, :2] * (face[1] - face[0]) / 2).sum(1))
            middle = to_view[:, :2] @ face[:2].mean(0) + to_view[:, 2]
            points = face[2:] @ to_view[:, :2].T + to_view[:, 2]
            if flip:
                points = points[[1, 0, 2, 4, 3]]
            box = np.stack([middle - half, middle + half])
            area = np.prod(2 * half)
            seen = np.prod((np.minimum(box[1], (width, height)) - np.maximum(box[0], 0)).clip(0)) / area
            if seen < 0.1:
                continue
            clear = score >= self.min_label_score and seen >= 0.5
            large = math.sqrt(area) >= self.min_face_px
            faces.append(np.concatenate([box, points])[None])
            kinds.append(FACE if clear and large else UNSURE)
        return np.concatenate(faces), np.array(kinds, np.int64)


def _cuts(rng: np.random.Generator, num: int, size: int) -> list[int]:
    """Cut `size` px into `num` pieces of unequal length: num + 1 borders."""
    jitter = rng.uniform(-0.25, 0.25, num - 1)
    return [0, *((np.arange(1, num) + jitter) * size / num).astype(int).tolist(), size]


def _look(picture: Tensor, to_view: np.ndarray, width: int, height: int, *, padding: str) -> Tensor:
    """Sample `picture` uint8 [3, 250, 250] through the affine `to_view` [2, 3]: float [3, height, width] in [-1, 1]."""
    zoom = math.sqrt(abs(np.linalg.det(to_view[:, :2])))
    shrink = 2 ** max(0, math.floor(-math.log2(zoom)))
    back = np.linalg.inv(np.vstack([to_view, (0, 0, 1)]))[:2]  # View px to photo px.
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ back[:, :2].T + back[:, 2]
    left, top = ((corners.min(0) - 2 * shrink) // shrink * shrink).clip(0, SCENE_PX - 4 * shrink).astype(int).tolist()
    right, bottom = np.maximum(corners.max(0) + 2 * shrink, (left + shrink, top + shrink)).astype(int).tolist()
    img = picture[None, :, top:bottom, left:right].float() / 127.5 - 1
    if shrink > 1:
        img = F.avg_pool2d(img, shrink, ceil_mode=True, count_include_pad=False)
    view_size, source_size = np.array([width, height]), np.array(img.shape[:1:-1]) * shrink
    theta = np.column_stack([back[:, :2] * view_size / 2, back[:, :2] @ (view_size / 2) + back[:, 2] - (left, top)])
    theta = theta * 2 / source_size[:, None] - [[0, 0, 1], [0, 0, 1]]  # In grid_sample's [-1, 1].
    points = F.affine_grid(torch.from_numpy(theta).float()[None], [1, 3, height, width], align_corners=False)
    return F.grid_sample(img, points, padding_mode=padding, align_corners=False)[0]


def _recolour(view: Tensor, rng: np.random.Generator) -> Tensor:
    """Change light, contrast and colour of `view` [3, H, W]; one in five turns grey, one in five gets noise."""
    grey = view.mean(0, keepdim=True)
    amount = 0.0 if rng.random() < 0.2 else rng.uniform(0.5, 1.4)
    gain = np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.08, (3, 1, 1)))
    bias = rng.normal(0, 0.15) + rng.normal(0, 0.05, (3, 1, 1))
    view = torch.lerp(grey, view, amount) * torch.from_numpy(gain).float() + torch.from_numpy(bias).float()
    if rng.random() < 0.2:
        noise = rng.standard_normal(view.shape, np.float32) * np.float32(rng.exponential(0.05))
        view += torch.from_numpy(noise)
    return view.clamp_(-1, 1)
