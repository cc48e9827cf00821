"""Leaky ReLU between an up-sampling and a down-sampling, so that the kink makes no frequencies that alias.

Source: Karras et al. 2021, Sec. 3.2, arXiv:2106.12423.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.nets.ops import Padding, bias_act, sides_of, upfirdn2d
from mien.nets.streaming import Resampling, resampling, stream

__all__ = ["filtered_lrelu"]

IMPLS = ("auto", "plain", "streamed")
MIN_CHANNELS = 8  # fewer leave the matrix products too narrow


def _resample(
    x: Tensor, f: Tensor | None, *, up: int, down: int, padding: tuple[int, int, int, int], gain: float, flip: bool
) -> Tensor:
    """`upfirdn2d`, one axis after the other where the filter is separable."""
    if f is None or f.ndim == 2:
        return upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
    left, right, top, bottom = padding
    x = upfirdn2d(
        x, f[None], up=(up, 1), down=(down, 1), padding=(left, right, 0, 0), flip_filter=flip, gain=math.sqrt(gain)
    )
    return upfirdn2d(
        x, f[:, None], up=(1, up), down=(1, down), padding=(0, 0, top, bottom), flip_filter=flip, gain=math.sqrt(gain)
    )


@dataclass(frozen=True)
class _Call:
    """Arguments of one `filtered_lrelu` call, without its tensors."""

    up: int
    down: int
    padding: tuple[int, int, int, int]
    gain: float
    slope: float
    clamp: float | None
    flip: bool

    def plain(self, x: Tensor, fu: Tensor | None, fd: Tensor | None) -> Tensor:
        """Compute by the definition."""
        x = _resample(x, fu, up=self.up, down=1, padding=self.padding, gain=self.up**2, flip=self.flip)
        x = bias_act(x, act="lrelu", alpha=self.slope, gain=self.gain, clamp=self.clamp)
        return _resample(x, fd, up=1, down=self.down, padding=(0, 0, 0, 0), gain=1, flip=self.flip)

    def maps(self, x: Tensor, fu: Tensor | None, fd: Tensor | None) -> tuple[Resampling, Resampling]:
        """The two resamplings; the second takes the gain with it."""
        rule: dict[str, Any] = dict(flip_filter=self.flip, dtype=x.dtype)
        above = resampling(fu, x.shape[2:], up=self.up, padding=self.padding, gain=self.up**2, **rule)
        hw = (above.rows.shape[1], above.columns.shape[1])
        return above, resampling(fd, hw, down=self.down, gain=self.gain, **rule)

    def act(self, t: Tensor) -> Tensor:
        """The leaky ReLU of a tile, in place."""
        t = F.leaky_relu_(t, self.slope)
        return t if self.clamp is None else t.clamp_(-self.clamp / self.gain, self.clamp / self.gain)

    def act_backward(self, t: Tensor, grad: Tensor) -> Tensor:
        """The gradient to a tile `t` from that to its activation, in place."""
        grad = torch.where(t > 0, grad, grad * self.slope)
        if self.clamp is None:
            return grad
        return grad.masked_fill_(F.leaky_relu_(t, self.slope).abs_() > self.clamp / self.gain, 0)


class _Streamed(torch.autograd.Function):
    """Keeps only its input: the enlarged picture is made again on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fu: Tensor | None, fd: Tensor | None, call: _Call) -> Tensor:
        ctx.save_for_backward(x, fu, fd)
        ctx.call = call
        above, below = call.maps(x, fu, fd)
        return stream([x], [above], below, call.act)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, fu, fd = ctx.saved_tensors
        if torch.is_grad_enabled():  # its own derivative is wanted
            y = ctx.call.plain(x, fu, fd)
            return torch.autograd.grad(y, x, grads[0], create_graph=True)[0], None, None, None
        above, below = ctx.call.maps(x, fu, fd)
        grad = stream([x, grads[0]], [above, below.adjoint], above.adjoint, ctx.call.act_backward)
        return grad, None, None, None


def _is_streamed(x: Tensor, up: int, down: int) -> bool:
    """Say whether the way through the cache is the faster one: on processors, not on GPUs nor in compiled graphs."""
    fits = x.device.type == "cpu" and x.shape[1] >= MIN_CHANNELS and max(up, down) > 1
    return fits and not torch.compiler.is_compiling()


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "auto",
) -> Tensor:
    """Add a bias, enlarge with `fu`, apply a leaky ReLU, scale, clamp, and shrink with `fd`.

    Args:
        x: [N, C, H, W].
        fu: filter of the up-sampling, [taps] (separable), [height, width] or None.
        fd: filter of the down-sampling, likewise.
        b: [C] or None.
        up: up-sampling factor.
        down: down-sampling factor.
        padding: of the enlarged picture, as in `upfirdn2d`.
        gain: factor after the leaky ReLU.
        slope: of its negative side.
        clamp: limit of the absolute value after the gain; None for no limit.
        flip_filter: correlate instead of convolve.
        impl: `plain` computes by the definition; `streamed` keeps the enlarged picture in cache, several times faster
            on a CPU, the same but for rounding; `auto` chooses by the device.

    Returns:
        [N, C, (H*up + padding - taps of fu and fd + 2 - 1) // down + 1, likewise].
    """
    assert impl in IMPLS and gain > 0
    call = _Call(up, down, sides_of(padding), gain, slope, clamp, flip_filter)
    x = bias_act(x, b)
    if impl == "streamed" or (impl == "auto" and _is_streamed(x, up, down)):
        y: Tensor = _Streamed.apply(x, fu, fd, call)  # type: ignore[no-untyped-call]
        return y
    return call.plain(x, fu, fd)
