"""What is found in a checkpoint of any format: networks as recipes and named tensors, before one of them is built.

Each format has a reader, a file of this folder with `matches(tree)` and `read(tree)`. A tree is what the file holds as
plain data (dicts, lists, numbers, tensors, and records in place of foreign objects), so that a reader is only a table
of names, and never meets bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Base", "Checkpoint", "Found", "Recipe"]


@dataclass(frozen=True)
class Base:
    """The network that a file of differences belongs to: its name, and the digest of its tensors."""

    name: str
    digest: str


@dataclass(frozen=True)
class Recipe:
    """How to rebuild a network and where it comes from.

    `net` is a name in `mien.weights.load.NETS`, `kwargs` the constructor's arguments, `provenance` free facts as JSON:
    training data, licence, kimg, hash of the source, measured numbers. A file of differences names its `base`.
    """

    net: str
    kwargs: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    base: Base | None = None


@dataclass(frozen=True)
class Found:
    """One network of a checkpoint, under our own names; `notes` say what the reader inferred or could not know.

    A generator whose file has no average latent comes without `mapping.w_avg`; whoever builds it estimates that.
    """

    recipe: Recipe
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """All networks of one file by role: `G_ema` (the one to use), `G`, `D`, `E` (an encoder)."""

    format: str
    networks: Mapping[str, Found]
