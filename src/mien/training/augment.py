"""Adaptive discriminator augmentation: pictures are moved, warped and recoloured with probability p before D sees them.

Every transformation is applied with probability p, alike to real and generated pictures, so that its effect on the
distribution can be undone and does not leak into what the generator learns, as long as p stays below about 0.8.
Everything is linear in the pixels and differentiable any number of times.

Source: Karras et al. 2020, "Training generative adversarial networks with limited data", App. B, arXiv:2006.06676.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import InputError

__all__ = ["AdaController", "AugmentConfig", "augment", "sample_colors", "sample_warps", "warp"]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Which transformations there are and how strong; defaults are the paper's for faces.

    The first eleven multiply p, 0 turns a transformation off.
    """

    x_flip: float = 1.0
    rotate90: float = 0.0  # the paper has it; faces have an upper side
    translate_int: float = 1.0
    scale: float = 1.0
    rotate: float = 1.0
    stretch: float = 1.0
    translate: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    luma_flip: float = 1.0
    hue: float = 1.0
    saturation: float = 1.0
    translate_int_max: float = 0.125  # Of the side, uniform.
    scale_std: float = 0.2  # Of log2 of the factor.
    rotate_max: float = 1.0  # Half turns, uniform.
    stretch_std: float = 0.2  # Of log2 of the factor along x.
    translate_std: float = 0.125  # Of the side.
    brightness_std: float = 0.2  # In a range of [-1, 1].
    contrast_std: float = 0.5  # Of log2 of the factor.
    hue_max: float = 1.0  # Half turns, uniform.
    saturation_std: float = 1.0  # Of log2 of the factor.

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number from 0 up, got {value}")


class _Dice:
    """Random values for N pictures: each is drawn, then kept with its chance or else replaced by the neutral one."""

    def __init__(self, num: int, p: float | Tensor, generator: torch.Generator) -> None:
        self.num, self.generator = num, generator
        self.p = torch.as_tensor(p, dtype=torch.float32, device=generator.device)

    def uniform(self, low: float, high: float) -> Tensor:
        """[N] between low and high."""
        values = torch.rand([self.num], generator=self.generator, device=self.generator.device)
        return low + (high - low) * values

    def normal(self, std: float) -> Tensor:
        """[N] around 0."""
        return std * torch.randn([self.num], generator=self.generator, device=self.generator.device)

    def keep(self, values: Tensor, strength: float, neutral: float = 0.0, p: Tensor | None = None) -> Tensor:
        """Keep each of `values` [N] with probability strength * p."""
        chance = strength * (self.p if p is None else p)
        return torch.where(self.uniform(0, 1) < chance, values, neutral)


# ---- Geometry -------------------------------------------------------------------------------------------------------


def _matrix(rows: list[list[Tensor | float]]) -> Tensor:
    """Stack entries, [N] or a number, as [N, len(rows), len(rows)]."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    return torch.stack([torch.stack([like.new_zeros(like.shape) + e for e in row], dim=-1) for row in rows], dim=-2)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _shift(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _turn(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return _matrix([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _blit(img: Tensor, p: float | Tensor, generator: torch.Generator, config: AugmentConfig) -> Tensor:
    """Mirror and turn by right angles; pixels stay as they are."""
    dice = _Dice(len(img), p, generator)
    flips = dice.keep(dice.uniform(0, 2).floor(), config.x_flip).to(img.device)[:, None, None, None]
    quarters = dice.keep(dice.uniform(0, 4).floor(), config.rotate90).to(img.device)[:, None, None, None]
    img = torch.where(flips == 1, img.flip(3), img) if config.x_flip else img
    for turns in (1, 2, 3) if config.rotate90 else ():
        img = torch.where(quarters == turns, img.rot90(turns, [2, 3]), img)
    return img


def sample_warps(
    num: int, size_px: int, p: float | Tensor, generator: torch.Generator, config: AugmentConfig | None = None
) -> Tensor:
    """Draw shifts and warps in the paper's order, each with probability p.

    Returns:
        [num, 3, 3] on the generator's device: from a place in the result to its place in the picture, (x, y, 1) with
        the sides at -1 and 1.
    """
    config = config or AugmentConfig()
    dice = _Dice(num, p, generator)
    p_turn = 1 - (1 - (config.rotate * dice.p).clamp(0, 1)).sqrt()  # so that either turn comes with probability p
    side = 2 / size_px  # of one pixel

    reach = config.translate_int_max * size_px
    shifts = [dice.uniform(-reach, reach).round() * side for _ in "xy"]
    is_kept = dice.keep(torch.ones_like(shifts[0]), config.translate_int)
    back = _shift(*(-shift * is_kept for shift in shifts))

    factor = dice.keep(dice.normal(config.scale_std), config.scale).exp2()
    back = back @ _scale(1 / factor, 1 / factor)
    back = back @ _turn(dice.keep(dice.uniform(-math.pi, math.pi) * config.rotate_max, 1, p=p_turn))
    factor = dice.keep(dice.normal(config.stretch_std), config.stretch).exp2()
    back = back @ _scale(1 / factor, factor)
    back = back @ _turn(dice.keep(dice.uniform(-math.pi, math.pi) * config.rotate_max, 1, p=p_turn))
    shifts = [dice.normal(config.translate_std) * 2 for _ in "xy"]
    is_kept = dice.keep(torch.ones_like(factor), config.translate)
    return back @ _shift(*(-shift * is_kept for shift in shifts))


SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Low-pass filter of the least asymmetric orthogonal wavelet of six vanishing moments (Daubechies 1992, Table 6.3)."""

