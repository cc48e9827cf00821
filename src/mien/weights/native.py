"""mien's own files: tensors in safetensors, and in the header the recipe to build the network around them.

A recipe names a class of this project and its constructor arguments; a file never holds code.

Source: the format is github.com/huggingface/safetensors; readable by anything that reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mien.atomic import replacing
from mien.errors import InputError, WeightsError
from mien.nets.generator import Generator
from mien.weights.build import FORMER_NAMES, NETS, check_numbers, refuse
from mien.weights.checkpoint import Base, Recipe

__all__ = [
    "FORMAT",
    "SUFFIX",
    "as_half",
    "is_safetensors",
    "net_name",
    "read_safetensors",
    "read_safetensors_recipe",
    "save_generator",
    "save_net",
]

FORMAT = 1
SUFFIX = ".safetensors"
NAME = re.compile(r"[\w.-]{1,100}")  # of a base: no folders
MAX_HEADER_BYTES = 4 << 20  # a thousand tensors need a twentieth of it


# ---- Writing --------------------------------------------------------------------------------------------------------


def net_name(net: nn.Module) -> str:
    """Return the name of a network's class in `NETS`."""
    name = f"{type(net).__module__.rpartition('.')[2]}.{type(net).__qualname__}"
    assert name in NETS, f"{name} is not in NETS"
    return name


def as_half(name: str, tensor: Tensor) -> Tensor:
    """Return floats as 16 bits, other tensors as they are.

    Raises:
        InputError: the tensor of this name has values beyond.
    """
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not half.isfinite().all():
        raise InputError(f"{name} has values beyond half precision", hint="save it in float32")
    return half


def save_net(
    net: nn.Module, path: str | Path, *, provenance: Mapping[str, Any] | None = None, use_half: bool = False
) -> None:
    """Write a network with its recipe; the old file stays as it is until the new one is whole.

    Args:
        net: of a class in `NETS`, with its constructor's arguments in `init_kwargs`.
        path: file to make or replace.
        provenance: facts about the weights that JSON can hold.
        use_half: store floats in 16 bits; they load as float32.

    Raises:
        InputError: the weights do not fit 16 bits, or are not finite.
        MienError: the file cannot be written.
    """
    recipe = {"format": FORMAT, "net": net_name(net), "kwargs": net.init_kwargs, "provenance": dict(provenance or {})}
    tensors = {name: t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    if use_half:
        tensors = {name: as_half(name, t) for name, t in tensors.items()}
    with replacing(Path(path)) as part:
        part.write_bytes(save(tensors, metadata={"mien": json.dumps(recipe, allow_nan=False)}))


def save_generator(
    G: Generator, path: str | Path, *, provenance: Mapping[str, Any] | None = None, use_half: bool = False
) -> None:
    """Write a generator with its recipe, as `save_net` does."""
    save_net(cast(nn.Module, G), path, provenance=provenance, use_half=use_half)


# ---- Reading --------------------------------------------------------------------------------------------------------


def is_safetensors(path: Path) -> bool:
    """Tell a file of safetensors by its first bytes, and a damaged one by its name.

    Raises:
        WeightsError: there is no such file.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as err:
        raise WeightsError(f"cannot read {path}: {err.strerror or err}", hint="check its permissions") from err
    return path.suffix.lower() == SUFFIX or (len(head) == 9 and head[8:] == b"{" and head[6:8] == b"\0\0")


def _check_header(path: Path) -> None:
    """Refuse a file whose header is not there or too large to parse."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= size - 8:
        refuse(path.name, "not a safetensors file, or cut short")
    if length > MAX_HEADER_BYTES:
        refuse(path.name, f"its header claims {length} bytes")


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _parse(file: str, text: str) -> Recipe:
    try:
        recipe = json.loads(text, parse_constant=_constant)
    except (ValueError, RecursionError) as err:
        raise WeightsError(f"{file}: its recipe is not JSON", hint="get the file again") from err
    if not isinstance(recipe, dict) or not isinstance(recipe.get("format"), int):
        refuse(file, "its recipe has no format")
    if recipe["format"] != FORMAT:
        refuse(file, f"its recipe has format {recipe['format']}, not {FORMAT}", hint="a newer mien may read it")
    net, kwargs, provenance = recipe.get("net"), recipe.get("kwargs"), recipe.get("provenance", {})
    net = FORMER_NAMES.get(net, net) if isinstance(net, str) else net
    if net not in NETS:
        refuse(file, f"it asks for an unknown network {net!r:.80}", hint=f"known: {', '.join(NETS)}")
    if not isinstance(kwargs, dict) or not isinstance(provenance, dict):
        refuse(file, "its recipe has no arguments")
    check_numbers(file, "a value", kwargs)
    return Recipe(net, kwargs, provenance, _parse_base(file, recipe.get("base")))


def _parse_base(file: str, base: Any) -> Base | None:
    if base is None:
        return None
    name, digest = (str(base.get(key, "")) if isinstance(base, dict) else "" for key in ("name", "digest"))
    if not (NAME.fullmatch(name) and NAME.fullmatch(digest)):
        refuse(file, "it does not say what it is a difference to")
    return Base(name, digest)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file of a sane header; whatever is wrong with it is a `WeightsError`."""
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as err:
        raise WeightsError(f"cannot read {path}: {err.strerror or err}", hint="check its permissions") from err
    except SafetensorError as err:
        raise WeightsError(f"{path.name}: damaged ({err})"[:300], hint="get the file again") from err


def _recipe_of(path: Path, file: Any) -> Recipe | None:
    held = file.metadata() or {}
    text = held.get("mien", held.get("mien_difference"))
    if text is None:
        return None
    recipe = _parse(path.name, text)
    if (recipe.base is None) != ("mien" in held):
        refuse(path.name, "it is and is not a difference to other weights")
    return recipe


def read_safetensors_recipe(path: Path) -> Recipe | None:
    """Read only the recipe in the header of a safetensors file, None where it has none.

    Raises:
        WeightsError: not a safetensors file, damaged, or with a recipe that is none.
    """
    with _opened(path) as file:
        return _recipe_of(path, file)


def read_safetensors(path: Path) -> tuple[Recipe | None, dict[str, Tensor]]:
    """Read a safetensors file: its recipe, None where it has none, and its tensors.

    Raises:
        WeightsError: not a safetensors file, damaged, or with a recipe that is none.
    """
    with _opened(path) as file:
        return _recipe_of(path, file), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
