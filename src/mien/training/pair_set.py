"""The pairs of a folder in memory, and batches of them as a translator is shown them.

The two sides of a pair are moved together; only the person's side gets a worse camera, or a sharper one.

Source: mirrored, enlarged by 286/256 and cut at random: Isola et al. 2017, App. 6.2, arXiv:1611.07004.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from mien.errors import InputError, UnsupportedFileError
from mien.faces.resample import blur
from mien.training.distortions import Placement, degrade, place, random_placement
from mien.training.pairs import REPORT, SPLITS, read_pairs

__all__ = ["Pairs", "cut_at_random", "load_pairs", "moved", "sharpened", "worsened"]

MIN_PX = 16
SHARPEN, SHARPEN_PX = 2.0, 1.0  # most that edges are raised, by a Gaussian of this sigma
TURN_DEG, SCALE, SHIFT = 2.0, 0.03, 0.02  # standard deviations of what our detector's points err by


@dataclass(frozen=True, eq=False)
class Pairs:
    """People and drawings: two uint8 [N, 3, S, S], a digest of both with the names of the pairs, and who made them."""

    source: Tensor
    target: Tensor
    digest: str
    made_by: Mapping[str, str] = field(default_factory=dict)  # sha256 of the generators' weights

    def __len__(self) -> int:
        return len(self.source)

    @property
    def side_px(self) -> int:
        """Side S of the pictures."""
        return int(self.source.shape[-1])

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return both sides of some pairs as img [n, 3, S, S] in [-1, 1]."""
        source, target = (pixels[rows].float() / 127.5 - 1 for pixels in (self.source, self.target))
        return source, target


def _pixels(sample: dict[str, Any], extension: str) -> np.ndarray:
    name = f"{sample['__key__']}.{extension}"
    try:
        with PIL.Image.open(io.BytesIO(sample[extension])) as image:
            return np.asarray(image.convert("RGB"))
    except KeyError as err:
        raise UnsupportedFileError(f"the pairs lack {name}", hint="make them again: mien pairs make") from err
    except (OSError, ValueError) as err:
        raise UnsupportedFileError(f"{name} is damaged: {err}", hint="make the pairs again") from err


def load_pairs(folder: Path, split: str = "train") -> Pairs:
    """Read the pairs of a split that `mien pairs make` wrote; 20,000 of 256 px take 8 GB.

    Raises:
        InputError: there are none, or pictures of several sizes, not square, or of a side that 8 does not divide.
        UnsupportedFileError: a shard or a picture is damaged.
    """
    assert split in SPLITS
    sides: dict[str, list[np.ndarray]] = {"source.png": [], "target.png": []}
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for sample in read_pairs(folder, split):
            if not sides["source.png"]:
                size = _pixels(sample, "source.png").shape
            for extension, image in zip(sides, pool.map(lambda e, s=sample: _pixels(s, e), sides), strict=True):
                if image.shape != size:
                    what = f"{sample['__key__']}.{extension} is {image.shape[1]}x{image.shape[0]} px"
                    raise InputError(f"{what}, the first one {size[1]}x{size[0]}", hint="make pairs of one size")
                sides[extension].append(image)
                digest.update(sample["__key__"].encode() + image.tobytes())
    if size[0] != size[1] or size[0] % 8 or size[0] < MIN_PX:
        hint = f"pairs must be squares from {MIN_PX} px, of a side that 8 divides"
        raise InputError(f"the pairs in {folder} are {size[1]}x{size[0]} px", hint=hint)
    source, target = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() for images in sides.values())
    return Pairs(source, target, digest.hexdigest(), _made_by(folder))


def _made_by(folder: Path) -> dict[str, str]:
    """Return the digests of the generators that made the pairs, empty where their report does not say."""
    try:
        return dict(json.loads((folder / REPORT).read_text(encoding="utf-8"))["weights"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


# ---- What is done to a batch ----------------------------------------------------------------------------------------


def _placed(source: Tensor, target: Tensor, how: Placement) -> tuple[Tensor, Tensor]:
    frame = torch.eye(2, 3).expand(len(source), 2, 3).clone()
    both = place(torch.cat([source, target], 1), how, frame=frame, size_px=source.shape[-1], mode="bicubic")
    moved_source, moved_target = both.clamp(-1, 1).split(3, dim=1)
    return moved_source, moved_target


def cut_at_random(
    source: Tensor, target: Tensor, rng: torch.Generator, *, enlarged: float = 286 / 256
) -> tuple[Tensor, Tensor]:
    """Enlarge both sides [N,3,S,S], cut S px out at random, mirror half of them, as pix2pix was trained."""
    num, side = len(source), source.shape[-1]
    room = round(enlarged * side) - side
    offset = torch.randint(0, room + 1, [num, 2], generator=rng) - room / 2
    how = Placement(
        is_mirrored=torch.rand(num, generator=rng) < 0.5,
        turn_deg=torch.zeros(num),
        scale=torch.full([num], (side + room) / side),
        shift=2 * offset / side,
    )
    return _placed(source, target, how)


def moved(source: Tensor, target: Tensor, rng: torch.Generator, *, share: float) -> tuple[Tensor, Tensor]:
    """Mirror half of the pairs, pixel for pixel, and move a share of them as far as alignment errs."""
    num = len(source)
    how = random_placement(num, rng, turn_deg=TURN_DEG, scale=SCALE, shift=SHIFT)
    is_mirrored = how.is_mirrored[:, None, None, None]
    source, target = (torch.where(is_mirrored, img.flip(3), img) for img in (source, target))
    chosen = (torch.rand(num, generator=rng) < share).nonzero()[:, 0]
    if len(chosen):
        still = torch.zeros(len(chosen), dtype=torch.bool)
        some = Placement(still, how.turn_deg[chosen], how.scale[chosen], how.shift[chosen])
        source[chosen], target[chosen] = _placed(source[chosen], target[chosen], some)
    return source, target


def sharpened(source: Tensor, rng: torch.Generator, *, share: float) -> Tensor:
    """Raise the edges of a share of people [N,3,S,S], each by its own amount, as cameras and their software do."""
    if share == 0:
        return source
    amount = SHARPEN * torch.rand(len(source), 1, 1, 1, generator=rng)
    amount *= torch.rand(len(source), 1, 1, 1, generator=rng) < share
    return (source + amount * (source - blur(source, SHARPEN_PX))).clamp(-1, 1)


def worsened(source: Tensor, rng: torch.Generator, *, share: float) -> Tensor:
    """Return the people as a worse camera would show them; see `degrade`."""
    return degrade(source, rng, share) if share > 0 else source
