"""The state that a killed run goes on from: replaced as a whole, and refused by a run of another kind.

A state says what its run was begun with: settings, data, and the generator that it learns for. A run goes on only where
all of it is the same, so that no network is ever half of this and half of that.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mien.atomic import replacing, write_text
from mien.errors import InputError
from mien.training.provenance import commit

__all__ = ["Origin", "load_state", "read_options", "save_state", "write_options"]

OPTIONS = "options.json"


@dataclass(frozen=True)
class Origin:
    """What a run was begun with.

    Attributes:
        fixed: the settings that may not change while it goes on.
        data: digest of what it learns from, or several.
        network: digest of the generator that it learns for, empty where it learns for none.
    """

    fixed: Mapping[str, Any]
    data: str | list[str]
    network: str = ""

    def facts(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold."""
        facts = {"fixed": dict(self.fixed), "data": self.data} | ({"network": self.network} if self.network else {})
        return dict(json.loads(json.dumps(facts)))

    def difference(self, held: Mapping[str, Any]) -> str:
        """Say how a run whose state holds `held` differs from one of this origin; empty where it does not."""
        mine = self.facts()
        theirs = json.loads(json.dumps({key: held.get(key) for key in mine}))
        fixed = theirs["fixed"] or {}
        if names := sorted(k for k in mine["fixed"] | fixed if mine["fixed"].get(k) != fixed.get(k)):
            return f"with other settings: {', '.join(names)}"
        if mine["data"] != theirs["data"]:
            return "on other data"
        return "for another generator" if mine.get("network") != theirs.get("network") else ""


def load_state(path: Path, origin: Origin, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read the state of a run that goes on, or None where none was saved.

    What a state does not say of its origin, options.json beside it may.

    Args:
        path: where `save_state` wrote it.
        origin: of the run that wants to go on.
        device: where its tensors are to be.

    Raises:
        InputError: it belongs to a run with other settings, data or generator, or it is damaged.
    """
    if not path.exists():
        return None
    try:
        state = dict(torch.load(path, map_location=device, weights_only=True))
    except (RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as err:
        raise InputError(f"{path} is damaged or no state of a run", hint="remove it, or use another folder") from err
    if difference := origin.difference(read_options(path.parent) | state):
        hint = "use another folder, or the settings and data that it was begun with"
        raise InputError(f"{path.parent} holds a run {difference}", hint=hint)
    return state


def save_state(state: Mapping[str, Any], path: Path, origin: Origin) -> None:
    """Replace the state at `path`, whole or not at all; it says what its run was begun with."""
    with replacing(path) as part:
        torch.save({**state, **origin.facts()}, part)


def write_options(config: Any, run_dir: Path, origin: Origin, facts: Mapping[str, Any] | None = None) -> str:
    """Write a run's settings (a dataclass), its origin, the commit and other facts to options.json; return the text."""
    known = {name: value for name, value in origin.facts().items() if name != "fixed"}
    text = json.dumps(asdict(config) | known | {"commit": commit()} | dict(facts or {}), indent=1)
    write_text(text, run_dir / OPTIONS)
    return text


def read_options(run_dir: Path) -> dict[str, Any]:
    """Read a run's options.json; empty where there is none."""
    try:
        return dict(json.loads((run_dir / OPTIONS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
