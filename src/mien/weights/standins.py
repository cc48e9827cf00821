"""What stands in for the names that files of weights ask for: an explicit table, and nothing of it runs foreign code.

Containers become plain ones, numpy's arrays and torch's tensors become tensors, classes that we know but do not build
become records. A name that is not here is refused by the machine.

Source: `torch._utils`, `torch._tensor`, `numpy._core.multiarray` and `torch_utils.persistence` of
github.com/NVlabs/stylegan2-ada-pytorch, read for the order of their arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.weights.pickles import MAX_NAME, Budget, Machine, Maker, Name, Pending, Record
from mien.weights.tables import refuse

__all__ = ["DTYPES", "NAMES", "PERSISTENT", "TENSORFLOW", "Storage"]

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
"""A module of NVIDIA's PyTorch pickles: a `Record` with its class's name as argument and its attributes as state."""

TENSORFLOW = "dnnlib.tflib.network.Network"
"""A network of NVIDIA's TensorFlow pickles: a `Record` with its attributes as state."""

MAX_DIMS = 8
ARRAYS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
DTYPES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
}
"""What a storage of torch holds, by the full name of its class."""


@dataclass(frozen=True, eq=False)
class Storage:
    """Memory of tensors: its values, one dimension."""

    values: Tensor


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _shape(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, list | tuple) or len(sizes) > MAX_DIMS or not all(map(_is_count, sizes)):
        refuse("a tensor has no proper shape")
    return tuple(sizes)


# ---- Tensors of torch -----------------------------------------------------------------------------------------------


def _tensor(machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, *_hooks: Any) -> Tensor:
    """`_rebuild_tensor_v2`: a view that stays inside its storage."""
    size, stride = _shape(size), _shape(stride)
    if not isinstance(storage, Storage) or not _is_count(offset) or len(size) != len(stride):
        refuse("a tensor has no proper storage")
    num = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if num else 0
    if last >= max(1, storage.values.numel()):
        refuse(f"a tensor of shape {list(size)} reaches beyond its storage of {storage.values.numel()} values")
    if num > storage.values.numel():
        refuse(f"a tensor of shape {list(size)} has more values than its storage, {storage.values.numel()}")
    machine.budget.view(num * storage.values.element_size())
    return storage.values.as_strided(size, stride, offset) if num else storage.values.new_empty(size)


def _parameter(_: Machine, data: Any, *_hooks: Any) -> Tensor:
    """`_rebuild_parameter`."""
    if not isinstance(data, Tensor):
        refuse("a parameter is not a tensor")
    return data


def _with_attributes(machine: Machine, function: Any, _type: Any, args: Any, _state: Any) -> Any:
    """`_rebuild_from_type_v2`: what the function makes; attributes are left out."""
    return machine.call(function, args)


# ---- Arrays of numpy ------------------------------------------------------------------------------------------------


class _Dtype(Pending):
    """`numpy.dtype`; the byte order follows as its state."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.is_object = code in ("O", "O8")
        if not self.is_object and code not in ARRAYS:
            refuse(f"an array holds {code!r:.20}, not numbers")
        self.code, self.order = code, "="

    def built(self, state: Any, _budget: Budget) -> _Dtype:
        """Take the byte order."""
        order = state[1]
        if order not in ("<", ">", "|", "="):
            refuse("an array has no proper byte order")
        self.order = order
        return self

    def read(self, raw: Any, shape: tuple[int, ...], budget: Budget, order: str = "C") -> Tensor:
        """Return the values of `raw` as a tensor of this machine's byte order."""
        dtype = np.dtype(self.order + self.code)
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's strings are bytes
        num = math.prod(shape)
        if not isinstance(raw, bytes | memoryview) or len(raw) != num * dtype.itemsize:
            refuse(f"an array of shape {list(shape)} does not have its bytes")
        budget.make(len(raw))
        values = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="), copy=True)
        return torch.from_numpy(values.reshape(shape, order="F" if order == "F" else "C"))


def _dtype(_: Machine, code: Any, _align: Any, _copy: Any) -> _Dtype:
    return _Dtype(code)


def _nested(items: Iterable[Any], shape: tuple[int, ...]) -> Any:
    flat = list(items)
    for size in shape[:0:-1]:
        flat = [flat[i : i + size] for i in range(0, len(flat), size)] if size else []
    return flat