MARGIN_PX = len(SYM6) // 2  # beyond each side at twice the resolution: what the filter that shrinks again reads
DELAY_PX = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - (len(SYM6) - 1) / 2  # it is not symmetric


@lru_cache(maxsize=32)
def _resamplers(size_px: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return matrices that enlarge a line of pixels twice, with margins, and shrink it again.

    The line is mirrored at its ends. Enlarging and shrinking at once is the identity, since the wavelet is orthogonal.

    Returns:
        [2 * size_px + 2 * MARGIN_PX, size_px] and its like transposed.
    """
    taps, reach = torch.tensor(SYM6, dtype=torch.float64), len(SYM6) // 2
    fine = torch.arange(-MARGIN_PX, 2 * size_px + MARGIN_PX)[:, None]
    coarse = torch.arange(-reach, size_px + reach)[None]
    k = fine - 2 * coarse + reach - 1  # which tap carries a coarse pixel to a fine one
    band = torch.where((k >= 0) & (k < len(SYM6)), taps[k.clamp(0, len(SYM6) - 1)], 0.0)
    inside = coarse[0] % (2 * size_px)
    source = torch.minimum(inside, 2 * size_px - 1 - inside)  # mirrored
    enlarge = band @ F.one_hot(source, size_px).double() * math.sqrt(2)
    shrink = band[:, reach:-reach].T / math.sqrt(2)
    return enlarge.float().to(device), shrink.float().to(device)


class _GridSample(torch.autograd.Function):
    """Bilinear sampling whose gradient can be differentiated again; it is linear, so its derivative is its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _GridSampleAdjoint.apply(grads[0], grid, ctx.shape), None  # type: ignore[no-untyped-call]


class _GridSampleAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        x = grad.new_empty(1).expand(shape)  # its values do not matter: the operation is linear
        bilinear, border = 0, 1
        wanted = torch.ops.aten.grid_sampler_2d_backward(grad, x, grid, bilinear, border, False, [True, False])
        return wanted[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grads[0], grid), None, None  # type: ignore[no-untyped-call]


def warp(img: Tensor, matrices: Tensor) -> Tensor:
    """Move pixels of img [N, C, H, H] as `matrices` [N, 3, 3] of `sample_warps` say; beyond its sides it is mirrored.

    Pictures are enlarged twice, sampled at twice the resolution and shrunk again, so that nothing aliases down to half
    size; whole pixels move exactly.
    """
    size_px = img.shape[-1]
    assert img.shape[-2] == size_px, "pictures are square"
    enlarge, shrink = _resamplers(size_px, img.device)
    x = enlarge @ img @ enlarge.T
    span = 1 + MARGIN_PX / size_px  # from the centre to the side of the enlarged picture
    delay = torch.full([2, 1], DELAY_PX / size_px, device=matrices.device)
    turn, shift = matrices[:, :2, :2], matrices[:, :2, 2:]
    theta = torch.cat([turn * span, shift + delay - turn @ delay], dim=2)
    grid = F.affine_grid(theta.to(img.device), list(x.shape), align_corners=False)
    mirrored = 2 * grid.clamp(-1, 1) - grid
    x = _GridSample.apply(x, torch.where(grid.abs() <= span, grid, mirrored) / span)  # type: ignore[no-untyped-call]
    return shrink @ x @ shrink.T


# ---- Colour ---------------------------------------------------------------------------------------------------------


def sample_colors(
    num: int, p: float | Tensor, generator: torch.Generator, config: AugmentConfig | None = None
) -> Tensor:
    """Draw changes of colour in the paper's order, each with probability p.

    Returns:
        [num, 4, 4] on the generator's device: from (red, green, blue, 1) to the same, colours in [-1, 1].
    """
    config = config or AugmentConfig()
    dice = _Dice(num, p, generator)
    b = dice.keep(dice.normal(config.brightness_std), config.brightness)
    change = _matrix([[1, 0, 0, b], [0, 1, 0, b], [0, 0, 1, b], [0, 0, 0, 1]])
    c = dice.keep(dice.normal(config.contrast_std), config.contrast).exp2()
    change = _matrix([[c, 0, 0, 0], [0, c, 0, 0], [0, 0, c, 0], [0, 0, 0, 1]]) @ change

    eye = torch.eye(4, device=generator.device)
    luma = F.pad(torch.full([3, 3], 1 / 3, device=generator.device), [0, 1, 0, 1])  # projection on the grey axis
    flip = dice.keep(dice.uniform(0, 2).floor(), config.luma_flip)[:, None, None]
    change = (eye - 2 * flip * luma) @ change
    angle = dice.keep(dice.uniform(-math.pi, math.pi) * config.hue_max, config.hue)[:, None, None]
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=generator.device) / math.sqrt(3)
    turned = angle.cos() * eye + angle.sin() * F.pad(cross, [0, 1, 0, 1]) + (1 - angle.cos()) * luma  # Rodrigues
    turned[:, 3, 3] = 1
    change = turned @ change
    s = dice.keep(dice.normal(config.saturation_std), config.saturation).exp2()[:, None, None]
    saturated = luma + (eye - luma) * s
    saturated[:, 3, 3] = 1
    return saturated @ change


