"""From a recipe and named tensors to a network, whatever file they were found in.

Nothing found is believed: the network is first built without memory, within a budget, and compared with the tensors
that are there, so a damaged or hostile file costs no more than its own size.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mien.errors import WeightsError
from mien.nets.generator import Generator
from mien.weights.checkpoint import Found, Recipe
from mien.weights.tables import listed

__all__ = ["FORMER_NAMES", "NETS", "Built", "build", "check_numbers", "expected_net", "net_class", "refuse"]

NETS = (
    "animegan.AnimeGenerator",
    "arcface.ArcFace",
    "detector.Detector",
    "discriminator.Discriminator",
    "encoder.Encoder",
    "features.FaceNet",
    "inception.Inception",
    "lpips.LPIPS",
    "motion.FaceMotion",
    "pix2pix.PatchDiscriminator",
    "pix2pix.UnetGenerator",
    "psp.PspEncoder",
    "student.Student",
    "stylegan1.Generator",
    "stylegan2.Generator",
    "stylegan3.Generator",
    "vgg.AlexNet",
    "vgg.VGG",
)
"""Every network that a file may ask for, as `<module of mien.nets>.<class>`."""

FORMER_NAMES = {"stylegan2.Discriminator": "discriminator.Discriminator"}
"""Names that older files have => what the network is called now."""

W_AVG = "mapping.w_avg"
W_AVG_SAMPLES = 10_000
MAX_TENSORS = 10_000  # large encoders have a thousand
MAX_NUMBER = 1 << 20  # no size, count or gain of any network comes near
MAX_OF = {
    "c_dim": 1 << 16,
    "filter_size": 64,
    "img_resolution": 1 << 13,
    "lrelu_upsampling": 16,
    "margin_size": 1 << 10,
    "num_layers": 1 << 10,
    "num_looks": 64,
    "w_dim": 1 << 16,
    "z_dim": 1 << 16,
}
"""Arguments whose cost the tensors in the file do not limit, because it comes before them or at the first picture."""

CALLS_PER_TENSOR = 50  # a constructor makes a tensor with about ten calls

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """A network and what whoever uses it should know."""

    net: nn.Module
    notes: tuple[str, ...]


def refuse(file: str, what: str, hint: str = "get the file again; it is damaged or of another kind") -> NoReturn:
    """Say what is wrong with the file of the given name."""
    raise WeightsError(f"{file}: {what}", hint=hint)


# ---- Recipes --------------------------------------------------------------------------------------------------------


def check_numbers(file: str, name: str, value: Any) -> None:
    """Refuse arguments that no network has; they would only cost memory."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_numbers(file, str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_numbers(file, name, inner)
    elif isinstance(value, int | float):
        if not abs(value) <= MAX_OF.get(name, MAX_NUMBER):
            refuse(file, f"{name} = {value!r:.30} is out of range")
    elif not isinstance(value, str | None):
        refuse(file, f"{name} is a {type(value).__name__}")


class _Budget(TorchFunctionMode):
    """Stops a constructor that makes more than `calls` calls of torch, whatever its arguments ask for."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("the network would have many more tensors than the file")
        return func(*args, **(kwargs or {}))


def net_class(name: str) -> type[nn.Module]:
    """Return the class of a name in `NETS`."""
    module, _, cls = name.partition(".")
    return cast(type[nn.Module], getattr(importlib.import_module(f"mien.nets.{module}"), cls))


def expected_net(file: str, recipe: Recipe, num_tensors: int) -> nn.Module:
    """Build the recipe's network with tensors that have no memory, for its shapes and sizes.

    Raises:
        WeightsError: the recipe does not make one, or one of many more tensors than `num_tensors`.
    """
    if recipe.net not in NETS:
        refuse(file, f"it asks for an unknown network {recipe.net!r:.80}", hint=f"known: {', '.join(NETS)}")
    if num_tensors > MAX_TENSORS:
        refuse(file, f"it holds {num_tensors} tensors; no network has more than {MAX_TENSORS}")
    check_numbers(file, "a value", dict(recipe.kwargs))
    try:
        with torch.device("meta"), _Budget(CALLS_PER_TENSOR * (num_tensors + 10)):
            return net_class(recipe.net)(**recipe.kwargs)
    except Exception as err:  # whatever a constructor says to arguments that are not its own
        what = f"{file}: its recipe does not make a {recipe.net}: {err}"
        raise WeightsError(what[:300], hint="get the file again, or update mien") from err


# ---- Tensors --------------------------------------------------------------------------------------------------------


def check_shapes(file: str, found: Mapping[str, list[int]], expected: Mapping[str, Tensor]) -> None:
    """Compare names and shapes with those that the network has."""
    if missing := expected.keys() - found.keys():
        refuse(file, f"tensors are missing: {listed(missing)}")
    if foreign := found.keys() - expected.keys():
        refuse(file, f"tensors do not belong to its network: {listed(foreign)}")
    for name, shape in found.items():
        if shape != list(expected[name].shape):
            refuse(file, f"{name} is {shape}, its network wants {list(expected[name].shape)}")


def _checked(file: str, name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.is_floating_point() != like.is_floating_point() or tensor.is_complex():
        refuse(file, f"{name} is {tensor.dtype}, its network wants {like.dtype}")
    tensor = tensor.detach().to(like.dtype)
    if not math.isfinite(tensor.sum(dtype=torch.float64)):
        refuse(file, f"{name} has values that are not finite", hint="the training that wrote it diverged")
    return tensor


# ---- The network ----------------------------------------------------------------------------------------------------


def _mean_of_w(G: Generator) -> Tensor:
    """Return the mean of w over random z (and classes) of a fixed seed, [w_dim]."""
    random = torch.Generator().manual_seed(0)
    total, num = torch.zeros(G.w_dim, dtype=torch.float64), 1000
    with torch.inference_mode():
        for _ in range(W_AVG_SAMPLES // num):
            z = torch.randn(num, G.z_dim, generator=random)
            classes = torch.randint(max(1, G.c_dim), [num], generator=random)
            c = F.one_hot(classes, G.c_dim).float() if G.c_dim else None
            total += G.mapping(z, c)[:, 0].sum(dim=0, dtype=torch.float64)
    return (total / W_AVG_SAMPLES).float()


def build(found: Found, file: str) -> Built:
    """Build a network on the CPU, in float32, for evaluation, without gradients.

    A generator without its average latent gets the mean over 10,000 latents of a fixed seed; a note says so.

    Args:
        found: recipe and tensors.
        file: name of the file, for errors.

    Raises:
        WeightsError: recipe and tensors do not fit together, or values are not finite.
    """
    expected = expected_net(file, found.recipe, len(found.tensors)).state_dict()
    is_estimated = found.recipe.net.endswith(".Generator") and W_AVG in expected and W_AVG not in found.tensors
    if is_estimated:
        expected.pop(W_AVG)
    check_shapes(file, {name: list(tensor.shape) for name, tensor in found.tensors.items()}, expected)
    state = {name: _checked(file, name, tensor, expected[name]) for name, tensor in found.tensors.items()}
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random numbers
        net = net_class(found.recipe.net)(**found.recipe.kwargs)
    net.load_state_dict(state, strict=not is_estimated)
    net.eval().requires_grad_(False)
    if not is_estimated:
        return Built(net, found.notes)
    G = cast(Generator, net)
    G.w_avg.copy_(_mean_of_w(G))
    num = f"{W_AVG_SAMPLES:,}"
    note = f"the file has no average latent; it is estimated: the mean of w over {num} latents of a fixed seed"
    logger.warning("%s: %s", file, note)
    return Built(net, (*found.notes, note))
