"""Files made to do harm are refused by the name of what they ask for: nothing runs, time and memory stay small.

The recorded ones are in tests/data/hostile; the others are made here, opcode by opcode.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DAMAGED = "damaged, or not a pickle"
NO_NETWORK = "no network that mien knows"

RECORDED = {
    "build_setstate.pkl": "'os.system'",
    "dotted_stack_global.pkl": r"'torch\.hub\.os\.system'",
    "empty.pkl": "the file is empty",
    "garbage.pkl": "neither a pickle nor a file of torch",
    "git_lfs_pointer.pkl": "a pointer of git LFS",
    "html_error_page.pkl": "a web page",
    "huge_claim.pkl": "cut short: 1099511627776 bytes should follow",
    "module_src_payload.pkl": "Generator",
    "nested_in_buffer.pkl": "'os.system'",
    "nested_load_from_bytes.pkl": "'posix.system'",
    "reduce_eval.pkl": "'builtins.eval'",
    "reduce_os_system.pkl": "'posix.system'",
    "torch_legacy_hostile.pt": "'posix.system'",
    "torch_zip_hostile.pt": "'posix.system'",
    "wrong_structure.pkl": NO_NETWORK,
}
"""File in tests/data/hostile => what the error names."""

TOUCH = b"S'touch pwned.mark'\n"
CALL = b"(" + TOUCH + b"tR."
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


# ---- Pickles --------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return b"\x80\x04" + text(module) + text(name) + b"\x93"


def calls() -> dict[str, tuple[bytes, str]]:
    """Ways to ask for code."""
    namespace = b"cargparse\nNamespace\n"
    return {
        "inst": (b"(" + TOUCH + b"ios\nsystem\n.", r"'os\.system'"),
        "obj": (b"(cos\nsystem\n" + TOUCH + b"o.", r"'os\.system'"),
        "newobj": (b"\x80\x02csubprocess\nPopen\n(" + TOUCH + b"t\x81.", r"'subprocess\.Popen'"),
        "newobj_ex": (stack_global("builtins", "exec") + b"(" + TOUCH + b"t}\x92.", r"'builtins\.exec'"),
        "keywords": (namespace + b")}S'a'\nI1\ns\x92.", "makes an object with keywords"),
        "ext1": (b"\x80\x02\x82\x01)R.", "extension 1 of the interpreter"),
        "ext2": (b"\x80\x02\x83\x01\x02)R.", "extension 513 of the interpreter"),
        "ext4": (b"\x80\x02\x84\x01\x00\x00\x00)R.", "extension 1 of the interpreter"),
        "getattr": (b"cbuiltins\ngetattr\n(cbuiltins\n__import__\nS'x'\ntR.", r"'builtins\.getattr'"),
        "getattr of python 2": (b"c__builtin__\ngetattr\n(I1\ntR.", r"'__builtin__\.getattr'"),
        "import": (b"cimportlib\nimport_module\n(S'os'\ntR.", r"'importlib\.import_module'"),
        "attrgetter": (b"coperator\nattrgetter\n(S'system'\ntR.", r"'operator\.attrgetter'"),
        "partial": (b"cfunctools\npartial\n(cos\nsystem\ntR.", r"'functools\.partial'"),
        "loads": (b"cpickle\nloads\n(Ccos\nsystem\ntR.", r"'pickle\.loads'"),
        "torch.load": (b"ctorch.serialization\nload\n(S'x'\ntR.", r"'torch\.serialization\.load'"),
        "numpy's exec": (b"cnumpy.testing._private.utils\nrunstring\n" + CALL, "runstring"),
        "torch's exec": (b"ctorch.jit.unsupported_tensor_ops\nexecWrapper\n" + CALL, "execWrapper"),
        "dunder": (stack_global("collections", "OrderedDict.__init__.__globals__") + b".", "OrderedDict.__init__"),
        "dots in an allowed module": (stack_global("torch._utils", "os.system") + b".", r"'torch\._utils\.os\.system'"),
        "dots moved": (stack_global("torch", "_utils._rebuild_tensor_v2") + b".", "_rebuild_tensor_v2"),
        "empty name": (stack_global("", "") + b".", "it asks for '.'"),
        "look-alike": ("c\u043es\nsystem\n".encode() + CALL, "'\u043es.system'"),
        "new line": (stack_global("os\nsystem", "x") + b".", r"'os\\nsystem\.x'"),
        "endless name": (stack_global("o" * 10**6, "system") + b".", "'ooooo"),
        "name of bytes": (b"\x80\x04C\x02osC\x06system\x93.", "a name is not text"),
        "mention called": (b"ctorch\nfloat32\n)R.", r"it calls torch\.float32"),
        "object called": (namespace + b")R)R.", r"it calls a argparse\.Namespace"),
        "text called": (TOUCH + b")R.", "it calls a str"),
        "name rebuilt": (namespace + b"}S'__setstate__'\nI1\nsb.", r"sets the state of a argparse\.Namespace"),
        "function rebuilt": (REBUILD + b"}S'__code__'\nI1\nsb.", "sets the state of a torch._utils._rebuild_tensor_v2"),
        "list rebuilt": (b"]}b.", "sets the state of a list"),
        "hooks": (namespace + b")R}S'__setstate__'\ncos\nsystem\nsb.", r"'os\.system'"),
        "reconstructor": (
            b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\ndict\n}tR.",
            "__builtin__.dict",
        ),
        "base of another kind": (
            b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nctorch\nTensor\nNtR.",
            "derives from more than object",
        ),
        "function in a type": (
            b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n" + CALL,
            r"'os\.system'",
        ),
        "persistent id": (TOUCH + b"Q.", "refers to objects outside of itself"),
        "persistent id in text": (b"NPtouch pwned.mark\n.", "refers to objects outside of itself"),
        "buffer from outside": (b"\x80\x05\x97.", DAMAGED),
    }


def bombs() -> dict[str, tuple[bytes, str]]:
    """Ways to cost time or memory."""
    persistent = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}(S'type'\nS'class'\nS'class_name'\nS'G'\n"
    module = b"S'_parameters'\n}S'_buffers'\n}S'_modules'\n"
    leaf = persistent + b"S'state'\n}(" + module + b"}uutRp0\n"
    above = persistent + b"S'state'\n}(" + module + b"}(S'a'\ng0\nS'b'\ng0\nuuutRp0\n"
    laughs = b"}S'G_ema'\n" + leaf + b"".join(b"0" + above for _ in range(60)) + b"s."
    return {
        "bytes8": (b"\x80\x05\x8e" + struct.pack("<Q", 2**63) + b"x.", "cut short: 9223372036854775808 bytes"),
        "unicode8": (b"\x80\x05\x8d" + struct.pack("<Q", 2**40) + b"x.", "cut short: 1099511627776 bytes"),
        "bytearray8": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "cut short: 1099511627776 bytes"),
        "negative length": (b"T" + struct.pack("<i", -5) + b"x.", "cut short"),
        "long4": (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.", "cut short: 2147483647 bytes"),
        "negative long4": (b"\x80\x02\x8b" + struct.pack("<i", -1) + b"x.", "cut short"),
        "long of a million digits": (b"L" + b"9" * 10**6 + b"L\n.", DAMAGED),
        "endless line": (b"I" + b"1" * (4 << 20), "cut short in the middle of a line"),
        "memo far away": (b"]r\xff\xff\xff\xff.", NO_NETWORK),
        "memo beyond": (b"]p" + b"9" * 30 + b"\n.", "it remembers something under 9999"),
        "memo of nothing": (b"\x80\x04\x94.", DAMAGED),
        "memo not there": (b"Nh\x07.", DAMAGED),
        "stack empty": (b"N" + b"0" * 5 + b".", DAMAGED),
        "nothing to return": (b"N0.", DAMAGED),
        "mark missing": (b"Nt.", DAMAGED),
        "marks": (b"(" * 900_000 + b".", DAMAGED),
        "deep lists": (b"]" * 100_000 + b"a" * 99_999 + b".", NO_NETWORK),
        "deep tuples": (b")" + b"\x85" * 100_000 + b".", NO_NETWORK),
        "deep tuple as a key": (b"})" + b"\x85" * 100_000 + b"Ns.", "a key is a tuple"),
        "deep dicts": (b"}" * 100_000 + b"S'a'\nNs.", NO_NETWORK),
        "list in itself": (b"]q\x00h\x00a.", NO_NETWORK),
        "dict in itself": (b"}q\x00S'G_ema'\nh\x00s.", NO_NETWORK),
        "laughs": (b"]" + b"q\x00]h\x00ah\x00a" * 60 + b".", NO_NETWORK),
        "modules that laugh": (laughs, "nested without end"),
        "too many steps": (b"N" * 1_100_000 + b".", "more than 1000000 steps"),
        "sets": (b"\x80\x04" + b"\x8f" * 900_000 + b".", NO_NETWORK),
        "numbers that collide": (
            b"}("
            + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(1, 9999))
            + b"u.",
            "a key is a int",
        ),
        "endless key": (b"}" + text("a" * 10**6) + b"Ns.", "a name has 1000000 letters"),
        "key of a list": (b"}]Ns.", "a key is a list"),
        "key for the terminal": (b"}" + text("\x1b[2J") + b"Ns.", r"a name cannot be printed: '\\x1b\[2J'"),
        "key of half a letter": (b"}X\x03\x00\x00\x00\xed\xa0\x80Ns.", r"a name cannot be printed: '\\ud800'"),
        "set of lists": (b"cbuiltins\nset\n(](]]etR.", "a set holds more than names"),
        "key without a value": (b"}(S'a'\nu.", "a key has no value"),
        "append to a dict": (b"}Na.", "it appends to a dict"),
        "items of a list": (b"]NNs.", "it sets items of a list"),
    }


# ---- Tensors and arrays ---------------------------------------------------------------------------------------------


def integers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def storage(key: str = "0", num: int = 4, kind: bytes = b"FloatStorage") -> bytes:
    return b"(S'storage'\nctorch\n" + kind + b"\nS'%s'\nS'cpu'\nI%d\ntQ" % (key.encode(), num)


def tensor(offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), held: bytes = b"") -> bytes:
    args = (held or storage()) + b"I%d\n" % offset + integers(size) + integers(stride)
    return REBUILD + b"(" + args + b"I00\nccollections\nOrderedDict\n)RtR"


def archive(data: bytes, extra: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in {"net/data.pkl": data, "net/data/0": bytes(16), **(extra or {})}.items():
            file.writestr(name, content)
    return buffer.getvalue()


def chain(data: bytes, keys: list[str], tail: bytes) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps(keys, 2) + tail


def tensors() -> dict[str, tuple[bytes, str]]:
    """Tensors that are not what they say, in a zip file."""
    large = storage("1", 2**14) + b"I0\n" + integers([2**14]) + integers([1])
    made = {
        "offset beyond": (tensor(offset=1), "reaches beyond its storage of 4 values"),
        "negative offset": (tensor(offset=-1), "no proper storage"),
        "negative stride": (tensor(stride=(-1,)), "no proper shape"),
        "negative size": (tensor(size=(-4,)), "no proper shape"),
        "stride beyond": (tensor(size=(2,), stride=(4,)), "reaches beyond its storage"),
        "stride zero": (tensor(size=(100000, 100000), stride=(0, 0)), "has more values than its storage"),
        "size beyond": (tensor(size=(2**62, 2**62), stride=(1, 1)), "no proper shape"),
        "many axes": (tensor(size=(1,) * 65, stride=(1,) * 65), "no proper shape"),
        "axes that differ": (tensor(size=(2, 2)), "no proper storage"),
        "no storage": (tensor(held=b"N"), "no proper storage"),
        "storage absent": (tensor(held=storage("7")), "the values of storage '7' are missing"),
        "storage larger than the file": (tensor(held=storage(num=2**39)), "the values of storage '0' are missing"),
        "storage of another type": (tensor(held=storage(kind=b"DoubleStorage")), "the values of storage '0' are"),
        "storage of two types": (
            tensor() + b"0" + tensor(held=storage(kind=b"IntStorage")),
            "storage '0' is of two types",
        ),
        "storage of code": (
            REBUILD + b"((S'module'\ncargparse\nNamespace\nS'src'\nS'x'\ntQI0\n))NNtR",
            "something else than a storage",
        ),
        "storage of objects": (tensor(held=storage(kind=b"Tensor")), "something else than a storage"),
        "too few arguments": (REBUILD + b"(I1\ntR", DAMAGED),
        "parameter of text": (b"ctorch._utils\n_rebuild_parameter\n(S'x'\nI00\nNtR", "a parameter is not a tensor"),
        "many views": (REBUILD + b"q\x01(" + large + b"tq\x02" + b"0h\x01h\x02R" * 20_000, "many times the bytes"),
        "numbers": (tensor(), NO_NETWORK),
    }  # fmt: skip
    return {
        name: (archive(data + b".", {"net/data/1": bytes(2**16)}), message) for name, (data, message) in made.items()
    }


def chains() -> dict[str, tuple[bytes, str]]:
    """Files of the old form."""
    body = tensor() + b"."
    four = struct.pack("<q", 4) + bytes(16)
    inner = chain(body, ["0"], four)
    hostile = chain(b"cposix\nsystem\n" + CALL, [], b"")
    load = b"ctorch.storage\n_load_from_bytes\n"

    def nested(content: bytes) -> bytes:
        return load + b"(B" + struct.pack("<I", len(content)) + content + b"tR."

    deep = chain(b"N.", [], b"")
    for _ in range(6):
        deep = chain(nested(deep), [], b"")
    repeated = load + b"(B" + struct.pack("<I", len(inner)) + inner + b"tp0\n0" + (load + b"g0\nR0") * 30_000 + b"N."
    claim = chain(tensor(held=storage(num=2**38), size=(1,)) + b".", ["0"], four)
    return {
        "chain in a zip": (archive(nested(hostile)), r"'posix\.system'"),
        "chain in a chain": (chain(nested(hostile), [], b""), r"'posix\.system'"),
        "chains without end": (deep, "files are nested more than 3 deep"),
        "chain repeated": (repeated, "steps|more bytes than the file has"),
        "chain of text": (load + b"(S'x'\ntR.", "a storage is not made of bytes"),
        "zip in a chain": (nested(archive(b"N.")), "something else than a storage"),
        "chain that claims": (claim, "more bytes than the file has"),
        "chain of two types": (
            chain(tensor() + b"0" + tensor(held=storage(kind=b"IntStorage")) + b".", ["0"], four),
            "storage '0' is of two types",
        ),
        "chain cut": (chain(body, ["0"], four[:-1]), "the values of a storage are missing"),
        "chain with another count": (chain(body, ["0"], struct.pack("<q", 5) + bytes(20)), "values of a storage"),
        "chain with other keys": (chain(body, ["0", "1"], four), "its list of storages"),
        "chain of the other order": (
            inner.replace(b"little_endianq\x01\x88", b"little_endianq\x01\x89"),
            "other byte order",
        ),
    }


def array(state: tuple[Any, ...], dtype: bytes = b"S'f4'\n") -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n" + integers(state[0])
    made += b"cnumpy\ndtype\n(" + dtype + b"I00\nI01\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    return made + state[1] + b"tb."


def arrays() -> dict[str, tuple[bytes, str]]:
    """Arrays of numpy."""
    four = b"C\x10" + bytes(16)
    return {
        "array of objects": (pickle.dumps(np.array([print], dtype=object), 3), r"'builtins\.print'"),
        "array of records": (array(((4,), four), b"S'V4'\n"), "an array holds 'V4', not numbers"),
        "array of dates": (pickle.dumps(np.array(["2020-01-01"], dtype="datetime64[D]"), 3), "an array holds 'M8'"),
        "array of text": (pickle.dumps(np.array(["a"]), 3), "an array holds 'U1'"),
        "array with a name as type": (array(((4,), four), b"cos\nsystem\n"), r"'os\.system'"),
        "array too large": (array(((2**38,), four)), "does not have its bytes"),
        "array of negative size": (array(((-4,), four)), "no proper shape"),
        "array without bytes": (array(((4,), b"N")), "does not have its bytes"),
        "array of missing objects": (array(((4,), b"]"), b"S'O'\n"), "an array of objects does not have them"),
        "array without a state": (array(((4,), four))[:-2] + b"0}b.", DAMAGED),
    }


# ---- Archives -------------------------------------------------------------------------------------------------------


def overlapping() -> bytes:
    """Two names for the same bytes."""
    content = bytearray(archive(b"N.", {"net/data/1": bytes(16)}))
    directory = content.index(b"PK\x01\x02")
    entries = [match.start() for match in re.finditer(b"PK\x01\x02", bytes(content)) if match.start() >= directory]
    content[entries[2] + 42 : entries[2] + 46] = content[entries[1] + 42 : entries[1] + 46]
    return bytes(content)


def changed(content: bytes, offset: int, value: bytes) -> bytes:
    """Change a field of the first entry of the directory."""
    start = content.index(b"PK\x01\x02") + offset
    return content[:start] + value + content[start + len(value) :]


def archives() -> dict[str, tuple[bytes, str]]:
    """Zip files."""
    bomb = archive(b"N.", {"net/data/1": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    twice = archive(b"N.", {"net/extra.pkl": b"cos\nsystem\n" + CALL}).replace(b"net/extra.pkl", b"net//data.pkl")
    huge = archive(b"N.")
    end = huge.rindex(b"PK\x05\x06")
    return {
        "bomb": (bomb, "is compressed; torch never does that"),
        "names that climb": (archive(b"N.", {"net/../../etc/x": b""}), "an entry of the name"),
        "names from the root": (archive(b"N.", {"/etc/x": b""}), "an entry of the name"),
        "endless names": (archive(b"N.", {"net/" + "a" * 9000: b""}), "an entry of the name"),
        "two folders": (archive(b"N.", {"other/data.pkl": b"cos\nsystem\n" + CALL}), "'data.pkl' is there twice"),
        "hidden second": (twice, f"there twice|{NO_NETWORK}"),
        "overlap": (overlapping(), "overlap|there twice"),
        "locked": (changed(archive(b"N."), 8, b"\x01\x00"), "locked by a password"),
        "entry outside": (changed(archive(b"N."), 42, b"\xf0\xff\xff\x7f"), "cut short|outside"),
        "of a later version": (changed(archive(b"N."), 6, b"\x63"), "no proper zip file"),
        "sizes that differ": (changed(archive(b"N."), 20, b"\x01\x00\x00\x00"), "is compressed"),
        "directory of 4 GB": (huge[: end + 12] + b"\xff\xff\xff\x7f" + huge[end + 16 :], "cut short"),
        "cut": (archive(b"N.")[:-30], "cut short, or no proper zip file"),
        "empty": (b"PK\x05\x06" + bytes(18), "neither a pickle"),
        "not of torch": (archive(b"N.").replace(b"data.pkl", b"data.txt"), "not one of torch"),
        "many entries": (archive(b"N.", {f"net/x{i}": b"" for i in range(50_001)}), "a zip file with 50003 entries"),
        "other order": (archive(b"N.", {"net/byteorder": b"big"}), "other byte order"),
        "code": (archive(b"cos\nsystem\n" + CALL), r"'os\.system'"),
    }


INVENTED = {**calls(), **bombs(), **tensors(), **chains(), **arrays()}

RUN = """
import json, os, resource, sys, time
from pathlib import Path
from mien.errors import WeightsError
from mien.weights import build, formats

