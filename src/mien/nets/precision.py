"""In which precision networks compute: fp32 is exact, bf16 an opt-in to speed where the hardware has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mien.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["PRECISIONS", "dtype_of", "exact_float32"]

PRECISIONS = ("fp32", "bf16")


def dtype_of(precision: str) -> torch.dtype:
    """Return the type of feature maps in a precision by name.

    Raises:
        InputError: an unknown name.

    >>> dtype_of("bf16")
    torch.bfloat16
    """
    import torch  # the command line knows the names without it

    if precision not in PRECISIONS:
        raise InputError(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


@contextmanager
def _set(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _products(precision: str) -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    if before == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _exact_convolutions() -> list[tuple[Any, str, object]]:
    """The settings of cuDNN that mean float32: owner, name, value."""
    import torch

    cudnn: Any = torch.backends.cudnn
    try:
        _ = cudnn.allow_tf32
    except RuntimeError:  # the caller uses the names of torch 2.9, beside which this one may not be read
        return [(cudnn.conv, "fp32_precision", "ieee"), (cudnn.rnn, "fp32_precision", "ieee")]
    return [(cudnn, "allow_tf32", False)]


@contextmanager
def exact_float32(is_wanted: bool = True) -> Iterator[None]:
    """Keep products and convolutions of float32 exact within; the caller's settings come back after.

    By default PyTorch convolves on a CUDA device in TF32, which keeps 10 bits of 23. The settings are the process's:
    they hold for all its threads.
    """
    with ExitStack() as stack:
        if is_wanted:
            stack.enter_context(_products("highest"))
            for owner, name, value in _exact_convolutions():
                stack.enter_context(_set(owner, name, value))
        yield
