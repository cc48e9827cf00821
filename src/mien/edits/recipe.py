"""Recipes: an edit as JSON, which can be done again on other photos, and to the same bytes by the same engine.

A recipe names the generator by its hash, says how faces are inverted, and lists operations in their order. What these
need of other people is in it as codes or seeds, so that no other file is asked for. An operation is a frozen dataclass;
its fields are all that a file may say of it. Reading is strict: what is unknown, missing, not finite, too large or too
deep is one `InputError`, and nothing of a file is run, looked up or downloaded.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from mien.atomic import write_text
from mien.errors import InputError
from mien.latents import MAX_SEED
from mien.nets.precision import PRECISIONS

__all__ = [
    "Operation",
    "Person",
    "Recipe",
    "Settings",
    "load_recipe",
    "parse_operation",
    "parse_operations",
    "parse_recipe",
    "recipe_text",
    "save_recipe",
]

FORMAT = 1
MAX_BYTES, MAX_DEPTH, MAX_OPERATIONS = 32 << 20, 16, 64
MAX_WORD, MAX_VALUES = 400, 1 << 20
VERSION, OP = "mien_recipe", "op"
HINT = "give a file that --recipe wrote"


class Settings(dict[str, Any]):
    """Settings of a method as JSON holds them: they are compared as a whole, never used one by one."""


class Operation:
    """What the frozen dataclasses of operations derive from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """Somebody whom an operation needs: by the seed that invents them, or by their code ws [num_ws, w_dim]."""

    seed: int | None = None
    ws: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.seed is None) == (self.ws is None):
            raise InputError("a person is told by a seed or by a code", hint="give one of them")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed {self.seed} is out of range", hint=f"seeds go from 0 to {MAX_SEED}")
        if self.ws is not None and self.ws.ndim != 2:
            raise InputError(f"a code is [num_ws, w_dim], got {list(self.ws.shape)}", hint=HINT)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """An edit that can be repeated.

    Attributes:
        network: name of the generator, for whoever looks for it.
        digest: sha256 of its file.
        operations: in the order in which they are done.
        method: of inversion.
        steps: most steps of its last refinement, by default its own.
        settings: of the method, all of them, as a code's `config` has them.
        precision: of the engine.
        seed: of everything random.
        aligned: photos are FFHQ crops already, and results are renders.
        face: only the face of this number, 0 the largest.
        weights: name => sha256 of what else took part: encoder, directions, detector, face network.
        made_with: name => version of what made the first result.
    """

    network: str
    digest: str
    operations: tuple[Operation, ...]
    method: str
    steps: int | None = None
    settings: Settings = field(default_factory=Settings)
    precision: str = PRECISIONS[0]
    seed: int = 0
    aligned: bool = False
    face: int | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    made_with: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"no precision named {self.precision!r}", hint=f"known: {', '.join(PRECISIONS)}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed {self.seed} is out of range", hint=f"seeds go from 0 to {MAX_SEED}")
        if (self.steps is not None and self.steps < 1) or (self.face is not None and self.face < 0):
            raise InputError("steps go from 1 and faces from 0", hint=HINT)
        if not 1 <= len(self.operations) <= MAX_OPERATIONS:
            raise InputError(f"{len(self.operations)} operations", hint=f"a recipe has 1 to {MAX_OPERATIONS}")


# ---- Values to JSON --------------------------------------------------------------------------------------------------


def _plain(value: Any, names: Mapping[type, str]) -> Any:
    """Turn a value of a recipe into what JSON can hold; fields that are None are left out."""
    if isinstance(value, Tensor):
        numbers = value.detach().float().cpu().contiguous().numpy().astype("<f4")
        return {"shape": list(value.shape), "float32": base64.b64encode(numbers.tobytes()).decode()}
    if isinstance(value, Mapping):
        return {key: _plain(part, names) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, names) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        head = {OP: names[type(value)]} if isinstance(value, Operation) else {}
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return head | {name: _plain(part, names) for name, part in parts.items() if part is not None}
    return value


def recipe_text(recipe: Recipe, kinds: Mapping[str, type[Operation]]) -> str:
    """Return a recipe as JSON; `kinds` names the operations."""
    plain = {VERSION: FORMAT} | _plain(recipe, {kind: name for name, kind in kinds.items()})
    return json.dumps(plain, indent=1, allow_nan=False) + "\n"


def save_recipe(recipe: Recipe, path: Path, kinds: Mapping[str, type[Operation]]) -> None:
    """Write a recipe, whole or not at all."""
    write_text(recipe_text(recipe, kinds), path)


# ---- JSON to values --------------------------------------------------------------------------------------------------


def _no(where: str, what: str, *, hint: str = HINT) -> NoReturn:
    raise InputError(f"recipe: {where} {what}", hint=hint)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _tensor(value: Any, where: str) -> Tensor:
    if not isinstance(value, dict) or value.keys() != {"shape", "float32"} or not isinstance(value["float32"], str):
        _no(where, "is no array of shape and float32")
    shape = _sequence(value["shape"], int, where)
    if not 1 <= len(shape) <= 4 or any(not 1 <= side <= MAX_VALUES for side in shape):
        _no(where, f"has the shape {_shown(list(shape))}")
    try:
        data = base64.b64decode(value["float32"], validate=True)
    except (binascii.Error, ValueError):
        _no(where, "holds no base64")
    if len(data) != 4 * math.prod(shape):
        _no(where, f"holds {len(data)} bytes for the shape {list(shape)}")
    tensor = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).reshape(shape)
    if not bool(tensor.isfinite().all()):
        _no(where, "holds a number that is not finite")
    return tensor


