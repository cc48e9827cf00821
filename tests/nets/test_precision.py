"""Precisions by name, and exact products where they are asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from mien.errors import InputError
from mien.nets.precision import dtype_of, exact_float32

cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture
def settings() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    cudnn.allow_tf32 = before[1]


def now() -> tuple[str, bool, bool]:
    return torch.get_float32_matmul_precision(), matmul.allow_tf32, cudnn.allow_tf32


def test_precisions_by_name() -> None:
    assert (dtype_of("fp32"), dtype_of("bf16")) == (torch.float32, torch.bfloat16)
    with pytest.raises(InputError, match="must be fp32 or bf16, got 'fp8'"):
        dtype_of("fp8")


@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("products", ["highest", "high"])
def test_float32_is_exact_within_and_the_callers_choice_after(
    settings: None, products: str, convolutions: bool
) -> None:
    torch.set_float32_matmul_precision(products)
    cudnn.allow_tf32 = convolutions
    before = now()
    with exact_float32():
        assert not matmul.allow_tf32 and not cudnn.allow_tf32
    assert now() == before
    with exact_float32(False):
        assert now() == before
    with pytest.raises(ZeroDivisionError), exact_float32():
        raise ZeroDivisionError
    assert now() == before


def test_convolutions_of_a_caller_with_the_newer_names() -> None:
    """In a process of its own: what was set by these names cannot be taken back."""
    code = """
from torch.backends import cudnn
from mien.nets.precision import exact_float32
cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = "tf32", "ieee"
with exact_float32():
    assert cudnn.conv.fp32_precision == "ieee"
assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("tf32", "ieee")
"""
    if not hasattr(cudnn, "conv"):
        pytest.skip("this torch has only the older names")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_convolutions_on_a_gpu_are_those_of_the_cpu() -> None:
    x, weight = torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)
    expected = torch.nn.functional.conv2d(x.double(), weight.double())
    with exact_float32():
        y = torch.nn.functional.conv2d(x.cuda(), weight.cuda()).cpu()
    assert (y - expected).abs().max() < 1e-5 * expected.abs().max()
