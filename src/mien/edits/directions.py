"""Directions: moves that change one thing by a measured amount, kept as data.

There are two kinds. A `Direction` moves rows of the code, a `StyleDirection` channels of the styles that layers make of
it. Strength 1.0 is one standard deviation of the attribute over the generator's own faces. Each direction says where it
moves, the range in which it was seen to keep who the face is, and what it does to everything else that is measured.

Source: Shen et al. 2020 (InterFaceGAN), arXiv:1907.10786; rows by role: Karras et al. 2019, Sec. 3.1, arXiv:1812.04948;
channels: Wu et al. 2021 (StyleSpace), arXiv:2011.12799.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mien.atomic import replacing
from mien.errors import InputError, WeightsError
from mien.inversion.code import Inversion
from mien.inversion.personal import Changes, personal
from mien.nets.generator import Generator

__all__ = ["AnyDirection", "Direction", "DirectionSet", "Kind", "StyleDirection", "load_directions", "save_directions"]

HEADER = "mien_directions"
FORMATS = (1, 2)  # the second has styles and side effects


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction of codes.

    Attributes:
        vector: the move of strength 1, [w_dim] for all rows or [len(layers), w_dim] for each its own.
        layers: rows of ws that it moves.
        unit: what one standard deviation is, in the attribute's own unit ("0.31 of full smile", "11.2 degrees").
        std: the same as a number.
        safe_range: strengths between which the face stays who it is.
        effects: name of an attribute => how many of its own standard deviations strength 1 changes it; empty where
            nothing was measured.
        identity: mean cosine of the identity with the unedited face at strengths of -2 and 2; 0 where not measured.
    """

    vector: Tensor
    layers: tuple[int, ...]
    unit: str
    std: float
    safe_range: tuple[float, float]
    effects: Mapping[str, float] = field(default_factory=dict)
    identity: float = 0.0

    @property
    def place(self) -> str:
        """Where it moves, in words."""
        return f"rows {self.layers[0]}-{self.layers[-1]}"

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

    def edit(self, code: Inversion, strength: float) -> Inversion:
        """Return the same person's code, moved."""
        return code.with_ws(self.apply(code.ws[None], strength)[0])

    def render(self, G: Generator, ws: Tensor, strength: float) -> Tensor:
        """Render ws [N, num_ws, w_dim], moved, as img [N, 3, H, W]."""
        return G.synthesis(self.apply(ws, strength), noise_mode="const")

    def scaled(self, factor: float) -> Direction:
        """Return the direction whose strength 1 is `factor` of this one's."""
        return replace(self, vector=factor * self.vector)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it, by names that come after the direction's."""
        return {"": self.vector}


@dataclass(frozen=True, eq=False)
class StyleDirection:
    """One direction of styles; no move of the code does the same, since layers share rows.

    Attributes:
        styles: name of an affine layer under `G.synthesis` => [C], what strength 1 adds to its styles.
        unit, std, safe_range, effects, identity: as of `Direction`.
    """

    styles: Mapping[str, Tensor]
    unit: str
    std: float
    safe_range: tuple[float, float]
    effects: Mapping[str, float] = field(default_factory=dict)
    identity: float = 0.0

    @property
    def place(self) -> str:
        """Where it moves, in words."""
        counts = {name.removesuffix(".affine"): int(offset.count_nonzero()) for name, offset in self.styles.items()}
        return "channels " + ", ".join(f"{count} of {name}" for name, count in counts.items())

    def edit(self, code: Inversion, strength: float) -> Inversion:
        """Return the same person with styles moved; the code stays as it is."""
        return replace(code, changes=code.changes.with_styles(self.styles, strength))

    def render(self, G: Generator, ws: Tensor, strength: float) -> Tensor:
        """Render ws [N, num_ws, w_dim] with styles moved, as img [N, 3, H, W].

        Raises:
            InputError: the direction was found for another generator.
        """
        return personal(G, Changes().with_styles(self.styles, strength)).synthesis(ws, noise_mode="const")

    def scaled(self, factor: float) -> StyleDirection:
        """Return the direction whose strength 1 is `factor` of this one's."""
        return replace(self, styles={name: factor * offset for name, offset in self.styles.items()})

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it, by names that come after the direction's."""
        return {f":{name}": offset for name, offset in self.styles.items()}


AnyDirection = Direction | StyleDirection
Kind = TypeVar("Kind", Direction, StyleDirection)


