"""A pickle machine that cannot run anything: opcodes build plain data, names become inert tokens.

Python's own unpickler calls whatever a file names. This one keeps a table of the few names that weights need; calling
one of them means to run a function of ours that makes a number, a dict, a tensor, or a `Record` of what was asked.
Every other name is refused by name. Cost is bounded by a `Budget` that nested pickles share.

Source: the opcodes and their stack effects are those of Python's `pickletools` (PEP 307, PEP 3154, PEP 574).
"""

from __future__ import annotations

import codecs
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from mien.errors import UnsafeWeightsError
from mien.weights.tables import refuse

__all__ = ["MAX_NAME", "Budget", "Machine", "Maker", "Name", "Pending", "Record"]

MAX_OPCODES = 1_000_000  # StyleGAN3 with its discriminator takes 30,000
MAX_INDEX = 2**32
DAMAGE = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error)
MAX_KEY = 2**61  # beyond it integers share their hash, and a dict of them costs quadratic time
MAX_NAME = 500
LONG_BYTES = 1024  # longer byte strings stay where they are in the file
WHOLE = "it holds whole modules (a network saved as one object, or StyleGAN-XL); ask for its state dict"
SAFER = "if you trust its maker, ask for a state dict or a .safetensors file; nothing in this one was run"


@dataclass(eq=False)
class Record:
    """An object that the file describes and nobody builds: its class's full name, its arguments, its attributes."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Name:
    """A name of the table, where the file only mentions it (a dtype, a class as an argument)."""

    name: str


class Pending(ABC):
    """Something that is whole only after the file has given its state, like a numpy array."""

    def __init__(self) -> None:
        self.indices: list[int] = []  # where the memo holds it

    @abstractmethod
    def built(self, state: Any, budget: Budget) -> Any:
        """Return what takes its place."""


Maker = Callable[..., Any]
"""Makes a stand-in from the machine and the arguments of a call."""


@dataclass
class Budget:
    """What a file may cost, nested payloads included: opcodes, and bytes of tensors, which the file's size limits."""

    num_bytes: int
    num_opcodes: int = MAX_OPCODES
    depth: int = 0
    _viewed: int = field(default=0, init=False)
    _made: int = field(default=0, init=False)

    def make(self, num_bytes: int) -> None:
        """Account for memory that is about to be filled from the file."""
        self._made += num_bytes
        if num_bytes < 0 or self._made > self.num_bytes:
            refuse("its tensors claim more bytes than the file has")

    def view(self, num_bytes: int) -> None:
        """Account for a tensor on memory that is there; a few may share it."""
        self._viewed += num_bytes
        if self._viewed > 4 * self.num_bytes + LONG_BYTES:
            refuse("its tensors claim many times the bytes that the file has")

    def opcode(self) -> None:
        """Account for one step of the machine."""
        self.num_opcodes -= 1
        if self.num_opcodes < 0:
            refuse(f"it takes more than {MAX_OPCODES} steps to read; networks take a tenth at most")


