"""Pickles are read for what they hold, and nothing in them is run."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import DataError
from mcip.evaluation.safe_pickle import read_pickle

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.binary(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4) | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


def read(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return read_pickle(path)


@given(PLAIN, st.integers(0, 5))
def test_plain_data_of_every_protocol(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    assert read(path, pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([], np.int64),
        np.array([1, 2], ">u2"), np.array(["ab", "c"]), np.array(b"x"), np.array([True]), np.zeros((2, 0), np.float32),
    ],
)  # fmt: skip
def test_arrays_of_every_protocol(tmp_path: Path, array: np.ndarray[Any, Any], protocol: int) -> None:
    found = read(tmp_path / "a.pkl", pickle.dumps({"x": array, "again": [array, array]}, protocol))
    np.testing.assert_array_equal(found["x"], array)
    assert found["x"].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["again"][1], array)


@pytest.mark.parametrize("protocol", range(6))
def test_numbers_of_numpy(tmp_path: Path, protocol: int) -> None:
    value = (np.float64(1.5), np.int32(-3))
    assert read(tmp_path / "a.pkl", pickle.dumps(value, protocol)) == (1.5, -3)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    values = np.array([5, 9], "<i8").tobytes()
    content = (
        b"\x80\x02}U\x04easycnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x10" + values + b"tbs."
    )
    found = read(tmp_path / "a.pkl", content)
    assert found["easy"].tolist() == [5, 9]


class Harmful:
    """Runs a command when `pickle.load` reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_run(tmp_path: Path, protocol: int) -> None:
    harm = Harmful(f"touch {tmp_path / 'run'}")
    for value in (harm, {"gnd": [harm]}, [np.array([1]), (harm,)]):
        with pytest.raises(DataError, match=r"holds the name (posix|nt)\.system.*It was not run"):
            read(tmp_path / "a.pkl", pickle.dumps(value, protocol))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cbuiltins\neval\n(Vprint(1)\ntR.", "the name builtins.eval"),
        (b"(S'touch x'\nios\nsystem\n.", "the instruction INST"),
        (b"(cos\nsystem\nS'touch x'\no.", "the instruction OBJ"),
        (b"\x80\x02cnumpy\nndarray\nK\x09\x85R.", "cut off or not a pickle"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "a state of a function"),
        (b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.", "a type in the place of data"),
        (pickle.dumps(np.array([object], object)), "the name builtins.object|an array of type"),
        (pickle.dumps(np.zeros(2, [("a", "i4")])), "an array of type 'V4'"),
        (b"Vposix\nVsystem\n\x93.", "the name posix.system"),
        (b"P1\n.", "the instruction PERSID"),
        (b"(dV__setstate__\nNsb.", "cut off or not a pickle"),
        (b"", "cut off or not a pickle"),
        (pickle.dumps({"a": np.arange(9)})[:-20], "cut off or not a pickle"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.pkl", content)


NESTED = b")" + 40 * b"2\x86"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"}" + NESTED + b"Ns.", "more than 20,000,000 items"),  # 83 bytes: a key that takes 2^40 steps to hash
        (b"}(" + NESTED + b"Nu.", "more than 20,000,000 items"),
        (NESTED + b".", "more than 20,000,000 items"),
        (b"]q\x00(]q\x01" + b"".join(b"(h%ch%cl" % (n, n) + b"q%c" % (n + 1) for n in range(1, 60)) + b"e.", "items"),
        (b"".join(b"]r%b(j%bj%be" % (3 * ((n + 1).to_bytes(4, "little"),)) for n in range(3)) + b".", "items|cut off"),
        (b"]q\x00h\x00a.", "items"),  # a list that holds itself
        (b"}" + b")" + 5_000 * b"\x85" + b"Ns.", "more than 100 levels of nesting"),
        (b"(" * 240_000, "cut off or not a pickle"),
        (b"(" * 240_000 + b"t" * 240_000 + b".", "more than 100 levels of nesting"),
        (b"N" * 2_000_000 + b".", "more than 1,000,000 instructions"),
        (b"]r\xff\xff\xff\x7f.", "the memo's place 2147483647"),
        (b"N" * 17_000_000, "more than 16,000,000 bytes"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x00x.", "cut off or not a pickle"),
        (b"L" + b"9" * 1_000_000 + b"L\n.", "cut off or not a pickle"),
    ],
)  # fmt: skip
def test_time_and_memory_are_bounded(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.pkl", content)


def test_bytes_in_many_places_are_bounded(tmp_path: Path) -> None:
    # 10 MB of text that Python 2 wrote as one string, for the content of 200 arrays.
    text = b"T" + (10_000_000).to_bytes(4, "little") + 10_000_000 * b"x" + b"q\x00"
    one = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01J\x80\x96\x98\x00\x85"
    one += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87RK\x00h\x00tba"
    with pytest.raises(DataError, match="more than 20,000,000 items"):
        read(tmp_path / "a.pkl", text + b"]" + 200 * one + b".")


def test_many_items_without_size_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(np.array([""], "U1"), 2)
    shape = b"K\x01\x85"
    assert content.count(shape) == 1
    content = content.replace(shape, b"\x8a\x08" + (10**15).to_bytes(8, "little") + b"\x85").replace(b"U1", b"U0")
    with pytest.raises(DataError, match=r"more than 20,000,000 items|cut off"):
        read(tmp_path / "a.pkl", content)


def test_shared_lists_and_long_lists_are_read(tmp_path: Path) -> None:
    rows = list(range(200_000))
    value = {"gnd": [{"easy": rows[:9], "hard": rows[:9]}] * 70, "imlist": [str(row) for row in rows]}
    assert read(tmp_path / "a.pkl", pickle.dumps(value)) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_raise_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    with contextlib.suppress(DataError):
        read(path, content)
