"""Ground-truth pickles, read without running anything in them, in bounded time and memory.

The files of ROxford and RParis are pickles. `pickle.load` would call whatever function such a file names, and a few
bytes can describe a nested tuple that takes years to hash. So the instructions are counted before any is followed, and
names stand for a handful of functions of this module, which make NumPy arrays and numbers of checked sizes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from mcip.core.errors import DataError
from mcip.evaluation.dataset_roots import AbsentError

# The official files have less than 1 MB, some 10^4 instructions, and lists within dicts within a list.
_MAX_BYTES: Final = 16_000_000
_MAX_INSTRUCTIONS: Final = 1_000_000
_MAX_DEPTH: Final = 100
_MAX_ITEMS: Final = 20_000_000
_BYTES_PER_ITEM: Final = 16
_REFUSED: Final = frozenset(
    {
        "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "EMPTY_SET", "ADDITEMS",
        "FROZENSET", "NEXT_BUFFER", "READONLY_BUFFER",
    }
)  # fmt: skip
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
# These add to an object that is there, which need not be read for it.
_ADDS: Final = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"})
# Numbers and texts; objects ("O") and structures are refused.
_DTYPES: Final = re.compile(r"[biufcSU?]\d*")


def read_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, texts, bytes, numbers, None and NumPy arrays of numbers or texts.

    Raises:
        AbsentError: It is missing.
        DataError: It is cut off, too large, or holds anything else; nothing of it has been run.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise AbsentError(f"There is no file {path}: it is part of the official release.") from None
    try:
        if len(content) > _MAX_BYTES:
            raise _RefusedError(f"more than {_MAX_BYTES:,} bytes")
        _check_instructions(content)
        value = _Unpickler(io.BytesIO(content), encoding="latin-1").load()
        _count_items(value, {})
    except _RefusedError as error:
        raise DataError(
            f"{path} holds {error}, which a ground truth does not need. It was not run. Get the official file."
        ) from None
    except Exception as error:  # a damaged stream fails in many ways
        raise DataError(f"{path} is cut off or not a pickle: {error}") from error
    return value


class _RefusedError(Exception):
    """Something that is neither plain data nor a NumPy array, or too much of it."""


def _check_instructions(content: bytes) -> None:
    """Bound what following the instructions costs: how many items each of them touches, and how deep these are nested.

    The stack of the unpickler is followed with the number of items and the depth of every object instead of the object.
    """
    stack: list[tuple[int, int] | None] = []  # None is a mark
    memo: dict[int, tuple[int, int] | None] = {}
    touched = 0
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if number == _MAX_INSTRUCTIONS:
            raise _RefusedError(f"more than {_MAX_INSTRUCTIONS:,} instructions")
        if opcode.name in _REFUSED:
            raise _RefusedError(f"the instruction {opcode.name}")
        if opcode.name in _PUTS:
            place = len(memo) if opcode.name == "MEMOIZE" else int(argument)
            # The unpickler makes room for all places up to this one.
            if not 0 <= place < _MAX_INSTRUCTIONS:
                raise _RefusedError(f"the memo's place {place}")
            memo[place] = stack[-1]
            continue
        if opcode.name in _GETS:
            stack.append(memo[int(argument)])
            continue
        taken = _take(stack, opcode)
        target = taken.pop(0) if opcode.name in _ADDS else (0, 0)
        items = 1 + sum(count for count, _ in taken)
        if isinstance(argument, str | bytes | bytearray):
            items += len(argument) // _BYTES_PER_ITEM
        depth = max(target[1], 1 + max((depth for _, depth in taken), default=0))
        touched += items
        if depth > _MAX_DEPTH:
            raise _RefusedError(f"more than {_MAX_DEPTH} levels of nesting")
        if touched > _MAX_ITEMS:
            raise _RefusedError(f"more than {_MAX_ITEMS:,} items, with those that stand in several places")
        stack += [None if made is pickletools.markobject else (target[0] + items, depth) for made in opcode.stack_after]


def _take(stack: list[tuple[int, int] | None], opcode: pickletools.OpcodeInfo) -> list[tuple[int, int]]:
    """Take from the stack what an instruction takes, in the order of the stack."""
    taken = []
    before = list(opcode.stack_before)
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        if (top := stack.pop()) is not None:
            taken.append(top)
    return taken[::-1]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; the module is never imported."""
        if (found := _NAMES.get(f"{module}.{name}".replace("numpy._core.", "numpy.core."))) is None:
            raise _RefusedError(f"the name {module}.{name}")
        return found


class _Maker:
    """Makes what the function of a name would return; nothing can be set on it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a state of a function")


class _Dtype:
    """A dtype: its code, then the byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        if not _DTYPES.fullmatch(self.code):
            raise _RefusedError(f"an array of type {self.code!r}")
        return np.dtype(f"{self.order}{self.code}" if self.order in ("<", ">") else self.code)


class _Array(np.ndarray[Any, Any]):
    """An array whose content comes as its state."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        checked: Any = (1, shape, dtype.dtype, bool(fortran), _raw(data))
        super().__setstate__(checked)


def _from_buffer(data: Any, dtype: _Dtype, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(_raw(data), dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _raw(data: Any) -> bytes:
    # Python 2 wrote bytes as text, which is decoded as Latin-1.
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise _RefusedError(f"an array made of {type(data).__name__}")
    return bytes(data)


_NAMES: Final[dict[str, Any]] = {
    "numpy.ndarray": _Maker(lambda: None),  # only named, as the type of an array
    "numpy.dtype": _Maker(_Dtype),
    "numpy.core.multiarray._reconstruct": _Maker(lambda *_: _Array((0,))),
    "numpy.core.multiarray.scalar": _Maker(lambda dtype, data: np.frombuffer(_raw(data), dtype.dtype, 1)[0].item()),
    "numpy.core.numeric._frombuffer": _Maker(_from_buffer),
    # How protocols 0 to 2 write bytes, and bytes without content.
    "_codecs.encode": _Maker(lambda text, _: str(text).encode("latin-1")),
    "__builtin__.bytes": _Maker(lambda: b""),
    "builtins.bytes": _Maker(lambda: b""),
}


def _count_items(value: Any, counts: dict[int, int]) -> int:
    """How many items a value has, those that stand in several places counted in each; all must be plain data."""
    if isinstance(value, np.ndarray):
        return 1 + value.size
    if not isinstance(value, dict | list | tuple):
        if value is not None and not isinstance(value, str | bytes | bytearray | int | float):
            raise _RefusedError("a type in the place of data")
        return 1
    if id(value) not in counts:
        counts[id(value)] = _MAX_ITEMS  # until it is known, so that nothing holds itself
        if len(counts) > _MAX_INSTRUCTIONS:
            raise _RefusedError(f"more than {_MAX_INSTRUCTIONS:,} containers")
        inner = chain(value, value.values()) if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_items(item, counts) for item in inner)
    if counts[id(value)] >= _MAX_ITEMS:
        raise _RefusedError(f"more than {_MAX_ITEMS:,} items, with those that stand in several places")
    return counts[id(value)]