def _sequence(value: Any, kind: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _no(where, f"must be a list, got {_shown(value)}")
    return tuple(_value(part, kind, f"{where}[{i}]") for i, part in enumerate(value))


def _mapping(value: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _no(where, f"must be an object, got {_shown(value)}")
    return {
        _value(key, str, f"a name in {where}"): _value(v, kind, f"{where}.{_shown(key)}") for key, v in value.items()
    }


def _scalar(value: Any, kind: type, where: str) -> Any:
    if kind is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            _no(where, "is not finite")
        return number
    if type(value) is not kind:
        words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
        _no(where, f"must be {words[kind]}, got {_shown(value)}")
    if isinstance(value, str) and (len(value) > MAX_WORD or not value.isprintable()):
        _no(where, f"is no word: {_shown(value)}")
    return value


def _value(value: Any, kind: Any, where: str) -> Any:
    """Turn JSON into a value of a field's type: a scalar, a tuple, a mapping, an array, or another dataclass."""
    if kind is Settings:
        if not isinstance(value, dict):
            _no(where, f"must be an object, got {_shown(value)}")
        return Settings(value)
    if kind is Tensor:
        return _tensor(value, where)
    if get_origin(kind) is UnionType:
        if value is None:
            _no(where, "must be left out where there is none")
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
        return _value(value, kind, where)
    if get_origin(kind) is tuple:
        return _sequence(value, get_args(kind)[0], where)
    if get_origin(kind) is Mapping:
        return _mapping(value, get_args(kind)[1], where)
    if hasattr(kind, "__dataclass_fields__"):
        return _object(value, kind, where)
    return _scalar(value, kind, where)


def _object(value: Any, kind: Any, where: str, **ready: object) -> Any:
    """Make a dataclass of a JSON object that has its fields, no others, and all that have no default.

    `ready` are fields that are made already, and do not stand in the object.
    """
    if not isinstance(value, dict):
        _no(where, f"must be an object, got {_shown(value)}")
    known = {f.name: f for f in fields(kind) if f.name not in ready}
    if strange := [name for name in value if name not in known]:
        _no(where, f"has the unknown field {_shown(strange[0])}", hint=f"known: {', '.join(known)}")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in value]:
        _no(where, f"has no {missing[0]}")
    hints = _hints(kind)
    return kind(**ready, **{name: _value(part, hints[name], f"{where}.{name}") for name, part in value.items()})


def parse_operation(value: Any, kinds: Mapping[str, type[Operation]], where: str, **ready: object) -> Operation:
    """Make one operation of JSON, as strictly as a recipe's.

    Args:
        value: an object with `op` and the fields of its kind.
        kinds: name => kind.
        where: what errors call it.
        ready: fields that are made already, and do not stand in the object.

    Raises:
        InputError: an unknown name or field, a field that is missing or of another type.
    """
    if not isinstance(value, dict) or not isinstance(value.get(OP), str):
        _no(where, f"has no {OP!r}")
    if value[OP] not in kinds:
        _no(where, f"is unknown: {_shown(value[OP])}", hint=f"known: {', '.join(kinds)}")
    rest = {name: v for name, v in value.items() if name != OP}
    made: Operation = _object(rest, kinds[value[OP]], f"{where}, {value[OP]},", **ready)
    return made


def parse_operations(value: Any, kinds: Mapping[str, type[Operation]]) -> tuple[Operation, ...]:
    """Make operations of a list of JSON; see `parse_operation`."""
    if not isinstance(value, list):
        _no("operations", "must be a list")
    return tuple(parse_operation(part, kinds, f"operation {i + 1}") for i, part in enumerate(value))


def _depth(value: Any) -> int:
    """Return how deep JSON is nested."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        parts = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level, depth = [inner for part in parts for inner in part], depth + 1
    return depth


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def parse_recipe(text: str, kinds: Mapping[str, type[Operation]]) -> Recipe:
    """Read a recipe from JSON.

    Args:
        text: what `recipe_text` wrote.
        kinds: name => kind of the operations that may stand in it.

    Raises:
        InputError: it is anything else.
    """
    if len(text) > MAX_BYTES:
        _no("the text", f"is longer than {MAX_BYTES >> 20} MiB")
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except RecursionError as err:
        raise InputError("recipe: nested too deeply", hint=HINT) from err
    except ValueError as err:
        raise InputError(f"recipe: no JSON that can be used: {err}", hint=HINT) from err
    if not isinstance(data, dict) or VERSION not in data:
        _no("the file", f"has no {VERSION!r}")
    if type(version := data.pop(VERSION)) is not int or version != FORMAT:
        _no("version", f"{_shown(version)} is unknown", hint="a newer mien may read it")
    if _depth(data) > MAX_DEPTH:
        _no("the file", "is nested too deeply")
    operations = parse_operations(data.pop("operations", None), kinds)
    recipe: Recipe = _object(data, Recipe, "the file", operations=operations)
    return recipe


def load_recipe(path: Path, kinds: Mapping[str, type[Operation]]) -> Recipe:
    """Read the recipe in a file.

    Raises:
        InputError: not there, or no recipe.
    """
    if not path.is_file():
        raise InputError(f"no recipe at {path}", hint=HINT)
    try:
        if path.stat().st_size > MAX_BYTES:
            _no("the file", f"is larger than {MAX_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"cannot read {path}: no text", hint=HINT) from err
    return parse_recipe(text, kinds)
