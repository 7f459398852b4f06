"""The tokens of a table's captions, made once and memory-mapped.

A chunk is `ids-00000.npy` (the tokens of its captions one after the other, without padding) and `ends-00000.npy` (where
each caption ends), and last `chunk-00000.json`, the mark with the hashes of both. `rows.npy` holds the number of the
first caption of each row, and behind them the number of all captions.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mcip.core.artefacts import Artefact
from mcip.core.errors import ConfigError, ModelError
from mcip.core.parts import is_whole, mark_part
from mcip.core.progress import progress
from mcip.data import Table
from mcip.data.columns import arrow_column
from mcip.embeddings.store import map_array, write_array
from mcip.models import Model
from mcip.models.bpe import BytePairTokenizer, tokenizer_settings
from mcip.models.tokenizers import Tokenizer, merges_file

KIND = "caption-tokens"
# The tokens of texts, one after the other, and where each text ends.
Ragged = tuple[NDArray[Any], NDArray[np.uint32]]
_tokenize: Callable[[list[str]], Ragged]


def tokenize_captions(
    table: Table, model: Model, out: Path, *, workers: int = 0, chunk_captions: int = 65_536
) -> CaptionTokens:
    """Tokenise every caption of `table` once; resumes by chunks.

    Args:
        table: Its captions stay in the memory map; only a few chunks of them are in memory at a time.
        model: Its tokenizer is used.
        out: The artefact's folder.
        workers: Processes that tokenise; 0 or 1 tokenises in this one, as does a table of one chunk.
        chunk_captions: Captions per chunk.

    Raises:
        ArtefactError: `out` holds something else.
        ConfigError: `workers` is negative.
        ModelError: The model has no tokenizer.

    Example:
        >>> tokens = tokenize_captions(table, model, Path("runs/re-a/tokens"), workers=8)  # doctest: +SKIP
        >>> tokens.take(tokens.first[:-1], width=16)  # doctest: +SKIP
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}: it is a number of processes, 0 or more.")
    made_from = {"data": table.fingerprint, "model": model.fingerprint, "chunk_captions": chunk_captions}
    with Artefact.begin(out, KIND, made_from, announce=False) as artefact:
        if not artefact.complete:
            column = arrow_column(table.rows, "captions")
            first = np.zeros(len(column) + 1, np.int64)
            np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), out=first[1:])
            write_array(out / "rows.npy", first)
            _write_chunks(out, pc.list_flatten(column), model, workers, chunk_captions)
            context_length, pad = _padding(model.tokenizer)
            artefact.finish(captions=int(first[-1]), context_length=context_length, pad=pad)
    return CaptionTokens(out)


