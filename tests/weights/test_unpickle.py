"""What files hold comes out as plain data, whatever the protocol and container; what is no pickle is told as such."""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien.errors import UnsafeWeightsError, WeightsError
from mien.weights.load import load_generator
from mien.weights.unpickle import Record, read_tree

PLAIN = {
    "none": None,
    "flags": [True, False],
    "integers": [0, 255, 256, -1, 65536, 2**31, -(2**40), 2**100],
    "floats": (0.5, -1e300, float("inf")),
    "text": "łatent \n 'quoted' \U0001f600",
    "bytes": b"\x00\xff" * 3,
    "long bytes": b"0123456789" * 500,
    "nested": {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}]},
    "names": {"b", "a"},
}


def tree_of(content: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    return read_tree(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    tree = tree_of(pickle.dumps(PLAIN, protocol), tmp_path)
    assert bytes(tree.pop("long bytes")) == PLAIN["long bytes"]
    assert tree == {key: value for key, value in PLAIN.items() if key != "long bytes"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_numbers_of_numpy_become_tensors_and_numbers(tmp_path: Path, protocol: int) -> None:
    values = np.arange(600, dtype=np.float32).reshape(20, 30)
    arrays = [values, values.T, values.astype(">f8"), np.float16([[1]]), np.arange(3), np.zeros([0, 4]), np.array(True)]
    tree = tree_of(pickle.dumps([*arrays, np.float64(0.25), np.int32(-3), np.bool_(True)], protocol), tmp_path)
    for back, array in zip(tree, arrays, strict=False):
        native = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        assert back.dtype == native.dtype and torch.equal(back, native)
    assert tree[-3:] == [0.25, -3, True]


def test_arrays_of_objects_become_lists(tmp_path: Path) -> None:
    array = np.array([["a", None], [1, [2]]], dtype=object)
    assert tree_of(pickle.dumps(array, 3), tmp_path) == [["a", None], [1, [2]]]


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    assert tree_of(b"\x80\x02}U\x01wU\x02\xe9\x00s.", tmp_path) == {"w": "\xe9\x00"}
    raw = np.float32([1, 2]).tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
    array += b"(I1\n(I2\ntcnumpy\ndtype\n(U\x02f4I0\nI1\n"
    array += b"tR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU\x08" + raw + b"tb."
    assert tree_of(array, tmp_path).tolist() == [1, 2]


def test_foreign_objects_become_records(tmp_path: Path) -> None:
    namespace = argparse.Namespace(size=256, path=pathlib.PurePosixPath)
    namespace.path = pathlib.PosixPath("/data/faces")
    for protocol in range(6):
        held = {
            "args": namespace,
            "dict": collections.OrderedDict(a=1),
            "milestones": collections.Counter([30, 30]),
            "opts": types.SimpleNamespace(w_norm=False),
        }
        tree = tree_of(pickle.dumps(held, protocol), tmp_path)
        record = tree["args"]
        assert isinstance(record, Record) and record.name == "argparse.Namespace" and record.state["size"] == 256
        assert record.state["path"].name == "pathlib.PosixPath"
        assert tree["dict"] == {"a": 1} and tree["milestones"] == {30: 2}
        assert tree["opts"].name == "types.SimpleNamespace" and tree["opts"].state == {"w_norm": False}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "chain"])
def test_files_of_torch_come_back(tmp_path: Path, is_zip: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    held: dict[str, Any] = {
        "views": [base, base.T, base[1:, ::2], base[2], base.new_zeros([0, 3]), torch.tensor(2.5)],
        "types": [base.to(dtype) for dtype in types],
        "parameter": torch.nn.Parameter(base.clone()),
        "size": base.shape,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    path = tmp_path / "file.pt"
    torch.save(held, path, _use_new_zipfile_serialization=is_zip)
    tree = read_tree(path)
    for key in ("views", "types"):
        for back, tensor in zip(tree[key], held[key], strict=True):
            assert back.dtype == tensor.dtype and torch.equal(back, tensor)
    assert tree["views"][0].untyped_storage().data_ptr() == tree["views"][1].untyped_storage().data_ptr()
    assert torch.equal(tree["parameter"], base) and tree["size"] == (4, 6)
    assert tree["device"].args == ("cpu",) and tree["dtype"].name == "torch.float32"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tensors_inside_a_plain_pickle_come_back(tmp_path: Path, protocol: int) -> None:
    tensor = torch.arange(500.0)
    tree = tree_of(pickle.dumps({"a": tensor, "b": tensor[::2]}, protocol), tmp_path)
    assert torch.equal(tree["a"], tensor) and torch.equal(tree["b"], tensor[::2])


def test_every_small_file_gives_the_same_network(tiny_paths: dict[str, Path]) -> None:
    z = torch.ones(1, 4)
    pictures = [load_generator(path).synthesis(load_generator(path).mapping(z)) for path in tiny_paths.values()]
    for picture in pictures:
        assert torch.equal(picture, pictures[0])


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "the file is empty", "download failed"),
        (b"<!DOCTYPE html><html>", "a web page", "download it again"),
        (b"\xef\xbb\xbf \n<html>", "a web page", "login"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of git LFS", "git lfs pull"),
        (b'{"error": "quota"}', "it is text", "describes"),
        (b"\x1f\x8b\x08" + bytes(20), "compressed by gzip", "unpack"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file", "not read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a picture", "weights"),
        (b"\x93NUMPY\x01\x00", r"begins with b'\\x93NUMPY", "give a .pkl"),
        (b"PK\x03\x04" + bytes(100), "cut short, or no proper zip file", "again"),
        (b"\x80\x04", "cut short: 1 bytes should follow byte 2, 0 do", "again"),
        (b"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00N.", "cut short: a frame of 255 bytes", "again"),
        (b"\x80\x09N.", "its pickle protocol is 9", "again"),
        (b"(I1\n\x97.", "damaged, or not a pickle", "again"),
    ],
)
def test_what_is_no_pickle_is_said(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    with pytest.raises(WeightsError, match=message) as info:
        tree_of(content, tmp_path)
    assert info.value.message.startswith("file.pkl: ") and hint in info.value.hint
    assert not isinstance(info.value, UnsafeWeightsError)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read .*absent\.pkl: No such file"):
        read_tree(tmp_path / "absent.pkl")


def test_an_archive_of_a_dotted_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ffhq..final.v2.pt"
    torch.save({"a": torch.ones(2)}, path)
    assert read_tree(path)["a"].tolist() == [1, 1]


def test_a_compiled_module_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/code/__torch__.py", "import os")
        archive.writestr("net/data.pkl", pickle.dumps(1))
    with pytest.raises(WeightsError, match="a TorchScript archive: it holds code"):
        tree_of(buffer.getvalue(), tmp_path)


def test_a_whole_module_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UnsafeWeightsError, match=r"asks for 'torch\.nn\.modules\.linear\.Linear'") as info:
        read_tree(path)
    assert "state dict" in info.value.hint
