"""Networks as files: tensors in safetensors, and in the header the recipe to build the network around them.

A recipe names a class of this project and its constructor arguments; a file never holds code. Nothing in a file is
believed: the network is first built without memory, within a budget, and compared with the tensors that are there, so a
damaged or hostile file costs no more than its own size.

Source: the format is github.com/huggingface/safetensors; readable by anything that reads it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mien.atomic import replacing
from mien.errors import InputError, WeightsError
from mien.nets.generator import Generator
from mien.weights.checkpoint import Recipe
from mien.weights.hub import SCHEME, pull_from_hub
from mien.weights.zoo import pull, zoo

__all__ = [
    "NETS",
    "Recipe",
    "bundled_names",
    "find_weights",
    "load_generator",
    "load_net",
    "read_recipe",
    "save_generator",
    "save_net",
    "weights_digest",
]

NETS = (
    "detector.Detector",
    "discriminator.Discriminator",
    "encoder.Encoder",
    "features.FaceNet",
    "stylegan2.Generator",
)
"""Every network that a file may ask for, as `<module of mien.nets>.<class>`."""

FORMER_NAMES = {"stylegan2.Discriminator": "discriminator.Discriminator"}
"""Names that older files have => what the network is called now."""

FORMAT = 1
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 4 << 20  # a thousand tensors need a twentieth of it
MAX_NUMBER = 1 << 20  # no size, count or gain of any network comes near
CALLS_PER_TENSOR = 100  # a constructor makes a tensor with about ten calls

Net = TypeVar("Net", bound=nn.Module)


# ---- Names and places -----------------------------------------------------------------------------------------------


def _bundle() -> Path:
    return Path(str(resources.files("mien") / "bundle"))


def bundled_names() -> list[str]:
    """Return the names of the networks that come with the package."""
    return sorted(path.stem for path in _bundle().glob(f"*{SUFFIX}") if not path.stem.startswith("directions-"))


def find_weights(path_or_name: str | Path) -> Path:
    """Return the file of a bundled network, of a path, of a name in the zoo, or of an address `hf://owner/name`.

    What is not in the cache yet is downloaded, unless `MIEN_OFFLINE` forbids it.

    Raises:
        WeightsError: there is no such file and no such name, or it cannot be fetched.
    """
    name = str(path_or_name)
    if name in bundled_names():
        return _bundle() / f"{name}{SUFFIX}"
    if name.startswith(SCHEME):
        return pull_from_hub(name)
    path = Path(path_or_name)
    if path.is_file():
        return path
    if name in zoo():
        return pull(name)
    known = ", ".join(bundled_names()) or "none in this installation"
    hint = f"give a file, a name that mien models list shows, or a bundled name: {known}"
    raise WeightsError(f"no weights at {name}", hint=hint)


def weights_digest(path_or_name: str | Path) -> str:
    """Return the sha256 of a file of weights, 64 hex digits, for reports."""
    path = find_weights(path_or_name)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise WeightsError(f"cannot read {path}: {err.strerror or err}") from err


# ---- Writing --------------------------------------------------------------------------------------------------------


def _net_name(net: nn.Module) -> str:
    name = f"{type(net).__module__.rpartition('.')[2]}.{type(net).__qualname__}"
    assert name in NETS, f"{name} is not in NETS"
    return name


def _as_half(name: str, tensor: Tensor) -> Tensor:
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
    recipe = {"format": FORMAT, "net": _net_name(net), "kwargs": net.init_kwargs, "provenance": dict(provenance or {})}
    tensors = {name: t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    if use_half:
        tensors = {name: _as_half(name, t) for name, t in tensors.items()}
    with replacing(Path(path)) as part:
        part.write_bytes(save(tensors, metadata={"mien": json.dumps(recipe, allow_nan=False)}))


def save_generator(
    G: Generator, path: str | Path, *, provenance: Mapping[str, Any] | None = None, use_half: bool = False
) -> None:
    """Write a generator with its recipe, as `save_net` does."""
    save_net(cast(nn.Module, G), path, provenance=provenance, use_half=use_half)


# ---- Reading --------------------------------------------------------------------------------------------------------


def _refuse(path: Path, what: str, hint: str = "get the file again; it is damaged or of another kind") -> NoReturn:
    raise WeightsError(f"{path.name}: {what}", hint=hint)


def _check_header(path: Path) -> None:
    """Refuse a file whose header is not there or too large to parse."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= size - 8:
        _refuse(path, "not a safetensors file, or cut short")
    if length > MAX_HEADER_BYTES:
        _refuse(path, f"its header claims {length} bytes")