class Machine:
    """Runs one pickle after another over the same bytes.

    Args:
        data: the bytes; nothing of them is copied but short strings.
        names: full name => what a call makes, None where it may only be mentioned.
        budget: what it may cost.
        find: answers persistent ids (the storages of torch's files); without it they are refused.
    """

    def __init__(
        self,
        data: memoryview,
        names: Mapping[str, Maker | None],
        budget: Budget,
        find: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.names, self.budget, self.find = data, names, budget, find
        self.position = 0
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Read the pickle at `position`; afterwards `position` is behind it.

        Raises:
            UnsafeWeightsError: it asks for a name, a call or a state that weights never need.
            WeightsError: it is cut short or costs more than the budget.
        """
        self._stack, self._marked, self._memo = [], [], {}
        try:
            while (code := self._take(1)[0]) != ord("."):
                self.budget.opcode()
                self.STEPS[code](self)
            return self._pop()
        except DAMAGE:
            refuse(f"damaged, or not a pickle: nonsense before byte {self.position}")

    # ---- Bytes ----

    def _take(self, num: int) -> memoryview:
        end = self.position + num
        if num < 0 or end > len(self.data):
            refuse(f"cut short: {num} bytes should follow byte {self.position}, {len(self.data) - self.position} do")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> bytes:
        size = 64
        while True:
            chunk = bytes(self.data[self.position : self.position + size])
            end = chunk.find(b"\n")
            if end >= 0:
                self.position += end + 1
                return chunk[:end]
            if len(chunk) < size:
                refuse("cut short in the middle of a line")
            size *= 4

    def _bytes(self, length_form: str) -> None:
        taken = self._take(self._number(length_form))
        self._push(bytes(taken) if len(taken) < LONG_BYTES else taken)

    def _text(self, length_form: str, encoding: str = "utf-8") -> None:
        taken = self._take(self._number(length_form))
        self._push(str(taken, encoding, "surrogatepass" if encoding == "utf-8" else "strict"))

    def _long(self, length_form: str) -> None:
        self._push(int.from_bytes(self._take(self._number(length_form)), "little", signed=True))

    def _int_line(self) -> None:
        line = self._line()
        self._push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))

    def _long_line(self) -> None:
        self._push(int(self._line().rstrip(b"L")))

    def _string_line(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            refuse("a string has no quotes")
        self._push(codecs.escape_decode(line[1:-1])[0].decode("latin1"))

    # ---- Stack and memo ----

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _drop(self) -> None:
        if self._stack:
            self._pop()
        else:
            self._to_mark()

    def _tuple(self, num: int) -> None:
        if len(self._stack) < num:
            refuse("its stack runs empty")
        self._stack[-num:] = [tuple(self._stack[-num:])]

    def _remember(self, index: int) -> None:
        if not 0 <= index < MAX_INDEX:
            refuse(f"it remembers something under {index}")
        value = self._memo[index] = self._stack[-1]
        if isinstance(value, Pending):
            value.indices.append(index)

    def _recall(self, index: int) -> None:
        self._push(self._memo[index])

    # ---- Containers ----

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            refuse(f"it appends to a {_kind(target)}")
        target += items

    def _add(self) -> None:
        items, target = self._to_mark(), self._stack[-1]
        if not isinstance(target, set):
            refuse(f"it adds to a {_kind(target)}")
        target.update(map(_key, items))

    def _frozenset(self) -> None:
        self._push(frozenset(map(_key, self._to_mark())))

    def _dict(self) -> None:
        items = self._to_mark()
        self._push({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            refuse(f"it sets items of a {_kind(target)}")
        if len(items) % 2:
            refuse("a key has no value")
        target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def _set_one(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    # ---- Names, calls, states ----

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if "." in name or full not in self.names:
            hint = WHOLE if module.startswith("torch.nn.") else SAFER
            raise UnsafeWeightsError(f"it asks for {full!r:.200}, which weights never need", hint=hint)
        self._push(Name(full))

    def _name_lines(self) -> None:
        module, name = self._line().decode(), self._line().decode()
        self._name(module, name)

    def _name_of_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            refuse("a name is not text")
        self._name(module, name)

    def call(self, what: Any, args: Any) -> Any:
        """Make what the table has for a call of `what`."""
        make = self.names[what.name] if isinstance(what, Name) else None
        if make is None:
            called = what.name if isinstance(what, Name) else f"a {_kind(what)}"
            raise UnsafeWeightsError(f"it calls {called}, which weights never need", hint=SAFER)
        if not isinstance(args, tuple):
            refuse(f"it calls {what.name} with a {_kind(args)}")
        return make(self, *args)

    def _reduce(self) -> None:
        args, what = self._pop(), self._pop()
        self._push(self.call(what, args))

    def _new_with_keywords(self) -> None:
        if self._pop() != {}:
            raise UnsafeWeightsError("it makes an object with keywords, which weights never need", hint=SAFER)
        self._reduce()

    def _instance(self) -> None:
        args = tuple(self._to_mark())
        self._name_lines()
        self._push(self.call(self._pop(), args))

    def _object(self) -> None:
        what, *args = self._to_mark()
        self._push(self.call(what, tuple(args)))

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Pending):
            self._stack[-1] = built = target.built(state, self.budget)
            self._memo.update((index, built) for index in target.indices)
        elif isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # of a dict that had attributes only the items count
            raise UnsafeWeightsError(f"it sets the state of a {_kind(target)}", hint=SAFER)

    def _persistent(self, pid: Any) -> None:
        if self.find is None:
            refuse("it refers to objects outside of itself")
        self._push(self.find(pid))

    def _extension(self, length_form: str) -> NoReturn:
        code = self._number(length_form)
        raise UnsafeWeightsError(f"it asks for extension {code} of the interpreter", hint=SAFER)

    def _frame(self) -> None:
        size = self._number("<Q")
        if size > len(self.data) - self.position:
            refuse(f"cut short: a frame of {size} bytes follows byte {self.position}")

    def _protocol(self) -> None:
        if (version := self._number("B")) > 5:
            refuse(f"its pickle protocol is {version}")

    STEPS: ClassVar[dict[int, Callable[[Machine], object]]] = {
        ord(code): step
        for code, step in {
            "\x80": _protocol,
            "\x95": _frame,
            "N": lambda m: m._push(None),
            "\x88": lambda m: m._push(True),
            "\x89": lambda m: m._push(False),
            "I": _int_line,
            "L": _long_line,
            "J": lambda m: m._push(m._number("<i")),
            "K": lambda m: m._push(m._number("B")),
            "M": lambda m: m._push(m._number("<H")),
            "\x8a": lambda m: m._long("B"),
            "\x8b": lambda m: m._long("<i"),
            "F": lambda m: m._push(float(m._line())),
            "G": lambda m: m._push(m._number(">d")),
            "S": _string_line,
            "T": lambda m: m._text("<i", "latin1"),
            "U": lambda m: m._text("B", "latin1"),
            "V": lambda m: m._push(m._line().decode("raw-unicode-escape")),
            "X": lambda m: m._text("<I"),
            "\x8c": lambda m: m._text("B"),
            "\x8d": lambda m: m._text("<Q"),
            "B": lambda m: m._bytes("<I"),
            "C": lambda m: m._bytes("B"),
            "\x8e": lambda m: m._bytes("<Q"),
            "\x96": lambda m: m._bytes("<Q"),
            "(": _mark,
            "0": _drop,
            "1": lambda m: m._to_mark(),
            "2": lambda m: m._push(m._stack[-1]),
            ")": lambda m: m._push(()),
            "t": lambda m: m._push(tuple(m._to_mark())),
            "\x85": lambda m: m._tuple(1),
            "\x86": lambda m: m._tuple(2),
            "\x87": lambda m: m._tuple(3),
            "]": lambda m: m._push([]),
            "l": lambda m: m._push(m._to_mark()),
            "a": lambda m: m._append([m._pop()]),
            "e": lambda m: m._append(m._to_mark()),
            "}": lambda m: m._push({}),
            "d": _dict,
            "s": _set_one,
            "u": lambda m: m._set(m._to_mark()),
            "\x8f": lambda m: m._push(set()),
            "\x90": _add,
            "\x91": _frozenset,
            "p": lambda m: m._remember(int(m._line())),
            "q": lambda m: m._remember(m._number("B")),
            "r": lambda m: m._remember(m._number("<I")),
            "\x94": lambda m: m._remember(len(m._memo)),
            "g": lambda m: m._recall(int(m._line())),
            "h": lambda m: m._recall(m._number("B")),
            "j": lambda m: m._recall(m._number("<I")),
            "c": _name_lines,
            "\x93": _name_of_stack,
            "R": _reduce,
            "\x81": _reduce,
            "\x92": _new_with_keywords,
            "i": _instance,
            "o": _object,
            "b": _build,
            "P": lambda m: m._persistent(m._line().decode("latin1")),
            "Q": lambda m: m._persistent(m._pop()),
            "\x82": lambda m: m._extension("B"),
            "\x83": lambda m: m._extension("<H"),
            "\x84": lambda m: m._extension("<i"),
        }.items()
    }


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Record | Name) else type(value).__name__


def _key(value: Any) -> Any:
    """Let through what is quick to hash: no tuples, which may be deep, no numbers made to collide, no endless names."""
    if isinstance(value, str | bytes):
        if len(value) > MAX_NAME:
            refuse(f"a name has {len(value)} letters")
        if isinstance(value, str) and not value.isprintable():  # it would reach the terminal in an error
            refuse(f"a name cannot be printed: {value!a:.40}")
    elif value is not None and not (isinstance(value, int) and abs(value) < MAX_KEY):
        refuse(f"a key is a {_kind(value)}")
    return value
