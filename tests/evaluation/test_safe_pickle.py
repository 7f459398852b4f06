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
    assert found["x"].dtype == array.dtype
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
        (b"(cos\nsystem\nS'touch x'\no.", "the name os.system"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call of numpy ndarray"),
        (b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.", "a type in the place of data"),
        (pickle.dumps(np.array([object], object)), "the name builtins.object|an array of type"),
        (pickle.dumps(np.zeros(2, [("a", "i4")])), "an array of type 'V4'"),
        (b"Vposix\nVsystem\n\x93.", "the name posix.system"),
        (b"P1\n.", "the instruction PERSID"),
        (b"(dV__setstate__\nNsb.", "cut off|a state of"),
        (b"", "cut off or not a pickle"),
        (pickle.dumps({"a": np.arange(9)})[:-20], "cut off or not a pickle"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.pkl", content)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_raise_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    with contextlib.suppress(DataError):
        read(path, content)
