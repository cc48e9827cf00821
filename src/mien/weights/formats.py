"""Every format of weights that mien reads and writes: one table each way, told apart by what is in the file.

A reader is a file of this folder with `matches(tree)` and `read(tree)`, a writer one with `to_tree(networks)`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from mien.atomic import replacing
from mien.errors import InputError, WeightsError
from mien.nets.generator import Generator
from mien.weights.build import build, expected_net, net_class, refuse
from mien.weights.checkpoint import Checkpoint, Found
from mien.weights.delta import whole
from mien.weights.native import SUFFIX, is_safetensors, read_safetensors, save_net
from mien.weights.unpickle import Record, read_tree

__all__ = ["READERS", "ROLES", "WRITERS", "choose", "convert", "describe", "read_checkpoint", "verify"]

READERS = (
    "foreign",
    "nvidia",
    "tensorflow",
    "lernapparat",
    "genforce",
    "nvidia_names",
    "rosinality",
    "wrapped",
    "mmagic",
    "pix2pix",
    "animegan",
    "published",
)
"""Files of this folder that read a format; the first that says it matches is asked."""

WRITERS = {"nvidia": "nvidia_names", "pix2pix": "pix2pix", "rosinality": "rosinality"}
"""Name of a format => the file of this folder that writes it; safetensors are written by `native`."""

SUFFIXES = {SUFFIX: "safetensors", ".pt": "rosinality", ".pth": "nvidia"}
"""How a file's name ends => its format, where none is given."""

ROLES = ("G_ema", "G", "D", "E")
"""Roles of networks, the first that fits is taken; `net` is whatever has none."""


class _Reader(Protocol):
    def matches(self, tree: Any) -> bool: ...
    def read(self, tree: Any) -> Checkpoint: ...


class _Writer(Protocol):
    def to_tree(self, networks: Mapping[str, Found]) -> Any: ...


# ---- Reading --------------------------------------------------------------------------------------------------------


def _seen(tree: Any) -> str:
    """Say in few words what a tree is."""
    if isinstance(tree, Mapping):
        keys = [repr(key)[:40] for key in list(tree)[:4]]
        return f"a table of {len(tree)} entries ({', '.join(keys)}{', ...' if len(tree) > 4 else ''})"
    if isinstance(tree, list | tuple):
        return f"a list of {len(tree)}"
    return tree.name if isinstance(tree, Record) else f"a {type(tree).__name__}"


def _recognise(tree: Any) -> Checkpoint:
    readers = [cast(_Reader, importlib.import_module(f"mien.weights.{name}")) for name in READERS]
    for reader in readers:
        if reader.matches(tree):
            return reader.read(tree)
    hint = "mien reads generators of StyleGAN 1, 2 and 3, their discriminators and encoders"
    raise WeightsError(f"no network that mien knows: the file holds {_seen(tree)}", hint=hint)


