"""Ground-truth pickles, read without running anything in them.

The files of ROxford and RParis are pickles. `pickle.load` would call whatever function such a file names. Here nothing
is called: the opcodes are read by `pickletools.genops`, which only takes the stream apart, and what they build is put
together from containers, texts and numbers. A NumPy array or number is recognised by the names that NumPy writes and
made from its shape, type and bytes. Every other name is an error.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import DataError
from mcip.evaluation.dataset_roots import AbsentError

_ARRAY = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_BUFFER = {"numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"}
_SCALAR = {"numpy.core.multiarray scalar", "numpy._core.multiarray scalar"}
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
# How protocols 0 to 2 write bytes without content; those with some are _codecs.encode.
_NO_BYTES = {"__builtin__ bytes", "builtins bytes"}
_NAMES: Final = _ARRAY | _BUFFER | _SCALAR | _NO_BYTES | {_NDARRAY, _DTYPE, _ENCODE}
# Numbers and texts are the dtypes that may be; objects ("O") and structures are not.
_DTYPES: Final = re.compile(r"[biufcSU?]\d*")
_MARK: Final = object()


def read_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, texts, bytes, numbers, None and NumPy arrays of numbers or texts.

    Raises:
        AbsentError: It is missing.
        DataError: It is cut off, or holds anything else; nothing of it has been run.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise AbsentError(f"There is no file {path}: it is part of the official release.") from None
    try:
        return _Machine().run(content)
    except _RefusedError as error:
        raise DataError(
            f"{path} holds {error}, which a ground truth does not need. It was not run. Get the official file."
        ) from None
    except Exception as error:  # a damaged stream fails in many ways
        raise DataError(f"{path} is cut off or not a pickle: {error}") from error


class _RefusedError(Exception):
    """Something that is neither plain data nor a NumPy array."""


@dataclass
class _Name:
    """A name that the pickle would have imported."""

    name: str


@dataclass
class _Dtype:
    """A dtype under construction: its code, then the byte order."""

    code: str
    order: str = "="

    @property
    def dtype(self) -> np.dtype[Any]:
        if not _DTYPES.fullmatch(self.code):
            raise _RefusedError(f"an array of type {self.code!r}")
        return np.dtype(f"{self.order}{self.code}" if self.order in ("<", ">") else self.code)


class _Array:
    """An array under construction; `value` is there once its state is."""

    value: NDArray[Any] | None = None


class _Machine:
    """The pickle machine's stack and memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in _PUSHES:
                self.stack.append(argument)
            elif opcode.name == "STOP":
                return _finished(self.stack.pop(), {})
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME"):
                raise _RefusedError(f"the instruction {opcode.name}")
        raise ValueError("it has no end")

    def items(self) -> list[Any]:
        """Take off what lies above the last mark, and the mark."""
        place = max(place for place, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def take(self, count: int) -> list[Any]:
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def global_(self, name: str) -> None:
        if name not in _NAMES:
            raise _RefusedError(f"the name {name.replace(' ', '.')}")
        self.stack.append(_Name(name))

    def reduce(self) -> None:
        """What calling one of the known names would give; nothing is called."""
        called, arguments = self.take(2)
        name = called.name if isinstance(called, _Name) else None
        if name in _ARRAY:
            self.stack.append(_Array())
        elif name == _DTYPE:
            self.stack.append(_Dtype(str(arguments[0])))
        elif name in _BUFFER:
            data, dtype, shape, order = arguments
            self.stack.append(np.frombuffer(_raw(data), dtype.dtype).reshape(shape, order="F" if order == "F" else "C"))
        elif name in _SCALAR:
            dtype, data = arguments
            self.stack.append(np.frombuffer(_raw(data), dtype.dtype, count=1)[0].item())
        elif name in _NO_BYTES and not arguments:
            self.stack.append(b"")
        elif name == _ENCODE:
            self.stack.append(str(arguments[0]).encode("latin-1"))
        else:
            raise _RefusedError(f"a call of {name or type(called).__name__}")

    def build(self) -> None:
        """Give a dtype its byte order, or an array its content."""
        target, state = self.take(2)
        if isinstance(target, _Dtype):
            target.order = str(state[1])
        elif isinstance(target, _Array):
            _, shape, dtype, fortran, data = state
            flat = np.frombuffer(_raw(data), dtype.dtype)
            target.value = flat.reshape(shape, order="F" if fortran else "C")
        else:
            raise _RefusedError(f"a state of {type(target).__name__}")
        self.stack.append(target)


def _raw(data: Any) -> bytes:
    # Python 2 wrote bytes as text, which pickletools decodes as Latin-1.
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise _RefusedError(f"an array made of {type(data).__name__}")
    return bytes(data)


def _finished(value: Any, seen: dict[int, Any]) -> Any:
    """The result with arrays in the place of those under construction."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array has no content")
        return value.value
    if isinstance(value, dict):
        made: dict[Any, Any] = {}
        seen[id(value)] = made
        made.update({_finished(key, seen): _finished(item, seen) for key, item in value.items()})
        return made
    if isinstance(value, list):
        listed: list[Any] = []
        seen[id(value)] = listed
        listed.extend(_finished(item, seen) for item in value)
        return listed
    if isinstance(value, tuple):
        seen[id(value)] = tuple(_finished(item, seen) for item in value)
        return seen[id(value)]
    if isinstance(value, _Name | _Dtype):
        raise _RefusedError("a type in the place of data")
    return value


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


_PUSHES: Final = frozenset(
    {
        "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip


def _memoize(machine: _Machine, key: int | None) -> None:
    machine.memo[len(machine.memo) if key is None else int(key)] = machine.stack[-1]


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.take(2)
    machine.global_(f"{module} {name}")


def _set_items(machine: _Machine, items: list[Any]) -> None:
    machine.stack[-1].update(_pairs(items))


def _bound(make: Callable[[_Machine], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make(machine))


_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "NONE": _bound(lambda _: None),
    "NEWTRUE": _bound(lambda _: True),
    "NEWFALSE": _bound(lambda _: False),
    "MARK": _bound(lambda _: _MARK),
    "EMPTY_DICT": _bound(lambda _: {}),
    "EMPTY_LIST": _bound(lambda _: []),
    "EMPTY_TUPLE": _bound(lambda _: ()),
    "DICT": _bound(lambda machine: dict(_pairs(machine.items()))),
    "LIST": _bound(lambda machine: machine.items()),
    "TUPLE": _bound(lambda machine: tuple(machine.items())),
    "TUPLE1": _bound(lambda machine: tuple(machine.take(1))),
    "TUPLE2": _bound(lambda machine: tuple(machine.take(2))),
    "TUPLE3": _bound(lambda machine: tuple(machine.take(3))),
    "APPEND": lambda machine, _: machine.stack[-2].append(machine.stack.pop()),
    "APPENDS": lambda machine, _: _extend(machine),
    "SETITEM": lambda machine, _: _set_items(machine, machine.take(2)),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.items()),
    "POP": lambda machine, _: machine.take(1).clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _memoize,
    "BINPUT": _memoize,
    "LONG_BINPUT": _memoize,
    "MEMOIZE": _memoize,
    "GET": lambda machine, key: machine.stack.append(machine.memo[int(key)]),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "GLOBAL": lambda machine, name: machine.global_(name),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


def _extend(machine: _Machine) -> None:
    items = machine.items()
    machine.stack[-1].extend(items)
