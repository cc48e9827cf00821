"""States of runs: who may go on from them, and who is told why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien.errors import InputError
from mien.training.resume import Origin, load_state, save_state

MINE = Origin({"lr": 0.1, "widths": (4, 8)}, ["a", "b"], network="net")


def test_a_state_comes_back_to_a_run_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert load_state(path, MINE) is None
    save_state({"step": 3, "weight": torch.ones(2)}, path, MINE)
    state = load_state(path, MINE)
    assert state is not None
    assert state["step"] == 3 and torch.equal(state["weight"], torch.ones(2))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(MINE, fixed={"lr": 0.2, "widths": (4, 8)}), "with other settings: lr"),
        (replace(MINE, fixed={"lr": 0.1}), "with other settings: widths"),
        (replace(MINE, data=["a", "c"]), "on other data"),
        (replace(MINE, network="other"), "for another generator"),
    ],
)
def test_another_kind_of_run_is_refused(other: Origin, message: str, tmp_path: Path) -> None:
    save_state({"step": 3}, tmp_path / "state.pt", MINE)
    with pytest.raises(InputError, match=message) as caught:
        load_state(tmp_path / "state.pt", other)
    assert "use another folder" in caught.value.hint


def test_options_tell_what_an_older_state_does_not(tmp_path: Path) -> None:
    origin = Origin({"lr": 0.1}, "digest")
    torch.save({"step": 3, "fixed": {"lr": 0.1}}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="on other data"):
        load_state(tmp_path / "state.pt", origin)
    (tmp_path / "options.json").write_text(json.dumps({"lr": 0.1, "data": "digest"}))
    assert load_state(tmp_path / "state.pt", origin) is not None


def test_a_damaged_state_is_said(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state({"step": 3}, path, MINE)
    for data in (path.read_bytes()[:-40], b"nothing", b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged or no state"):
            load_state(path, MINE)
