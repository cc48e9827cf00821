"""Schedules by their definitions, and as text."""

from __future__ import annotations

import math

import pytest

from mien.edits.schedule import KINDS, PRESETS, Listed, Ramp, Schedule, parse_schedule
from mien.errors import InputError

LEVELS = [4.0, 8.0, 8.0, 16.0, 16.0, 32.0, 32.0, 64.0]


@pytest.mark.parametrize("width", [0.25, 1.0, 3.0])
def test_a_ramp_is_the_logistic_function_of_octaves(width: float) -> None:
    for res, weight in zip(LEVELS, Ramp(16, width).at(LEVELS), strict=True):
        assert weight == pytest.approx(1 / (1 + math.exp(-(math.log2(res) - 4) / width)), abs=1e-12)
    assert Ramp(16, width).at([16]) == Ramp(16, width, is_below=True).at([16]) == [0.5]


def test_a_step_lands_on_the_resolution_asked_for() -> None:
    assert Ramp(16).at(LEVELS) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert Ramp(16, is_below=True).at(LEVELS) == [1, 1, 1, 0, 0, 0, 0, 0]


def test_a_narrow_ramp_is_the_step_but_in_its_middle() -> None:
    narrow = Ramp(16, 1e-3).at(LEVELS)
    assert [w for w, res in zip(narrow, LEVELS, strict=True) if res != 16] == [0, 0, 0, 1, 1, 1]


def test_a_list_of_the_networks_length_is_taken_as_it_is() -> None:
    weights = tuple(i / 7 for i in range(8))
    assert Listed(weights).at(LEVELS) == list(weights)


def test_a_list_of_another_length_is_stretched() -> None:
    assert Listed((0.3,)).at(LEVELS) == [0.3] * 8
    assert Listed((0.0, 1.0)).at(LEVELS) == pytest.approx([i / 7 for i in range(8)])
    assert Listed((0.0, 1.0)).at([4]) == [0]
    for num in (10, 12, 14, 16, 18):  # the 18 numbers of a network of 1024 px stay a step at its middle
        layers = parse_schedule("vtoonify-cartoon").at([4.0] * num)["conv"]
        assert layers == [1.0] * (num // 2) + [0.0] * (num // 2)


def test_the_15_numbers_of_stylegan3() -> None:
    curve = parse_schedule("cartoon-bot").curve
    assert isinstance(curve, Listed)
    assert curve.weights == (0.5, 0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.9, 0.9, 1, 1, 1, 1, 1, 1)


def test_kinds_have_their_own_curves() -> None:
    found = parse_schedule("above:16; affine=0; torgb=above:64:1; mapping=0.25")
    table = found.at(LEVELS)
    assert set(table) == set(KINDS) and found.mapping == 0.25
    assert table["conv"] == table["noise"] == table["bias"] == Ramp(16).at(LEVELS)
    assert table["affine"] == [0] * 8 and table["torgb"] == Ramp(64, 1.0).at(LEVELS)


@pytest.mark.parametrize(
    "text",
    [*PRESETS, "above:32", "below:16:0.5", "0.1", "0x5,0.2x3,1", "above:8; bias=0.5x2,1; mapping=1", "0.3333333333,1"],
)
def test_text_and_back(text: str) -> None:
    schedule = parse_schedule(text)
    assert parse_schedule(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no number"),
        ("above", "'above' is no number"),
        ("above:x", "'x' is no number"),
        ("above:0", "a ramp needs a resolution above 0"),
        ("above:8:-1", "a width from 0"),
        ("above:8:1:1", "'above:8:1:1' is no number"),
        ("nan", "'nan' is no number"),
        ("0.5,1.5", "weights go from 0 to 1, got 1.5"),
        ("0.5x", "'0.5x' is no part"),
        ("0.5x0", "a list of 0 weights"),
        ("0x999,0x999", "a list of 1998 weights"),
        ("0.5; smile=1", "no kind of tensors named 'smile'"),
        ("0.5; affine", "'affine' is no part"),
        ("0.5; affine=0; affine=1", "'affine=1' is no part"),
        ("0.5; mapping=2", "got 2 for the mapping"),
        ("0.5; mapping=above:8", "'above:8' is no number"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_schedule(text)


def test_a_schedule_is_checked_however_it_is_made() -> None:
    with pytest.raises(InputError, match="no kind of tensors named 'colour'"):
        Schedule(Listed((1.0,)), {"colour": Listed((1.0,))})
