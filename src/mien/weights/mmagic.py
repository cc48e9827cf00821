"""StyleGAN2 of mmagic and mmgeneration: rosinality's networks under other names, and pictures that may be BGR.

One state dict holds `generator.*`, `generator_ema.*` and `discriminator.*`; `meta` may hold the configuration, as text.

Source: the names are those of github.com/open-mmlab/mmagic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mien.weights.checkpoint import Checkpoint, Found
from mien.weights.rosinality import read_discriminator, read_generator
from mien.weights.tables import state_of

__all__ = ["matches", "read"]

ROLES = {"generator_ema": "G_ema", "generator": "G", "discriminator": "D"}
RENAMES = (
    (r"^style_mapping\.", "style."),
    (r"^constant_input\.weight$", "input.input"),
    (r"^injected_noise_(\d+)$", r"noises.noise_\1"),
    (r"\.style_modulation\.", ".modulation."),
    (r"\.noise_injector\.weight$", ".noise.weight"),
    (r"\.linear\.weight_orig$", ".weight"),
    (r"^((?:conv1|convs\.\d+|to_rgb1|to_rgbs\.\d+)\.conv)\.weight_orig$", r"\1.weight"),
    (r"\.conv\.weight_orig$", ".weight"),
)
"""A name of theirs => of rosinality's, one rule after the other."""

SWAPPED = "its pictures were BGR, as its configuration says: the colours are swapped to RGB"
UNSAID = "the file does not say the order of its colours: taken as RGB"
MAX_CONFIG = 1 << 20  # characters that are looked through


def _renamed(name: str) -> str:
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _parts(tree: Any) -> dict[str, dict[str, Any]]:
    """Split a state dict into networks by the first part of its names."""
    state = tree.get("state_dict", tree) if isinstance(tree, Mapping) else None
    parts: dict[str, dict[str, Any]] = {}
    if isinstance(state, Mapping):
        for name, value in state.items():
            head, _, rest = str(name).removeprefix("module.").partition(".")
            if head in ROLES:
                parts.setdefault(head, {})[rest] = value
    return parts


def matches(tree: Any) -> bool:
    """Tell whether a tree is a file of this family."""
    marks = ("constant_input.weight", "style_mapping.1.linear.weight_orig", "conv1.conv.weight_orig")
    return any(sum(mark in part for mark in marks) >= 2 for part in _parts(tree).values())


def _is_bgr(meta: Any) -> bool | None:
    """Tell what the configuration says of the order of colours; None for nothing."""
    text = repr(meta)[:MAX_CONFIG] if not isinstance(meta, str) else meta[:MAX_CONFIG]
    said = re.findall(r"(?<![a-z_])(bgr2rgb|rgb2bgr)\\?['\"]?\s*[=:]\s*(true|false)", text, re.IGNORECASE)
    if ("bgr2rgb", "true") in [(key.lower(), value.lower()) for key, value in said]:
        return True
    return False if said else None


def _swapped(found: Found) -> Found:
    """Turn a generator's colours round."""
    turn = re.compile(r"\.torgb\.(weight|bias)$")
    tensors: dict[str, Tensor] = {
        name: tensor.flip(0) if turn.search(name) else tensor for name, tensor in found.tensors.items()
    }
    return replace(found, tensors=tensors, notes=(*found.notes, SWAPPED))


def _read_generator(part: dict[str, Any], is_bgr: bool | None) -> Found:
    state = {_renamed(name): tensor for name, tensor in state_of(part, "generator").items()}
    found = read_generator(state, state.pop("w_avg", None))
    if is_bgr:
        return _swapped(found)
    return found if is_bgr is False else replace(found, notes=(*found.notes, UNSAID))


def read(tree: Any) -> Checkpoint:
    """Read a file of this family; a generator whose configuration says BGR comes out as RGB, with a note.

    Raises:
        WeightsError: names or shapes are not those of this family.
    """
    is_bgr = _is_bgr([tree.get("meta"), tree.get("message_hub"), tree.get("cfg")])
    networks: dict[str, Found] = {}
    for head, part in _parts(tree).items():
        if head == "discriminator":
            state = {_renamed(name): tensor for name, tensor in state_of(part, "discriminator").items()}
            networks["D"] = read_discriminator(state)
        else:
            networks[ROLES[head]] = _read_generator(part, is_bgr)
    return Checkpoint("mmagic", networks)
