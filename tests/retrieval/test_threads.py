"""An open index is searched from several threads while it takes over newer versions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mcip.retrieval.index import Index

WORDS = ["a", "red", "mug", "beside", "blue", "stars", "on", "wood", "in", "the", "snow", "at", "night"]
TEXTS = [" ".join(WORDS[: 1 + number % len(WORDS)]) for number in range(24)]


def test_eight_threads_search_texts_of_mixed_length_while_the_index_is_refreshed(
    run_index: Callable[..., Index], own_album: Path
) -> None:
    index = run_index()
    expected = {text: index.encode_texts([text])[0] for text in TEXTS}
    weights = {name: value.clone() for name, value in index.model.clip.state_dict().items()}
    Image.new("RGB", (40, 40), "teal").save(own_album / "new.png")
    run_index()

    def search(text: str) -> tuple[int, float]:
        hits = index.search(text=text, k=3)
        return len(hits), float(np.abs(index.encode_texts([text])[0] - expected[text]).max())

    with ThreadPoolExecutor(8) as threads:
        searched = [threads.submit(search, text) for text in TEXTS * 5]
        refreshed = index.refresh()
        answers = [one.result() for one in searched]
    assert refreshed
    assert len(index) == 37
    assert all(count == 3 and difference < 1e-5 for count, difference in answers)
    now = index.model.clip.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in weights.items())
