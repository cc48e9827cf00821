"""Networks that judge pictures, in the files that their publishers give: state dicts under known names.

VGG16, VGG19 and AlexNet as torchvision has them, ArcFace IR-SE50 of InsightFace_Pytorch, Inception-v3 of pytorch-fid,
and LPIPS, whose file holds the heads alone: its trunk is one of the others.

Source: the names are those of github.com/pytorch/vision, TreB1eN/InsightFace_Pytorch, mseitzer/pytorch-fid and
richzhang/PerceptualSimilarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mien.errors import WeightsError
from mien.nets.lpips import LPIPS, TRUNKS
from mien.nets.vgg import DEPTHS, Trunk
from mien.weights.build import build
from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.unpickle import read_tree

__all__ = ["load_judge", "load_lpips", "matches", "read"]

FIRST_CONV = "features.0.weight"
SIGNS = {
    "input_layer.0.weight": ("InsightFace_Pytorch", "arcface.ArcFace"),
    "Conv2d_1a_3x3.conv.weight": ("pytorch-fid", "inception.Inception"),
}
"""A tensor that a file has => the format's name, and the network."""

HEADS = "lin0.model.1.weight"
COUNTER = "num_batches_tracked"  # of every batch norm; files of before torch 0.4.1 lack it, and nobody needs it
CLASSIFIER = "classifier."


def _state(tree: Any) -> dict[str, Tensor]:
    """Return the tensors of a bare state dict, by name; empty for anything else."""
    if not isinstance(tree, Mapping) or not all(isinstance(name, str) for name in tree):
        return {}
    return dict(tree) if all(isinstance(value, Tensor) for value in tree.values()) else {}


def _counted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give every batch norm its counter."""
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return {f"{norm}{COUNTER}": torch.tensor(0) for norm in norms} | state


def _torchvision(state: dict[str, Tensor]) -> Recipe:
    """Tell the networks of plain convolutions apart by their first layer and their number."""
    if state[FIRST_CONV].shape[-1] == 11:
        return Recipe("vgg.AlexNet", {})
    num_convs = sum(name.startswith("features.") and name.endswith(".weight") for name in state)
    depths = [depth for depth, blocks in DEPTHS.items() if sum(blocks) == num_convs]
    if not depths:
        raise WeightsError(f"a VGG of {num_convs} convolutions", hint="mien knows VGG16 and VGG19 without batch norm")
    return Recipe("vgg.VGG", {"depth": depths[0], "with_classifier": f"{CLASSIFIER}0.weight" in state})


def matches(tree: Any) -> bool:
    """Tell whether a tree is one of these files."""
    state = _state(tree)
    return any(sign in state for sign in (FIRST_CONV, HEADS, *SIGNS))


def read(tree: Any) -> Checkpoint:
    """Name the network of such a file.

    Raises:
        WeightsError: it is a relative of one of these networks, but none of them, or the heads of LPIPS alone.
    """
    state = _state(tree)
    if HEADS in state:
        hint = "they weigh the maps of another network; mien.judges puts both together"
        raise WeightsError("it holds the heads of LPIPS, which are no network by themselves", hint=hint)
    for sign, (format_name, net) in SIGNS.items():
        if sign in state:
            return Checkpoint(format_name, {"net": Found(Recipe(net, {}), _counted(state))})
    recipe = _torchvision(state)
    if recipe.net == "vgg.AlexNet":
        state = _without_classifier(state)
    return Checkpoint("torchvision", {"net": Found(recipe, state)})


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(CLASSIFIER)}


def _read_file(path: Path) -> Found:
    tree = read_tree(path)
    if not matches(tree):
        raise WeightsError(f"{path.name} holds none of the networks that judge pictures", hint="get the file again")
    return read(tree).networks["net"]


def load_judge(path: Path, kind: type[nn.Module], *, with_classifier: bool = False) -> nn.Module:
    """Load a network from the file that its publisher gives: on the CPU, for evaluation, without gradients.

    Args:
        path: the file.
        kind: the class that the caller needs.
        with_classifier: keep the full layers of a VGG.

    Raises:
        WeightsError: the file is damaged, foreign, or holds another network.
    """
    found = _read_file(path)
    if found.recipe.kwargs.get("with_classifier") and not with_classifier:
        recipe = Recipe(found.recipe.net, {**found.recipe.kwargs, "with_classifier": False})
        found = Found(recipe, _without_classifier(found.tensors))
    net = build(found, path.name).net
    if not isinstance(net, kind):
        raise WeightsError(f"{path.name} holds a {type(net).__name__}, not a {kind.__name__}", hint="give another file")
    return net


def load_lpips(trunk: str, trunk_file: Path, heads_file: Path) -> LPIPS:
    """Put LPIPS together from the file of its trunk and the file of its heads.

    Args:
        trunk: `vgg16` or `alexnet`.
        trunk_file: torchvision's.
        heads_file: the published heads, version 0.1.

    Raises:
        WeightsError: one of them is damaged or foreign, or they do not belong together.
    """
    net = LPIPS(trunk=trunk)
    body = load_judge(trunk_file, TRUNKS[trunk][0])
    assert isinstance(body, Trunk)
    heads = _state(read_tree(heads_file))
    tensors = {f"net.{name}": tensor for name, tensor in body.state_dict().items()} | heads
    loaded = build(Found(Recipe("lpips.LPIPS", net.init_kwargs), tensors), heads_file.name).net
    assert isinstance(loaded, LPIPS)
    return loaded
