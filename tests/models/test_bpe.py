"""CLIP's tokens without PyTorch are open_clip's."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import ftfy
import open_clip
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import default_bpe

from mcip.core.errors import ModelError
from mcip.models.bpe import BytePairTokenizer, tokenizer_settings

SETTINGS: list[dict[str, Any]] = [
    {"context_length": 77},
    {"context_length": 8, "clean": "whitespace"},
    {"context_length": 32, "clean": "canonicalize", "special": ["<object>"]},
]


def pairs() -> list[tuple[BytePairTokenizer, open_clip.SimpleTokenizer]]:
    return [
        (
            BytePairTokenizer(Path(default_bpe()), **settings),
            open_clip.SimpleTokenizer(
                context_length=settings["context_length"],
                clean=settings.get("clean", "lower"),
                additional_special_tokens=settings.get("special"),
            ),
        )
        for settings in SETTINGS
    ]


PAIRS = pairs()
WORDS = st.sampled_from(["a mug", "It's", "café", "don't", "3 × 4", "&amp;", "<end_of_text>", "<object>", "aaa", "狗"])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.lists(WORDS).map(" ".join), max_size=3))
@example(["", "x" * 500, "<start_of_text>", "<START_OF_TEXT> <|x|>", "ban\u0303ana na na na", "schÃ¶n", "_a_ b.c"])
def test_tokens_are_open_clips(texts: list[str]) -> None:
    for tokenizer, expected in PAIRS:
        assert tokenizer(texts).tolist() == expected(texts).tolist()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&")))
def test_printable_ascii_needs_no_repair(text: str) -> None:
    assert html.unescape(ftfy.fix_text(text)) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=4))
def test_ragged_tokens_are_the_padded_ones_without_padding(texts: list[str]) -> None:
    for tokenizer, _ in PAIRS:
        padded = tokenizer(texts)
        for row, tokens in zip(padded, tokenizer.ragged(texts), strict=True):
            assert tokens == row[: len(tokens)].tolist()
            assert not row[len(tokens) :].any()


def test_special_tokens_may_hold_spaces() -> None:
    settings: dict[str, Any] = {"context_length": 9, "special": ["<a mug>"]}
    expected = open_clip.SimpleTokenizer(context_length=9, additional_special_tokens=["<a mug>"])
    texts = ["see <a mug> there", "<a mug>"]
    assert BytePairTokenizer(Path(default_bpe()), **settings)(texts).tolist() == expected(texts).tolist()


def test_a_file_that_holds_no_merges_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no gzip", Path(default_bpe()).read_bytes()[:1000]):
        (tmp_path / "bpe.txt.gz").write_bytes(content)
        with pytest.raises(ModelError, match=r"bpe.txt.gz is not a file of BPE merges"):
            BytePairTokenizer(tmp_path / "bpe.txt.gz", 77)


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(ModelError, match="only CLIP's own tokenizer"):
        tokenizer_settings({"text_cfg": {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}}, "siglip")
    with pytest.raises(ModelError, match="shortens texts by 'syntax'"):
        tokenizer_settings({"text_cfg": {"tokenizer_kwargs": {"reduction_mask": "syntax"}}}, "clipa")
