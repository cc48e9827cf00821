"""Synthesis through `torch.compile` where there is a compiler, and as it is where there is none."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mien.nets.stylegan2 import SynthesisNetwork

__all__ = ["compile_synthesis", "compiled_if", "has_compiler"]


def has_compiler() -> bool:
    """Say whether `torch.compile` finds a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def compiled_if(wanted: bool, net: Any) -> Any:
    """Compile a network for training when that is wanted and can be; warn where there is no compiler."""
    if not wanted:
        return net
    if not has_compiler():
        logging.getLogger(__name__).warning("no C++ compiler here: training goes on without torch.compile, slower")
        return net
    return torch.compile(net)


def compile_synthesis(synthesis: SynthesisNetwork, *, backend: str = "inductor") -> Callable[..., Tensor]:
    """Return a function that renders as `synthesis` does, twice as fast after a first call of about a minute.

    Every batch size, type, and mode of noise is compiled at its first call. Weights may change between calls. The
    result has first derivatives only.

    Args:
        synthesis: the network, on the device where it stays.
        backend: of `torch.compile`.

    Returns:
        `synthesis` itself where there is no compiler.
    """
    if backend == "inductor" and not has_compiler():
        return synthesis
    compiled = torch.compile(synthesis, backend=backend, dynamic=False)

    def render(ws: Tensor, *, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Tensor:
        for block in synthesis.blocks():
            for layer in block.layers():
                layer.cache.pin(layer.weight, dtype)
        img: Tensor = compiled(ws, dtype=dtype, **kwargs)
        return img

    return render
