"""StyleGAN as lernapparat ported it to PyTorch: one state dict, whose layers are named after the first code's.

Its normalisation adds more to the variance than the first code does, and it keeps neither noise nor average latent.

Source: the names are those of github.com/lernapparat/lernapparat, style_gan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from mien.weights.checkpoint import Checkpoint
from mien.weights.tables import refuse, state_of
from mien.weights.tf_names import Dialect, read_stylegan1

__all__ = ["matches", "read"]

NORM_EPS = 1e-5
BLUR = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
LAYERS = {"Const": "epi1", "Conv": "epi2", "Conv0_up": "epi1", "Conv1": "epi2"}
CONVS = {"Const": "", "Conv": ".conv", "Conv0_up": ".conv0_up", "Conv1": ".conv1"}
PARTS = {"Noise": "top_epi.noise", "StyleMod": "style_mod.lin"}


def _name(variable: str) -> str:
    """TensorFlow's name of a variable => the one here.

    >>> _name("8x8/Conv0_up/StyleMod/bias")
    'g_synthesis.blocks.8x8.epi1.style_mod.lin.bias'
    """
    if found := re.fullmatch(r"Dense(\d+)/(weight|bias)", variable):
        return f"g_mapping.dense{found[1]}.{found[2]}"
    if found := re.fullmatch(r"ToRGB_lod0/(weight|bias)", variable):
        return f"g_synthesis.torgb.{found[1]}"
    if found := re.fullmatch(r"(\d+x\d+)/(\w+)/(\w+)/(\w+)", variable):
        return f"g_synthesis.blocks.{found[1]}.{LAYERS[found[2]]}.{PARTS[found[3]]}.{found[4]}"
    if found := re.fullmatch(r"(\d+x\d+)/(\w+)/(\w+)", variable):
        return f"g_synthesis.blocks.{found[1]}{CONVS[found[2]]}.{found[3]}"
    return variable


DIALECT = Dialect(name=_name)


def matches(tree: Any) -> bool:
    """Tell whether a tree is such a state dict."""
    if not isinstance(tree, Mapping):
        return False
    names = ("g_mapping.dense0.weight", "g_synthesis.torgb.weight", "g_synthesis.blocks.4x4.const")
    return sum(name in tree or f"module.{name}" in tree for name in names) >= 2


def read(tree: Any) -> Checkpoint:
    """Read a state dict of these.

    Raises:
        WeightsError: names or shapes are others, or it blurs with another filter.
    """
    state = state_of(tree, "the state dict")
    blurs = {name: state.pop(name) for name in list(state) if name.endswith(".intermediate.kernel")}
    if any(blur.shape != (1, 1, 3, 3) or not torch.equal(blur[0, 0], BLUR) for blur in blurs.values()):
        refuse("it blurs with another filter than [1, 2, 1]", hint="it is a variant that mien does not know")
    found = read_stylegan1(DIALECT, state, synthesis_kwargs={"norm_eps": NORM_EPS})
    return Checkpoint("lernapparat", {"G_ema": found})
