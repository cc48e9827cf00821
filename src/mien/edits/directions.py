"""Directions: moves in the latent space that change one thing by a measured amount, kept as data.

Strength 1.0 is one standard deviation of the attribute over the generator's own faces. Each direction names the rows
that it moves and the range in which it was seen to keep who the face is.

Source: Shen et al. 2020 (InterFaceGAN), arXiv:1907.10786; rows by role: Karras et al. 2019, Sec. 3.1, arXiv:1812.04948.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mien.atomic import replacing
from mien.errors import InputError, WeightsError

__all__ = ["Direction", "DirectionSet", "load_directions", "save_directions"]

HEADER = "mien_directions"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction.

    Attributes:
        vector: the move of strength 1, [w_dim] for all rows or [len(layers), w_dim] for each its own.
        layers: rows of ws that it moves.
        unit: what one standard deviation is, in the attribute's own unit ("0.31 of full smile", "11.2 degrees").
        std: the same as a number.
        safe_range: strengths between which the face stays who it is.
    """

    vector: Tensor
    layers: tuple[int, ...]
    unit: str
    std: float
    safe_range: tuple[float, float]

    def apply(self, ws: Tensor, strength: float) -> Tensor:
        """Move ws [N, num_ws, w_dim] by `strength`, in standard deviations of the attribute.

        Raises:
            InputError: the code belongs to another generator.
        """
        if ws.shape[-1] != self.vector.shape[-1] or max(self.layers) >= ws.shape[-2]:
            raise InputError(f"the direction was found for another generator than the code {list(ws.shape)}")
        moved = ws.clone()
        moved[..., list(self.layers), :] += strength * self.vector.to(ws)
        return moved


@dataclass(frozen=True)
class DirectionSet:
    """The directions of one generator, with how they were found.

    `network` is the sha256 of the generator's file.
    """

    directions: Mapping[str, Direction]
    network: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Direction:
        if name not in self.directions:
            raise InputError(
                f"no direction named {name!r}", hint=f"known: {', '.join(sorted(self.directions)) or 'none'}"
            )
        return self.directions[name]

    def with_provenance(self, facts: Mapping[str, Any]) -> DirectionSet:
        """Return the same directions with more facts about their making."""
        return replace(self, provenance={**self.provenance, **facts})

    def apply(self, ws: Tensor, strengths: Mapping[str, float]) -> Tensor:
        """Move ws [N, num_ws, w_dim] along several directions at once; nothing named gives `ws` back.

        Raises:
            InputError: an unknown name.
        """
        for name, strength in strengths.items():
            ws = self[name].apply(ws, strength)
        return ws


def save_directions(found: DirectionSet, path: Path) -> None:
    """Write directions as one safetensors file, whole or not at all."""
    facts = {
        "format": FORMAT,
        "network": found.network,
        "provenance": dict(found.provenance),
        "directions": {
            name: {"layers": d.layers, "unit": d.unit, "std": d.std, "safe_range": d.safe_range}
            for name, d in found.directions.items()
        },
    }
    vectors = {name: d.vector.detach().float().cpu().contiguous() for name, d in found.directions.items()}
    data = save(vectors, metadata={HEADER: json.dumps(facts)})
    with replacing(path) as part:
        part.write_bytes(data)


def _is_usable(direction: Direction) -> bool:
    rows = len(direction.layers)
    fits = direction.vector.ndim == 1 or (direction.vector.ndim == 2 and len(direction.vector) == rows)
    return rows > 0 and fits and bool(torch.isfinite(direction.vector).all())


def load_directions(path: Path) -> DirectionSet:
    """Read what `save_directions` wrote.

    Raises:
        WeightsError: not there, damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            vectors = {name: file.get_tensor(name) for name in facts["directions"]}
        if facts["format"] != FORMAT:
            raise WeightsError(f"{path} has another format", hint="a newer mien may read it")
        directions = {
            name: Direction(
                vector=vectors[name],
                layers=tuple(int(i) for i in entry["layers"]),
                unit=str(entry["unit"]),
                std=float(entry["std"]),
                safe_range=(float(entry["safe_range"][0]), float(entry["safe_range"][1])),
            )
            for name, entry in facts["directions"].items()
        }
        found = DirectionSet(directions, str(facts["network"]), dict(facts["provenance"]))
    except (OSError, SafetensorError, KeyError, IndexError, TypeError, ValueError, AttributeError) as err:
        raise WeightsError(f"{path} holds no directions", hint="find them again with `mien train directions`") from err
    if not all(_is_usable(d) for d in directions.values()):
        raise WeightsError(f"{path} holds directions that cannot be used", hint="find them again")
    return found
