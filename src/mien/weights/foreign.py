"""Files that are often met and never read: their networks are other ones, and the error says which.

Source: the names are those of github.com/lucidrains/stylegan2-pytorch, github.com/autonomousvision/stylegan-xl,
github.com/NVlabs/eg3d, github.com/williamyang1991/DualStyleGAN, github.com/TencentARC/GFPGAN and
github.com/rosinality/stylegan2-pytorch (SWAGAN).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

from mien.weights.pickles import Record
from mien.weights.tables import refuse

__all__ = ["matches", "read"]

FOREIGN: tuple[tuple[str, str], ...] = (
    (r"(GAN\.)?[SG]E?\.(net|initial_block|blocks)\b", "a network of lucidrains' stylegan2-pytorch, another generator"),
    (
        r"training\.networks_stylegan3_resetting\.|.*\bSuperresGenerator\b",
        "StyleGAN-XL, another generator",
    ),
    (r"training\.networks_fastgan\.|pg_modules\.", "a projected GAN"),
    (r"training\.triplane\.", "EG3D, a generator of volumes"),
    (r"(.*\.)?generator\.conv1\.conv\.modulation\.", "DualStyleGAN, two generators in one"),
    (r"(.*\.)?stylegan_decoder\.", "GFPGAN, a restorer of faces"),
    (r"(.*\.)?iwt\.ll$", "SWAGAN, a generator of wavelets"),
    (r"(.*\.)?model\.diffusion_model\.", "a diffusion model"),
)
"""What names begin with => what the file is."""

MAX_DEPTH = 3
MAX_NAMES = 10_000


def _names(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the names of a tree, dotted, and the classes of its records."""
    if isinstance(tree, Record):
        if tree.args and isinstance(tree.args[0], str):
            yield tree.args[0]
    elif isinstance(tree, Mapping) and depth < MAX_DEPTH:
        for name, value in tree.items():
            yield f"{prefix}{name}"
            yield from _names(value, f"{prefix}{name}.", depth + 1)


def _reason(tree: Any) -> str | None:
    for name in islice(_names(tree), MAX_NAMES):
        for pattern, what in FOREIGN:
            if re.match(pattern, name):
                return what
    return None


def matches(tree: Any) -> bool:
    """Tell whether a tree is a file of a network that is known not to be ours."""
    return _reason(tree) is not None


def read(tree: Any) -> NoReturn:
    """Say what the file is.

    Raises:
        WeightsError: always.
    """
    refuse(f"it is {_reason(tree)}; mien does not read it", hint="only its own code runs it")
