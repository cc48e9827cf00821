"""The door to networks: a file of any format that mien reads, or the name of a bundled network.

Source: `formats` reads, `build` checks and builds, `native` writes.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import TypeVar, cast, overload

from torch import nn

from mien.errors import MissingWeightsError, WeightsError
from mien.nets.generator import Generator
from mien.report import Sink, ignore
from mien.weights.build import NETS, build, refuse
from mien.weights.checkpoint import Recipe
from mien.weights.formats import choose, read_checkpoint
from mien.weights.hub import SCHEME, pull_from_hub
from mien.weights.native import SUFFIX, is_safetensors, read_safetensors_recipe, save_generator, save_net
from mien.weights.zoo import pull, zoo

__all__ = [
    "NETS",
    "Recipe",
    "bundled_file",
    "bundled_names",
    "find_weights",
    "load_generator",
    "load_net",
    "read_recipe",
    "save_generator",
    "save_net",
    "weights_digest",
]

Net = TypeVar("Net", bound=nn.Module)
TABLES = ("directions-", "quality-")  # how bundled files begin that hold no network


# ---- Names and places -----------------------------------------------------------------------------------------------


def _bundle() -> Path:
    return Path(str(resources.files("mien") / "bundle"))


def bundled_file(name: str) -> Path | None:
    """Return the file of a network that comes with the package, None where there is none of this name."""
    return _bundle() / f"{name}{SUFFIX}" if name in bundled_names() else None


def bundled_names() -> list[str]:
    """Return the names of the networks that come with the package."""
    return sorted(path.stem for path in _bundle().glob(f"*{SUFFIX}") if not path.stem.startswith(TABLES))


def find_weights(path_or_name: str | Path, *, on_step: Sink = ignore) -> Path:
    """Return the file of a bundled network, of a path, of a name in the zoo, or of an address `hf://owner/name`.

    What is not in the cache yet is downloaded, unless `MIEN_OFFLINE` forbids it; `on_step` hears of the bytes.

    Raises:
        MissingWeightsError: there is no such file and no such name.
        WeightsError: it cannot be fetched.
    """
    name = str(path_or_name)
    if (bundled := bundled_file(name)) is not None:
        return bundled
    if name.startswith(SCHEME):
        return pull_from_hub(name)
    path = Path(path_or_name)
    if path.is_file():
        return path
    if name in zoo():
        return pull(name, on_step=on_step)
    known = ", ".join(bundled_names()) or "none in this installation"
    hint = f"give a file, a name that mien models list shows, or a bundled name: {known}"
    raise MissingWeightsError(f"no weights at {name}", hint=hint)


def weights_digest(path_or_name: str | Path) -> str:
    """Return the sha256 of a file of weights, 64 hex digits, for reports."""
    path = find_weights(path_or_name)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise WeightsError(f"cannot read {path}: {err.strerror or err}") from err


def read_recipe(path_or_name: str | Path) -> Recipe:
    """Read only the recipe of a file of weights; of a foreign file, what it amounts to for its main network.

    Raises:
        WeightsError: nothing there, or nothing that can be read.
    """
    path = find_weights(path_or_name)
    recipe = read_safetensors_recipe(path) if is_safetensors(path) else None
    return recipe or choose(read_checkpoint(path), path.name).recipe


# ---- Networks -------------------------------------------------------------------------------------------------------


@overload
def load_net(path_or_name: str | Path, *, role: str | None = None) -> nn.Module: ...
@overload
def load_net(path_or_name: str | Path, kind: type[Net], *, role: str | None = None) -> Net: ...
def load_net(path_or_name: str | Path, kind: type[nn.Module] = nn.Module, *, role: str | None = None) -> nn.Module:
    """Load a network from a file or by its bundled name: on the CPU, in float32, for evaluation, without gradients.

    Args:
        path_or_name: a file of any format that mien reads, or a name in `bundled_names()`.
        kind: the class that the caller needs.
        role: which network of a file with several, `G_ema`, `G`, `D` or `E`; by default the first that is a `kind`.

    Raises:
        UnsafeWeightsError: the file asks for code.
        WeightsError: nothing there; the file is damaged, foreign, or holds another network.
    """
    path = find_weights(path_or_name)
    return build(choose(read_checkpoint(path), path.name, kind, role), path.name).net


def load_generator(path_or_name: str | Path, *, role: str | None = None) -> Generator:
    """Load a generator of any family, as `load_net` does.

    >>> load_generator("nobody")
    Traceback (most recent call last):
    mien.errors.MissingWeightsError: no weights at nobody
    """
    path = find_weights(path_or_name)
    found = choose(read_checkpoint(path), path.name, role=role)
    if not found.recipe.net.endswith(".Generator"):
        refuse(path.name, f"it holds a {found.recipe.net.partition('.')[2]}, not a generator", hint="give another file")
    return cast(Generator, build(found, path.name).net)
