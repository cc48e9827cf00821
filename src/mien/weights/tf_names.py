"""StyleGAN 1 and 2 under the names of their first code's TensorFlow variables, which several formats follow.

One table for each network says where a variable belongs here and how it changes on the way. A `Dialect` is what a
family of files makes of it: its names for the variables, its order of axes. Sizes, depth, architecture and classes
follow from names and shapes.

Source: the variables are those of github.com/NVlabs/stylegan, stylegan2 and stylegan2-ada.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from mien.nets.layers import FIR
from mien.nets.ops import setup_filter
from mien.weights.build import expected_net
from mien.weights.checkpoint import Found, Recipe
from mien.weights.nvidia_names import channel_kwargs, discriminator_kwargs, generator_kwargs
from mien.weights.tables import SAME, Change, Entry, refuse, to_ours

__all__ = [
    "Dialect",
    "discriminator_table",
    "read_discriminator",
    "read_stylegan1",
    "read_stylegan2",
    "stylegan1_table",
    "stylegan2_table",
]

FIRST = Change(lambda x: x[0], lambda x: x[None], 4, (0,))
NOISE = Change(lambda x: x[0, 0], lambda x: x[None, None], 4, (0, 1))
TRANSPOSED = Change(lambda x: x.T, lambda x: x.T, 2)
PLUS_ONE = Change(lambda x: x + 1, lambda x: x - 1, 1)
VECTOR = Change(SAME.to_ours, SAME.to_theirs, 1)
NUMBER = Change(SAME.to_ours, SAME.to_theirs, 0)
MATRIX = Change(SAME.to_ours, SAME.to_theirs, 2)
KERNEL = Change(SAME.to_ours, SAME.to_theirs, 4)
MIRRORED = Change(lambda x: x.flip(2, 3), lambda x: x.flip(2, 3), 4)
NO_NOISE = "the file has no constant noise: it is drawn with a fixed seed"
COLOURS, PARTS = ("ToRGB", "FromRGB"), ("weight", "bias", "mod_weight", "mod_bias")
MAX_SIDE = 1 << 11  # larger pictures were never learned; a file may only claim them
MAX_CLASSES = 1 << 11


@dataclass(frozen=True)
class Dialect:
    """How files of one kind write these networks.

    Attributes:
        name: a variable's name in TensorFlow => in the file.
        linear: weights of linear layers.
        conv: weights of convolutions.
        mirrored: weights of those that double the resolution in StyleGAN2, which are convolved there and correlated
            here.
    """

    name: Callable[[str], str]
    linear: Change = MATRIX
    conv: Change = KERNEL
    mirrored: Change = MIRRORED

    def entry(self, variable: str, ours: str, change: Change, *, is_needed: bool = True) -> Entry:
        """Return the table's line for a variable."""
        return Entry(self.name(variable), ours, change, is_needed)

    def has(self, state: Mapping[str, Any], variable: str) -> bool:
        """Tell whether a file holds a variable."""
        return self.name(variable) in state

    def resolution(self, state: Mapping[str, Any], layer: str) -> int:
        """Return the side of the last block from 8 px on that has `layer`, or 4."""
        sides = (8 << i for i in range(MAX_SIDE.bit_length() - 3))
        return max(takewhile(lambda side: self.has(state, f"{side}x{side}/{layer}/weight"), sides), default=4)

    def num_layers(self, state: Mapping[str, Any], layer: str) -> int:
        """Count layers that are numbered from 0."""
        return sum(1 for _ in takewhile(lambda i: self.has(state, f"{layer}{i}/weight"), range(len(state))))


def _layer(d: Dialect, variable: str, ours: str, weight: Change) -> list[Entry]:
    return [
        d.entry(f"{variable}/weight", f"{ours}.weight", weight),
        d.entry(f"{variable}/bias", f"{ours}.bias", VECTOR),
    ]


def _linear(d: Dialect, variable: str, ours: str) -> list[Entry]:
    return _layer(d, variable, ours, d.linear)


