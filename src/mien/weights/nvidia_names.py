"""State dicts with NVIDIA's names, which are our own: reading one without its recipe, and writing it for other code.

Depth, widths, resolution, classes and architecture follow from names and shapes. What leaves no trace in them (limits
of feature maps, learning rate of the mapping) is taken as the official code's default; where a network differs, its
constructor's arguments are written beside the state dict, under `init_kwargs` by role.

Source: the names are those of github.com/NVlabs/stylegan2-ada-pytorch and github.com/NVlabs/stylegan3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mien.errors import InputError, WeightsError
from mien.nets.layers import FIR
from mien.nets.ops import setup_filter
from mien.nets.stylegan3 import plan_bands
from mien.weights.build import expected_net
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.tables import count, refuse, state_of

__all__ = [
    "alias_free_kwargs",
    "channel_kwargs",
    "discriminator_kwargs",
    "generator_kwargs",
    "matches",
    "read",
    "to_tree",
]

ROLES = ("G_ema", "G", "D")
GENERATOR, DISCRIMINATOR = "stylegan2.Generator", "discriminator.Discriminator"
ALIAS_FREE = "stylegan3.Generator"
FIRST_RATE, MARGIN = 16, 10  # of StyleGAN3's first layer: samples per picture, and around it on either side
ARGUMENTS = "init_kwargs"
LAYER = r"synthesis\.L(\d{1,3})_(\d{1,6})_(\d{1,6})\."  # number, side, feature maps
SETTING = (bool, int, float, str, tuple, type(None))
RESAMPLING = r"synthesis\.b(?!4\.)\d+\.((conv0|skip)\.)?resample_filter"  # other layers hold one that they do not use
UNKNOWN = "limits of feature maps and the mapping's learning rate leave no trace in a state dict: defaults are taken"


# ---- What shapes tell -----------------------------------------------------------------------------------------------


def _size(tensors: Mapping[str, Tensor], name: str, axis: int, ndim: int) -> int:
    if name not in tensors:
        refuse(f"tensors are missing: {name}")
    if tensors[name].ndim != ndim:
        refuse(f"{name} has the wrong shape {list(tensors[name].shape)}")
    return tensors[name].shape[axis]


def channel_kwargs(widths: Mapping[int, int]) -> dict[str, Any]:
    """Find `channel_base` and `channel_max` that give the feature maps `widths`, by resolution.

    >>> channel_kwargs({4: 512, 8: 512, 64: 512, 128: 256})
    {'channel_base': 32768, 'channel_max': 512}
    """
    highest = max(widths.values())
    base = max(width * res for res, width in widths.items())
    if any(min(base // res, highest) != width for res, width in widths.items()):  # they follow no rule
        return {"channel_base": base, "channel_max": [width for _, width in sorted(widths.items())]}
    return {"channel_base": base, "channel_max": highest}


def _fir_kwargs(tensors: Mapping[str, Tensor], pattern: str) -> dict[str, Any]:
    """Return the taps of the filters that `pattern` names where they are not the usual ones."""
    filters = [t for name, t in tensors.items() if re.fullmatch(pattern, name) and t.is_floating_point()]
    if not filters:
        return {}
    first = filters[0].float()
    if first.ndim not in (1, 2) or any(f.shape != first.shape or not torch.equal(f.float(), first) for f in filters):
        refuse("its resampling filters differ from one another")
    if torch.equal(first, setup_filter(FIR)):
        return {}
    taps = first.sum(dim=0) if first.ndim == 2 else first
    if first.ndim == 2 and not torch.allclose(torch.outer(taps, taps), first, atol=1e-6):
        refuse("its resampling filter cannot be made from taps")
    return {"resample_filter": taps.tolist()}


def _resolution(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = {int(hit[1]) for name in tensors if (hit := re.match(pattern, name))}
    highest = max(found, default=0)
    wanted = {2**i for i in range(2, highest.bit_length())}
    if highest > 1 << 20 or found != wanted or highest < 4:
        refuse(f"its blocks are {sorted(found)[:12]}, not 4, 8, 16 and so on")
    return highest


def _mapping_kwargs(tensors: Mapping[str, Tensor], w_dim: int) -> dict[str, Any]:
    num_layers = count(tensors, r"mapping\.fc(\d+)\.")
    kwargs: dict[str, Any] = {"num_layers": num_layers}
    if num_layers and (hidden := _size(tensors, "mapping.fc0.weight", 0, 2)) != w_dim:
        kwargs["layer_features"] = hidden
    if "mapping.embed.weight" in tensors:
        if "mapping.embed.bias" not in tensors:  # as the TensorFlow code has it
            kwargs["concat_labels"] = True
        elif (embed := _size(tensors, "mapping.embed.weight", 0, 2)) != w_dim:
            kwargs["embed_features"] = embed
    return kwargs


def _classes(tensors: Mapping[str, Tensor]) -> int:
    return _size(tensors, "mapping.embed.weight", 1, 2) if "mapping.embed.weight" in tensors else 0


def _mapping_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    num_layers, c_dim = count(tensors, r"mapping\.fc(\d+)\."), _classes(tensors)
    embed = _size(tensors, "mapping.embed.weight", 0, 2) if c_dim else 0
    return dict(
        z_dim=_size(tensors, "mapping.fc0.weight", 1, 2) - embed,
        c_dim=c_dim,
        w_dim=_size(tensors, f"mapping.fc{max(num_layers - 1, 0)}.weight", 0, 2),
    )


def generator_kwargs(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a StyleGAN2 generator.

    Args:
        tensors: its state dict; the constant noise, filters and `mapping.w_avg` may be absent.

    Raises:
        WeightsError: names or shapes are those of no such network.
    """
    res = _resolution(tensors, r"synthesis\.b(\d{1,9})\.")
    sizes = _mapping_sizes(tensors)
    widths = {2**i: _size(tensors, f"synthesis.b{2**i}.conv1.weight", 0, 4) for i in range(2, res.bit_length())}
    kwargs: dict[str, Any] = channel_kwargs(widths) | _fir_kwargs(tensors, RESAMPLING)
    if res > 4 and "synthesis.b4.torgb.weight" not in tensors:
        kwargs["architecture"] = "resnet" if "synthesis.b8.skip.weight" in tensors else "orig"
    if not any(name.endswith(".noise_strength") for name in tensors):
        kwargs["use_noise"] = False
    return dict(
        **sizes,
        img_resolution=res,
        img_channels=_size(tensors, f"synthesis.b{res}.torgb.weight", 0, 4),
        mapping_kwargs=_mapping_kwargs(tensors, sizes["w_dim"]),
        synthesis_kwargs=kwargs,
    )


