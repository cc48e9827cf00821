"""Recipes as JSON: what is written is read again, and everything else is one clear error."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mien.edits.recipe import (
    Operation,
    Person,
    Recipe,
    Settings,
    load_recipe,
    parse_recipe,
    recipe_text,
    save_recipe,
)
from mien.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Push(Operation):
    """An operation with a field of every kind."""

    strengths: Mapping[str, float]
    rows: tuple[int, ...] = ()
    person: Person | None = None
    how: str = "gently"
    is_slow: bool = False


KINDS: Mapping[str, type[Operation]] = {"push": Push}


@pytest.fixture
def recipe() -> Recipe:
    somebody = Person(ws=torch.tensor([[0.1, -2.5, 3e-30], [1 / 3, 7.0, -0.0]]))
    return Recipe(
        network="faces-64",
        digest="ab" * 32,
        operations=(Push(strengths={"b": 1.5, "a": -0.1}, rows=(3, 1)), Push(strengths={}, person=somebody)),
        method="optimize",
        steps=7,
        settings=Settings(start="auto", stages=[{"lr": 0.1, "deep": {"seed": 0}}]),
        seed=3,
        face=0,
        weights={"detector.safetensors": "cd" * 32},
        made_with={"mien": "0.1.0"},
    )


def changed(recipe: Recipe, **fields: Any) -> str:
    """The recipe's JSON with some fields of its own."""
    return json.dumps(json.loads(recipe_text(recipe, KINDS)) | fields)


def test_what_is_written_is_read_again(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "edit.json"
    save_recipe(recipe, path, KINDS)
    found = load_recipe(path, KINDS)
    assert recipe_text(found, KINDS) == path.read_text()
    first, second = found.operations
    assert isinstance(first, Push) and isinstance(second, Push)
    assert list(first.strengths.items()) == [("b", 1.5), ("a", -0.1)] and first.rows == (3, 1)
    assert second.person is not None and second.person.ws is not None
    before = recipe.operations[1]
    assert isinstance(before, Push) and before.person is not None and before.person.ws is not None
    assert second.person.ws.numpy().tobytes() == before.person.ws.numpy().tobytes()  # every bit, also of -0
    assert (found.settings, found.seed, found.face, found.steps) == (recipe.settings, 3, 0, 7)


def test_order_is_kept(recipe: Recipe) -> None:
    one, other = Push(strengths={"a": 1.0}), Push(strengths={"b": 2.0})
    for operations in ((one, other), (other, one), (one, other, one)):
        text = recipe_text(Recipe(network="n", digest="d", method="m", operations=operations), KINDS)
        assert parse_recipe(text, KINDS).operations == operations


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mien_recipe": 2}, "version 2 is unknown"),
        ({"mien_recipe": True}, "version True is unknown"),
        ({"mien_recipe": "1"}, "version '1' is unknown"),
        ({"shell": "rm"}, "unknown field 'shell'"),
        ({"operations": []}, "0 operations"),
        ({"operations": [{"op": "push", "strengths": {}}] * 65}, "65 operations"),
        ({"operations": {}}, "operations must be a list"),
        ({"operations": ["push"]}, "operation 1 has no 'op'"),
        ({"operations": [{"op": "__import__"}]}, "operation 1 is unknown: '__import__'"),
        ({"operations": [{"op": "push"}]}, "operation 1, push, has no strengths"),
        ({"operations": [{"op": "push", "strengths": {}, "x": 1}]}, "unknown field 'x'"),
        ({"operations": [{"op": "push", "strengths": {"a": "1"}}]}, "must be a number"),
        ({"operations": [{"op": "push", "strengths": {"a": True}}]}, "must be a number"),
        ({"operations": [{"op": "push", "strengths": {"a": 10**400}}]}, "is not finite"),
        ({"operations": [{"op": "push", "strengths": [1]}]}, "must be an object"),
        ({"operations": [{"op": "push", "strengths": {}, "rows": [1.0]}]}, "rows[0] must be a whole number"),
        ({"operations": [{"op": "push", "strengths": {}, "rows": 3}]}, "must be a list"),
        ({"operations": [{"op": "push", "strengths": {}, "how": "\x1b[2J"}]}, "is no word"),
        ({"operations": [{"op": "push", "strengths": {}, "how": "a" * 401}]}, "is no word"),
        ({"operations": [{"op": "push", "strengths": {}, "is_slow": 1}]}, "must be true or false"),
        ({"operations": [{"op": "push", "strengths": {}, "person": None}]}, "must be left out"),
        ({"operations": [{"op": "push", "strengths": {}, "person": {}}]}, "by a seed or by a code"),
        ({"operations": [{"op": "push", "strengths": {}, "person": {"seed": -1}}]}, "seed -1 is out of range"),
        ({"precision": "fp8"}, "no precision named 'fp8'"),
        ({"seed": 2**32}, "out of range"),
        ({"seed": -1}, "out of range"),
        ({"steps": 0}, "steps go from 1"),
        ({"face": -1}, "faces from 0"),
        ({"network": 5}, "network must be text"),
        ({"weights": {"a": 1}}, "must be text"),
    ],
)
def test_what_is_not_known_is_refused(recipe: Recipe, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(changed(recipe, **fields), KINDS)
    assert said in caught.value.message
    assert caught.value.hint


def array(**fields: Any) -> list[dict[str, Any]]:
    held = {"shape": [1, 2], "float32": "AAAAAAAAAAA="} | fields
    return [{"op": "push", "strengths": {}, "person": {"ws": held}}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"shape": [2, 2]}, "8 bytes for the shape"),
        ({"shape": [2]}, "a code is [num_ws, w_dim]"),
        ({"shape": []}, "has the shape"),
        ({"shape": [0, 2]}, "has the shape"),
        ({"shape": [10**30, 10**30]}, "has the shape"),
        ({"float32": "AAAAAAAA!AA="}, "no base64"),
        ({"float32": "é"}, "no base64"),
        ({"float32": [0, 0]}, "no array"),
        ({"float32": "AADAfwAAwH8="}, "not finite"),  # two NaN
        ({"dtype": "object"}, "no array"),
    ],
)
def test_arrays_are_numbers_and_nothing_else(recipe: Recipe, fields: dict[str, Any], said: str) -> None:
    assert parse_recipe(changed(recipe, operations=array()), KINDS)
    with pytest.raises(InputError) as caught:
        parse_recipe(changed(recipe, operations=array(**fields)), KINDS)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("[]", "has no 'mien_recipe'"),
        ('{"mien_recipe": 1}', "operations must be a list"),
        ('{"mien_recipe": 1, "mien_recipe": 1}', "stands twice"),
        ('{"mien_recipe": NaN}', "not a finite number"),
        ('{"mien_recipe": -Infinity}', "not a finite number"),
        ('{"mien_recipe": 1e999}', "not a finite number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"mien_recipe": 1, "x": ' + "[" * 20 + "]" * 20 + "}", "nested too deeply"),
        ('{"mien_recipe": ' + "9" * 5000 + "}", "no JSON"),
        ('{"mien_recipe": 1, "operations": [], "network": "n", "method": "m"}', "has no digest"),
        (" " * (32 << 20) + "{}", "longer than 32 MiB"),
    ],
    ids=range(12),
)
def test_hostile_texts(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(text, KINDS)
    assert said in caught.value.message and len(caught.value.message) < 300


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "edit.json"
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(path, KINDS)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="no text"):
        load_recipe(path, KINDS)
    path.write_bytes(b" " * ((32 << 20) + 1))
    with pytest.raises(InputError, match="larger than 32 MiB"):
        load_recipe(path, KINDS)


