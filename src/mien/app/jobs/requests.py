"""What can be asked of the queue: each request is its parameters, how many pictures it takes, and how it is done.

A request is JSON with the name of its kind under `op`; it is read as strictly as a recipe, twice: by the door that
takes it and by the worker that does it. No request names a file, an address or weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mien.app.jobs.drawings import Generate, Stylize, Toonify
from mien.app.jobs.people import BlendFaces, ChangeFaces, MixFaces, MorphFaces, SwapFace
from mien.app.jobs.reports import LabReport, SweepBlends
from mien.app.jobs.work import Request
from mien.app.operations import OPERATIONS
from mien.edits.recipe import parse_operation, parse_operations
from mien.errors import InputError

__all__ = ["REQUESTS", "check"]

MAX_BYTES = 1 << 20

KINDS = (
    ChangeFaces,
    MixFaces,
    SwapFace,
    BlendFaces,
    MorphFaces,
    Stylize,
    Toonify,
    Generate,
    SweepBlends,
    LabReport,
)

REQUESTS: Mapping[str, type[Request]] = {kind.op: kind for kind in KINDS}
"""Name => kind of request; a capability of the studio becomes a job by a class here."""


def check(request: Mapping[str, Any], num_pictures: int) -> Request:
    """Read a request.

    Args:
        request: JSON.
        num_pictures: that come with it.

    Raises:
        InputError: an unknown kind or field, a value of another type or out of range, too few or too many pictures.
    """
    try:
        if len(json.dumps(request, allow_nan=False)) > MAX_BYTES:
            raise InputError(f"the request is longer than {MAX_BYTES >> 20} MiB", hint="send less")
    except (ValueError, TypeError, RecursionError):
        raise InputError("the request is no JSON that can be used", hint="see docs/service.md") from None
    try:
        made = _parse(dict(request))
    except InputError as err:
        raise InputError(
            err.message.replace("recipe:", "request:"), hint=err.hint.replace("--recipe", "a door")
        ) from err
    fewest, most = made.num_pictures
    if not fewest <= num_pictures <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise InputError(f"{num_pictures} pictures for {made.label}", hint=f"it takes {wanted}")
    return made


def _parse(request: dict[str, Any]) -> Request:
    ready = {}
    if request.get("op") == "change":
        ready["operations"] = parse_operations(request.pop("operations", None), OPERATIONS)
    made = parse_operation(request, REQUESTS, "the request", **ready)
    assert isinstance(made, Request)
    return made
