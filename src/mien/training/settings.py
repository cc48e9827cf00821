"""What the settings of every training share: each is checked as it is made, and some may change while a run goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mien.errors import InputError

__all__ = ["fixed_settings", "require_above", "require_least", "require_share"]


def fixed_settings(config: Any, *, free: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a dataclass that must stay as they are while a run goes on: all but those in `free`."""
    return {name: value for name, value in asdict(config).items() if name not in free}


def require_least(config: Any, least: float, *names: str) -> None:
    """Refuse settings below `least`.

    Raises:
        InputError: one is below it, or not a number.
    """
    for name in names:
        if not getattr(config, name) >= least:
            raise InputError(f"{name} must be at least {least:g}, got {getattr(config, name)}")


def require_above(config: Any, bound: float, *names: str) -> None:
    """Refuse settings that are not above `bound`.

    Raises:
        InputError: one is not.
    """
    for name in names:
        if not getattr(config, name) > bound:
            raise InputError(f"{name} must be above {bound:g}, got {getattr(config, name)}")


def require_share(config: Any, *names: str) -> None:
    """Refuse settings that are no share from 0 to 1.

    Raises:
        InputError: one is not.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name} must be from 0 to 1, got {getattr(config, name)}")
