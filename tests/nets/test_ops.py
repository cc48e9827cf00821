"""The operations against their definitions, against recorded numbers, and their second derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.nets.ops import (
    ACTIVATIONS,
    bias_act,
    conv2d_resample,
    downsample2d,
    filter2d,
    modulated_conv2d,
    normalize_2nd_moment,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

FIR = setup_filter([1, 3, 3, 1])
LOPSIDED = setup_filter(torch.tensor([[1.0, 2, 5], [0, -1, 3], [4, 0, 7], [2, 9, -3]]))  # [height, width]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- Recorded numbers -----------------------------------------------------------------------------------------------

RESAMPLERS = {"upfirdn2d": upfirdn2d, "filter2d": filter2d, "upsample2d": upsample2d, "downsample2d": downsample2d}


def test_upfirdn2d_agrees_with_the_recorded_cases(recorded: Any, agree: Any) -> None:
    ops = recorded("ops_upfirdn2d")
    for case in ops.meta["cases"]:
        i = case["i"]
        y = RESAMPLERS[case["op"]](ops[f"c{i}_x"], ops.get(f"c{i}_f"), **case["kwargs"])
        agree(y, ops[f"c{i}_y"], case, 1e-5)


def test_setup_filter_agrees_with_the_recorded_cases(recorded: Any, agree: Any) -> None:
    ops = recorded("ops_upfirdn2d")
    cases = [case for case in ops.meta["cases"] if case.get("filter") and "setup_filter" in case]
    assert len(cases) > 5
    for case in cases:
        agree(setup_filter(case["filter"], **case["setup_filter"]), ops[f"c{case['i']}_f"], case, 1e-6)


def test_bias_act_agrees_with_the_recorded_cases(recorded: Any, agree: Any) -> None:
    ops = recorded("ops_bias_act")
    for case in ops.meta["cases"]:
        i = case["i"]
        y = bias_act(ops[f"c{i}_x"], ops.get(f"c{i}_b"), dim=case["dim"], act=case["act"], **case["kwargs"])
        agree(y, ops[f"c{i}_y"], case, 1e-5)
    for name, spec in ACTIVATIONS.items():
        defaults = ops.meta["defaults"][name]
        assert (spec.alpha, spec.gain) == pytest.approx((defaults["def_alpha"], defaults["def_gain"]))


def test_convolutions_agree_with_the_recorded_cases(recorded: Any, agree: Any) -> None:
    ops = recorded("ops_modconv")
    for case in ops.meta["cases"]:
        name, kwargs = f"{case['key']}{case['i']}_", dict(case["kwargs"])
        f = ops[case["filter"]] if case.get("filter") else None
        if case["op"] == "conv2d_resample":
            y = conv2d_resample(ops[name + "x"], ops[name + "w"], f, groups=case["groups"], **kwargs)
        elif case["op"] == "stylegan2.modulated_conv2d":
            kwargs.pop("fused_modconv", None)  # two ways there, one result
            args = ops[name + "x"], ops[name + "w"], ops[name + "s"]
            f = ops["f"] if f is None else f
            y = modulated_conv2d(*args, noise=ops.get(name + "noise"), resample_filter=f, **kwargs)
        else:
            continue
        agree(y, ops[name + "y"], case, 1e-5)


def test_gradients_agree_with_the_recorded_ones(recorded: Any, agree: Any, gradient: Any) -> None:
    ops = recorded("ops_grads")
    x = ops["up_x"].requires_grad_()
    (grad,) = gradient(upfirdn2d(x, FIR, up=2, padding=[2, 1, 2, 1], gain=4), x)
    agree(grad, ops["up_gx"], "upfirdn2d", 1e-5)
    args = [ops[f"mc_{name}"].requires_grad_() for name in "xws"]
    y = modulated_conv2d(*args, up=2, padding=1, flip_weight=True, resample_filter=FIR)
    for name, grad in zip("xws", gradient(y, *args), strict=True):
        agree(grad, ops[f"mc_g{name}"], f"modulated_conv2d by {name}", 1e-5)


# ---- Definitions ----------------------------------------------------------------------------------------------------


def upfirdn2d_by_definition(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """Zeros between samples, then a frame of zeros or a crop, then every place of the filter, then every n-th."""
    num, channels, height, width = x.shape
    sparse = x.new_zeros(num, channels, height * up[1], width * up[0])
    sparse[:, :, :: up[1], :: up[0]] = x
    sparse = F.pad(sparse, padding)
    mirror = f if flip_filter else f.flip([0, 1])
    windows = sparse.unfold(2, f.shape[0], 1).unfold(3, f.shape[1], 1)
    return (windows * mirror.to(x.dtype)).sum(dim=[4, 5])[:, :, :: down[1], :: down[0]] * gain


@pytest.mark.parametrize("flip_filter", [False, True])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 1, 3, 5), (-1, 3, 2, -2), (4, 4, 4, 4)])
@pytest.mark.parametrize("down", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("up", [(1, 1), (2, 2), (3, 2), (1, 4)])
def test_upfirdn2d_is_its_definition(up: Any, down: Any, padding: Any, flip_filter: bool) -> None:
    x = random(2, 3, 7, 6, dtype=torch.float64)
    y = upfirdn2d(x, LOPSIDED, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=1.5)
    expected = upfirdn2d_by_definition(x, LOPSIDED, up, down, padding, flip_filter, 1.5)
    torch.testing.assert_close(y, expected)


def test_a_line_of_taps_filters_both_axes() -> None:
    x, taps = random(1, 2, 9, 9), setup_filter([1, 2, 5], separable=True)
    torch.testing.assert_close(upfirdn2d(x, taps), upfirdn2d(x, torch.outer(taps, taps)))


def test_no_filter_is_the_identity() -> None:
    x = random(1, 2, 5, 5)
    assert torch.equal(upfirdn2d(x, None), x)


def test_setup_filter_scales_turns_and_keeps_long_lines() -> None:
    torch.testing.assert_close(FIR, torch.outer(*[torch.tensor([1.0, 3, 3, 1]) / 8] * 2))
    assert setup_filter(range(1, 9)).shape == (8,) and setup_filter(range(1, 8)).shape == (7, 7)
    assert setup_filter(None).tolist() == [[1.0]] and setup_filter(torch.tensor(3.0)).tolist() == [[1.0]]
    assert setup_filter([2, 4], normalize=False, flip_filter=True, separable=True, gain=4).tolist() == [8.0, 4.0]
    assert setup_filter([2, 4], normalize=False, gain=4).sum() == 4 * 36
    with pytest.raises(AssertionError, match="a filter is"):
        setup_filter(torch.zeros(2, 2, 2))


@pytest.mark.parametrize("f", [FIR, LOPSIDED, setup_filter(range(1, 9))], ids=["even", "lopsided", "line"])
def test_resampling_keeps_sizes_and_flat_pictures(f: Tensor) -> None:
    flat = torch.full([1, 2, 16, 16], 0.7)
    for resample, size in ((filter2d, 16), (upsample2d, 32), (downsample2d, 8)):
        y = resample(flat, f)
        assert y.shape == (1, 2, size, size)
        middle = y[:, :, size // 4 + 2 : -size // 4 - 1, size // 4 + 2 : -size // 4 - 1]
        if resample is not upsample2d or f is FIR:  # each phase of an up-sampling filter must sum to one
            torch.testing.assert_close(middle, torch.full_like(middle, 0.7))


def test_shrinking_is_the_adjoint_of_enlarging() -> None:
    x, y = random(1, 2, 8, 8), random(1, 2, 16, 16, seed=1)
    torch.testing.assert_close((upsample2d(x, FIR) * y).sum(), 4 * (x * downsample2d(y, FIR)).sum())


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_adds_acts_scales_and_clamps_in_this_order(act: str) -> None:
    x, b = random(3, 4, 5), random(4, seed=1)
    spec = ACTIVATIONS[act]
    expected = (spec.func(x + b[:, None], spec.alpha) * spec.gain).clamp(-0.6, 0.6)
    torch.testing.assert_close(bias_act(x, b, act=act, clamp=0.6), expected)
    torch.testing.assert_close(bias_act(x, act=act, gain=2.0), spec.func(x, spec.alpha) * 2)
    torch.testing.assert_close(bias_act(x.mT, b, dim=-1, act=act), bias_act(x, b, act=act).mT)


def test_leaky_relu_keeps_the_second_moment() -> None:
    y = bias_act(random(1, 200_000), act="lrelu")
    assert y.square().mean().item() == pytest.approx(1 + 0.2**2, rel=0.02)
    assert bias_act(torch.tensor([[-1.0]]), act="lrelu", alpha=0.5).item() == pytest.approx(-0.5 * math.sqrt(2))


def test_normalize_2nd_moment_has_unit_mean_square() -> None:
    x = normalize_2nd_moment(random(3, 64) * 9)
    torch.testing.assert_close(x.square().mean(dim=1), torch.ones(3))
    assert normalize_2nd_moment(torch.zeros(1, 4)).isfinite().all()


@pytest.mark.parametrize("flip_filter", [False, True])
@pytest.mark.parametrize("flip_weight", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_conv2d_resample_is_its_definition(
    up: int, down: int, kernel: int, groups: int, flip_weight: bool, flip_filter: bool
) -> None:
    """Enlarge, convolve, shrink: whichever order is cheapest must give this."""
    x, w = random(2, 4, 8, 8, dtype=torch.float64), random(6, 4 // groups, kernel, kernel, dtype=torch.float64)
    flips: dict[str, bool] = dict(flip_weight=flip_weight, flip_filter=flip_filter)
    f = setup_filter(random(4, 4, seed=2), normalize=False)
    y = conv2d_resample(x, w, f, up=up, down=down, padding=kernel // 2, groups=groups, **flips)
    left, right = kernel // 2 + 2 * (up > 1) + (down > 1), kernel // 2 + (up > 1) + (down > 1)
    large = upfirdn2d(
        x,
        f if up > 1 else None,
        up=up,
        padding=[left, right, left, right],
        gain=up**2,
        flip_filter=flip_filter,
    )
    mixed = F.conv2d(large, w if flip_weight else w.flip([2, 3]), groups=groups)
    expected = upfirdn2d(mixed, f, down=down, flip_filter=flip_filter) if down > 1 else mixed
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_conv2d_is_its_definition(up: int, demodulate: bool) -> None:
    """Karras et al. 2020, Eq. 1-3, one sample at a time."""
    x, weight, styles = random(2, 3, 8, 8), random(5, 3, 3, 3, seed=1), random(2, 3, seed=2)
    noise = random(2, 1, 8 * up, 8 * up, seed=3)
    kwargs: dict[str, Any] = dict(up=up, padding=1, resample_filter=FIR, flip_weight=up == 1)
    out = modulated_conv2d(x, weight, styles, noise=noise, demodulate=demodulate, **kwargs)
    for n in range(2):
        w = weight * styles[n, :, None, None]  # Eq. 1
        if demodulate:
            w = w / (w.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()  # Eq. 2-3
        expected = conv2d_resample(x[n : n + 1], w, FIR, up=up, padding=1, flip_weight=up == 1) + noise[n]
        torch.testing.assert_close(out[n : n + 1], expected)


@pytest.mark.parametrize("demodulate", [False, True])
def test_the_gain_of_modulated_conv2d_is_a_factor_of_its_result(demodulate: bool) -> None:
    x, weight, styles, noise = random(2, 3, 4, 4), random(5, 3, 3, 3), random(2, 3), random(2, 1, 4, 4)
    kwargs: dict[str, Any] = dict(noise=noise, padding=1, demodulate=demodulate)
    plain = modulated_conv2d(x, weight, styles, **kwargs)
    torch.testing.assert_close(modulated_conv2d(x, weight, styles, gain=1.7, **kwargs), plain * 1.7)


def test_modulated_conv2d_shrinks_too() -> None:
    x, weight, styles = random(1, 3, 8, 8), random(5, 3, 3, 3, seed=1), torch.ones(1, 3)
    out = modulated_conv2d(x, weight, styles, down=2, padding=1, resample_filter=FIR, demodulate=False)
    torch.testing.assert_close(out, conv2d_resample(x, weight, FIR, down=2, padding=1))


def test_bfloat16_is_close_to_float32() -> None:
    x, weight, styles = random(2, 32, 16, 16), random(32, 32, 3, 3, seed=1), random(2, 32, seed=2)
    kwargs: dict[str, Any] = dict(up=2, padding=1, resample_filter=FIR, flip_weight=False)
    exact = modulated_conv2d(x, weight, styles, **kwargs)
    half = modulated_conv2d(x.bfloat16(), weight, styles, **kwargs)
    assert half.dtype == torch.bfloat16
    assert (half - exact).square().mean().sqrt() < 0.01 * exact.std()


# ---- Derivatives ----------------------------------------------------------------------------------------------------


def test_upfirdn2d_has_exact_second_derivatives() -> None:
    x = random(1, 1, 4, 3, dtype=torch.float64).requires_grad_()
    for kwargs in (dict(up=2, padding=[2, 1, 2, 1]), dict(down=2, padding=1), dict(up=(3, 2), down=(2, 1), padding=3)):
        for flip_filter in (False, True):

            def run(x: Tensor, kwargs: Any = kwargs, flip_filter: bool = flip_filter) -> Tensor:
                return upfirdn2d(x, LOPSIDED, flip_filter=flip_filter, gain=2, **kwargs).square()

            assert torch.autograd.gradcheck(run, x)
            assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_conv2d_resample_has_exact_second_derivatives(up: int, down: int) -> None:
    x = random(1, 2, 4, 4, dtype=torch.float64).requires_grad_()
    w = random(2, 2, 3, 3, seed=1, dtype=torch.float64).requires_grad_()

    def run(x: Tensor, w: Tensor) -> Tensor:
        return conv2d_resample(x, w, FIR, up=up, down=down, padding=1, flip_weight=up == 1)

    assert torch.autograd.gradcheck(run, (x, w))
    assert torch.autograd.gradgradcheck(run, (x, w))


@pytest.mark.parametrize("up", [1, 2])
def test_modulated_conv2d_has_exact_second_derivatives(up: int) -> None:
    x, w, s = (
        random(*shape, seed=i, dtype=torch.float64).requires_grad_()
        for i, shape in enumerate([(2, 2, 2, 2), (1, 2, 3, 3), (2, 2)])
    )

    def run(x: Tensor, w: Tensor, s: Tensor) -> Tensor:
        return modulated_conv2d(x, w, s, up=up, padding=1, resample_filter=FIR, flip_weight=up == 1)

    assert torch.autograd.gradcheck(run, (x, w, s))
    assert torch.autograd.gradgradcheck(run, (x, w, s))
