"""Several processes that train one network: each sees its share of a batch, gradients are averaged.

One process is the rule and needs nothing of this. `accelerate launch --num_processes 4 -m mien train gan ...` makes
several; accelerate then says which device is whose.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["average_", "own_device", "rank", "share", "world_size"]


def _is_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0; the first writes the files."""
    return dist.get_rank() if _is_joined() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _is_joined() else 1


def share(batch: Tensor) -> Tensor:
    """Return this process's rows of a batch [N, ...]."""
    return batch[rank() :: world_size()]


def average_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over all processes, in place."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= world_size()


def own_device(wanted: str) -> torch.device:
    """Return the device that this process trains on: its own where accelerate launched several, else `wanted`."""
    try:
        from accelerate import PartialState
        from accelerate.utils import get_int_from_env
    except ImportError:
        return torch.device(wanted)
    if get_int_from_env(["WORLD_SIZE"], 1) == 1:
        return torch.device(wanted)
    return PartialState(cpu=wanted == "cpu").device
