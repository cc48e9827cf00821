"""Generators as differences to another one: what training left as it was is not stored, the rest in few bits.

A file holds, for each tensor that changed, its difference to the base's, and in the header which base that is: its name
and the digest of its tensors. What a generator has grown beyond its base is held as it is. The file reads as the whole
network wherever mien reads one, and only with that very base, which lies beside it or comes with the package.

    exact   changed tensors themselves, float32: the same bits come back
    fp16    differences in half precision
    int8    differences in 8 bits, a scale for each row (the first axis); tensors of one axis stay in half precision

Source: absolute maximum quantisation per channel: Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mien.atomic import replacing
from mien.errors import InputError, MissingWeightsError
from mien.nets.generator import Generator
from mien.weights.build import refuse
from mien.weights.checkpoint import Base, Recipe
from mien.weights.native import (
    FORMAT,
    SUFFIX,
    as_half,
    is_safetensors,
    net_name,
    read_safetensors,
    read_safetensors_recipe,
)

__all__ = ["CODINGS", "check_coding", "save_difference", "tensors_digest", "whole"]

CODINGS = ("int8", "fp16", "exact")
SCALE = ".scale"  # ends the name of the scales [rows] of a tensor in 8 bits


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 of names, types, shapes and values, 64 hex digits; a header does not change it."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


# ---- Coding ---------------------------------------------------------------------------------------------------------


def _encoded(name: str, now: Tensor, before: Tensor, coding: str) -> dict[str, Tensor]:
    """What is stored of one tensor: nothing where it has not changed."""
    if torch.equal(now, before):
        return {}
    if coding == "exact" or not now.is_floating_point():
        return {name: now}
    difference = now - before
    if coding == "fp16" or difference.ndim < 2:
        return {name: as_half(name, difference)}
    rows = difference.flatten(1)
    scale = rows.abs().amax(1) / 127
    steps = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().clamp(-127, 127)
    return {name: steps.to(torch.int8).view(now.shape), name + SCALE: scale}


def _decoded(file: str, stored: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put what is stored on the base's tensors, float32."""
    tensors = dict(base)
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        if name not in base:  # what has grown; whether it belongs there is seen when the network is built
            tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
            continue
        if tensor.shape != base[name].shape:
            refuse(file, f"{name} {list(tensor.shape)} is no tensor of its base")
        if tensor.dtype == torch.int8 and base[name].is_floating_point():
            scale = stored.get(name + SCALE)
            if scale is None or scale.shape != tensor.shape[:1]:
                refuse(file, f"{name} has no scales")
            tensor = tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
            tensors[name] = base[name] + tensor
        elif tensor.dtype == torch.float16:
            tensors[name] = base[name] + tensor.float()
        else:
            tensors[name] = tensor
    return tensors


# ---- Files ----------------------------------------------------------------------------------------------------------


def check_coding(coding: str, base: Path | None = None) -> None:
    """Refuse a coding that is none, or a base to which no difference can be read again.

    Raises:
        InputError: it is not one of `CODINGS`, or the file is not a whole network in mien's own format.
    """
    if coding not in CODINGS:
        raise InputError(f"no coding named {coding!r}", hint=f"known: {', '.join(CODINGS)}")
    if base is None:
        return
    recipe = read_safetensors_recipe(base) if is_safetensors(base) else None
    if recipe is None or recipe.base is not None:
        hint = f"make it one: mien models convert {base.name} {base.stem}-whole{SUFFIX}"
        raise InputError(f"{base.name} cannot be a base: it is no whole network of mien", hint=hint)


def save_difference(
    G: Generator,
    path: str | Path,
    *,
    base: Generator,
    base_name: str,
    coding: str = "int8",
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a generator as its difference to `base`; the old file stays as it is until the new one is whole.

    Args:
        G: the generator.
        path: file to make or replace.
        base: a generator built alike, or one from which it has grown.
        base_name: under which it is found again: that of a bundled network, or the stem of a file that will lie beside.
        coding: one of `CODINGS`.
        provenance: facts about the weights that JSON can hold.

    Raises:
        InputError: an unknown coding, two generators that are built differently, or differences beyond 16 bits.
    """
    check_coding(coding)
    smaller = G.init_kwargs | {"img_resolution": base.img_resolution}
    if type(G) is not type(base) or smaller != base.init_kwargs or G.img_resolution < base.img_resolution:
        hint = "give the generator that it was trained from, or save it whole"
        raise InputError(f"it is built differently from {base_name}", hint=hint)
    now, before = ({k: t.detach().cpu() for k, t in cast(nn.Module, net).state_dict().items()} for net in (G, base))
    stored: dict[str, Tensor] = {}
    for name, tensor in now.items():
        if name in before:
            stored |= _encoded(name, tensor.contiguous(), before[name], coding)
        else:
            stored[name] = tensor.contiguous() if coding == "exact" else as_half(name, tensor)
    recipe = {
        "format": FORMAT,
        "net": net_name(cast(nn.Module, G)),
        "kwargs": G.init_kwargs,
        "provenance": dict(provenance or {}),
        "base": {"name": base_name, "digest": tensors_digest(before)},
    }
    stored = stored or {"unchanged": torch.zeros(1)}
    with replacing(Path(path)) as part:
        part.write_bytes(save(stored, metadata={"mien_difference": json.dumps(recipe, allow_nan=False)}))


def _find(file: Path, base: Base) -> Path:
    """Return where the base lies: beside the file, or in the package."""
    from mien.weights.load import bundled_file

    beside, bundled = file.with_name(base.name + SUFFIX), bundled_file(base.name)
    for path in (beside, bundled):
        if path is not None and path.is_file() and not (path.exists() and path.samefile(file)):
            return path
    hint = f"lay {base.name}{SUFFIX} (its tensors' digest begins with {base.digest[:12]}) beside {file.name}"
    raise MissingWeightsError(f"{file.name} is a difference to {base.name}, which is not here", hint=hint)


def whole(file: Path, recipe: Recipe, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all tensors of a network of which `stored` holds the difference to the base that its recipe names.

    Raises:
        MissingWeightsError: the base is not there.
        WeightsError: what is there is another network than it was made from, or the file is damaged.
    """
    assert recipe.base is not None
    path = _find(file, recipe.base)
    base_recipe, tensors = read_safetensors(path)
    if base_recipe is None or base_recipe.base is not None:
        refuse(file.name, f"its base {path.name} is itself no whole network of mien")
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    if tensors_digest(tensors) != recipe.base.digest:
        hint = f"it needs the {recipe.base.name} whose tensors' digest begins with {recipe.base.digest[:12]}"
        refuse(file.name, f"it is a difference to other weights than those of {path}", hint=hint)
    return _decoded(file.name, {k: t for k, t in stored.items() if k != "unchanged"}, tensors)
