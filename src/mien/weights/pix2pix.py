"""The names of the well-known PyTorch pix2pix, both ways: nested U-Nets, and a list of layers.

Source: the names are those of github.com/junyanz/pytorch-CycleGAN-and-pix2pix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mien.errors import InputError
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.tables import Entry, count, refuse, state_of, to_ours, to_theirs

__all__ = ["matches", "read", "to_tree"]

GENERATOR, DISCRIMINATOR = "pix2pix.UnetGenerator", "pix2pix.PatchDiscriminator"
NORM_PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
DROPOUT_UNKNOWN = "dropout leaves no trace in a state dict: it is taken as used in training"


def _layer(theirs: str, ours: str, *, has_bias: bool) -> list[Entry]:
    return [Entry(f"{theirs}.{part}", f"{ours}.{part}") for part in (("weight", "bias") if has_bias else ("weight",))]


def _norm(theirs: str, ours: str, norm: str) -> list[Entry]:
    return [Entry(f"{theirs}.{part}", f"{ours}.{part}") for part in NORM_PARTS] if norm == "batch" else []


def generator_table(num_downs: int, norm: str) -> list[Entry]:
    """Return the names of a U-Net: each level is the submodule of the one around it."""
    has_bias, last = norm == "instance", num_downs - 1
    table: list[Entry] = []
    level = "model.model"
    for i in range(num_downs):
        down, up = (0, 3) if i == 0 else (1, 3 if i == last else 5)  # places of the convolutions in their level
        table += _layer(f"{level}.{down}", f"downs.{i}.conv", has_bias=has_bias)
        table += _layer(f"{level}.{up}", f"ups.{i}.conv", has_bias=has_bias or i == 0)
        if 0 < i < last:
            table += _norm(f"{level}.{down + 1}", f"downs.{i}.norm", norm)
        if i > 0:
            table += _norm(f"{level}.{up + 1}", f"ups.{i}.norm", norm)
        level += ".1.model" if i == 0 else ".3.model"
    return table


def discriminator_table(num_layers: int, norm: str) -> list[Entry]:
    """Return the names of a patch discriminator: convolution, norm and activation alternate."""
    table: list[Entry] = []
    for i in range(num_layers + 2):
        place, is_end = max(0, 3 * i - 1), i in (0, num_layers + 1)
        table += _layer(f"model.{place}", f"convs.{i}", has_bias=is_end or norm == "instance")
        if not is_end:
            table += _norm(f"model.{place + 1}", f"norms.{i}", norm)
    return table


# ---- Reading --------------------------------------------------------------------------------------------------------


def _has(tree: Any, names: tuple[str, ...]) -> bool:
    return isinstance(tree, Mapping) and all(n in tree or f"module.{n}" in tree for n in names)


def _is_generator(tree: Any) -> bool:
    return _has(tree, ("model.model.0.weight", "model.model.3.weight"))


def _is_discriminator(tree: Any) -> bool:
    return _has(tree, ("model.0.weight", "model.2.weight", "model.5.weight"))


def matches(tree: Any) -> bool:
    """Tell whether a tree is the state dict of a U-Net or of a patch discriminator, or both by role."""
    if not isinstance(tree, Mapping):
        return False
    return _is_generator(tree) or _is_discriminator(tree) or _is_generator(tree.get("G"))


def _norm_of(state: Mapping[str, Tensor]) -> str:
    return "batch" if any(name.endswith(".running_mean") for name in state) else "instance"


def _shape(tensors: Mapping[str, Tensor], name: str) -> list[int]:
    if tensors[name].ndim != 4:
        refuse(f"{name} has the wrong shape {list(tensors[name].shape)}")
    return list(tensors[name].shape)


def _read_generator(tree: Any) -> Found:
    state = state_of(tree, "generator")
    nested = [found[1] for name in state if (found := re.match(r"model\.model\.1\.model((?:\.3\.model)*)\.", name))]
    if not nested:
        refuse("generator: tensors are missing: model.model.1.model.1.weight")
    num_downs, norm = max(nested, key=len).count("model") + 2, _norm_of(state)
    tensors = to_ours(generator_table(num_downs, norm), state, "generator")
    ngf, in_channels = _shape(tensors, "downs.0.conv.weight")[:2]
    kwargs = dict(
        in_channels=in_channels,
        out_channels=_shape(tensors, "ups.0.conv.weight")[1],
        ngf=ngf,
        num_downs=num_downs,
        norm=norm,
    )
    return Found(Recipe(GENERATOR, kwargs), tensors, (DROPOUT_UNKNOWN,))


def _read_discriminator(tree: Any) -> Found:
    state = state_of(tree, "discriminator")
    num_layers, norm = count(state, r"model\.(\d+)\.") // 3 - 1, _norm_of(state)
    if num_layers < 1:
        refuse("discriminator: tensors are missing: model.8.weight")
    tensors = to_ours(discriminator_table(num_layers, norm), state, "discriminator")
    ndf, in_channels = _shape(tensors, "convs.0.weight")[:2]
    kwargs = dict(in_channels=in_channels, ndf=ndf, num_layers=num_layers, norm=norm)
    return Found(Recipe(DISCRIMINATOR, kwargs), tensors)


def read(tree: Any) -> Checkpoint:
    """Read a state dict of a U-Net or of a patch discriminator, or both by role.

    Raises:
        WeightsError: names or shapes are those of neither.
    """
    if _is_generator(tree):
        tree = {"G": tree}
    elif _is_discriminator(tree):
        tree = {"D": tree}
    networks = {"G": _read_generator(tree["G"])} if "G" in tree else {}
    if "D" in tree:
        networks["D"] = _read_discriminator(tree["D"])
    return Checkpoint("pix2pix", networks)


# ---- Writing --------------------------------------------------------------------------------------------------------


def to_tree(networks: Mapping[str, Found]) -> dict[str, Any]:
    """Return what a file of plain tensors holds: the state dict of one network, or both by role.

    Raises:
        InputError: a network is of another kind.
    """
    trees: dict[str, Any] = {}
    for role, found in networks.items():
        kwargs = found.recipe.kwargs
        if found.recipe.net == GENERATOR:
            table = generator_table(kwargs["num_downs"], kwargs["norm"])
        elif found.recipe.net == DISCRIMINATOR:
            table = discriminator_table(kwargs["num_layers"], kwargs["norm"])
        else:
            raise InputError(f"pix2pix has no {found.recipe.net}", hint="write it as safetensors")
        trees[role] = to_theirs(table, found.tensors)
    return next(iter(trees.values())) if len(trees) == 1 else trees
