"""Options that many commands share, as one argument: a dataclass whose fields the command line shows one by one.

    @app.command()
    @spread
    def edit(photo: Photo, out: Out, faces: OnFaces = OnFaces(method="hybrid")) -> None: ...

Typer sees `photo`, `out` and every field of `OnFaces`; the function is given an `OnFaces`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

__all__ = ["spread"]


def _options_of(kind: type[Any], default: object) -> list[Parameter]:
    """The fields of a dataclass as parameters, with the values of an instance as their defaults."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):
        own = Parameter.empty if field.default is MISSING else field.default
        value = own if default is Parameter.empty else getattr(default, field.name)
        found.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=value, annotation=hints[field.name]))
    return found


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the fields of every parameter that is a dataclass instead of it.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Where:
    ...     x: int = 0
    ...     y: int = 0
    >>> @spread
    ... def show(name: str, where: Where = Where(y=2)) -> None:
    ...     print(name, where)
    >>> str(signature(show)), show(name="here", x=1, y=3)
    here Where(x=1, y=3)
    ('(*, name: str, x: int = 0, y: int = 2) -> None', None)
    """
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, type[Any]] = {}
    shown: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        kind = hints[parameter.name]
        if isinstance(kind, type) and is_dataclass(kind):
            bundles[parameter.name] = kind
            shown += _options_of(kind, parameter.default)
        else:
            shown.append(parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, kind in bundles.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    run.__signature__ = Signature(shown, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run
