"""From a file of unknown origin to plain data: dicts, lists, numbers, text, tensors, and records of foreign objects.

Nothing that a file says is run or imported, at any depth; see `pickles` for the machine, `standins` for the names that
it knows and `torchfile` for the containers. What is no pickle at all is told by its first bytes.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from mien.errors import WeightsError
from mien.weights.pickles import Budget, Machine, Record
from mien.weights.standins import PERSISTENT, TENSORFLOW
from mien.weights.torchfile import MAGIC, TORCH_NAMES, read_chain, read_zip

__all__ = ["PERSISTENT", "TENSORFLOW", "Record", "read_tree"]

SLACK_BYTES = 1 << 16  # empty tensors, numbers of numpy
FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of git LFS, not the file itself", "fetch it: git lfs pull"),
    (b"<", "a web page, saved in the place of the file", "download it again; the site may ask for a click or a login"),
    (b"{", "text", "get the file that it describes"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it first"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a rar archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file", "this format is not read; look for a .pkl, .pt or .safetensors file of the network"),
    (b"\x89PNG", "a picture", "give a file of weights"),
    (b"\xff\xd8\xff", "a picture", "give a file of weights"),
)
FIRST = b"\x80(c]}NILKMJFGSTUVXBC)"  # how a pickle can begin, whichever its protocol


def _look(data: memoryview) -> None:
    """Refuse by its first bytes what is no pickle."""
    if not len(data):
        raise WeightsError("the file is empty", hint="the download failed; get it again")
    head = bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, what, hint in FOREIGN:
        if head.startswith(start):
            raise WeightsError(f"it is {what}", hint=hint)
    if bytes(data[:1]) not in [bytes([code]) for code in FIRST]:
        what = f"it begins with {bytes(data[:8])!r}: neither a pickle nor a file of torch"
        raise WeightsError(what, hint="give a .pkl, .pt, .pth or .safetensors file")


def _read(path: Path, data: memoryview) -> Any:
    budget = Budget(len(data) + SLACK_BYTES)
    if bytes(data[:4]) == b"PK\x03\x04":
        return read_zip(path, data, budget)
    _look(data)
    tree = Machine(data, TORCH_NAMES, budget).run()
    return read_chain(data, budget) if type(tree) is int and tree == MAGIC else tree


def read_tree(path: Path) -> Any:
    """Read a pickle of any protocol, or a file that `torch.save` wrote, as plain data; none of its code is run.

    Args:
        path: the file. Large tensors stay on it until they are used.

    Returns:
        Dicts (ordered dicts and EasyDicts too), lists, tuples, sets, numbers, text, bytes; tensors for those of torch
        and for numpy's arrays, numbers for numpy's scalars, lists for arrays of objects; `Record` for objects of the
        classes that files of weights hold. NVIDIA's modules are `Record(PERSISTENT, (class name,), attributes)`, its
        TensorFlow networks `Record(TENSORFLOW, (), attributes)`.

    Raises:
        UnsafeWeightsError: it asks for anything else.
        WeightsError: it is damaged, or no such file.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else b""
            return _read(path, memoryview(mapped))
    except OSError as err:
        raise WeightsError(f"cannot read {path}: {err.strerror or err}", hint="check its permissions") from err
    except WeightsError as err:
        raise type(err)(f"{path.name}: {err.message}", hint=err.hint) from err
    except Exception as err:  # whatever damaged bytes make a library say
        raise WeightsError(f"{path.name}: damaged ({type(err).__name__})", hint="get the file again") from err
