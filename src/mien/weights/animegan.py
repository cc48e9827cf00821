"""The state dict of AnimeGANv2's generator in PyTorch; its names are our own.

Source: the names are those of github.com/bryandlee/animegan2-pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.weights.checkpoint import Checkpoint, Found, Recipe
from mien.weights.tables import refuse, state_of

__all__ = ["matches", "read"]

FIRST = "block_a.0.1.weight"
CORNERS = "how maps are enlarged leaves no trace in a state dict: corners are taken as aligned"


def matches(tree: Any) -> bool:
    """Tell whether a tree is such a state dict."""
    return isinstance(tree, Mapping) and FIRST in tree and "out_layer.0.weight" in tree


def read(tree: Any) -> Checkpoint:
    """Read a state dict of the generator.

    Raises:
        WeightsError: shapes are not those of such a network.
    """
    tensors = state_of(tree, "generator")
    if tensors[FIRST].ndim != 4:
        refuse(f"{FIRST} has the wrong shape {list(tensors[FIRST].shape)}")
    recipe = Recipe("animegan.AnimeGenerator", {"channels": tensors[FIRST].shape[0]})
    return Checkpoint("AnimeGANv2", {"G": Found(recipe, tensors, (CORNERS,))})