def _recolor(img: Tensor, matrices: Tensor) -> Tensor:
    matrices = matrices.to(img.device)
    return torch.baddbmm(matrices[:, :3, 3:], matrices[:, :3, :3], img.flatten(2)).unflatten(2, img.shape[2:])


# ---- The pipe -------------------------------------------------------------------------------------------------------


def _apply_where_changed(img: Tensor, matrices: Tensor, apply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Spend time only on pictures that change, where the processor can look at the matrices without waiting."""
    if matrices.device.type != "cpu":
        return apply(img, matrices)
    idx = (matrices != torch.eye(matrices.shape[-1])).flatten(1).any(dim=1).nonzero()[:, 0]
    if len(idx) == 0:
        return img
    if len(idx) == len(img):
        return apply(img, matrices)
    changed = apply(img.index_select(0, idx.to(img.device)), matrices[idx])
    return img.index_copy(0, idx.to(img.device), changed)


def augment(
    img: Tensor, p: float | Tensor, generator: torch.Generator, *, config: AugmentConfig | None = None
) -> Tensor:
    """Augment each picture in its own way.

    Args:
        img: [N, 3, H, H], about [-1, 1].
        p: probability of each transformation, [0, 1]; a tensor stays fastest on the generator's device.
        generator: source of all randomness; the same state gives the same result, whatever p was before.
        config: which transformations, how strong.

    Returns:
        float32, like `img`; differentiable any number of times with respect to it.
    """
    assert img.ndim == 4 and img.shape[1] == 3, "colours are changed as RGB"
    config = config or AugmentConfig()
    img = _blit(img.float(), p, generator, config)
    warps = sample_warps(len(img), img.shape[-1], p, generator, config)
    colors = sample_colors(len(img), p, generator, config)
    img = _apply_where_changed(img, warps, warp)
    return _apply_where_changed(img, colors, _recolor)


@dataclass(frozen=True, kw_only=True)
class AdaController:
    """Steers p by how sure D is of real pictures: r_t = E[sign(D(real))] is kept at `target`.

    It holds no state: all there is to save is p.
    """

    target: float = 0.6  # Of r_t; above it D overfits.
    speed_kimg: float = 500.0  # Thousands of pictures in which p can go from 0 to 1.
    p_max: float = 0.8  # Beyond it augmentations may leak (paper, Sec. 2.2).

    def __post_init__(self) -> None:
        if not (-1 <= self.target <= 1 and self.speed_kimg > 0 and 0 <= self.p_max <= 1):
            raise InputError(
                f"no such controller: {self}", hint="target in [-1, 1], speed_kimg above 0, p_max in [0, 1]"
            )

    def update(self, p: Tensor, real_logits: Tensor) -> Tensor:
        """Return the next p, a scalar like `p`, from D's logits on the real pictures since the last call."""
        r_t = real_logits.detach().float().sign().mean()
        step = (r_t - self.target).sign() * (real_logits.numel() / (self.speed_kimg * 1000))
        return (p + step.to(p.device)).clamp(0, self.p_max)