def _conv(d: Dialect, variable: str, ours: str) -> list[Entry]:
    return _layer(d, variable, ours, d.conv)


def _mapping(d: Dialect, state: Mapping[str, Any]) -> list[Entry]:
    table = [d.entry("dlatent_avg", "mapping.w_avg", VECTOR, is_needed=False)]
    for i in range(d.num_layers(state, "Dense")):
        table += _linear(d, f"Dense{i}", f"mapping.fc{i}")
    if d.has(state, "LabelConcat/weight"):
        table.append(d.entry("LabelConcat/weight", "mapping.embed.weight", TRANSPOSED))
    elif d.has(state, "LabelEmbed/weight"):
        table += _linear(d, "LabelEmbed", "mapping.embed")
    return table


def _mapping_kwargs(tensors: Mapping[str, Tensor], num_layers: int) -> dict[str, Any]:
    """What shapes tell of a mapping of at least one layer."""
    if num_layers == 0:
        refuse("generator: its mapping has no layers")
    w_dim, hidden = len(tensors[f"mapping.fc{num_layers - 1}.bias"]), len(tensors["mapping.fc0.bias"])
    return {"num_layers": num_layers} | ({} if hidden == w_dim else {"layer_features": hidden})


def _drawn(noise: Mapping[str, int]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(side, side, generator=random) for name, side in noise.items()}


def _with_filters(recipe: Recipe, tensors: Mapping[str, Tensor], taps: Sequence[float]) -> dict[str, Tensor]:
    """Add the filters of resampling, which are constants and in no file of these families.

    Layers that resample nothing hold one too, the usual one.
    """
    expected = expected_net("the file", recipe, len(tensors)).state_dict()
    fir, usual = setup_filter(taps), setup_filter(FIR)
    shapes = {name: like.shape for name, like in expected.items() if name.endswith("resample_filter")}
    return {**tensors, **{name: fir if shape == fir.shape else usual for name, shape in shapes.items()}}


# ---- StyleGAN -------------------------------------------------------------------------------------------------------


def _layers1(img_resolution: int) -> list[tuple[str, str, int]]:
    """Each layer's variables, its name here, its side."""
    sides = [4 << i for i in range(img_resolution.bit_length() - 2)]
    names = {4: ("Const", "Conv")}
    return [
        (f"{side}x{side}/{variable}", f"synthesis.b{side}.layer{i}", side)
        for side in sides
        for i, variable in enumerate(names.get(side, ("Conv0_up", "Conv1")))
    ]


def stylegan1_table(d: Dialect, state: Mapping[str, Any], img_resolution: int, lod: int = 0) -> list[Entry]:
    """Return the names of a generator.

    Args:
        d: how the file writes it.
        state: what is in the file; only its names are looked at.
        img_resolution: side of the last block that is used.
        lod: how many blocks come after it, in a network that was still growing.
    """
    table = _mapping(d, state)
    for k, (variable, ours, side) in enumerate(_layers1(img_resolution)):
        if variable == "4x4/Const":
            table.append(d.entry(f"{variable}/const", f"synthesis.b{side}.const", FIRST))
            table.append(d.entry(f"{variable}/bias", f"{ours}.bias", VECTOR))
        else:
            table += _conv(d, variable, ours)
        table += _linear(d, f"{variable}/StyleMod", f"{ours}.affine")
        table.append(d.entry(f"{variable}/Noise/weight", f"{ours}.noise_strength", VECTOR))
        table.append(d.entry(f"noise{k}", f"{ours}.noise_const", NOISE, is_needed=False))
    return table + _conv(d, f"ToRGB_lod{lod}", "synthesis.torgb")


