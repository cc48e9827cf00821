"""Compiled synthesis is the same function, and sees new weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mien.nets.compile import compile_synthesis, has_compiler
from mien.nets.stylegan2 import Generator


@pytest.fixture
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(img_resolution=8, channel_base=32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_traced_synthesis_follows_its_weights(G: Generator, dtype: torch.dtype) -> None:
    """Traced in one graph and run without a compiler of machine code, which would take a minute."""
    calls: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        calls.append(1)
        return graph

    render = compile_synthesis(G.synthesis, backend=count)  # type: ignore[arg-type]
    ws = torch.randn(1, G.num_ws, 8)
    for _ in range(3):
        torch.testing.assert_close(
            render(ws, noise_mode="const", dtype=dtype), G.synthesis(ws, noise_mode="const", dtype=dtype)
        )
        G.synthesis.b8.conv0.weight[0] += 1
    assert len(calls) == 1, "one graph, traced once"


def test_without_a_compiler_there_is_the_network_itself(G: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not has_compiler()
    assert compile_synthesis(G.synthesis) is G.synthesis


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_pictures_and_gradients_are_the_same(G: Generator) -> None:
    render = compile_synthesis(G.synthesis)
    ws = torch.randn(2, G.num_ws, 8).requires_grad_()
    fast, plain = (f(ws, noise_mode="const") for f in (render, G.synthesis))
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-4)
    grads = [torch.autograd.grad(img.square().sum(), ws)[0] for img in (fast, plain)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-3)
