"""The names of rosinality's StyleGAN2, both ways: one table. Most of the research code uses files of this kind.

A file is a dict of networks: `g_ema`, `g`, `d` and, from a converter, the average latent; from the trainer, optimizers
and arguments too. Weights have NVIDIA's orientation and values; only axes of length one differ, and filters of
up-sampling carry their gain of four.

Source: the names are those of github.com/rosinality/stylegan2-pytorch; arXiv:1912.04958.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mien.errors import InputError
from mien.nets.layers import FIR
from mien.nets.ops import setup_filter
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.nvidia_names import DISCRIMINATOR, GENERATOR, discriminator_kwargs, generator_kwargs
from mien.weights.tables import SAME, Change, Entry, count, refuse, state_of, to_ours, to_theirs

__all__ = ["is_discriminator", "is_generator", "matches", "read", "read_discriminator", "read_generator", "to_tree"]

logger = logging.getLogger(__name__)

KEYS = {"g_ema": "G_ema", "g": "G", "d": "D"}
MAX_TAPS = 64  # of a filter's side
MAX_DRAWN = 2048  # the largest side of noise that is drawn
NO_NOISE = "the file has no constant noise: it is drawn with a fixed seed"

FIRST_AXIS = Change(lambda x: x[0], lambda x: x[None], 4, (0,))
CONV = Change(lambda x: x[0], lambda x: x[None], 5, (0,))  # [1,O,I,kh,kw]
NUMBER = Change(lambda x: x.reshape([]), lambda x: x.reshape(1), 1, (0,))
NOISE = Change(lambda x: x[0, 0], lambda x: x[None, None], 4, (0, 1))
COLOUR = Change(lambda x: x.flatten(), lambda x: x.reshape(1, -1, 1, 1), 4, (0, 2, 3))
UP_FILTER = Change(lambda x: x / 4, lambda x: x * 4, 2)  # exact: a power of two
FILTER = Change(SAME.to_ours, SAME.to_theirs, 2)


# ---- The table ------------------------------------------------------------------------------------------------------


def _linear(theirs: str, ours: str) -> list[Entry]:
    return [Entry(f"{theirs}.{part}", f"{ours}.{part}") for part in ("weight", "bias")]


def _styled_conv(theirs: str, ours: str, noise_idx: int) -> list[Entry]:
    return [
        Entry(f"{theirs}.conv.weight", f"{ours}.weight", CONV),
        *_linear(f"{theirs}.conv.modulation", f"{ours}.affine"),
        Entry(f"{theirs}.noise.weight", f"{ours}.noise_strength", NUMBER),
        Entry(f"{theirs}.activate.bias", f"{ours}.bias"),
        Entry(f"noises.noise_{noise_idx}", f"{ours}.noise_const", NOISE, is_needed=False),
    ]


def _to_rgb(theirs: str, ours: str) -> list[Entry]:
    return [
        Entry(f"{theirs}.conv.weight", f"{ours}.weight", CONV),
        *_linear(f"{theirs}.conv.modulation", f"{ours}.affine"),
        Entry(f"{theirs}.bias", f"{ours}.bias", COLOUR),
    ]


def generator_table(img_resolution: int, num_layers: int) -> list[Entry]:
    """Return the names of a generator with `num_layers` layers of mapping."""
    table = [Entry("input.input", "synthesis.b4.const", FIRST_AXIS)]
    for i in range(num_layers):
        table += _linear(f"style.{i + 1}", f"mapping.fc{i}")  # style.0 normalises
    table += _styled_conv("conv1", "synthesis.b4.conv1", 0) + _to_rgb("to_rgb1", "synthesis.b4.torgb")
    for i in range(img_resolution.bit_length() - 3):
        block = f"synthesis.b{8 << i}"
        table += _styled_conv(f"convs.{2 * i}", f"{block}.conv0", 2 * i + 1)
        table += _styled_conv(f"convs.{2 * i + 1}", f"{block}.conv1", 2 * i + 2)
        table += _to_rgb(f"to_rgbs.{i}", f"{block}.torgb")
        for kernel, ours in ((f"convs.{2 * i}.conv.blur", f"{block}.conv0"), (f"to_rgbs.{i}.upsample", block)):
            table.append(Entry(f"{kernel}.kernel", f"{ours}.resample_filter", UP_FILTER, is_needed=False))
    return table


def discriminator_table(img_resolution: int) -> list[Entry]:
    """Return the names of a discriminator."""
    table = [
        Entry("convs.0.0.weight", f"b{img_resolution}.fromrgb.weight"),
        Entry("convs.0.1.bias", f"b{img_resolution}.fromrgb.bias"),
    ]
    for i in range(img_resolution.bit_length() - 3):
        theirs, ours = f"convs.{i + 1}", f"b{img_resolution >> i}"
        table += [
            Entry(f"{theirs}.conv1.0.weight", f"{ours}.conv0.weight"),
            Entry(f"{theirs}.conv1.1.bias", f"{ours}.conv0.bias"),
            Entry(f"{theirs}.conv2.0.kernel", f"{ours}.conv1.resample_filter", FILTER, is_needed=False),
            Entry(f"{theirs}.conv2.1.weight", f"{ours}.conv1.weight"),
            Entry(f"{theirs}.conv2.2.bias", f"{ours}.conv1.bias"),
            Entry(f"{theirs}.skip.0.kernel", f"{ours}.skip.resample_filter", FILTER, is_needed=False),
            Entry(f"{theirs}.skip.1.weight", f"{ours}.skip.weight"),
        ]
    table += [Entry("final_conv.0.weight", "b4.conv.weight"), Entry("final_conv.1.bias", "b4.conv.bias")]
    return table + _linear("final_linear.0", "b4.fc") + _linear("final_linear.1", "b4.out")


# ---- Reading --------------------------------------------------------------------------------------------------------


def _has_two(tree: Any, names: tuple[str, ...]) -> bool:
    """Tell whether two of `names` are there: one alone may be another network's, and all would miss a damaged file."""
    return isinstance(tree, Mapping) and sum(n in tree or f"module.{n}" in tree for n in names) >= 2