def _unused(d: Dialect, whole: Sequence[Entry], used: Sequence[Entry]) -> set[str]:
    """Names of what a network that can grow has beyond what it uses: colours of other sizes, later blocks, its size."""
    stages = range(MAX_SIDE.bit_length())
    colours = {d.name(f"{layer}_lod{i}/{part}") for layer in COLOURS for i in stages for part in PARTS}
    return ({entry.theirs for entry in whole} | colours | {d.name("lod")}) - {entry.theirs for entry in used}


@dataclass(frozen=True)
class _Stage:
    """How far a network has grown: the side of its last block, the side that it uses, the number of blocks between."""

    whole: int
    side: int
    lod: int
    notes: tuple[str, ...] = ()


def _stage(d: Dialect, state: Mapping[str, Tensor], layer: str) -> _Stage:
    """Find the stage of a network whose blocks have `layer`; what never grew uses all of it."""
    whole, held = d.resolution(state, layer), state.get(d.name("lod"))
    if held is None:
        return _Stage(whole, whole, 0)
    lod = float(held) if held.numel() == 1 else math.nan
    if not 0 <= lod <= whole.bit_length() - 3:
        refuse(f"its level of detail is {lod}, with pictures of {whole} px")
    if lod != int(lod):
        hint = "take a snapshot from before or after it"
        refuse(f"it was written while growing from one size to the next (level of detail {lod:.2f})", hint=hint)
    side = whole >> int(lod)
    notes = (f"it had grown to {side} of {whole} px: read as a network of that size",) if lod else ()
    return _Stage(whole, side, int(lod), notes)


Table = Callable[[Dialect, Mapping[str, Any], int, int], list[Entry]]
"""The names of a network of some side at some level of detail, as `stylegan1_table` gives them."""


def _grown(
    d: Dialect, state: Mapping[str, Tensor], table: Table, what: str, *, last: str
) -> tuple[_Stage, dict[str, Tensor]]:
    """Return how far a network had grown, by the layer `last` of its blocks, and the tensors that it uses then."""
    stage = _stage(d, state, last)
    used = table(d, state, stage.side, stage.lod)
    unused = _unused(d, table(d, state, stage.whole, 0), used)
    return stage, to_ours(used, {name: tensor for name, tensor in state.items() if name not in unused}, what)