def test_whatever_is_damaged_there_is_one_kind_of_error(recipe: Recipe) -> None:
    """Texts with random characters replaced, cut out and doubled are read, or refused by an `InputError`."""
    text, rng = recipe_text(recipe, KINDS), random.Random(0)
    for _ in range(1500):
        start = rng.randrange(len(text))
        end = start + rng.choice((0, 1, 1, 2, 30))
        more = "".join(rng.choice(string.printable + "é\ud800\x00") for _ in range(rng.choice((0, 1, 1, 3))))
        try:
            parse_recipe(text[:start] + more + text[end:], KINDS)
        except InputError as err:
            assert err.hint


@pytest.mark.slow
def test_whatever_json_there_is_there_is_one_kind_of_error() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="needs the development group")
    strategies = pytest.importorskip("hypothesis.strategies")
    names = ["network", "digest", "operations", "method", "op", "push", "strengths", "person", "ws", "shape", "float32"]
    scalars = strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats()
    words = strategies.sampled_from(names) | strategies.text(max_size=8)
    values = strategies.recursive(
        scalars | words, lambda inner: strategies.lists(inner) | strategies.dictionaries(words, inner), max_leaves=20
    )

    @hypothesis.settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @hypothesis.given(strategies.dictionaries(words, values))
    def check(data: dict[str, Any]) -> None:
        try:
            parse_recipe(json.dumps({"mien_recipe": 1} | data), KINDS)
        except InputError as err:
            assert err.hint

    check()


def test_a_value_that_is_not_finite_is_not_written() -> None:
    bad = Recipe(network="n", digest="d", method="m", operations=(Push(strengths={"a": float("nan")}),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        recipe_text(bad, KINDS)