def is_generator(tree: Any) -> bool:
    """Tell whether a tree is the state dict of such a generator."""
    return _has_two(tree, ("input.input", "conv1.conv.modulation.weight", "to_rgb1.conv.weight", "conv1.activate.bias"))


def is_discriminator(tree: Any) -> bool:
    """Tell whether a tree is the state dict of such a discriminator."""
    return _has_two(tree, ("convs.1.conv2.1.weight", "convs.1.skip.1.weight", "convs.0.1.bias", "final_conv.1.bias"))


def matches(tree: Any) -> bool:
    """Tell whether a tree is a file of this family: networks by key, or the state dict of one."""
    if not isinstance(tree, Mapping):
        return False
    found = any(is_generator(tree.get(key)) for key in ("g_ema", "g")) or is_discriminator(tree.get("d"))
    return found or is_generator(tree) or is_discriminator(tree)


def _filters(tensors: Mapping[str, Tensor], resampling: Iterable[str], others: Iterable[str]) -> dict[str, Tensor]:
    """Return the filter of every layer; theirs are all the same, and some are not repeated in the file.

    Layers that resample nothing have no filter in the file; ours hold the usual one.
    """
    held = (tensor for name, tensor in tensors.items() if name.endswith("resample_filter"))
    usual = setup_filter(FIR)
    fir = next(held, usual)
    if fir.numel() > MAX_TAPS**2:
        refuse(f"its filters have {fir.numel()} taps")
    filters = dict.fromkeys(resampling, fir) | dict.fromkeys(others, usual)
    return {f"{layer}.resample_filter": taps.clone() for layer, taps in filters.items()}


def _noise(layers: Mapping[str, int]) -> dict[str, Tensor]:
    """Draw constant noise for layers of the given sides."""
    return {
        f"{layer}.noise_const": torch.randn(side, side, generator=torch.Generator().manual_seed(side + i))
        for i, (layer, side) in enumerate(layers.items())
    }