def read_stylegan1(
    d: Dialect,
    state: Mapping[str, Tensor],
    *,
    mapping_kwargs: Mapping[str, Any] | None = None,
    synthesis_kwargs: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Found:
    """Read StyleGAN's generator.

    Args:
        d: how the file writes it.
        state: names and tensors of the file.
        mapping_kwargs: what is known of the mapping beyond shapes.
        synthesis_kwargs: the same of the synthesis network.
        provenance: facts for the recipe.

    Raises:
        WeightsError: names or shapes are of no such network, or it was written between two sizes.
    """
    stage, tensors = _grown(d, state, stylegan1_table, "generator", last="Conv1")
    side, notes = stage.side, stage.notes
    layers = [(f"{ours}.noise_const", res) for _, ours, res in _layers1(side)]
    if absent := {name: res for name, res in layers if name not in tensors}:
        tensors, notes = tensors | _drawn(absent), (*notes, NO_NOISE)
    mapping = _mapping_kwargs(tensors, d.num_layers(state, "Dense")) | dict(mapping_kwargs or {})
    embed = tensors.get("mapping.embed.weight")
    z_dim = tensors["mapping.fc0.weight"].shape[1]
    kwargs = dict(
        z_dim=z_dim if embed is None else z_dim // 2,
        c_dim=0 if embed is None else embed.shape[1],
        w_dim=len(tensors[f"mapping.fc{mapping['num_layers'] - 1}.bias"]),
        img_resolution=side,
        img_channels=len(tensors["synthesis.torgb.bias"]),
        mapping_kwargs=mapping,
        synthesis_kwargs=channel_kwargs({res: len(tensors[f"{ours}.bias"]) for _, ours, res in _layers1(side)})
        | dict(synthesis_kwargs or {}),
    )
    return Found(Recipe("stylegan1.Generator", kwargs, provenance or {}), tensors, notes)


# ---- StyleGAN2 ------------------------------------------------------------------------------------------------------


def _styled(d: Dialect, variable: str, ours: str, conv: Change) -> list[Entry]:
    return [
        *_layer(d, variable, ours, conv),
        d.entry(f"{variable}/mod_weight", f"{ours}.affine.weight", d.linear),
        d.entry(f"{variable}/mod_bias", f"{ours}.affine.bias", PLUS_ONE),
    ]


def _noisy(d: Dialect, variable: str, ours: str, conv: Change, idx: int, use_noise: bool) -> list[Entry]:
    return [
        *_styled(d, variable, ours, conv),
        d.entry(f"{variable}/noise_strength", f"{ours}.noise_strength", NUMBER, is_needed=use_noise),
        d.entry(f"noise{idx}", f"{ours}.noise_const", NOISE, is_needed=use_noise),
    ]


def stylegan2_table(d: Dialect, state: Mapping[str, Any], img_resolution: int, lod: int = 0) -> list[Entry]:
    """Return the names of a generator, whichever its architecture; arguments as of `stylegan1_table`."""
    use_noise = d.has(state, "4x4/Conv/noise_strength")
    table = [
        *_mapping(d, state),
        d.entry("4x4/Const/const", "synthesis.b4.const", FIRST),
        *_noisy(d, "4x4/Conv", "synthesis.b4.conv1", d.conv, 0, use_noise),
    ]
    for i in range(1, img_resolution.bit_length() - 2):
        side = 4 << i
        variable, ours = f"{side}x{side}", f"synthesis.b{side}"
        table += _noisy(d, f"{variable}/Conv0_up", f"{ours}.conv0", d.mirrored, 2 * i - 1, use_noise)
        table += _noisy(d, f"{variable}/Conv1", f"{ours}.conv1", d.conv, 2 * i, use_noise)
        if d.has(state, f"{variable}/Skip/weight"):
            table.append(d.entry(f"{variable}/Skip/weight", f"{ours}.skip.weight", d.mirrored))
        if d.has(state, f"{variable}/ToRGB/weight"):
            table += _styled(d, f"{variable}/ToRGB", f"{ours}.torgb", d.conv)
    if d.has(state, "4x4/ToRGB/weight"):
        table += _styled(d, "4x4/ToRGB", "synthesis.b4.torgb", d.conv)
    if d.has(state, f"ToRGB_lod{lod}/weight"):
        table += _styled(d, f"ToRGB_lod{lod}", f"synthesis.b{img_resolution}.torgb", d.conv)
    return table


def read_stylegan2(
    d: Dialect,
    state: Mapping[str, Tensor],
    *,
    mapping_kwargs: Mapping[str, Any] | None = None,
    synthesis_kwargs: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Found:
    """Read StyleGAN2's generator of any architecture; arguments as of `read_stylegan1`, filter taps among them.

    Raises:
        WeightsError: names or shapes are of no such network, or it was written between two sizes.
    """
    stage, tensors = _grown(d, state, stylegan2_table, "generator", last="Conv1")
    if tensors["synthesis.b4.const"].shape[1:] != (4, 4):
        what = f"its pictures are not square: they grow from {list(tensors['synthesis.b4.const'].shape[1:])}"
        refuse(what, hint="mien knows networks that grow from 4x4 pixels")
    kwargs = generator_kwargs(tensors)
    kwargs["mapping_kwargs"] |= dict(mapping_kwargs or {})
    kwargs["synthesis_kwargs"] |= dict(synthesis_kwargs or {})
    recipe = Recipe("stylegan2.Generator", kwargs, provenance or {})
    taps = kwargs["synthesis_kwargs"].get("resample_filter", FIR)
    return Found(recipe, _with_filters(recipe, tensors, taps), stage.notes)


# ---- StyleGAN2's discriminator --------------------------------------------------------------------------------------


def discriminator_table(d: Dialect, state: Mapping[str, Any], img_resolution: int, lod: int = 0) -> list[Entry]:
    """Return the names of a discriminator, whichever its architecture; arguments as of `stylegan1_table`."""
    table = [*_conv(d, "4x4/Conv", "b4.conv"), *_linear(d, "4x4/Dense0", "b4.fc"), *_linear(d, "Output", "b4.out")]
    for i in range(img_resolution.bit_length() - 2):
        side = 4 << i
        variable, ours = f"{side}x{side}", f"b{side}"
        if side > 4:
            table += _conv(d, f"{variable}/Conv0", f"{ours}.conv0") + _conv(
                d, f"{variable}/Conv1_down", f"{ours}.conv1"
            )
        if d.has(state, f"{variable}/Skip/weight"):
            table.append(d.entry(f"{variable}/Skip/weight", f"{ours}.skip.weight", d.conv))
        if d.has(state, f"{variable}/FromRGB/weight"):
            table += _conv(d, f"{variable}/FromRGB", f"{ours}.fromrgb")
    if d.has(state, f"FromRGB_lod{lod}/weight"):
        table += _conv(d, f"FromRGB_lod{lod}", f"b{img_resolution}.fromrgb")
    if d.has(state, "LabelEmbed/weight"):
        table += _linear(d, "LabelEmbed", "mapping.embed")
    for i in range(d.num_layers(state, "Mapping")):
        table += _linear(d, f"Mapping{i}", f"mapping.fc{i}")
    return table


def _choosing(c_dim: int) -> dict[str, Tensor]:
    """Return a mapping of labels that lets the label choose among outputs, one for each class.

    Labels are embedded so long that normalising makes sqrt(n) times the label of them, and the projection divides by
    sqrt(n) again.
    """
    return {"mapping.embed.weight": c_dim * torch.eye(c_dim), "mapping.embed.bias": torch.zeros(c_dim)}


def read_discriminator(
    d: Dialect,
    state: Mapping[str, Tensor],
    *,
    epilogue_kwargs: Mapping[str, Any] | None = None,
    block_kwargs: Mapping[str, Any] | None = None,
    mapping_kwargs: Mapping[str, Any] | None = None,
    conv_clamp: float | None = None,
    num_fp16_res: int = 0,
) -> Found:
    """Read StyleGAN2's discriminator of any architecture.

    Args:
        d: how the file writes it.
        state: names and tensors of the file.
        epilogue_kwargs: what is known of the last block beyond shapes.
        block_kwargs: the same of the other blocks.
        mapping_kwargs: the same of the mapping of labels.
        conv_clamp: limit of feature maps.
        num_fp16_res: how many blocks its makers ran in half precision.

    Raises:
        WeightsError: names or shapes are of no such network, or it was written between two sizes.
    """
    stage, tensors = _grown(d, state, discriminator_table, "discriminator", last="Conv1_down")
    notes = stage.notes
    num_outputs = len(tensors["b4.out.bias"])
    if num_outputs > MAX_CLASSES:
        refuse(f"discriminator: it has {num_outputs} outputs")
    if num_outputs > 1 and "mapping.embed.weight" not in tensors:
        tensors |= _choosing(num_outputs)
        notes = (*notes, "the discriminator's labels have a single one, as its makers gave them")
    kwargs = discriminator_kwargs(tensors)
    kwargs |= dict(conv_clamp=conv_clamp, num_fp16_res=num_fp16_res, block_kwargs=dict(block_kwargs or {}))
    kwargs["epilogue_kwargs"] = kwargs.get("epilogue_kwargs", {}) | dict(epilogue_kwargs or {})
    if kwargs["c_dim"]:
        kwargs["mapping_kwargs"] |= dict(mapping_kwargs or {})
    recipe = Recipe("discriminator.Discriminator", kwargs)
    taps = kwargs["block_kwargs"].get("resample_filter", FIR)
    return Found(recipe, _with_filters(recipe, tensors, taps), notes)
