"""One face as another camera would have taken it: moved, lit, blurred, compressed or covered, batched and seeded.

All functions take img [N,3,H,W] in [-1,1] and a `torch.Generator`, and draw for every picture anew. Only `place` moves
pixels; it takes its parameters from outside, because labels of pose depend on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Placement",
    "compress",
    "cover",
    "degrade",
    "distort",
    "place",
    "random_placement",
    "relight",
    "swap_surroundings",
]

# Table K.1 of ISO/IEC 10918-1 (luminance), used for all three channels.
QUANTISATION = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
FACE_OVAL = (0.0, 0.08, 0.76, 0.98)  # centre x, y and half axes in the face network's window, in [-1,1]


@dataclass(frozen=True)
class Placement:
    """How N pictures are laid into their frames: mirrored first, then turned, scaled and shifted.

    `is_mirrored` bool [N]; `turn_deg` [N], above 0 counter-clockwise; `scale` [N], above 1 enlarges; `shift` [N,2] of
    half the frame, to the right and down.
    """

    is_mirrored: Tensor
    turn_deg: Tensor
    scale: Tensor
    shift: Tensor


def random_placement(
    num: int, rng: torch.Generator, *, turn_deg: float = 6.0, scale: float = 0.09, shift: float = 0.05
) -> Placement:
    """Draw placements with these standard deviations (of the logarithm for `scale`), none beyond two of them."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).clamp(-2, 2)

    return Placement(
        is_mirrored=torch.rand(num, generator=rng) < 0.5,
        turn_deg=turn_deg * normal(num),
        scale=(scale * normal(num)).exp(),
        shift=shift * normal(num, 2),
    )


def place(img: Tensor, how: Placement, *, frame: Tensor, size_px: int, mode: str = "bilinear") -> Tensor:
    """Cut the frames out of `img` and move what they show as `how` says; beyond a picture's border is its reflection.

    Args:
        img: [N,3,H,H] in [-1,1].
        how: one placement for each picture, about the middle of its frame.
        frame: [N,2,3], carries places in the frame to places in the picture, both in [-1,1].
        size_px: side of the result.
        mode: bilinear or bicubic.
    """
    angle = torch.deg2rad(how.turn_deg)
    cos, sin = angle.cos() / how.scale, angle.sin() / how.scale
    back = torch.stack([cos, -sin, sin, cos], 1).unflatten(1, (2, 2))  # from a place in the frame to its origin
    matrix = torch.cat([back, -back @ how.shift[:, :, None]], 2)
    matrix[:, 0] *= torch.where(how.is_mirrored, -1.0, 1.0)[:, None]
    to_picture, origin = frame[:, :, :2], frame[:, :, 2:]
    matrix = to_picture @ matrix + F.pad(origin, (2, 0))
    grid = F.affine_grid(matrix, [len(img), 3, size_px, size_px], align_corners=False)
    return F.grid_sample(img, grid, mode=mode, padding_mode="reflection", align_corners=False)


def relight(img: Tensor, rng: torch.Generator) -> Tensor:
    """Change gain, white balance, brightness and saturation; one picture in eight loses its colour."""
    num = len(img)
    gain = (0.25 * torch.randn(num, 1, generator=rng) + 0.08 * torch.randn(num, 3, generator=rng)).exp()
    offset = 0.15 * torch.randn(num, 1, generator=rng)
    saturation = (0.3 * torch.randn(num, generator=rng)).exp() * (torch.rand(num, generator=rng) > 1 / 8)
    grey = img.mean(1, keepdim=True)
    coloured = grey + saturation[:, None, None, None] * (img - grey)
    return (coloured * gain[:, :, None, None] + offset[:, :, None, None]).clamp(-1, 1)


def blur(img: Tensor, side_px: int) -> Tensor:
    """Shrink the pictures to `side_px` and enlarge them again."""
    small = F.interpolate(img, (side_px, side_px), mode="bilinear", antialias=True)
    return F.interpolate(small, img.shape[-2:], mode="bilinear")