def average_of(latent_avg: Any, w_dim: int) -> tuple[Tensor, tuple[str, ...]]:
    """Take an average latent [w_dim] or [num_ws, w_dim] as [w_dim], with a note if its rows differ."""
    if not isinstance(latent_avg, Tensor) or latent_avg.ndim not in (1, 2) or latent_avg.shape[-1:] != (w_dim,):
        shape = list(latent_avg.shape) if isinstance(latent_avg, Tensor) else type(latent_avg).__name__
        refuse(f"latent_avg is {shape}, not [{w_dim}]")
    if latent_avg.ndim == 1:
        return latent_avg, ()
    if len(latent_avg) == 0:
        refuse("latent_avg has no rows")
    if torch.equal(latent_avg, latent_avg[:1].expand_as(latent_avg)):
        return latent_avg[0].clone(), ()
    return latent_avg.mean(dim=0), ("rows of the average latent differ: truncation uses their mean",)


def read_generator(tree: Any, latent_avg: Any = None) -> Found:
    """Read the state dict of a generator.

    Args:
        tree: names and tensors.
        latent_avg: [w_dim] or [num_ws, w_dim] where the file has it.

    Raises:
        WeightsError: names or shapes are not those of this family.
    """
    state = state_of(tree, "generator")
    num_layers = count(state, r"style\.(\d+)\.") - 1
    num_blocks = max(count(state, r"to_rgbs\.(\d+)\."), (count(state, r"convs\.(\d+)\.") + 1) // 2)
    if num_layers < 1:
        refuse("generator: tensors are missing: style.1.weight")
    tensors = to_ours(generator_table(4 << num_blocks, num_layers), state, "generator")
    kwargs = generator_kwargs(tensors)
    blocks = {f"synthesis.b{4 << i}": 4 << i for i in range(num_blocks + 1)}
    layers = {f"{block}.{conv}": side for block, side in blocks.items() for conv in ("conv0", "conv1")}
    del layers["synthesis.b4.conv0"]
    notes: tuple[str, ...] = ()
    if any(f"{layer}.noise_const" not in tensors for layer in layers):
        if max(layers.values()) > MAX_DRAWN:
            refuse("generator: tensors are missing: noises.noise_0")
        tensors, notes = _noise(layers) | tensors, (NO_NOISE,)
    resampling = [layer for layer in layers if layer.endswith("conv0")]
    tensors = _filters(tensors, [*blocks, *resampling], layers.keys() - set(resampling)) | tensors
    if latent_avg is not None:
        tensors["mapping.w_avg"], more = average_of(latent_avg, kwargs["w_dim"])
        notes += more
    return Found(Recipe(GENERATOR, kwargs), tensors, notes)


def read_discriminator(tree: Any) -> Found:
    """Read the state dict of a discriminator.

    Raises:
        WeightsError: names or shapes are not those of this family.
    """
    state = state_of(tree, "discriminator")
    num_blocks = count(state, r"convs\.(\d+)\.") - 1
    if num_blocks < 1:
        refuse("discriminator: tensors are missing: convs.1.conv1.0.weight")
    res = 4 << num_blocks
    tensors = to_ours(discriminator_table(res), state, "discriminator")
    blocks = [f"b{res >> i}" for i in range(num_blocks)]
    resampling = [f"{block}{part}" for block in blocks for part in ("", ".conv1", ".skip")]
    others = [f"{block}.conv0" for block in blocks]
    tensors = _filters(tensors, resampling, [f"b{res}.fromrgb", *others, "b4.conv"]) | tensors
    return Found(Recipe(DISCRIMINATOR, discriminator_kwargs(tensors)), tensors)


def read(tree: Any) -> Checkpoint:
    """Read a file of this family, whoever wrote it: the trainer, a converter, or a fine-tuning script.

    Raises:
        WeightsError: names or shapes are not those of this family.
    """
    if is_generator(tree):
        tree = {"g_ema": tree}
    elif is_discriminator(tree):
        tree = {"d": tree}
    owner = "g_ema" if "g_ema" in tree else "g"  # whose average it is
    networks = {}
    for key, role in KEYS.items():
        if key == "d" and key in tree:
            networks[role] = read_discriminator(tree[key])
        elif key in tree:
            networks[role] = read_generator(tree[key], tree.get("latent_avg") if key == owner else None)
    return Checkpoint("rosinality", networks)


# ---- Writing --------------------------------------------------------------------------------------------------------


def _check_generator(kwargs: Mapping[str, Any]) -> None:
    mapping, synthesis = kwargs.get("mapping_kwargs") or {}, kwargs.get("synthesis_kwargs") or {}
    wanted = {
        "no classes": kwargs["c_dim"] == 0,
        "z_dim equal to w_dim": kwargs["z_dim"] == kwargs["w_dim"],
        "three colours": kwargs["img_channels"] == 3,
        "architecture skip": synthesis.get("architecture", "skip") == "skip",
        "noise": synthesis.get("use_noise", True),
        "activation lrelu": {mapping.get("activation", "lrelu"), synthesis.get("activation", "lrelu")} == {"lrelu"},
        "the mapping's learning rate 0.01": mapping.get("lr_multiplier", 0.01) == 0.01,
        "a mapping as wide as w": mapping.get("layer_features") in (None, kwargs["w_dim"]),
    }
    _check("generator", wanted)


def _check_discriminator(kwargs: Mapping[str, Any]) -> None:
    epilogue, block = kwargs.get("epilogue_kwargs") or {}, kwargs.get("block_kwargs") or {}
    wanted = {
        "no classes": kwargs["c_dim"] == 0,
        "three colours": kwargs["img_channels"] == 3,
        "architecture resnet": kwargs.get("architecture", "resnet") == "resnet",
        "activation lrelu": {epilogue.get("activation", "lrelu"), block.get("activation", "lrelu")} == {"lrelu"},
        "one channel of minibatch statistics": epilogue.get("mbstd_num_channels", 1) == 1,
        "minibatch statistics over four": epilogue.get("mbstd_group_size", 4) == 4,
    }
    _check("discriminator", wanted)


def _check(what: str, wanted: Mapping[str, bool]) -> None:
    if absent := [name for name, is_there in wanted.items() if not is_there]:
        hint = "write it as safetensors or as a state dict with NVIDIA's names"
        raise InputError(f"rosinality's {what} has only {', '.join(absent)}; this one differs", hint=hint)


def _say_what_is_lost(kwargs: Mapping[str, Any]) -> None:
    limit = kwargs.get("conv_clamp")
    if limit is not None:
        logger.warning("rosinality's networks do not limit feature maps (conv_clamp = %s)", limit)


def _network_tree(role: str, found: Found) -> dict[str, Tensor]:
    kwargs, tensors = found.recipe.kwargs, found.tensors
    if found.recipe.net != (DISCRIMINATOR if role == "D" else GENERATOR):
        raise InputError(f"a rosinality file has no place for a {found.recipe.net}", hint="write it as safetensors")
    if role == "D":
        _check_discriminator(kwargs)
        _say_what_is_lost(kwargs)
        return to_theirs(discriminator_table(kwargs["img_resolution"]), tensors)
    _check_generator(kwargs)
    _say_what_is_lost(kwargs.get("synthesis_kwargs") or {})
    return to_theirs(generator_table(kwargs["img_resolution"], count(tensors, r"mapping\.fc(\d+)\.")), tensors)


def to_tree(networks: Mapping[str, Found]) -> dict[str, Any]:
    """Return what a file of this family holds, from networks by role; limits of feature maps have no place in it.

    Raises:
        InputError: a network is of another kind, or has what this family has not (classes, `orig`, `resnet`).
    """
    if others := networks.keys() - KEYS.values():
        what = f"a rosinality file has no place for {', '.join(sorted(others))}"
        raise InputError(what, hint="choose one network by its role: G_ema, G or D")
    tree: dict[str, Any] = {key: _network_tree(role, networks[role]) for key, role in KEYS.items() if role in networks}
    owner = networks.get("G_ema") or networks.get("G")
    if owner is not None and "mapping.w_avg" in owner.tensors:
        tree["latent_avg"] = owner.tensors["mapping.w_avg"]
    return tree