def _alias_free_channels(widths: Sequence[int], cutoffs: Sequence[float]) -> dict[str, int]:
    """Find `channel_base` and `channel_max` of StyleGAN3, whose layers have round(channel_base / 2 / cutoff) maps."""
    highest = max(widths)
    lowest = max((width - 0.5) * 2 * cutoff for width, cutoff in zip(widths, cutoffs, strict=True))
    power = 1 << max(0, math.ceil(math.log2(lowest)))
    bases = [
        base
        for base in (power, math.ceil(lowest))  # published networks have powers of two
        if [round(min(base / 2 / cutoff, highest)) for cutoff in cutoffs] == list(widths)
    ]
    if not bases:
        refuse(f"its widths follow no rule: {list(widths)}"[:200])
    return {"channel_base": bases[0], "channel_max": highest}


def alias_free_kwargs(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a StyleGAN3 generator from its state dict, whose names hold sizes and widths.

    Raises:
        WeightsError: names or shapes are those of no such network.
    """
    layers = {int(hit[1]): hit for name in tensors if (hit := re.match(LAYER, name))}
    num_layers = max(layers, default=0)
    if num_layers < 3 or len(layers) != num_layers + 1:
        refuse(f"its layers are {sorted(layers)[:20]}, not 0, 1, 2 and so on")
    img_resolution, img_channels = (int(layers[num_layers][i]) for i in (2, 3))
    if not 16 <= img_resolution <= 1 << 16:
        refuse(f"its pictures have {img_resolution} px")
    cutoffs = [band.cutoff for band in plan_bands(img_resolution, img_channels, num_layers=num_layers)]
    kwargs: dict[str, Any] = _alias_free_channels([int(layers[i][3]) for i in range(num_layers)], cutoffs[:-1])
    first = layers[0][0]
    kwargs["conv_kernel"] = _size(tensors, f"{first}weight", 3, 4)
    if f"{first}down_filter" in tensors and tensors[f"{first}down_filter"].ndim == 2:
        kwargs["use_radial_filters"] = True
    if num_layers != 14:
        kwargs["num_layers"] = num_layers
    if (margin := int(layers[0][2]) - FIRST_RATE) != 2 * MARGIN:
        kwargs["margin_size"] = margin // 2
    sizes = _mapping_sizes(tensors)
    return dict(
        **sizes,
        img_resolution=img_resolution,
        img_channels=img_channels,
        mapping_kwargs=_mapping_kwargs(tensors, sizes["w_dim"]),
        synthesis_kwargs=kwargs,
    )


def discriminator_kwargs(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a StyleGAN2 discriminator from its state dict; filters may be absent.

    Raises:
        WeightsError: names or shapes are those of no such network.
    """
    res, c_dim = _resolution(tensors, r"b(\d{1,9})\."), _classes(tensors)
    widths = {2**i: _size(tensors, f"b{2**i}.conv0.weight", 0, 4) for i in range(3, res.bit_length())}
    widths[4] = _size(tensors, "b4.conv.weight", 0, 4)
    kwargs: dict[str, Any] = dict(
        c_dim=c_dim,
        img_resolution=res,
        img_channels=_size(tensors, f"b{res}.fromrgb.weight", 1, 4),
        **channel_kwargs(widths),
    )
    if (num_statistics := _size(tensors, "b4.conv.weight", 1, 4) - widths[4]) != 1:
        kwargs["epilogue_kwargs"] = {"mbstd_num_channels": num_statistics}
    if f"b{res}.skip.weight" not in tensors:
        kwargs["architecture"] = "skip" if "b4.fromrgb.weight" in tensors else "orig"
    if fir := _fir_kwargs(tensors, r"b\d+\.(conv1\.|skip\.)?resample_filter"):
        kwargs["block_kwargs"] = fir
    if c_dim:
        kwargs["cmap_dim"] = _size(tensors, "b4.out.weight", 0, 2)
        kwargs["mapping_kwargs"] = _mapping_kwargs(tensors, kwargs["cmap_dim"])
    return kwargs


# ---- The format -----------------------------------------------------------------------------------------------------


def _is_generator(tree: Any) -> bool:
    return isinstance(tree, Mapping) and ("synthesis.b4.const" in tree or "synthesis.input.freqs" in tree)


def _is_discriminator(tree: Any) -> bool:
    return isinstance(tree, Mapping) and "b4.out.weight" in tree


def _is_network(tree: Any) -> bool:
    return _is_generator(tree) or _is_discriminator(tree)


def matches(tree: Any) -> bool:
    """Tell whether a tree is a state dict with NVIDIA's names of StyleGAN 2 or 3, or several by role."""
    if not isinstance(tree, Mapping):
        return False
    return _is_network(tree) or any(_is_network(tree.get(role)) for role in ROLES)


def _inferred(tensors: Mapping[str, Tensor]) -> Recipe:
    if _is_discriminator(tensors):
        return Recipe(DISCRIMINATOR, discriminator_kwargs(tensors))
    if "synthesis.input.freqs" in tensors:
        return Recipe(ALIAS_FREE, alias_free_kwargs(tensors))
    return Recipe(GENERATOR, generator_kwargs(tensors))


def _found(tree: Any, given: Any) -> Found:
    """Take a state dict with the arguments that are `given` beside it, or with those that it tells."""
    tensors = state_of(tree, "the state dict")
    if given is None:
        return Found(_inferred(tensors), tensors, (UNKNOWN,))
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        refuse("its arguments are not readable")
    alias_free = "synthesis.input.freqs" in tensors
    net = DISCRIMINATOR if _is_discriminator(tensors) else ALIAS_FREE if alias_free else GENERATOR
    return Found(Recipe(net, given), tensors)


def read(tree: Any) -> Checkpoint:
    """Read a state dict, or several by role, as `to_tree` writes them.

    Raises:
        WeightsError: names or shapes are those of no StyleGAN 2 or 3.
    """
    if _is_network(tree):
        tree = {"D" if _is_discriminator(tree) else "G_ema": tree}
    given = tree.get(ARGUMENTS, {})
    if not isinstance(given, Mapping):
        refuse("its arguments are not readable")
    networks = {role: _found(tree[role], given.get(role)) for role in ROLES if role in tree}
    return Checkpoint("state dict with NVIDIA's names", networks)


def _settings(recipe: Recipe, num_tensors: int) -> dict[str, dict[str, Any]]:
    """Return what a network's modules know beside tensors, by path: networks of equal settings compute the same."""
    net = expected_net("the network", recipe, num_tensors)
    return {
        path: {name: value for name, value in vars(module).items() if isinstance(value, SETTING)}
        for path, module in net.named_modules()
    }


def _tells_itself(found: Found) -> bool:
    """Say whether a network's arguments all follow from its tensors."""
    try:
        recipes = (found.recipe, _inferred(found.tensors))
        settings, inferred = (_settings(recipe, len(found.tensors)) for recipe in recipes)
    except WeightsError:
        return False
    return settings == inferred


def to_tree(networks: Mapping[str, Found]) -> dict[str, Any]:
    """Return what a file of plain data holds: the state dict of one network, or those of several by role.

    A network whose arguments do not all follow from its tensors goes by its role, too, with them beside it.

    Raises:
        InputError: a network has no names of NVIDIA's.
    """
    for found in networks.values():
        if found.recipe.net not in (GENERATOR, ALIAS_FREE, DISCRIMINATOR):
            raise InputError(f"NVIDIA has no names for a {found.recipe.net}", hint="write it as safetensors")
    trees = {role: dict(found.tensors) for role, found in networks.items()}
    told = {role: dict(found.recipe.kwargs) for role, found in networks.items() if not _tells_itself(found)}
    if told:
        return trees | {ARGUMENTS: told}
    return next(iter(trees.values())) if len(trees) == 1 else trees
