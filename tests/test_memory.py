"""A pool of captions that is larger than the memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mcip import models
from mcip.data import read_captions
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.stages.mine import mine
from tests.limits import STATUS, with_little_memory

COUNT, LENGTH = 200_000, 1_000
MEMORY = 180_000_000


def captions() -> Iterator[str]:
    return (f"{number:09d}".ljust(LENGTH, "x") for number in range(COUNT))


def write_pool(path: Path) -> Path:
    if path.suffix == ".txt":
        with path.open("w") as file:
            file.writelines(f"{caption}\n" for caption in captions())
    else:
        pq.write_table(pa.table({"caption": list(captions())}), path, row_group_size=5_000)
    return path


def first_digits(texts: list[str]) -> torch.Tensor:
    """Tokens of the number that a caption begins with: real text of this length takes minutes."""
    return torch.tensor([[int(digit) + 1 for digit in text[:9]] + [0] * 3 for text in texts])


pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="needs Linux's account of a process's memory")


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_it_is_read(kind: str, tmp_path: Path) -> None:
    pool = write_pool(tmp_path / f"pool.{kind}")
    assert with_little_memory(MEMORY, read_captions, pool) == ""
    assert len(read_captions(pool)) == COUNT
    pool.unlink()  # pytest keeps tmp_path


def test_it_is_mined(train: Path, tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = models.save(models.from_config(tiny_config), tmp_path / "base")
    pool = write_pool(tmp_path / "pool.txt")
    monkeypatch.setattr("mcip.models.model.make_tokenizer", lambda *_: first_digits)
    assert with_little_memory(MEMORY, mine, str(train), str(pool), tmp_path / "mined", str(base), k=3) == ""
    pool.unlink()
    mined = MinedCaptions(tmp_path / "mined")
    assert mined.artefact.manifest["images_by_caption_count"] == [0, 0, 0, 32]
    assert {len(caption) for caption in mined.captions} == {LENGTH}


def test_the_limit_is_one() -> None:
    """Ten times the pool in memory is more than the limit, even where memory of earlier tests is used again."""
    assert "MemoryError" in with_little_memory(MEMORY, lambda: [10 * caption for caption in captions()])
