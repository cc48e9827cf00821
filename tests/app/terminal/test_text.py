"""What users type: every form that is read, and the error for every other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.app.terminal.text import parse_classes, parse_layers, parse_people, parse_point, parse_seeds, parse_settings
from mien.errors import InputError


@pytest.mark.parametrize(
    ("text", "seeds"), [("7", [7]), ("1,2,5-10", [1, 2, *range(5, 11)]), (" 3 , 4", [3, 4]), ("2,1-3", [2, 1, 3])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-2", "-1", "1-", "1.5", "²", "99999999999"])
def test_what_is_no_seed(text: str) -> None:
    with pytest.raises(InputError, match="is not a seed") as caught:
        parse_seeds(text)
    assert "1,2,5-10" in caught.value.hint


def test_too_many_seeds() -> None:
    with pytest.raises(InputError, match="more than 100000 numbers"):
        parse_seeds("0-999999999")


@pytest.mark.parametrize(
    ("text", "layers"),
    [("8-", [8, 9]), ("0-2", [0, 1, 2]), ("-1", [0, 1]), ("3,5,4", [3, 4, 5]), ("0,2-3,8-", [0, 2, 3, 8, 9])],
)
def test_layers(text: str, layers: list[int]) -> None:
    assert parse_layers(text, 10) == layers


@pytest.mark.parametrize(("text", "message"), [("", "not a range"), ("-", "not a range"), ("x", "not a range")])
def test_what_is_no_layer(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_layers(text, 10)


@pytest.mark.parametrize("text", ["10", "10-", "5-3", "0-10"])
def test_layers_that_are_not_there(text: str) -> None:
    with pytest.raises(InputError, match="are not there") as caught:
        parse_layers(text, 10)
    assert "0 to 9" in caught.value.hint


def test_settings() -> None:
    assert parse_settings(["smile=1.5", " age = -1"]) == {"smile": 1.5, "age": -1.0}
    for text in ("smile", "smile=", "=1", "smile=x", "smile=nan", "smile=inf"):
        with pytest.raises(InputError, match="is no setting"):
            parse_settings([text])
    with pytest.raises(InputError, match="smile is set twice"):
        parse_settings(["smile=1", "smile=2"])


def test_people_are_seeds_or_codes() -> None:
    assert parse_people("1,out/anna_0.safetensors,3-4,1") == [1, Path("out/anna_0.safetensors"), 3, 4]
    with pytest.raises(InputError, match=r"'anna.png' is not a seed"):
        parse_people("1,anna.png")


def test_classes() -> None:
    assert parse_classes("0,2-3") == [0, 2, 3]
    with pytest.raises(InputError, match="'x' is not a class"):
        parse_classes("x")


def test_points() -> None:
    assert parse_point(" 120 , 84.5") == (120.0, 84.5)
    for text in ("", "1", "1,2,3", "-1,2", "1,nan", "a,b", "1e9,2"):
        with pytest.raises(InputError, match="is no point"):
            parse_point(text)
