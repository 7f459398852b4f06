"""CLIP's byte pair encoding, without PyTorch: the same tokens as open_clip's `SimpleTokenizer`."""

from __future__ import annotations

import gzip
import html
import string
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ModelError

# Merges of CLIP's vocabulary; its file holds more, which are not used.
_MERGES: Final = 49152 - 256 - 2
_END_OF_WORD: Final = "</w>"
_SPECIAL: Final = ("<start_of_text>", "<end_of_text>")
_PATTERN: Final = r"""|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_NO_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
# Words whose tokens are remembered: enough for what is frequent in a language.
_REMEMBERED: Final = 1 << 18


class BytePairTokenizer:
    """Turns texts into tokens as open_clip's `SimpleTokenizer` does.

    Attributes:
        context_length: Tokens per text; longer texts are cut off.
    """

    def __init__(self, merges: Path, context_length: int, clean: str = "lower", special: Sequence[str] = ()) -> None:
        """Read a file of merges.

        Args:
            merges: The gzipped file, one merge per line, in descending order of importance.
            context_length: Tokens per text.
            clean: How texts are cleaned first: "lower", "whitespace" or "canonicalize".
            special: Special tokens beside those of the beginning and the end.

        Raises:
            ModelError: The file is missing or damaged.
        """
        import regex  # type: ignore[import-untyped]

        try:
            lines = gzip.decompress(merges.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise ModelError(f"{merges} is not a file of BPE merges: {error}") from error
        if not lines:
            raise ModelError(f"{merges} is not a file of BPE merges: it is empty.")
        self.context_length = context_length
        self._clean = clean
        self._byte_letters = _byte_letters()
        letters = list(self._byte_letters.values())
        pairs = [tuple(line.split()) for line in lines]
        words = [*letters, *(letter + _END_OF_WORD for letter in letters), *map("".join, pairs), *_SPECIAL, *special]
        self._numbers = {word: number for number, word in enumerate(words)}
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._special = {token: [self._numbers[token]] for token in (*_SPECIAL, *special)}
        self._pattern = regex.compile("|".join((*_SPECIAL, *special)) + _PATTERN, regex.IGNORECASE)
        # No alternative of the pattern matches a space, but for special tokens from a configuration.
        self._by_words = not special
        self._encoded = lru_cache(_REMEMBERED)(self._encode)
        self._merged = lru_cache(_REMEMBERED)(self._merge)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The tokens of texts, int64 (T, context length), zeros behind the end."""
        result = np.zeros((len(texts), self.context_length), np.int64)
        for row, tokens in zip(result, self.ragged(texts), strict=True):
            row[: len(tokens)] = tokens
        return result

    def ragged(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without padding."""
        start, end = (self._numbers[token] for token in _SPECIAL)
        result = []
        for text in texts:
            cleaned = _cleaned(text, self._clean)
            words = cleaned.split(" ") if self._by_words else [cleaned]
            tokens = [start, *chain.from_iterable(map(self._encoded, words)), end]
            if len(tokens) > self.context_length:
                tokens = [*tokens[: self.context_length - 1], end]
            result.append(tokens)
        return result

    def _encode(self, text: str) -> list[int]:
        return [
            number
            for word in self._pattern.findall(text)
            for number in self._merged("".join(self._byte_letters[byte] for byte in word.encode()))
        ]

    def _merge(self, word: str) -> list[int]:
        """The tokens of one word: the pair of highest importance is merged until there is none."""
        if word in self._special:
            return self._special[word]
        parts = [*word[:-1], word[-1] + _END_OF_WORD]
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            for part in parts:
                # The part before is no longer the first of the pair where it was merged itself.
                if merged and (merged[-1], part) == best:
                    merged[-1] += part
                else:
                    merged.append(part)
            parts = merged
        return [self._numbers[part] for part in parts]


def tokenizer_settings(model_cfg: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What `BytePairTokenizer` needs of a `model_cfg`, but for the merges.

    Raises:
        ModelError: The model reads text with another tokenizer.
    """
    text_cfg = model_cfg["text_cfg"]
    settings: dict[str, Any] = text_cfg.get("tokenizer_kwargs", {})
    if name := text_cfg.get("hf_tokenizer_name"):
        raise ModelError(f"{source} reads text with {name}, of Hugging Face: only CLIP's own tokenizer goes to ONNX.")
    if settings.get("reduction_mask"):
        raise ModelError(f"{source} shortens texts by {settings['reduction_mask']!r}, which ONNX models cannot do.")
    return {
        "context_length": text_cfg.get("context_length") or settings.get("context_length") or 77,
        "clean": settings.get("clean", "lower"),
        "special": list(settings.get("additional_special_tokens") or ()),
    }


def _cleaned(text: str, clean: str) -> str:
    # What is repaired has characters beyond printable ASCII, or an ampersand.
    if "&" in text or not (text.isascii() and text.isprintable()):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if clean == "canonicalize":
        return " ".join(text.replace("_", " ").translate(_NO_PUNCTUATION).lower().split())
    text = " ".join(text.split())
    return text.lower() if clean == "lower" else text


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, in the order of the vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
