"""Low-pass filters for resampling, designed by Kaiser windows: separable ones, and radial ones for rotations.

Source: Karras et al. 2021, App. C.1, arXiv:2106.12423; Kaiser 1974.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["design_lowpass"]

MAX_TAPS = 128  # networks have 48 at most
Array = npt.NDArray[np.float64]


def _kaiser_window(num_taps: int, width: float) -> Array:
    """Window of `num_taps` whose transition band is `width`, as a fraction of the Nyquist frequency."""
    attenuation = 2.285 * (num_taps - 1) * math.pi * width + 7.95  # dB
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    return np.kaiser(num_taps, beta)


def _bessel_j1(x: Array) -> Array:
    """Bessel function of the first kind and order one, by its integral over the circle, for |x| < 100."""
    angles = np.arange(256) * (2 * math.pi / 256)  # a periodic integrand: the sum is exact to rounding
    return np.cos(angles - x[..., None] * np.sin(angles)).mean(axis=-1)


def design_lowpass(num_taps: int, *, cutoff: float, width: float, fs: float, radial: bool = False) -> Tensor | None:
    """Design a filter that keeps frequencies below `cutoff`.

    Args:
        num_taps: samples along an axis; 1 means no filter.
        cutoff: frequency of half amplitude, in the unit of `fs`.
        width: of the transition band around it.
        fs: sampling rate.
        radial: filter all directions alike, which no separable filter does.

    Returns:
        float32 [num_taps], for both axes; [num_taps, num_taps] when radial; None for a single tap.

    Raises:
        ValueError: more taps than any network has, or less than one.
    """
    if not 1 <= num_taps <= MAX_TAPS:
        raise ValueError(f"a filter has from 1 to {MAX_TAPS} taps, got {num_taps}")
    if num_taps == 1:
        return None
    window = _kaiser_window(num_taps, width / (fs / 2))
    t = (np.arange(num_taps) - (num_taps - 1) / 2) / fs
    if radial:
        r = np.hypot(t, t[:, None])
        r = np.maximum(r, 1e-9 / fs)  # the middle of an odd number of taps: the limit, but for rounding
        taps = _bessel_j1(2 * math.pi * cutoff * r) / r * np.outer(window, window)
    else:
        taps = np.sinc(2 * cutoff * t) * window
    return torch.as_tensor(taps / taps.sum(), dtype=torch.float32, device="cpu")