class CaptionTokens:
    """The tokens of the captions of each row of a table, read at random from the memory map.

    Attributes:
        first: int64 (N + 1): the captions of row i are those from first[i] to below first[i + 1].
        context_length: Tokens of a caption as the tokenizer gives them.
    """

    def __init__(self, folder: Path) -> None:
        """Open the artefact, whose files are checked.

        Raises:
            ArtefactError: There is none in `folder`, or it is damaged or not complete.
        """
        manifest = Artefact.open(folder, KIND).manifest
        self.context_length = int(manifest["context_length"])
        self._pad, self._chunk = int(manifest["pad"]), int(manifest["made_from"]["chunk_captions"])
        self.first = map_array(folder / "rows.npy")
        self._ids, self._ends = (
            [map_array(path) for path in sorted(folder.glob(f"{name}-*.npy"))] for name in ("ids", "ends")
        )

    @cached_property
    def longest(self) -> int:
        """The tokens of the longest caption."""
        return max((int(np.diff(ends, prepend=0).max(initial=0)) for ends in self._ends), default=0)

    def lengths(self, captions: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens each of these captions has, padding not counted."""
        lengths = np.empty(len(captions), np.int64)
        for chunk, at, within in self._by_chunk(captions):
            starts, stops = self._bounds(chunk, within)
            lengths[at] = stops - starts
        return lengths

    def take(self, captions: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """The tokens of these captions.

        Args:
            captions: Their numbers.
            width: Tokens of each: what is shorter is padded as the tokenizer does, what is longer is cut off.

        Returns:
            int64 (n, width).
        """
        out = np.full((len(captions), width), self._pad, np.int64)
        for chunk, at, within in self._by_chunk(captions):
            starts, stops = self._bounds(chunk, within)
            places = starts[:, None] + np.arange(width)
            there = places < stops[:, None]
            tokens = out[at]
            tokens[there] = self._ids[chunk][places[there]]
            out[at] = tokens
        return out

    def _by_chunk(self, captions: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """The chunks that hold these captions: where in `captions` theirs are, and their numbers in the chunk."""
        order = np.argsort(captions, kind="stable")
        chunks, within = np.divmod(captions[order], self._chunk)
        found, starts = np.unique(chunks, return_index=True)
        for chunk, start, stop in zip(found, starts, [*starts[1:], len(order)], strict=True):
            yield int(chunk), order[start:stop], within[start:stop]

    def _bounds(self, chunk: int, within: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ends = self._ends[chunk]
        return np.where(within > 0, ends[within - 1], 0).astype(np.int64), ends[within].astype(np.int64)


def _write_chunks(out: Path, captions: pa.ChunkedArray, model: Model, workers: int, size: int) -> None:
    chunks = [range(start, min(start + size, len(captions))) for start in range(0, len(captions), size)]
    files = [[out / f"{name}-{number:05d}.npy" for name in ("ids", "ends")] for number in range(len(chunks))]
    marks = [out / f"chunk-{number:05d}.json" for number in range(len(chunks))]
    left = [number for number in range(len(chunks)) if not is_whole(marks[number], files[number])]
    texts = (captions.slice(chunks[number].start, len(chunks[number])).to_pylist() for number in left)
    done = len(captions) - sum(len(chunks[number]) for number in left)
    with progress("tokenise", len(captions), "captions", done) as advance:
        for number, ragged in zip(left, _tokenized(texts, model, min(workers, len(left))), strict=True):
            for path, array in zip(files[number], ragged, strict=True):
                write_array(path, array)
            mark_part(marks[number], files[number])
            advance(len(chunks[number]))


def _tokenized(texts: Iterator[list[str]], model: Model, workers: int) -> Iterator[Ragged]:
    """The tokens of each list of texts, made in processes, a few lists ahead."""
    make = _ragged_tokenizer(model)
    if workers < 2:
        yield from map(make(), texts)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, _start_worker, (make,)) as pool:
        pending: deque[Future[Ragged]] = deque()
        for some in chain(texts, [None] * (workers + 1)):
            if some is not None:
                pending.append(pool.submit(_in_worker, some))
            if pending and (some is None or len(pending) > workers):
                yield pending.popleft().result()


def _start_worker(make: Callable[[], Callable[[list[str]], Ragged]]) -> None:
    global _tokenize
    _tokenize = make()


def _in_worker(texts: list[str]) -> Ragged:
    return _tokenize(texts)


def _ragged_tokenizer(model: Model) -> Callable[[], Callable[[list[str]], Ragged]]:
    """What makes the tokenizer in a process: CLIP's own remembers words, and gives the tokens of open_clip's."""
    try:
        settings = tokenizer_settings(model.model_cfg, model.source)
    except ModelError:
        return partial(partial, _by_padding, model.tokenizer, _padding(model.tokenizer)[1])
    merges = merges_file(model.model_cfg, model.folder, model.source)
    return partial(_by_words, merges, settings)


def _by_words(merges: Path, settings: dict[str, Any]) -> Callable[[list[str]], Ragged]:
    tokenizer = BytePairTokenizer(merges, **settings)

    def tokenize(texts: list[str]) -> Ragged:
        lists = tokenizer.ragged(texts)
        return _ragged(np.fromiter(chain.from_iterable(lists), np.uint32), np.array([len(tokens) for tokens in lists]))

    return tokenize


def _by_padding(tokenizer: Tokenizer, pad: int, texts: list[str]) -> Ragged:
    ids, lengths = [], []
    for start in range(0, len(texts), 4096):
        padded = tokenizer(texts[start : start + 4096]).numpy()
        kept = padded != pad
        ends = np.where(kept.any(axis=1), padded.shape[1] - kept[:, ::-1].argmax(axis=1), 0)
        ids.append(padded[np.arange(padded.shape[1]) < ends[:, None]])
        lengths.append(ends)
    return _ragged(np.concatenate(ids), np.concatenate(lengths))


def _ragged(ids: NDArray[Any], lengths: NDArray[np.int64]) -> Ragged:
    narrow = np.uint16 if ids.max(initial=0) < 2**16 else np.uint32
    return ids.astype(narrow), np.cumsum(lengths).astype(np.uint32)


def _padding(tokenizer: Tokenizer) -> tuple[int, int]:
    """The context length, and the token behind the end of texts that are shorter."""
    tokens = tokenizer([""])
    return tokens.shape[1], int(tokens[0, -1])