def compress(img: Tensor, quality: Tensor) -> Tensor:
    """Quantise the cosine transform of blocks of 8 px, as JPEG does, without its chroma subsampling.

    Args:
        img: [N,3,H,W] in [-1,1], sides multiples of 8.
        quality: [N], 1 to 100, on libjpeg's scale.
    """
    n, c, h, w = img.shape
    k = torch.arange(8, dtype=img.dtype)
    dct = 0.5 * torch.cos(math.pi / 8 * k[:, None] * (k + 0.5))
    dct[0] /= math.sqrt(2)
    factor = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    table = torch.tensor(QUANTISATION, dtype=img.dtype).view(8, 8)
    step = (table * factor[:, None, None]).clamp(min=1)[:, None, None, None] / 127.5
    blocks = img.view(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)  # [N, C, H/8, W/8, 8, 8]
    blocks = dct.T @ ((dct @ blocks @ dct.T / step).round() * step) @ dct
    return blocks.transpose(3, 4).reshape(n, c, h, w).clamp(-1, 1)


def cover(img: Tensor, rng: torch.Generator) -> Tensor:
    """Lay a rectangle of one colour, up to half as wide and high as the picture, over every picture."""
    n, _, h, w = img.shape
    centre, half = torch.rand(n, 2, generator=rng), 0.05 + 0.2 * torch.rand(n, 2, generator=rng)
    colour = 2 * torch.rand(n, 3, 1, 1, generator=rng) - 1
    rows = ((torch.arange(h) + 0.5) / h - centre[:, :1]).abs() < half[:, :1]
    columns = ((torch.arange(w) + 0.5) / w - centre[:, 1:]).abs() < half[:, 1:]
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], colour, img)


def swap_surroundings(img: Tensor, other: Tensor) -> Tensor:
    """Keep the faces of windows of FFHQ crops and take hair, ears and background from `other`, with a soft edge."""
    x, y, half_width, half_height = FACE_OVAL
    rows, columns = (torch.arange(side) * 2 + 1 - side for side in img.shape[-2:])
    radius = torch.hypot(
        ((columns / img.shape[-1] - x) / half_width)[None, :], ((rows / img.shape[-2] - y) / half_height)[:, None]
    )
    return other.lerp(img, ((1.1 - radius) / 0.2).clamp(0, 1))


def distort(img: Tensor, rng: torch.Generator) -> Tensor:
    """Distort every picture in some of the ways of this file."""

    def some(share: float) -> Tensor:
        return (torch.rand(len(img), generator=rng) < share).nonzero()[:, 0]

    img = relight(img, rng)
    chosen = some(0.25)
    img[chosen] = swap_surroundings(img[chosen], img[(chosen + len(img) // 2) % len(img)])
    sharpness = torch.rand(len(img), generator=rng)
    for most, least, side_px in ((1.0, 0.7, 43), (0.7, 0.55, 32), (0.55, 0.47, 24), (0.47, 0.4, 18)):
        chosen = ((sharpness <= most) & (sharpness > least)).nonzero()[:, 0]
        if len(chosen):
            img[chosen] = blur(img[chosen], side_px)
    chosen = some(0.2)
    strength = 0.15 * torch.rand(len(chosen), 1, 1, 1, generator=rng)
    img[chosen] += strength * torch.randn(img[chosen].shape, generator=rng)
    chosen = some(0.2)
    img[chosen] = compress(img[chosen], 15 + 65 * torch.rand(len(chosen), generator=rng))
    chosen = some(0.3)
    img[chosen] = cover(img[chosen], rng)
    return img


def degrade(img: Tensor, rng: torch.Generator, share: float = 0.5) -> Tensor:
    """Take the photo again with a worse camera: other light, lost sharpness, noise, compression; nothing moves.

    Args:
        img: [N,3,H,W] in [-1,1], sides multiples of 8.
        rng: of the process's processor.
        share: of pictures that get each kind.
    """

    def some() -> Tensor:
        return (torch.rand(len(img), generator=rng) < share).nonzero()[:, 0]

    img, chosen = img.clone(), some()
    img[chosen] = img[chosen].lerp(relight(img[chosen], rng), 0.5)
    chosen = some()
    for side in (0.75, 0.5):
        few, chosen = chosen.tensor_split(2)
        if len(few):
            img[few] = blur(img[few], round(side * img.shape[-1]))
    chosen = some()
    strength = 0.08 * torch.rand(len(chosen), 1, 1, 1, generator=rng)
    img[chosen] += strength * torch.randn(img[chosen].shape, generator=rng)
    chosen = some()
    img[chosen] = compress(img[chosen], 30 + 60 * torch.rand(len(chosen), generator=rng))
    return img.clamp(-1, 1)
