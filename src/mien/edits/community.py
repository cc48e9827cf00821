"""Directions as others have published them, read as plain data: no code of theirs is run.

Known: one vector, or a vector for each row, as `.npy` (InterFaceGAN's boundaries, generators-with-stylegan2); the same
as a tensor in `.pt` (e4e's editings); principal components as a dict in `.pt` (e4e's ganspace_pca) or as `.npz`
(GANSpace's cache). They belong to the generator that they were found in, and files do not say which: the caller does.

Source: formats of github.com/genforce/interfacegan, omertov/encoder4editing, harskish/ganspace,
a312863063/generators-with-stylegan2.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.edits.directions import Direction, DirectionSet
from mien.errors import WeightsError
from mien.nets.generator import Generator
from mien.weights.unpickle import read_tree

__all__ = ["read_community"]

SAFE_RANGE = (-3.0, 3.0)
HINT = "known: .npy and .pt of one vector or one for each row; .npz and .pt of GANSpace"


def _arrays(path: Path) -> Any:
    """Return what a file holds: a tensor, or name => tensor."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        if suffix == ".npz":
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
                wanted = [name for name in held.files if name.startswith("lat_")]
                return {name: torch.from_numpy(held[name]) for name in wanted}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as err:
        raise WeightsError(f"{path.name}: damaged, or not an array of numbers", hint=HINT) from err
    if suffix in (".pt", ".pth", ".pkl"):
        return read_tree(path)
    raise WeightsError(f"{path.name} is no file of directions", hint=HINT)


def _direction(G: Generator, path: Path, vector: Tensor) -> Direction:
    """Make a direction of [w_dim], [1, w_dim], [num_ws, w_dim], or any of them in a batch of one."""
    vector = vector.detach().float()
    while vector.ndim > 1 and len(vector) == 1:
        vector = vector[0]
    fits = vector.shape[-1:] == (G.w_dim,) and (vector.ndim == 1 or vector.shape == (G.num_ws, G.w_dim))
    if not fits or not vector.isfinite().all():
        hint = f"this generator's codes are [{G.num_ws}, {G.w_dim}]; give the --network that it was found in"
        raise WeightsError(f"{path.name}: a direction {list(vector.shape)} does not fit", hint=hint)
    if vector.ndim == 2 and bool((vector == vector[0]).all()):
        vector = vector[0]
    length = float(vector.norm(dim=-1).max())
    return Direction(vector, tuple(range(G.num_ws)), "as published", length, SAFE_RANGE)


def _components(G: Generator, path: Path, held: Mapping[str, Any]) -> dict[str, Direction]:
    comps, stds = held.get("lat_comp"), held.get("lat_std", held.get("lat_stdev"))
    if not isinstance(comps, Tensor) or not isinstance(stds, Tensor) or len(comps) != stds.numel():
        raise WeightsError(f"{path.name} holds no principal components", hint=HINT)
    pairs = zip(comps, stds.flatten(), strict=True)
    return {f"{path.stem}{i}": _direction(G, path, comp * std) for i, (comp, std) in enumerate(pairs)}


def read_community(G: Generator, path: Path, *, network: str = "") -> DirectionSet:
    """Read a published file of directions for `G`; their names are the file's, with a number for components.

    Args:
        G: the generator that they were found in.
        path: the file.
        network: sha256 of the generator's file, which the directions then belong to.

    Raises:
        WeightsError: no such file, damaged, of another kind, or of another generator.
        UnsafeWeightsError: it asks for code to be run.
    """
    if not path.is_file():
        raise WeightsError(f"no directions at {path}", hint=HINT)
    held = _arrays(path)
    if isinstance(held, Mapping):
        found = _components(G, path, held)
    elif isinstance(held, Tensor):
        found = {path.stem: _direction(G, path, held)}
    else:
        raise WeightsError(f"{path.name} holds no directions", hint=HINT)
    return DirectionSet(found, network, {"source": path.name, "method": "published"})
