from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mcip.core.errors import ConfigError, DataError
from mcip.core.prefetch import prefetch
from mcip.data import Pixels, Table, decode, image_transform, read_table
from tests.images import file_bytes

from .conftest import MakeImage

TRANSFORM = image_transform({"size": 8}, "paper")
ROWS = [[3, 1], [0, 3, 2], [], [1, 1]]


@pytest.fixture
def table(tmp_path: Path, make_image: MakeImage) -> Table:
    for seed in range(4):
        make_image(f"root/{seed}.png", seed)
    return read_table(tmp_path / "root")


@pytest.fixture
def broken(tmp_path: Path, make_image: MakeImage) -> Table:
    for seed in range(4):
        make_image(f"root/{seed}.png", seed)
    (tmp_path / "root" / "1.png").write_bytes(b"not an image")
    return read_table(tmp_path / "root")


def expected(table: Table, rows: list[int]) -> torch.Tensor:
    prepared = [TRANSFORM.prepare(table.image(row)) for row in rows]
    return torch.stack(prepared) if prepared else torch.empty(0, 3, 9, 9, dtype=torch.uint8)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_batches_are_the_given_rows_in_order(table: Table, workers: int, cache_gb: float) -> None:
    pixels = Pixels(table, TRANSFORM, workers=workers, cache_gb=cache_gb)
    assert pixels.cached == (cache_gb > 0)
    for _ in range(2):
        actual = list(pixels.batches(ROWS))
        assert [kept for _, kept in actual] == ROWS
        for (batch, kept), rows in zip(actual, ROWS, strict=True):
            assert kept == rows
            assert batch.dtype == torch.uint8
            assert torch.equal(batch, expected(table, rows))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_unreadable_images_are_left_out_and_listed(broken: Table, workers: int, cache_gb: float) -> None:
    pixels = Pixels(broken, TRANSFORM, workers=workers, cache_gb=cache_gb, max_unreadable=0.25)
    for _ in range(2):
        actual = list(pixels.batches(ROWS))
        assert [kept for _, kept in actual] == [[3], [0, 3, 2], [], []]
        for batch, kept in actual:
            assert torch.equal(batch, expected(broken, kept))
    assert list(pixels.unreadable) == [1]
    assert "not an image" in pixels.unreadable[1]


def test_too_many_unreadable_images_stop_when_all_are_read(broken: Table) -> None:
    pixels = Pixels(broken, TRANSFORM)
    steps = pixels.batches([[0, 1], [2, 3]])
    next(steps)
    with pytest.raises(
        DataError, match=r"1 of the 4 images .*unreadable(.|\n)*row 1 \(1\.png\): not an image"
    ) as error:
        next(steps)
    assert "raise max_unreadable" in str(error.value)


def test_a_hundred_read_images_are_enough_to_stop(tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"{number:03}.png").write_bytes(b"not an image")
    pixels = Pixels(read_table(tmp_path), TRANSFORM, max_unreadable=0.5)
    steps = pixels.batches([[row] for row in range(150)])
    assert len(list(itertools.islice(steps, 99))) == 99
    with pytest.raises(DataError, match="100 of the 100 images"):
        next(steps)


def test_prefetch_is_one_item_ahead_and_no_more() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    received = []
    for number in prefetch(items()):
        received.append(number)
        assert len(taken) <= len(received) + 1
    assert received == taken == list(range(6))
    assert list(prefetch(iter(()))) == []


def test_prefetch_raises_what_the_items_raise() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise DataError("the second one")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(DataError, match="the second one"):
        next(ahead)


def test_thin_images_are_left_out_and_listed(tmp_path: Path, make_image: MakeImage) -> None:
    for seed in range(3):
        make_image(f"root/{seed}.png", seed)
    (tmp_path / "root" / "thin.png").write_bytes(file_bytes(Image.new("RGB", (1, 60_000))))
    table = read_table(tmp_path / "root")
    for transform in (image_transform({"size": 32}), image_transform({"size": 32, "resize_mode": "longest"})):
        pixels = Pixels(table, transform, max_unreadable=0.5)
        assert [rows for _, rows in pixels.batches([[0, 3, 1], [2]])] == [[0, 1], [2]]
        assert "too thin: 1 x 60000 pixels" in pixels.unreadable[3]


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    decoded: list[Any] = []

    def count(source: Any) -> Any:
        decoded.append(source)
        return decode(source)

    monkeypatch.setattr("mcip.data.transforms.decode", count)
    return decoded


def test_cached_images_are_decoded_once(broken: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoding(monkeypatch)
    pixels = Pixels(broken, TRANSFORM, max_unreadable=1)
    for _ in range(3):
        list(pixels.batches([[0, 1], [1, 2], [2, 0], [3]]))
    assert len(decoded) == 4


def test_endless_batches_and_stopping_early(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoding(monkeypatch)
    pixels = Pixels(table, TRANSFORM)
    endless = itertools.cycle([[0, 1], [2], [3]])
    first = next(iter(pixels.batches(endless)))
    assert first[1] == [0, 1]
    for batch, kept in itertools.islice(pixels.batches(itertools.cycle([[3, 2], [1, 0]])), 9):
        assert torch.equal(batch, expected(table, kept))
    # Image 2 had been decoded ahead of the stop, for nothing.
    assert len(decoded) == 5


def test_stopping_early_with_workers_loses_nothing(table: Table) -> None:
    pixels = Pixels(table, TRANSFORM, workers=1)
    steps = pixels.batches([[0], [1], [2], [3]])
    next(steps)
    del steps
    for batch, kept in pixels.batches([[3, 2, 1, 0]]):
        assert torch.equal(batch, expected(table, kept))


def test_cache_limit_counts_prepared_bytes(table: Table) -> None:
    size = 4 * 3 * 9 * 9
    assert Pixels(table, TRANSFORM, cache_gb=size / 1e9).cached
    assert not Pixels(table, TRANSFORM, cache_gb=(size - 1) / 1e9).cached


@pytest.mark.parametrize("row", [-1, 4])
def test_row_outside_the_table(table: Table, row: int) -> None:
    pixels = Pixels(table, TRANSFORM)
    for _ in range(2):
        with pytest.raises(DataError, match=f"row {row} is not in .*, which has 4 rows"):
            list(pixels.batches([[row]]))
        list(pixels.batches([[0, 1, 2, 3]]))


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"cache_gb": -1}, {"max_unreadable": 1.5}])
def test_wrong_parameters(table: Table, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be 0 or more"):
        Pixels(table, TRANSFORM, **wrong)
