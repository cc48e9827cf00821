"""Networks with recorded weights, and how gradients are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call


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
