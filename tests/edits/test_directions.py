"""Directions as data: what they move, the round trip, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mien.edits.directions import Direction, DirectionSet, load_directions, save_directions
from mien.errors import InputError, WeightsError
from mien.inversion.code import Inversion


@pytest.fixture
def found() -> DirectionSet:
    gen = torch.Generator().manual_seed(0)
    make = [
        Direction(torch.randn(6, generator=gen), (1, 2), "0.3 of a full smile", 0.3, (-2.0, 3.0)),
        Direction(torch.randn(6, generator=gen), (0,), "11 degrees", 11.0, (-1.0, 1.0)),
    ]
    return DirectionSet(dict(zip(("smile", "yaw"), make, strict=True)), "ab" * 32, {"config": {"num_samples": 9}})


def test_a_direction_moves_its_rows_by_its_vector(found: DirectionSet) -> None:
    ws = torch.randn(2, 4, 6)
    kept = ws.clone()
    moved = found["smile"].apply(ws, 1.5)
    torch.testing.assert_close(moved[:, 1:3] - ws[:, 1:3], (1.5 * found["smile"].vector).expand(2, 2, -1))
    assert torch.equal(moved[:, [0, 3]], ws[:, [0, 3]])
    assert torch.equal(ws, kept)
    torch.testing.assert_close(found["smile"].apply(moved, -1.5), ws)


def test_several_directions_add_up_and_none_changes_nothing(found: DirectionSet) -> None:
    ws = torch.randn(1, 4, 6)
    both = found.apply(ws, {"smile": 1, "yaw": -2})
    torch.testing.assert_close(both - ws, found.apply(ws, {"smile": 1}) + found.apply(ws, {"yaw": -2}) - 2 * ws)
    assert torch.equal(found.apply(ws, {"smile": 0.0}), ws)
    assert torch.equal(found.apply(ws, {}), ws)


def test_round_trip(found: DirectionSet, tmp_path: Path) -> None:
    save_directions(found, tmp_path / "d.safetensors")
    again = load_directions(tmp_path / "d.safetensors")
    assert (again.network, again.provenance) == (found.network, found.provenance)
    for name, d in found.directions.items():
        assert torch.equal(again[name].vector, d.vector)
        for fact in ("layers", "unit", "std", "safe_range"):
            assert getattr(again[name], fact) == getattr(d, fact)


def test_unknown_names_and_foreign_codes_are_refused(found: DirectionSet) -> None:
    with pytest.raises(InputError, match="no direction named 'beard'") as caught:
        found.apply(torch.zeros(1, 4, 6), {"beard": 1})
    assert caught.value.hint == "known: smile, yaw"
    with pytest.raises(InputError, match="another generator"):
        found["smile"].apply(torch.zeros(1, 4, 5), 1)
    with pytest.raises(InputError, match="another generator"):
        found["smile"].apply(torch.zeros(1, 2, 6), 1)


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_damaged_files_give_one_clear_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    if content is None:
        save_file({"smile": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="holds no directions"):
        load_directions(path)


def test_files_of_the_first_format_are_read(found: DirectionSet, tmp_path: Path) -> None:
    entry = {"layers": [1, 2], "unit": "0.3 of a full smile", "std": 0.3, "safe_range": [-2.0, 3.0]}
    facts = {"format": 1, "network": found.network, "provenance": {}, "directions": {"smile": entry}}
    vector = found["smile"].tensors()[""]
    save_file({"smile": vector}, tmp_path / "d.safetensors", metadata={"mien_directions": json.dumps(facts)})
    smile = load_directions(tmp_path / "d.safetensors")["smile"]
    assert isinstance(smile, Direction) and torch.equal(smile.vector, vector)
    assert (smile.layers, smile.effects, smile.identity, smile.place) == ((1, 2), {}, 0.0, "rows 1-2")


def test_an_edit_moves_the_code_and_scaling_changes_the_unit(found: DirectionSet) -> None:
    code = Inversion(ws=torch.randn(4, 6))
    edited = found.edit(code, {"smile": 1.0, "yaw": -2.0})
    torch.testing.assert_close(edited.ws, found.apply(code.ws[None], {"smile": 1.0, "yaw": -2.0})[0])
    twice = DirectionSet({"smile": found["smile"].scaled(2)})
    torch.testing.assert_close(twice.edit(code, {"smile": 0.5}).ws, found.edit(code, {"smile": 1.0}).ws)


def test_two_sets_of_one_generator_are_joined(found: DirectionSet) -> None:
    more = DirectionSet({"hat": found["yaw"]}, found.network, {"config": {"seed": 1}, "labels": 3})
    both = found.joined(more)
    assert sorted(both.directions) == ["hat", "smile", "yaw"]
    assert both.provenance == {"config": {"num_samples": 9, "seed": 1}, "labels": 3}
    with pytest.raises(InputError, match="two generators"):
        found.joined(DirectionSet({}, "cd" * 32))
