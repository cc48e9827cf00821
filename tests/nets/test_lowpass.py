"""Low-pass filters against the recorded ones and their definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.nets.lowpass import design_lowpass


def response(f: Tensor, frequency: float, fs: float, angle: float = 0.0) -> float:
    """Amplitude of a filter [taps, taps] at a frequency in a direction."""
    t = (torch.arange(len(f)) - (len(f) - 1) / 2) / fs
    phase = 2 * math.pi * frequency * (t * math.cos(angle) + t[:, None] * math.sin(angle))
    return float((f * phase.cos()).sum())


def test_filters_are_the_recorded_ones(recorded: Any) -> None:
    numbers = recorded("sg3_lowpass")
    for i, case in enumerate(numbers.meta["cases"]):
        f = design_lowpass(
            case["numtaps"], cutoff=case["cutoff"], width=case["width"], fs=case["fs"], radial=case["radial"]
        )
        if case["none"]:
            assert f is None
        else:
            assert f is not None
            np.testing.assert_allclose(f, numbers[f"f{i}"], rtol=0, atol=1e-8)


def test_amplitude_is_one_in_the_pass_band_half_at_the_cutoff_and_none_beyond() -> None:
    f = design_lowpass(24, cutoff=8, width=8, fs=64)
    assert f is not None
    square = torch.outer(f, f)
    assert response(square, 0, 64) == pytest.approx(1, abs=1e-6)
    assert response(square, 4, 64) == pytest.approx(1, abs=0.01)
    assert response(square, 8, 64) == pytest.approx(0.5, abs=0.01)
    assert abs(response(square, 13, 64)) < 0.01


@pytest.mark.parametrize("num_taps", [12, 13])
def test_a_radial_filter_treats_all_directions_alike(num_taps: int) -> None:
    radial = design_lowpass(num_taps, cutoff=10, width=12, fs=64, radial=True)
    separable = design_lowpass(num_taps, cutoff=10, width=12, fs=64)
    assert radial is not None and separable is not None
    torch.testing.assert_close(radial, radial.T)
    for f, is_round in ((radial, True), (torch.outer(separable, separable), False)):
        amplitudes = [response(f, 10, 64, angle) for angle in (0.0, math.pi / 8, math.pi / 4)]
        assert (max(amplitudes) - min(amplitudes) < 0.03) == is_round, amplitudes


@pytest.mark.parametrize("num_taps", [0, 129, 1 << 20])
def test_no_file_makes_a_filter_that_fills_the_memory(num_taps: int) -> None:
    with pytest.raises(ValueError, match=f"a filter has from 1 to 128 taps, got {num_taps}"):
        design_lowpass(num_taps, cutoff=8, width=8, fs=64, radial=True)