def read(path):
    for found in formats.read_checkpoint(path).networks.values():
        build.build(found, path.name)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

warm = Path("warm.pkl")
warm.write_bytes(b"}.")
results = {}
for path in [warm, *sorted(Path("files").iterdir())]:
    before, start = peak(), time.process_time()
    try:
        read(path)
        said = ["", "loaded", ""]
    except WeightsError as err:
        said = [type(err).__name__, err.message, err.hint]
    except BaseException as err:
        said = [type(err).__name__, str(err)[:300], ""]
    results[path.name] = [*said, time.process_time() - start, peak() - before, os.path.exists("pwned.mark")]
json.dump(results, sys.stdout)
"""


def run(folder: Path, files: dict[str, bytes]) -> dict[str, list[Any]]:
    """Read files in another process; of each: error, message, hint, seconds, KiB of memory, is the mark there."""
    (folder / "files").mkdir()
    for name, content in files.items():
        (folder / "files" / name.replace("/", "_")).write_bytes(content)
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(RUN)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, list[Any]] = json.loads(done.stdout)
    return results


def check(result: list[Any], name: str, message: str) -> None:
    error, said, hint, seconds, kibibytes, is_marked = result
    assert not is_marked, "it ran"
    assert error in ("WeightsError", "UnsafeWeightsError"), (error, said)
    assert re.search(message, said), said
    assert said.startswith(f"{name}: ") and len(said) < 500 and hint
    assert seconds < 10 and kibibytes < 1 << 20


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = Path(__file__).parent.parent / "data" / "hostile"
    return run(tmp_path_factory.mktemp("recorded"), {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return run(tmp_path_factory.mktemp("invented"), {name: content for name, (content, _) in INVENTED.items()})


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return run(tmp_path_factory.mktemp("zipped"), {name: content for name, (content, _) in archives().items()})


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_files_are_refused(recorded: dict[str, list[Any]], name: str) -> None:
    check(recorded[name], name, RECORDED[name])
    assert (recorded[name][0] == "UnsafeWeightsError") == RECORDED[name].startswith("'")


@pytest.mark.parametrize("name", INVENTED)
def test_invented_files_are_refused(invented: dict[str, list[Any]], name: str) -> None:
    check(invented[name], name, INVENTED[name][1])


def test_asking_for_code_is_another_error_than_damage(invented: dict[str, list[Any]]) -> None:
    harmless = {
        name for name, (_, message) in calls().items() if message.startswith((DAMAGED, "refers", "a name", "derives"))
    }
    for name in calls():
        assert (invented[name][0] == "WeightsError") == (name in harmless), name


def test_archives_made_to_harm_are_refused(zipped: dict[str, list[Any]]) -> None:
    for name, (_, message) in archives().items():
        check(zipped[name], name, message)


def test_a_truncated_file_is_refused(tiny_files: dict[str, bytes], tmp_path: Path) -> None:
    cut = {name: content[: len(content) // 5] for name, content in tiny_files.items()}
    for name, result in run(tmp_path, cut).items():
        if name != "warm.pkl":
            check(result, name, "cut short|damaged")