@dataclass(frozen=True)
class DirectionSet:
    """The directions of one generator, with how they were found.

    `network` is the sha256 of the generator's file.
    """

    directions: Mapping[str, AnyDirection]
    network: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> AnyDirection:
        if name not in self.directions:
            raise InputError(
                f"no direction named {name!r}", hint=f"known: {', '.join(sorted(self.directions)) or 'none'}"
            )
        return self.directions[name]

    def with_provenance(self, facts: Mapping[str, Any]) -> DirectionSet:
        """Return the same directions with more facts about their making."""
        return replace(self, provenance={**self.provenance, **facts})

    def joined(self, more: DirectionSet) -> DirectionSet:
        """Return these and other directions of the same generator; facts of the same name are joined where they can be.

        Raises:
            InputError: they belong to two generators.
        """
        if more.network != self.network:
            raise InputError("the directions belong to two generators", hint="find them again in one")
        facts = dict(self.provenance)
        for name, fact in more.provenance.items():
            both = isinstance(fact, Mapping) and isinstance(facts.get(name), Mapping)
            facts[name] = {**facts[name], **fact} if both else fact
        return DirectionSet({**self.directions, **more.directions}, self.network, facts)

    def apply(self, ws: Tensor, strengths: Mapping[str, float]) -> Tensor:
        """Move ws [N, num_ws, w_dim] along several directions at once; nothing named gives `ws` back.

        Raises:
            InputError: an unknown name, or a direction of styles.
        """
        for name, strength in strengths.items():
            direction = self[name]
            if isinstance(direction, StyleDirection):
                hint = "use `edit`, which changes the person's generator"
                raise InputError(f"{name} is a direction of styles and moves no code", hint=hint)
            ws = direction.apply(ws, strength)
        return ws

    def edit(self, code: Inversion, strengths: Mapping[str, float]) -> Inversion:
        """Move one person along several directions of either kind.

        Raises:
            InputError: an unknown name, or the code of another generator.
        """
        for name, strength in strengths.items():
            code = self[name].edit(code, strength)
        return code


# ---- Files ----------------------------------------------------------------------------------------------------------


def _facts(direction: AnyDirection) -> dict[str, Any]:
    names = ("unit", "std", "safe_range", "effects", "identity")
    place = {"layers": direction.layers} if isinstance(direction, Direction) else {"styles": list(direction.styles)}
    return place | {name: getattr(direction, name) for name in names}


def save_directions(found: DirectionSet, path: Path) -> None:
    """Write directions as one safetensors file, whole or not at all."""
    facts = {
        "format": FORMATS[-1],
        "network": found.network,
        "provenance": dict(found.provenance),
        "directions": {name: _facts(d) for name, d in found.directions.items()},
    }
    vectors = {
        f"{name}{part}": tensor.detach().float().cpu().contiguous()
        for name, d in found.directions.items()
        for part, tensor in d.tensors().items()
    }
    data = save(vectors, metadata={HEADER: json.dumps(facts)})
    with replacing(path) as part:
        part.write_bytes(data)


def _direction(name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AnyDirection:
    low, high = entry["safe_range"]
    facts: dict[str, Any] = dict(
        unit=str(entry["unit"]),
        std=float(entry["std"]),
        safe_range=(float(low), float(high)),
        effects={str(other): float(change) for other, change in entry.get("effects", {}).items()},
        identity=float(entry.get("identity", 0.0)),
    )
    if "styles" in entry:
        return StyleDirection({layer: tensors[f"{name}:{layer}"] for layer in entry["styles"]}, **facts)
    return Direction(tensors[name], tuple(int(i) for i in entry["layers"]), **facts)


def _is_usable(direction: AnyDirection) -> bool:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in direction.tensors().values()):
        return False
    if isinstance(direction, StyleDirection):
        return bool(direction.styles) and all(offset.ndim == 1 for offset in direction.styles.values())
    rows, vector = len(direction.layers), direction.vector
    return rows > 0 and (vector.ndim == 1 or (vector.ndim == 2 and len(vector) == rows))


def load_directions(path: Path) -> DirectionSet:
    """Read what `save_directions` wrote.

    Raises:
        WeightsError: not there, damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["format"] not in FORMATS:
            raise WeightsError(f"{path} has another format", hint="a newer mien may read it")
        directions = {name: _direction(name, entry, tensors) for name, entry in facts["directions"].items()}
        found = DirectionSet(directions, str(facts["network"]), dict(facts["provenance"]))
    except (OSError, SafetensorError, KeyError, IndexError, TypeError, ValueError, AttributeError) as err:
        raise WeightsError(f"{path} holds no directions", hint="find them again with `mien train directions`") from err
    if not all(_is_usable(d) for d in directions.values()):
        raise WeightsError(f"{path} holds directions that cannot be used", hint="find them again")
    return found
