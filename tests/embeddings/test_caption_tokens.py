"""Captions tokenised once are what the model's tokenizer gives, wherever the process was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.parts import mark_part
from mcip.data import Table, read_table
from mcip.embeddings import caption_tokens
from mcip.embeddings.caption_tokens import CaptionTokens, tokenize_captions
from mcip.models import Model
from tests.tiny import contents

CAPTIONS = [["a mug", "Zwei rote Tassen &amp; ein Teller — café"], [], ["x " * 40], ["狗", "a", "mugs, mugs"], ["It's"]]
FLAT = [text for row in CAPTIONS for text in row]


@pytest.fixture
def table(train: Path) -> Table:
    frame = pd.DataFrame(read_table(train).to_pandas().head(len(CAPTIONS)))
    frame["captions"] = CAPTIONS
    return read_table(frame)


class WordTokenizer:
    """Numbers words, with a padding that is not 0 and numbers that need 32 bits."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[*(70_000 + len(word) for word in text.split()[:5]), 1] for text in texts]
        return torch.tensor([row + [1] * (6 - len(row)) for row in rows])


@pytest.fixture(params=["bpe", "other"])
def model(request: pytest.FixtureRequest, base: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    model = models.load(base)
    if request.param == "other":
        model.model_cfg["text_cfg"]["hf_tokenizer_name"] = "words"
        model._tokenizer = WordTokenizer()
    return model


@pytest.mark.parametrize("chunk", [2, 100])
def test_tokens_are_the_tokenizers(table: Table, model: Model, chunk: int, tmp_path: Path) -> None:
    tokens = tokenize_captions(table, model, tmp_path / "t", chunk_captions=chunk)
    expected = model.tokenizer(FLAT).numpy()
    assert tokens.first.tolist() == np.cumsum([0, *map(len, CAPTIONS)]).tolist()
    assert tokens.context_length == expected.shape[1]
    captions = np.array([6, 0, 1, 1, 5, 2, 3, 4])
    np.testing.assert_array_equal(tokens.take(captions, expected.shape[1]), expected[captions])
    np.testing.assert_array_equal(tokens.take(captions, 3), expected[captions, :3])
    lengths = tokens.lengths(captions)
    assert lengths.max() == tokens.longest
    for row, length in zip(expected[captions], lengths, strict=True):
        assert (row[length:] == expected[0, -1]).all()
    if chunk == 100:
        (ids,) = (np.load(path) for path in (tmp_path / "t").glob("ids-*.npy"))
        assert ids.dtype == (np.uint32 if expected.max() > 2**16 else np.uint16)
        assert len(ids) == tokens.lengths(np.arange(len(FLAT))).sum()


def test_processes_give_the_same_files(table: Table, model: Model, tmp_path: Path) -> None:
    for workers in (0, 2):
        tokenize_captions(table, model, tmp_path / str(workers), chunk_captions=2, workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    with pytest.raises(ConfigError, match="workers is -1"):
        tokenize_captions(table, model, tmp_path / "n", workers=-1)


def test_a_killed_run_makes_what_is_missing_or_damaged(
    table: Table, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = models.load(base), tmp_path / "t"
    whole = tokenize_captions(table, model, tmp_path / "whole", chunk_captions=2)
    mark, written = mark_part, list[str]()

    def fail_at_third(path: Path, files: Any) -> None:
        written.append(path.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        mark(path, files)

    monkeypatch.setattr(caption_tokens, "mark_part", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        tokenize_captions(table, model, out, chunk_captions=2)
    (out / "ends-00000.npy").write_bytes(b"cut")
    written[:] = ["", "", ""]
    tokens = tokenize_captions(table, model, out, chunk_captions=2)
    assert written[3:] == ["chunk-00000.json", "chunk-00002.json", "chunk-00003.json"]
    assert contents(out) == contents(tmp_path / "whole")
    everything = np.arange(len(FLAT))
    np.testing.assert_array_equal(tokens.take(everything, 16), whole.take(everything, 16))


def test_damaged_tokens_are_not_opened(table: Table, base: Path, tmp_path: Path) -> None:
    tokenize_captions(table, models.load(base), tmp_path / "t")
    ids = tmp_path / "t" / "ids-00000.npy"
    ids.write_bytes(ids.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ArtefactError, match="damaged: its content is not what was written"):
        CaptionTokens(tmp_path / "t")
