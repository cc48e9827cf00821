"""Genforce's StyleGAN and StyleGAN2: the first code's variables under other names, their convolutions not mirrored.

A converted file is a dict of networks (`generator`, `discriminator`, `generator_smooth`); its trainer keeps the same
under `models`, beside optimizers and statistics. StyleGAN's discriminator is left out.

Source: the names are those of github.com/genforce/genforce, models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from mien.weights.checkpoint import Checkpoint, Found
from mien.weights.tables import count, refuse, state_of
from mien.weights.tf_names import Dialect, read_discriminator, read_stylegan1, read_stylegan2

__all__ = ["discriminator_name", "matches", "read", "stylegan1_name", "stylegan2_name"]

KEYS = {"generator_smooth": "G_ema", "generator": "G", "discriminator": "D"}
GENERATORS = ("generator_smooth", "generator")
FILTERS = (".kernel",)  # of resampling, constants

OUTER = {"dlatent_avg": "truncation.w_avg", "LabelConcat/weight": "mapping.label_weight", "lod": "synthesis.lod"}


def _renamed(rules: Mapping[str, Callable[[re.Match[str]], str]], variable: str) -> str:
    for pattern, name in rules.items():
        if found := re.fullmatch(pattern, variable):
            return name(found)
    return variable


def _level(side: str) -> int:
    """Number of the block of a side: 0 at 4 px."""
    return int(side).bit_length() - 3


def stylegan1_name(img_resolution: int, variable: str) -> str:
    """TensorFlow's name of a variable of StyleGAN's generator => the one here.

    >>> stylegan1_name(16, "8x8/Conv0_up/StyleMod/bias")
    'synthesis.layer2.style.bias'
    """
    idx = {"Const": 0, "Conv0_up": 0, "Conv": 1, "Conv1": 1}
    parts = {"StyleMod": "style", "Noise": "apply_noise"}
    top = _level(str(img_resolution))
    return OUTER.get(variable) or _renamed(
        {
            r"Dense(\d+)/(\w+)": lambda m: f"mapping.dense{m[1]}.{m[2]}",
            r"ToRGB_lod(\d+)/(\w+)": lambda m: f"synthesis.output{top - int(m[1])}.{m[2]}",
            r"noise(\d+)": lambda m: f"synthesis.layer{m[1]}.apply_noise.noise",
            r"(\d+)x\d+/(\w+)/(\w+)": lambda m: f"synthesis.layer{2 * _level(m[1]) + idx[m[2]]}.{m[3]}",
            r"(\d+)x\d+/(\w+)/(\w+)/(\w+)": lambda m: (
                f"synthesis.layer{2 * _level(m[1]) + idx[m[2]]}.{parts[m[3]]}.{m[4]}"
            ),
        },
        variable,
    )


def stylegan2_name(variable: str) -> str:
    """TensorFlow's name of a variable of StyleGAN2's generator => the one here.

    >>> stylegan2_name("8x8/Conv0_up/mod_bias")
    'synthesis.layer1.style.bias'
    """
    idx = {"Conv": 0, "Conv0_up": -1, "Conv1": 0}

    def part(name: str) -> str:
        return name.replace("mod_", "style.")

    return OUTER.get(variable) or _renamed(
        {
            r"Dense(\d+)/(\w+)": lambda m: f"mapping.dense{m[1]}.{m[2]}",
            r"4x4/Const/const": lambda _: "synthesis.early_layer.const",
            r"noise(\d+)": lambda m: f"synthesis.layer{m[1]}.noise",
            r"(\d+)x\d+/ToRGB/(\w+)": lambda m: f"synthesis.output{_level(m[1])}.{part(m[2])}",
            r"(\d+)x\d+/(Conv\w*)/(\w+)": lambda m: f"synthesis.layer{2 * _level(m[1]) + idx[m[2]]}.{part(m[3])}",
        },
        variable,
    )


def discriminator_name(img_resolution: int, variable: str) -> str:
    """TensorFlow's name of a variable of StyleGAN2's discriminator => the one here; layers count from the picture.

    >>> discriminator_name(16, "8x8/Conv1_down/weight")
    'layer3.weight'
    """
    top = _level(str(img_resolution))
    idx = {"Conv": 0, "Conv0": 0, "Conv1_down": 1, "Dense0": 1}
    return _renamed(
        {
            r"Output/(\w+)": lambda m: f"layer{2 * top + 2}.{m[1]}",
            r"LabelEmbed/(\w+)": lambda m: f"LabelEmbed.{m[1]}",
            r"(\d+)x\d+/FromRGB/(\w+)": lambda m: f"input{top - _level(m[1])}.{m[2]}",
            r"(\d+)x\d+/Skip/(\w+)": lambda m: f"skip_layer{top - _level(m[1])}.{m[2]}",
            r"(\d+)x\d+/(\w+)/(\w+)": lambda m: f"layer{2 * (top - _level(m[1])) + idx[m[2]]}.{m[3]}",
        },
        variable,
    )


# ---- Reading --------------------------------------------------------------------------------------------------------


def _is_generator(tree: Any) -> bool:
    if not isinstance(tree, Mapping):
        return False
    names = ("mapping.dense0.weight", "truncation.w_avg", "synthesis.layer0.bias", "synthesis.output0.bias")
    return sum(name in tree or f"module.{name}" in tree for name in names) >= 2


def _networks(tree: Any) -> Mapping[str, Any]:
    """Return networks by key; a lone generator counts as the average one."""
    if _is_generator(tree):
        return {"generator_smooth": tree}
    tree = tree.get("models", tree) if isinstance(tree, Mapping) else {}
    if not isinstance(tree, Mapping) or not any(_is_generator(tree.get(key)) for key in GENERATORS):
        return {}
    return {key: tree[key] for key in KEYS if tree.get(key) is not None}


def matches(tree: Any) -> bool:
    """Tell whether a tree is such a file, or one of its generators."""
    return bool(_networks(tree))


def _generator(state: Mapping[str, Tensor]) -> Found:
    num_layers = count(state, r"synthesis\.layer(\d+)\.")
    if "synthesis.layer0.const" in state:
        name = partial(stylegan1_name, 2 << max(num_layers // 2, 1))
        return read_stylegan1(Dialect(name=name), state)
    return read_stylegan2(Dialect(name=stylegan2_name), state)


def _is_stylegan2(state: Mapping[str, Tensor]) -> bool:
    return "synthesis.early_layer.const" in state


def _discriminator(state: Mapping[str, Tensor]) -> Found:
    num_blocks = (count(state, r"layer(\d+)\.") - 1) // 2
    if num_blocks < 2:
        refuse("discriminator: tensors are missing: layer3.weight")
    return read_discriminator(Dialect(name=partial(discriminator_name, 4 << (num_blocks - 1))), state)


def read(tree: Any) -> Checkpoint:
    """Read a file of these, converted or from the trainer.

    Raises:
        WeightsError: names or shapes are others.
    """
    states = {
        key: {name: value for name, value in state_of(state, key).items() if not name.endswith(FILTERS)}
        for key, state in _networks(tree).items()
    }
    generators = {KEYS[key]: _generator(state) for key, state in states.items() if key != "discriminator"}
    if "discriminator" in states and any(map(_is_stylegan2, states.values())):
        return Checkpoint("genforce", generators | {"D": _discriminator(states["discriminator"])})
    return Checkpoint("genforce", generators)