def _role(net: str) -> str:
    return {"Generator": "G_ema", "Discriminator": "D", "Encoder": "E"}.get(net.partition(".")[2], "net")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights of whatever format; nothing in it is run, nothing is built yet.

    Raises:
        UnsafeWeightsError: it asks for code.
        WeightsError: it is damaged, or of no format that mien knows.
    """
    if is_safetensors(path):
        recipe, tree = read_safetensors(path)
        if recipe is not None and recipe.base is not None:
            return Checkpoint("mien, a difference", {_role(recipe.net): Found(recipe, whole(path, recipe, tree))})
        if recipe is not None:
            return Checkpoint("mien", {_role(recipe.net): Found(recipe, tree)})
    else:
        tree = read_tree(path)
    try:
        return _recognise(tree)
    except WeightsError as err:
        raise type(err)(f"{path.name}: {err.message}", hint=err.hint) from err
    except Exception as err:  # whatever a reader meets in a tree that only looks like its own
        what = f"{path.name}: damaged ({type(err).__name__})"
        raise WeightsError(what, hint="get the file again") from err


def choose(checkpoint: Checkpoint, file: str, kind: type = nn.Module, role: str | None = None) -> Found:
    """Return the network of a role, or the first, in the order of `ROLES`, that is a `kind`.

    Raises:
        WeightsError: there is none.
    """
    networks = checkpoint.networks
    wanted = [role] if role else sorted(networks, key=lambda r: ROLES.index(r) if r in ROLES else len(ROLES))
    fitting = [name for name in wanted if name in networks and issubclass(net_class(networks[name].recipe.net), kind)]
    if not fitting:
        held = ", ".join(f"{name}, a {found.recipe.net}" for name, found in networks.items())
        sought = f"{role}, a {kind.__name__}" if role else f"a {kind.__name__}"
        refuse(file, f"it holds {held}, not {sought}", hint="give another file or role")
    return networks[fitting[0]]


# ---- What is in a file ----------------------------------------------------------------------------------------------


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(found: Found, file: str) -> dict[str, Any]:
    net = expected_net(file, found.recipe, len(found.tensors))
    sizes = ("z_dim", "w_dim", "c_dim", "num_ws", "img_resolution", "img_channels")
    return {
        "net": found.recipe.net,
        **{name: getattr(net, name) for name in sizes if hasattr(net, name)},
        "parameters": sum(p.numel() for p in net.parameters()),
        "kwargs": dict(found.recipe.kwargs),
        "provenance": dict(found.recipe.provenance),
        "notes": list(found.notes),
    }


def describe(path: Path) -> dict[str, Any]:
    """Tell what is in a file of weights, as JSON can hold it.

    Returns:
        `file`, `format`, `sha256`, `size_bytes`, and `networks`: by role the net's name, its sizes, the number of
        its parameters, the constructor's arguments, provenance and notes.

    Raises:
        WeightsError: it cannot be read.
    """
    checkpoint = read_checkpoint(path)
    return {
        "file": path.name,
        "format": checkpoint.format,
        "sha256": _digest(path),
        "size_bytes": path.stat().st_size,
        "networks": {role: _facts(found, path.name) for role, found in checkpoint.networks.items()},
    }


def _check_output(net: nn.Module, file: str, role: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in net.parameters())}
    if isinstance(net, Generator):
        z = torch.randn(1, net.z_dim, generator=torch.Generator().manual_seed(0))
        c = F.one_hot(torch.zeros(1, dtype=torch.int64), net.c_dim).float() if net.c_dim else None
        with torch.inference_mode():
            img = net.synthesis(net.mapping(z, c, truncation_psi=0.7), noise_mode="const")
        facts["image_mean"], facts["image_std"] = img.mean().item(), img.std().item()
        if not img.isfinite().all() or img.std() == 0:
            refuse(file, f"{role} makes pictures without anything on them", hint="the training that wrote it diverged")
    return facts


def verify(path: Path) -> dict[str, dict[str, Any]]:
    """Build every network of a file and let each generator make a picture.

    Returns:
        By role, the number of parameters, and of generators mean and standard deviation of the picture of seed 0.

    Raises:
        WeightsError: one of them is not whole, not finite, or makes an empty picture.
    """
    networks = read_checkpoint(path).networks
    return {role: _check_output(build(found, path.name).net, path.name, role) for role, found in networks.items()}


# ---- Writing --------------------------------------------------------------------------------------------------------


def _format_of(target: Path, given: str | None) -> str:
    name = given or SUFFIXES.get(target.suffix.lower(), "")
    if name not in ("safetensors", *WRITERS):
        known = ", ".join(f"{suffix} ({name})" for suffix, name in SUFFIXES.items())
        raise InputError(f"{target.name}: no format of weights that mien writes", hint=f"end it in {known}")
    return name


def _whole(found: Found, path: Path, source_format: str) -> tuple[nn.Module, Found]:
    """Build a network, with what its file lacks, and say where it comes from."""
    built = build(found, path.name)
    provenance = dict(found.recipe.provenance)
    if source_format != "mien":
        provenance |= {"source": path.name, "source_sha256": _digest(path), "source_format": source_format}
    if built.notes:
        provenance["notes"] = list(built.notes)
    recipe = type(found.recipe)(found.recipe.net, cast(Any, built.net).init_kwargs, provenance)
    return built.net, Found(recipe, built.net.state_dict(), built.notes)


def convert(
    source: Path,
    target: Path,
    *,
    format: str | None = None,  # noqa: A002
    role: str | None = None,
) -> Path:
    """Write the networks of a file in another format; the old target stays until the new one is whole.

    Args:
        source: a file of any format.
        target: the file to make.
        format: `safetensors` (one network), or a name in `WRITERS` (all of them, as plain tensors); by default as
            the target's name ends: `.safetensors`, `.pt` for rosinality's names, `.pth` for NVIDIA's.
        role: the network to write; by default the generator for safetensors, else all.

    Returns:
        The target.

    Raises:
        InputError: no such format, or it has no place for such a network.
        WeightsError: the source cannot be read.
    """
    name = _format_of(target, format)
    checkpoint = read_checkpoint(source)
    if name == "safetensors":
        net, found = _whole(choose(checkpoint, source.name, role=role), source, checkpoint.format)
        save_net(net, target, provenance=found.recipe.provenance)
        return target
    wanted = {role: choose(checkpoint, source.name, role=role)} if role else checkpoint.networks
    networks = {role: _whole(found, source, checkpoint.format)[1] for role, found in wanted.items()}
    tree = cast(_Writer, importlib.import_module(f"mien.weights.{WRITERS[name]}")).to_tree(networks)
    with replacing(target) as part:
        torch.save(tree, part)
    return target
