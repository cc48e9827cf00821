"""Recorded numbers, and when a result agrees with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

Agree = Callable[..., None]


class Recorded:
    """One file of recorded arrays, as tensors, with what was written about them."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as held:
            self.meta: dict[str, Any] = json.loads(str(held["meta_json"]))
            self.arrays = {name: torch.from_numpy(held[name]) for name in held.files if name != "meta_json"}

    def __getitem__(self, name: str) -> Tensor:
        """An array; what was kept in float16 comes as float32."""
        value = self.arrays[name]
        return value.float() if value.dtype == torch.float16 else value

    def get(self, name: str) -> Tensor | None:
        """An array, or None where a case has no such input."""
        return self[name] if name in self.arrays else None


@pytest.fixture
def recorded(data: Path) -> Callable[[str], Recorded]:
    return lambda name: Recorded(data / f"{name}.npz")


@pytest.fixture(scope="session")
def agree() -> Agree:
    """Say whether a result is the recorded one but for rounding: five times what the official code has of it."""

    def check(actual: Tensor, expected: Tensor, what: object = "", tolerance: float = 5e-5) -> None:
        assert actual.shape == expected.shape, what
        worst = (actual - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        assert worst <= tolerance, f"{what}: off by {worst:.1e}"

    return check


def probe(shape: torch.Size) -> Tensor:
    """The weights of the recorded gradients' loss."""
    return torch.from_numpy(np.random.RandomState(7).standard_normal(tuple(shape)).astype(np.float32))


@pytest.fixture(scope="session")
def gradient() -> Callable[..., tuple[Tensor, ...]]:
    """Return d sum(y * probe) / d inputs."""
    return lambda y, *inputs: torch.autograd.grad((y * probe(y.shape)).sum(), inputs)


@pytest.fixture
def official(data: Path, recorded: Callable[[str], Any]) -> Callable[[str, type[nn.Module]], tuple[Any, Any]]:
    """Return a network with recorded weights, and what it was recorded to do."""

    def build(name: str, cls: type[nn.Module]) -> tuple[Any, Any]:
        numbers = recorded(name)
        net = cls(**numbers.meta["kwargs"])
        net.load_state_dict(torch.load(data / f"{name}.pt", weights_only=True))
        return net.eval().requires_grad_(False), numbers

    return build


@pytest.fixture(scope="session")
def check_penalty() -> Callable[..., None]:
    """Compare the gradient of a penalty on gradients, by some parameters of a network, with differences."""

    def check(net: nn.Module, penalty: Callable[[Callable[..., Tensor]], Tensor], names: list[str]) -> None:
        weights = {name: p.detach() for name, p in net.named_parameters()}

        def run(*some: Tensor) -> Tensor:
            changed = {**weights, **dict(zip(names, some, strict=True))}
            return penalty(lambda *args, **kwargs: functional_call(net, changed, args, kwargs))

        assert torch.autograd.gradcheck(run, [weights[name].clone().requires_grad_() for name in names])

    return check