class _Array(Pending):
    """`_reconstruct`: an array whose state will be (version, shape, dtype, is_fortran, bytes)."""

    def __init__(self, *_args: Any) -> None:
        super().__init__()

    def built(self, state: Any, budget: Budget) -> Any:
        """Return a tensor; of an array of objects, lists."""
        *_, shape, dtype, is_fortran, raw = state
        shape = _shape(shape)
        if not isinstance(dtype, _Dtype):
            refuse("an array has no type")
        if not dtype.is_object:
            return dtype.read(raw, shape, budget, order="F" if is_fortran is True else "C")
        if not isinstance(raw, list) or len(raw) != math.prod(shape):
            refuse("an array of objects does not have them")
        return _nested(raw, shape) if shape else raw[0]


def _scalar(machine: Machine, dtype: Any, raw: Any) -> Any:
    """`scalar`: a number."""
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        refuse("a number of numpy has no type")
    return dtype.read(raw, (), machine.budget).item()


def _from_buffer(machine: Machine, raw: Any, dtype: Any, shape: Any, order: Any) -> Tensor:
    """`_frombuffer`, how protocol 5 writes arrays."""
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        refuse("an array has no type")
    return dtype.read(raw, _shape(shape), machine.budget, order)


# ---- Containers and what Python writes around them ------------------------------------------------------------------


def _dict(_: Machine, items: Any = ()) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in items.items() if isinstance(items, dict) else items:
        if not isinstance(key, str) or len(key) > MAX_NAME:
            refuse("a dict made of a list has a key that is no name")
        made[key] = value
    return made


def _counter(_: Machine, counts: Any = None) -> dict[Any, Any]:
    """`collections.Counter`, which schedules of learning rates have."""
    if counts is not None and not isinstance(counts, dict):
        refuse("a counter has no counts")
    return dict(counts or {})


def _set(_: Machine, items: Any = ()) -> set[str]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        refuse("a set holds more than names")
    return set(items)


def _encoded(_: Machine, text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, how protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        refuse("bytes are written in a strange way")
    return text.encode("latin1")


def _no_bytes(_: Machine) -> bytes:
    """`bytes()`, how protocol 2 writes that there are none."""
    return b""


def _size(_: Machine, sizes: Any) -> tuple[int, ...]:
    return _shape(sizes)


def _new(machine: Machine, made: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`, how protocols 0 and 1 make objects."""
    if base not in (Name("builtins.object"), Name("__builtin__.object")) or state is not None:
        refuse("an object derives from more than object")
    return machine.call(made, ())


def _persistent(_: Machine, meta: Any) -> Record:
    """Keep the class's name and the attributes; the source text that travels with them is let go unread."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        refuse("an object of NVIDIA's persistence is not a class")
    if len(meta["class_name"]) > MAX_NAME:
        refuse("a class has an endless name")
    return Record(PERSISTENT, (meta["class_name"],), meta.get("state"))


def _record(name: str) -> Maker:
    return lambda _machine, *args: Record(name, args)


RECORDS = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.device",
    "types.SimpleNamespace",
    TENSORFLOW,
)
MENTIONED = (
    "__builtin__.object",
    "builtins.object",
    "numpy.ndarray",
    "torch.Tensor",
    "torch.bfloat16",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.nn.parameter.Parameter",
    "torch.int64",
    "torch.uint8",
    *DTYPES,
)

NAMES: dict[str, Maker | None] = {
    **{name: _record(name) for name in RECORDS},
    **dict.fromkeys(MENTIONED),
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "__builtin__.bytes": _no_bytes,
    "__builtin__.set": _set,
    "_codecs.encode": _encoded,
    "builtins.set": _set,
    "collections.Counter": _counter,
    "collections.OrderedDict": _dict,
    "copy_reg._reconstructor": _new,
    "copyreg._reconstructor": _new,
    "dnnlib.EasyDict": _dict,
    "dnnlib.util.EasyDict": _dict,
    "easydict.EasyDict": _dict,
    "numpy.dtype": _dtype,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    PERSISTENT: _persistent,
}
"""Every name that a file may ask for: what a call of it makes, or None where it may only be mentioned."""
