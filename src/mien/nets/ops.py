"""The operations that StyleGAN2 is made of: FIR resampling, biased activations, (modulated) convolutions.

Everything is plain PyTorch and differentiable any number of times. Two rules make it fast without a custom build:
modulation scales activations, not weights (so that a whole batch shares one convolution; Karras et al. 2020, Sec. 2.2,
note that both are equal), and the gradient of a FIR filter is again a FIR filter, run by the same fast kernel.

Source: Karras et al. 2019, arXiv:1812.04948; Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "bias_act",
    "conv2d_resample",
    "downsample2d",
    "filter2d",
    "modulated_conv2d",
    "normalize_2nd_moment",
    "setup_filter",
    "sides_of",
    "upfirdn2d",
    "upsample2d",
    "weight_energy",
]

Padding = int | Sequence[int]
Factor = int | Sequence[int]

# ---- FIR filters ----------------------------------------------------------------------------------------------------


def setup_filter(
    f: Tensor | Sequence[float] | None,
    *,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """Prepare a FIR filter [taps] or [height, width] for `upfirdn2d`.

    Args:
        f: taps; None is the identity.
        normalize: scale to a sum of one.
        flip_filter: reverse both axes.
        gain: overall factor of the two-dimensional filter.
        separable: keep a 1-D filter as such; by default from 8 taps on.

    Returns:
        float32 [taps] (applied along both axes) or [height, width].
    """
    taps = torch.as_tensor([1.0] if f is None else f, dtype=torch.float32)
    if taps.ndim == 0:
        taps = taps[None]
    assert 1 <= taps.ndim <= 2 and taps.numel() > 0, "a filter is [taps] or [height, width]"
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= 8
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return taps * gain ** (taps.ndim / 2)


def _xy(factor: Factor) -> tuple[int, int]:
    if isinstance(factor, int):
        return factor, factor
    x, y = factor
    return int(x), int(y)


def sides_of(padding: Padding) -> tuple[int, int, int, int]:
    """Padding as (left, right, top, bottom)."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    left, right, top, bottom = padding
    return left, right, top, bottom


def _as_2d(f: Tensor | None, like: Tensor) -> Tensor:
    if f is None:
        return like.new_ones(1, 1, dtype=torch.float32)
    return torch.outer(f, f) if f.ndim == 1 else f


@dataclass(frozen=True)
class _Resampling:
    """Arguments of one `upfirdn2d` call."""

    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    flip_filter: bool
    gain: float

    def adjoint(self, in_hw: Sequence[int], out_hw: Sequence[int], f_hw: Sequence[int]) -> _Resampling:
        """Return the call that carries gradients of the output back to the input."""
        (upx, upy), (downx, downy) = self.up, self.down
        left, _, top, _ = self.padding
        fh, fw = f_hw
        padding = (
            fw - left - 1,
            in_hw[1] * upx - out_hw[1] * downx + left - upx + 1,
            fh - top - 1,
            in_hw[0] * upy - out_hw[0] * downy + top - upy + 1,
        )
        return _Resampling(self.down, self.up, padding, not self.flip_filter, self.gain)


def _pad_or_crop(x: Tensor, padding: Sequence[int]) -> Tensor:
    return F.pad(x, list(padding)) if any(padding) else x


def _correlate(x: Tensor, kernels: Tensor, stride: tuple[int, int], padding: tuple[int, int, int, int]) -> Tensor:
    """Correlate every channel of `x` with each of `kernels` [K, h, w]; output [N, C*K, ...], K fastest."""
    channels = x.shape[1]
    left, right, top, bottom = padding
    inner = (top, left) if left == right >= 0 and top == bottom >= 0 else (0, 0)
    if inner == (0, 0):
        x = _pad_or_crop(x, padding)
    weight = kernels.to(x.dtype)[:, None].repeat(channels, 1, 1, 1)  # [CK,1,h,w]
    return F.conv2d(x, weight, stride=stride, padding=inner, groups=channels)