def _check_numbers(path: Path, name: str, value: Any) -> None:
    """Refuse arguments that no network has; they would only cost memory."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(path, key, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(path, name, inner)
    elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        _refuse(path, f"{name} = {value!r:.30} is out of range")


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _parse(path: Path, text: str | None) -> Recipe:
    if text is None:
        _refuse(path, "no recipe in its header", hint="only files that mien wrote carry one")
    try:
        recipe = json.loads(text, parse_constant=_constant)
    except (ValueError, RecursionError) as err:
        raise WeightsError(f"{path.name}: its recipe is not JSON", hint="get the file again") from err
    if not isinstance(recipe, dict) or not isinstance(recipe.get("format"), int):
        _refuse(path, "its recipe has no format")
    if recipe["format"] != FORMAT:
        _refuse(path, f"its recipe has format {recipe['format']}, not {FORMAT}", hint="a newer mien may read it")
    net, kwargs, provenance = recipe.get("net"), recipe.get("kwargs"), recipe.get("provenance", {})
    net = FORMER_NAMES.get(net, net) if isinstance(net, str) else net
    if net not in NETS:
        _refuse(path, f"it asks for an unknown network {net!r:.80}", hint=f"known: {', '.join(NETS)}")
    if not isinstance(kwargs, dict) or not isinstance(provenance, dict):
        _refuse(path, "its recipe has no arguments")
    _check_numbers(path, "a value", kwargs)
    return Recipe(net, kwargs, provenance)


class _Budget(TorchFunctionMode):
    """Stops a constructor that makes more than `calls` calls of torch, whatever its arguments ask for."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("the network would have many more tensors than the file")
        return func(*args, **(kwargs or {}))


def _net_class(name: str) -> type[nn.Module]:
    module, _, cls = name.partition(".")
    return cast(type[nn.Module], getattr(importlib.import_module(f"mien.nets.{module}"), cls))


def _expected(path: Path, recipe: Recipe, num_tensors: int) -> dict[str, Tensor]:
    """Return the state that the recipe's network has, as tensors without memory."""
    try:
        with torch.device("meta"), _Budget(CALLS_PER_TENSOR * (num_tensors + 10)):
            return _net_class(recipe.net)(**recipe.kwargs).state_dict()
    except Exception as err:  # whatever a constructor says to arguments that are not its own
        what = f"{path.name}: its recipe does not make a {recipe.net}: {err}"
        raise WeightsError(what[:300], hint="get the file again, or update mien") from err


def _names(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _check_shapes(path: Path, found: Mapping[str, list[int]], expected: Mapping[str, Tensor]) -> None:
    if missing := expected.keys() - found.keys():
        _refuse(path, f"tensors are missing: {_names(missing)}")
    if foreign := found.keys() - expected.keys():
        _refuse(path, f"tensors do not belong to its network: {_names(foreign)}")
    for name, shape in found.items():
        if shape != list(expected[name].shape):
            _refuse(path, f"{name} is {shape}, its network wants {list(expected[name].shape)}")


def _check_values(path: Path, name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.is_floating_point() != like.is_floating_point() or tensor.is_complex():
        _refuse(path, f"{name} is {tensor.dtype}, its network wants {like.dtype}")
    tensor = tensor.to(like.dtype)
    if not math.isfinite(tensor.sum(dtype=torch.float64)):
        _refuse(path, f"{name} has values that are not finite", hint="the training that wrote it diverged")
    return tensor


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


def read_recipe(path_or_name: str | Path) -> Recipe:
    """Read only the recipe of a file of weights.

    Raises:
        WeightsError: nothing there, or not a file that mien wrote.
    """
    path = find_weights(path_or_name)
    with _opened(path) as file:
        return _parse(path, (file.metadata() or {}).get("mien"))


def _read_tensors(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    with _opened(path) as file:
        names = list(file.keys())
        expected = _expected(path, recipe, len(names))
        _check_shapes(path, {name: file.get_slice(name).get_shape() for name in names}, expected)
        return {name: _check_values(path, name, file.get_tensor(name), expected[name]) for name in names}


@overload
def load_net(path_or_name: str | Path) -> nn.Module: ...
@overload
def load_net(path_or_name: str | Path, kind: type[Net]) -> Net: ...
def load_net(path_or_name: str | Path, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """Load a network from a file or by its bundled name: on the CPU, in float32, for evaluation, without gradients.

    Args:
        path_or_name: a file that `save_net` wrote, or a name in `bundled_names()`.
        kind: the class that the caller needs.

    Raises:
        WeightsError: nothing there; the file is damaged, foreign, or holds another network.
    """
    path = find_weights(path_or_name)
    recipe = read_recipe(path)
    cls = _net_class(recipe.net)
    if not issubclass(cls, kind):
        _refuse(path, f"it holds a {recipe.net}, not a {kind.__name__}", hint="give another file")
    state = _read_tensors(path, recipe)
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random numbers
        net = cls(**recipe.kwargs)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def load_generator(path_or_name: str | Path) -> Generator:
    """Load a generator of any family, as `load_net` does.

    >>> load_generator("nobody")
    Traceback (most recent call last):
    mien.errors.WeightsError: no weights at nobody
    """
    net = load_net(path_or_name)
    if not isinstance(net, Generator):
        what = f"it holds a {type(net).__name__}, not a generator"
        _refuse(find_weights(path_or_name), what, hint="give another file")
    return net
