"""The filtered leaky ReLU against recorded numbers; its way through the cache against the definition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mien.nets import streaming
from mien.nets.filtered_lrelu import filtered_lrelu
from mien.nets.ops import upfirdn2d
from mien.nets.streaming import resampling

IMPLS = ("plain", "streamed")
GEOMETRIES = (
    dict(up=2, down=2, padding=11),
    dict(up=4, down=2, padding=(20, 13, 17, 18)),
    dict(up=2, down=1, padding=(-3, 14, 9, -5)),
    dict(up=1, down=3, padding=(6, 2, 3, 5)),
    dict(up=3, down=4, padding=(30, 0, 0, 30)),
)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cut even a small picture into many tiles."""
    monkeypatch.setattr(streaming, "TILE_COLUMNS", 7)
    monkeypatch.setattr(streaming, "MAX_ROWS", 4)
    monkeypatch.setattr(streaming, "SLAB_ROWS", 10)
    streaming._plan.cache_clear()
    yield
    streaming._plan.cache_clear()


def filters(seed: int = 0, *, is_separable: bool = True) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(seed)
    fu = torch.rand(12, generator=gen) / 6
    return fu, fu.flip(0) if is_separable else torch.rand(6, 8, generator=gen) / 24


@pytest.mark.parametrize("impl", IMPLS)
def test_results_are_the_recorded_ones(recorded: Any, agree: Any, impl: str) -> None:
    numbers = recorded("ops_filtered_lrelu")
    for case in numbers.meta["cases"]:
        i = case["i"]
        fu, fd = (None if case[name] is None else numbers[f"f_{case[name]}"] for name in ("fu", "fd"))
        y = filtered_lrelu(numbers[f"c{i}_x"], fu, fd, numbers.get(f"c{i}_b"), impl=impl, **case["kwargs"])
        agree(y, numbers[f"c{i}_y"], (impl, case))


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_are_the_recorded_ones(recorded: Any, agree: Any, gradient: Any, impl: str) -> None:
    numbers = recorded("ops_grads")
    x, b = numbers["fl_x"].requires_grad_(), numbers["fl_b"].requires_grad_()
    y = filtered_lrelu(x, numbers["fl_fu"], numbers["fl_fd"], b, up=2, down=2, padding=11, clamp=1.5, impl=impl)
    to_x, to_b = gradient(y, x, b)
    agree(to_x, numbers["fl_gx"], "x")
    agree(to_b, numbers["fl_gb"], "b")


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("is_separable", [True, False])
@pytest.mark.usefixtures("small_tiles")
def test_many_tiles_give_the_definition_and_its_gradient(geometry: dict[str, Any], is_separable: bool) -> None:
    fu, fd = filters(is_separable=is_separable)
    x = torch.randn(2, 8, 33, 26, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    found = []
    for impl in IMPLS:
        y = filtered_lrelu(x, fu.double(), fd.double(), clamp=1.1, impl=impl, **geometry)
        probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).double()
        found.append((y, *torch.autograd.grad((y * probe).sum(), x)))
    for plain, streamed in zip(*found, strict=True):
        torch.testing.assert_close(streamed, plain, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_tiles")
def test_first_and_second_derivatives_are_those_of_differences() -> None:
    fu, fd = (f.double() for f in filters(is_separable=False))
    x = torch.randn(1, 2, 7, 6, generator=torch.Generator().manual_seed(3)).double().requires_grad_()

    def call(x: Tensor) -> Tensor:
        return filtered_lrelu(x, fu, fd, up=2, down=2, padding=9, clamp=1.2, impl="streamed")

    assert torch.autograd.gradcheck(call, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, x, fast_mode=True)


def test_half_precision_is_close_and_kept() -> None:
    fu, fd = filters()
    x = torch.randn(1, 16, 24, 24, generator=torch.Generator().manual_seed(4))
    exact = filtered_lrelu(x, fu, fd, up=2, down=2, padding=11)
    y = filtered_lrelu(x.bfloat16(), fu, fd, up=2, down=2, padding=11)
    assert y.dtype == torch.bfloat16
    assert (y - exact).square().mean().sqrt() < 0.006 * exact.std()


def test_auto_streams_wide_maps_on_a_processor_and_computes_narrow_ones_plainly() -> None:
    fu, fd = filters()
    for channels, name in ((16, "_StreamedBackward"), (3, "_Upfirdn2dBackward")):
        x = torch.randn(1, channels, 9, 9, requires_grad=True)
        assert type(filtered_lrelu(x, fu, fd, up=2, down=2, padding=11).grad_fn).__name__ == name


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("flip_filter", [True, False])
def test_matrices_do_what_the_filter_does(geometry: dict[str, Any], flip_filter: bool) -> None:
    _, f = filters(is_separable=False)
    f = f.double()
    x = torch.randn(2, 3, 21, 19, generator=torch.Generator().manual_seed(5)).double()
    padding = geometry["padding"] if isinstance(geometry["padding"], tuple) else (geometry["padding"],) * 4
    call: dict[str, Any] = dict(geometry, padding=padding, flip_filter=flip_filter, gain=3.0)
    wanted = upfirdn2d(x, f, **call)
    by_matrix = resampling(f, (21, 19), dtype=torch.float64, **call)
    got = torch.einsum("koh,nchw,kpw->ncop", by_matrix.rows, x, by_matrix.columns)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    back = torch.einsum("koh,ncop,kpw->nchw", by_matrix.rows, wanted, by_matrix.columns)
    adjoint = by_matrix.adjoint
    torch.testing.assert_close(torch.einsum("koh,nchw,kpw->ncop", adjoint.rows, wanted, adjoint.columns), back)