def _phases(kernel: Tensor, up: int, first: int) -> tuple[Tensor, int]:
    """Split the columns of `kernel` [h, w] into the `up` filters that meet real samples when zeros lie between them.

    Returns:
        [up, h, taps] and the input column at which phase 0 .. up-1 of output column 0 begin.
    """
    width = kernel.shape[1]
    starts = [(first - r) % up for r in range(up)]  # first tap of phase r that meets a sample
    offsets = [(r + k - first) // up for r, k in enumerate(starts)]  # the input column that it meets
    lowest = min(offsets)
    taps = max(o - lowest + len(range(k, width, up)) for o, k in zip(offsets, starts, strict=True))
    phases = []
    for k, o in zip(starts, offsets, strict=True):
        part = kernel[:, k::up]
        phases.append(F.pad(part, [o - lowest, taps - part.shape[1] - (o - lowest)]))
    return torch.stack(phases), lowest


def _upfirdn2d_up(x: Tensor, kernel: Tensor, call: _Resampling) -> Tensor:
    """Up-sampling in polyphase form: each phase is a short filter on the input itself, then phases are interleaved."""
    (upx, upy), (left, right, top, bottom) = call.up, call.padding
    height, width = x.shape[2:]
    out_w = width * upx + left + right - kernel.shape[1] + 1
    out_h = height * upy + top + bottom - kernel.shape[0] + 1
    columns, x0 = _phases(kernel, upx, left)  # [upx,h,tw]
    split = [_phases(c.T, upy, top) for c in columns]  # each [upy,tw,th]
    y0 = split[0][1]
    kernels = torch.stack([s[0] for s in split], dim=1).permute(0, 1, 3, 2)  # [upy,upx,th,tw]
    th, tw = kernels.shape[2:]
    need_h, need_w = -(-out_h // upy), -(-out_w // upx)
    padding = (-x0, need_w + tw - 1 - width + x0, -y0, need_h + th - 1 - height + y0)
    y = _correlate(x, kernels.reshape(-1, th, tw), (1, 1), padding)  # [N,C*upy*upx,need_h,need_w]
    y = y.unflatten(1, (x.shape[1], upy, upx)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
    return y[:, :, :out_h, :out_w]


def _upfirdn2d(x: Tensor, f: Tensor, call: _Resampling) -> Tensor:
    kernel = f * call.gain
    if not call.flip_filter:
        kernel = kernel.flip([0, 1])  # a filter is convolved: correlate with its mirror image
    if call.up == (1, 1):
        return _correlate(x, kernel[None], (call.down[1], call.down[0]), call.padding)
    y = _upfirdn2d_up(x, kernel, call)
    return y[:, :, :: call.down[1], :: call.down[0]]


class _Upfirdn2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, call: _Resampling) -> Tensor:
        ctx.save_for_backward(f)
        ctx.call, ctx.in_hw = call, x.shape[2:]
        return _upfirdn2d(x, f, call)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (f,) = ctx.saved_tensors
        grad = _Upfirdn2d.apply(grads[0], f, ctx.call.adjoint(ctx.in_hw, grads[0].shape[2:], f.shape))  # type: ignore[no-untyped-call]
        return grad, None, None


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Factor = 1,
    down: Factor = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad or crop, convolve with a FIR filter, and drop samples, in this order.

    Args:
        x: [N, C, H, W].
        f: filter from `setup_filter`; None is the identity. It gets no gradient.
        up: up-sampling factor, one or (x, y).
        down: down-sampling factor, one or (x, y).
        padding: pixels of the up-sampled picture, one number, (x, y) or (left, right, top, bottom); negative crops.
        flip_filter: correlate instead of convolve.
        gain: factor of the result.

    Returns:
        [N, C, (H*up + padding - taps) // down + 1, likewise].

    Source: Karras et al. 2021, Sec. 3; the operation is classical (polyphase form: Vaidyanathan 1993, Ch. 4).
    """
    call = _Resampling(_xy(up), _xy(down), sides_of(padding), flip_filter, gain)
    y: Tensor = _Upfirdn2d.apply(x, _as_2d(f, x).to(x.device), call)  # type: ignore[no-untyped-call]
    return y


def _taps(f: Tensor | None) -> tuple[int, int]:
    """Width and height of a filter."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def filter2d(
    x: Tensor, f: Tensor | None, *, padding: Padding = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Filter [N, C, H, W] and keep its size; `padding` is beyond that."""
    (fw, fh), (left, right, top, bottom) = _taps(f), sides_of(padding)
    sides = (left + fw // 2, right + (fw - 1) // 2, top + fh // 2, bottom + (fh - 1) // 2)
    return upfirdn2d(x, f, padding=sides, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Tensor, f: Tensor | None, *, up: Factor = 2, padding: Padding = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Enlarge [N, C, H, W] `up` times; `padding` is beyond what keeps the size exact."""
    (upx, upy), (fw, fh), (left, right, top, bottom) = _xy(up), _taps(f), sides_of(padding)
    sides = (
        left + (fw + upx - 1) // 2,
        right + (fw - upx) // 2,
        top + (fh + upy - 1) // 2,
        bottom + (fh - upy) // 2,
    )
    return upfirdn2d(x, f, up=up, padding=sides, flip_filter=flip_filter, gain=gain * upx * upy)


def downsample2d(
    x: Tensor, f: Tensor | None, *, down: Factor = 2, padding: Padding = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Shrink [N, C, H, W] `down` times; `padding` is beyond what keeps the size exact."""
    (downx, downy), (fw, fh), (left, right, top, bottom) = _xy(down), _taps(f), sides_of(padding)
    sides = (
        left + (fw - downx + 1) // 2,
        right + (fw - downx) // 2,
        top + (fh - downy + 1) // 2,
        bottom + (fh - downy) // 2,
    )
    return upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter, gain=gain)


# ---- Activations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """A nonlinearity with its parameter and the gain that keeps the second moment."""

    func: Callable[[Tensor, float], Tensor]
    alpha: float = 0.0
    gain: float = 1.0
    is_homogeneous: bool = False  # f(g x) = g f(x) for g > 0, so that a gain can go before it


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, _: x, is_homogeneous=True),
    "relu": Activation(lambda x, _: F.relu(x), gain=math.sqrt(2), is_homogeneous=True),
    "lrelu": Activation(F.leaky_relu, alpha=0.2, gain=math.sqrt(2), is_homogeneous=True),
    "tanh": Activation(lambda x, _: torch.tanh(x)),
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x)),
    "elu": Activation(lambda x, _: F.elu(x)),
    "selu": Activation(lambda x, _: F.selu(x)),
    "softplus": Activation(lambda x, _: F.softplus(x)),
    "swish": Activation(lambda x, _: torch.sigmoid(x) * x, gain=math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Add a bias along `dim`, apply an activation, scale, clamp.

    Args:
        x: any shape.
        b: [x.shape[dim]] or None.
        dim: the axis of `b`.
        act: a name in `ACTIVATIONS`.
        alpha: its parameter; by default its own.
        gain: factor after it; by default its own.
        clamp: limit of the absolute value, last; None for no limit.
    """
    spec = ACTIVATIONS[act]
    gain = spec.gain if gain is None else gain
    before, after = (gain, 1.0) if spec.is_homogeneous and gain > 0 else (1.0, gain)
    if b is not None:
        b = b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
        x = torch.add(b * before, x, alpha=before)  # one pass over x
    elif before != 1:
        x = x * before
    x = spec.func(x, spec.alpha if alpha is None else alpha)
    if after != 1:
        x = x * after
    if clamp is not None and clamp >= 0:
        x = x.clamp(-clamp, clamp)
    return x


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Scale `x` to a mean square of one along `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


# ---- Convolutions ---------------------------------------------------------------------------------------------------


def _convolve(x: Tensor, w: Tensor, *, stride: int = 1, padding: Sequence[int] = (0, 0), groups: int = 1) -> Tensor:
    return F.conv2d(x, w.to(x.dtype), stride=stride, padding=list(padding), groups=groups)


def _upsample_and_convolve(
    x: Tensor, w: Tensor, f: Tensor | None, *, up: int, sides: Sequence[int], groups: int, flip_weight: bool
) -> Tensor:
    """Transposed convolution, which skips the zeros, and then the filter."""
    kh, kw = w.shape[2:]
    left, right, top, bottom = sides[0] - (kw - 1), sides[1] - (kw - up), sides[2] - (kh - 1), sides[3] - (kh - up)
    inner_x, inner_y = max(min(-left, -right), 0), max(min(-top, -bottom), 0)
    w = w.flip([2, 3]) if flip_weight else w
    w = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # [IO..] per group, as transposed convolution wants
    y = F.conv_transpose2d(x, w.to(x.dtype), stride=up, padding=(inner_y, inner_x), groups=groups)
    rest = (left + inner_x, right + inner_x, top + inner_y, bottom + inner_y)
    return upfirdn2d(y, f, padding=rest, gain=up**2)


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Convolve with `w` [O, I/groups, kh, kw] on the way of an up- or down-sampling by `f`, in the cheapest order.

    Args:
        x: [N, I, H, W].
        w: weight; used as correlation when `flip_weight`, as true convolution otherwise.
        f: filter from `setup_filter` or None.
        up: up-sampling before the convolution.
        down: down-sampling after it.
        padding: with respect to the up-sampled picture; as in `upfirdn2d`.
        groups: groups of channels.
        flip_weight: see `w`.
        flip_filter: correlate with `f`.

    Source: Karras et al. 2020, Sec. 2 (the operation), App. B of arXiv:1912.04958.
    """
    kh, kw = w.shape[2:]
    (fw, fh), (left, right, top, bottom) = _taps(f), sides_of(padding)
    if up > 1:
        left, right = left + (fw + up - 1) // 2, right + (fw - up) // 2
        top, bottom = top + (fh + up - 1) // 2, bottom + (fh - up) // 2
    if down > 1:
        left, right = left + (fw - down + 1) // 2, right + (fw - down) // 2
        top, bottom = top + (fh - down + 1) // 2, bottom + (fh - down) // 2
    sides = (left, right, top, bottom)
    if up > 1 and not flip_filter and (kh, kw) != (1, 1):
        x = _upsample_and_convolve(x, w, f, up=up, sides=sides, groups=groups, flip_weight=flip_weight)
        return upfirdn2d(x, f, down=down) if down > 1 else x

    kernel = w if flip_weight else w.flip([2, 3])
    if (kh, kw) == (1, 1) and up == 1 and down > 1:  # shrink first, then mix channels
        x = upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter)
        return _convolve(x, kernel, groups=groups)
    if (kh, kw) == (1, 1) and up > 1 and down == 1:  # mix channels first, then enlarge
        x = _convolve(x, kernel, groups=groups)
        return upfirdn2d(x, f, up=up, padding=sides, gain=up**2, flip_filter=flip_filter)
    if up == 1 and down > 1:
        x = upfirdn2d(x, f, padding=sides, flip_filter=flip_filter)
        return _convolve(x, kernel, stride=down, groups=groups)
    if up == 1 and left == right >= 0 and top == bottom >= 0:
        return _convolve(x, kernel, padding=(top, left), groups=groups)
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=sides, gain=up**2, flip_filter=flip_filter)
    x = _convolve(x, kernel, groups=groups)
    return upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x


def weight_energy(weight: Tensor) -> Tensor:
    """Return the squared length of the kernels of `weight` [O, I, kh, kw], [O, I]: what demodulation needs of it."""
    return weight.square().sum(dim=[2, 3])


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    energy: Tensor | None = None,
    gain: float = 1.0,
) -> Tensor:
    """Convolve each sample with a weight whose input channels its style scales, then normalise its outputs.

    The weight is shared by the batch: styles scale the activations before the convolution and the demodulation scales
    them after it, which is the same arithmetic.

    Args:
        x: [N, I, H, W].
        weight: [O, I, kh, kw].
        styles: [N, I], float32.
        noise: broadcastable to the output, added last.
        up: up-sampling factor, with `resample_filter`.
        down: down-sampling factor, with `resample_filter`.
        padding: as in `conv2d_resample`.
        resample_filter: filter from `setup_filter`.
        demodulate: normalise each output feature map.
        flip_weight: correlate (True) or convolve (False).
        energy: `weight_energy(weight)` where it is known already.
        gain: factor of the result, noise included.

    Returns:
        [N, O, H*up/down, W*up/down] in the type of `x`.

    Source: Karras et al. 2020, Eq. 1-3, arXiv:1912.04958.
    """
    before, after = (1.0, gain) if demodulate else (gain, 1.0)
    x = x * (styles * before).to(x.dtype)[:, :, None, None]
    x = conv2d_resample(x, weight, resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)
    noise = None if noise is None else (noise * gain).to(x.dtype)
    if not demodulate:
        return x if noise is None else x + noise
    energy = weight_energy(weight) if energy is None else energy
    scale = (styles.square() @ energy.T + 1e-8).rsqrt() * after  # [NO]
    scale = scale.to(x.dtype)[:, :, None, None]
    return x * scale if noise is None else torch.addcmul(noise, x, scale)
