"""Torch's two containers: the zip of today and the chain of pickles of before 1.6, also as bytes inside another pickle.

Only plain storage counts: entries must lie uncompressed, apart from each other and inside the file, so that the file's
size limits what reading costs.

Source: the layout is that of `torch.serialization`, read as a format.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from mien.errors import WeightsError
from mien.weights.pickles import Budget, Machine, Maker, Name
from mien.weights.standins import DTYPES, NAMES, Storage
from mien.weights.tables import refuse

__all__ = ["MAGIC", "TORCH_NAMES", "read_chain", "read_zip"]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_ENTRIES = 50_000  # one for each storage
MAX_DIRECTORY_BYTES = 8 << 20
MAX_DEPTH = 3  # a module's tensors are files of their own inside a pickle; those hold no further ones
LOCAL_HEADER = struct.Struct("<4s22xHH")


def _nested(machine: Machine, data: Any) -> Any:
    """`torch.storage._load_from_bytes`: a whole file of the old form."""
    if not isinstance(data, bytes | memoryview):
        refuse("a storage is not made of bytes")
    return read_chain(memoryview(data), machine.budget)


TORCH_NAMES: Mapping[str, Maker | None] = {**NAMES, "torch.storage._load_from_bytes": _nested}


def _claim(pid: Any) -> tuple[torch.dtype, str, int]:
    """Take ("storage", class, key, location, count[, view]) apart."""
    match pid:
        case ("storage", Name(name), str(key), _, int(num), *view) if name in DTYPES and 0 <= num < 2**40:
            if view in ([], [None]):
                return DTYPES[name], key, num
    raise WeightsError("it refers to something else than a storage of tensors", hint="get the file again")


def _of_type(storage: Storage, dtype: torch.dtype, key: str) -> Storage:
    if storage.values.dtype != dtype:
        refuse(f"storage {key!r:.20} is of two types")
    return storage


# ---- The chain of pickles -------------------------------------------------------------------------------------------


def _fill(data: memoryview, position: int, storage: Storage) -> int:
    """Copy a storage's values from `position`, where their count stands first; return where they end."""
    start = position + 8
    raw = data[start : start + storage.values.nbytes]
    if int.from_bytes(data[position:start], "little") != storage.values.numel() or len(raw) < storage.values.nbytes:
        refuse("cut short: the values of a storage are missing")
    if raw:
        storage.values.view(torch.uint8).copy_(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
    return start + len(raw)


def read_chain(data: memoryview, budget: Budget) -> Any:
    """Read magic number, protocol, platform, object, keys, values.

    Raises:
        WeightsError: it is something else, or damaged.
    """
    if budget.depth >= MAX_DEPTH:
        refuse(f"files are nested more than {MAX_DEPTH} deep")
    storages: dict[str, Storage] = {}

    def find(pid: Any) -> Storage:
        dtype, key, num = _claim(pid)
        if key not in storages:
            budget.make(num * dtype.itemsize)
            storages[key] = Storage(torch.empty(num, dtype=dtype))
        return _of_type(storages[key], dtype, key)

    budget.depth += 1
    machine = Machine(data, TORCH_NAMES, budget, find)
    if machine.run() != MAGIC or machine.run() != PROTOCOL:
        refuse("it does not begin as torch's files do")
    platform = machine.run()
    if not isinstance(platform, dict) or platform.get("little_endian") is not True:
        refuse("it was written on a machine of the other byte order")
    tree, keys = machine.run(), machine.run()
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        refuse("its list of storages is not that of its tensors")
    position = machine.position
    for key in keys:
        position = _fill(data, position, storages[key])
    budget.depth -= 1
    return tree


# ---- The zip --------------------------------------------------------------------------------------------------------


def _check_entry(entry: zipfile.ZipInfo) -> None:
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        refuse(f"its entry {entry.filename!r:.80} is compressed; torch never does that")
    if entry.flag_bits & 0x1:
        refuse("it is locked by a password")
    folders = entry.filename.replace("\\", "/").split("/")
    if ".." in folders or not folders[0] or len(entry.filename) > 512:
        refuse(f"it has an entry of the name {entry.filename!r:.80}")


class _Sparing(io.FileIO):
    """Hands out no more at once than the directory of a sane archive takes."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            refuse(f"a zip file with a directory of {size} bytes")
        return super().read(size)


def _directory(path: Path) -> list[zipfile.ZipInfo]:
    """Return what an archive says of its entries, in the order of their places."""
    try:
        with _Sparing(path) as file, zipfile.ZipFile(file) as archive:
            return sorted(archive.infolist(), key=lambda info: info.header_offset)
    except RuntimeError as err:  # of Python: an entry asks for a reader of a later version
        raise zipfile.BadZipFile(str(err)) from err


def _entries(path: Path, data: memoryview) -> dict[str, memoryview]:
    """Return the bytes of every entry by its name, the archive's own folder left out."""
    infos = _directory(path)
    if not 0 < len(infos) <= MAX_ENTRIES:
        refuse(f"a zip file with {len(infos)} entries")
    found: dict[str, memoryview] = {}
    spans = []
    for info in infos:
        _check_entry(info)
        magic, name_length, extra_length = LOCAL_HEADER.unpack_from(data, info.header_offset)
        start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if magic != b"PK\x03\x04" or start + info.file_size > len(data):
            refuse("cut short: an entry of the zip file lies outside of it")
        spans.append((info.header_offset, start + info.file_size))
        _, in_folder, name = info.filename.partition("/")
        if not in_folder:
            refuse("a zip file, but not one of torch", hint="unpack it and give the file inside")
        if name in found:
            refuse(f"its entry {name!r:.80} is there twice")
        found[name] = data[start : start + info.file_size]
    if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
        refuse("entries of the zip file overlap")
    return found


def _finder(entries: Mapping[str, memoryview], budget: Budget) -> Callable[[Any], Storage]:
    storages: dict[str, Storage] = {}

    def find(pid: Any) -> Storage:
        dtype, key, num = _claim(pid)
        if key not in storages:
            raw = entries.get(f"data/{key}")
            if raw is None or len(raw) != num * dtype.itemsize:
                refuse(f"the values of storage {key!r:.20} are missing")
            budget.make(len(raw))
            values = torch.frombuffer(raw, dtype=dtype) if num else torch.empty(0, dtype=dtype)
            is_aligned = values.data_ptr() % dtype.itemsize == 0
            storages[key] = Storage(values if is_aligned else values.clone())
        return _of_type(storages[key], dtype, key)

    return find


def read_zip(path: Path, data: memoryview, budget: Budget) -> Any:
    """Read `data.pkl` and the storages of an archive that `torch.save` wrote.

    Raises:
        WeightsError: another kind of archive, compressed, overlapping, or damaged.
    """
    try:
        entries = _entries(path, data)
    except (zipfile.BadZipFile, struct.error, UnicodeError, OSError) as err:
        raise WeightsError("cut short, or no proper zip file", hint="get the file again") from err
    if "constants.pkl" in entries or "code" in {name.partition("/")[0] for name in entries}:
        raise WeightsError("a TorchScript archive: it holds code", hint="ask its maker for the state dict")
    if "data.pkl" not in entries:
        raise WeightsError("a zip file, but not one of torch", hint="unpack it and give the file inside")
    if bytes(entries.get("byteorder", b"little")) != b"little":
        refuse("it was written on a machine of the other byte order")
    return Machine(entries["data.pkl"], TORCH_NAMES, budget, _finder(entries, budget)).run()
