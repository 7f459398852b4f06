"""Throughput of `mcip align`: pairs per second, sides compared in one run.

python benchmarks/align.py            on CUDA ViT-L-14's text tower at 32,768 pairs a step, about 3 minutes; on a CPU
                                      ViT-B-32's at 256, about 4 minutes on two cores
python benchmarks/align.py --quick    a small model, seconds: its steps are mostly what PyTorch takes around them

Through the trainer (`mcip.training.fit`), with random image embeddings and captions of about 16 tokens:
  stored       the whole batch, gradients cached, captions from the token store
  on the fly   the same, captions tokenised by open_clip's tokenizer step by step
  plain        a part of the batch that fits at once
  cached       the same part in four chunks, gradients cached
Beside them the captions per second of open_clip's tokenizer and of the token store, in this process. Expected: stored
at least 25,000 pairs/s on an H200, cached at least 0.7 of plain (a third more work is 0.75). On a CPU the ratios are of
the processor's seconds, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mcip import models
from mcip.core.artefacts import Artefact
from mcip.data import Table, read_table
from mcip.embeddings.caption_tokens import CaptionTokens, tokenize_captions
from mcip.embeddings.store import KIND, Embeddings, write_shard
from mcip.models import Model
from mcip.training import EpochOrder, FitSettings, fit
from mcip.training.objectives import TextAlignment
from mcip.training.objectives.text_alignment import automatic_chunk

SEED = 37
WARM_STEPS = 2
WORDS = (
    "red", "bed", "blue", "stone", "green", "mountain", "river", "table", "chair", "dog", "cat", "street", "house",
    "child", "bridge", "tower", "window", "garden", "kitchen", "market", "beach", "boat", "train", "with",
)  # fmt: skip
QUICK: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


class OnTheFly:
    """Captions that are tokenised when a step needs them, as open_clip does."""

    def __init__(self, stored: CaptionTokens, table: Table, model: Model) -> None:
        self.first, self.context_length, self.longest = stored.first, stored.context_length, stored.longest
        self._texts, self._tokenizer = [text for row in table.captions for text in row], model.tokenizer
        self._known: dict[int, NDArray[np.int64]] = {}

    def lengths(self, captions: NDArray[np.int64]) -> NDArray[np.int64]:
        tokens = self._tokenizer([self._texts[caption] for caption in captions]).numpy()
        self._known = dict(zip(captions.tolist(), tokens, strict=True))
        return np.asarray((tokens != 0).sum(axis=1))

    def take(self, captions: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        return np.stack([self._known[caption][:width] for caption in captions.tolist()])


def measure(name: str, batch: int, part: int, steps: int, device: torch.device, folder: Path) -> dict[str, Any]:
    """All figures of a model.

    Args:
        name: The model, as open_clip names it; "quick" for a small one.
        batch: Pairs per step of the trainer with the store.
        part: Pairs per step that fit at once.
        steps: Timed steps of each side.
        device: Where to train.
        folder: For the artefacts.
    """
    quick = {"model_cfg": QUICK, "preprocess_cfg": {"size": 32, "resize_mode": "squash"}}
    model = models.from_config(quick, seed=SEED) if name == "quick" else models.create(name, SEED)
    table = captioned_table(2 * batch)
    images = random_embeddings(folder / "images", len(table), model.embed_dim)
    model.tokenizer(["a warm start"])
    began = time.perf_counter()
    model.tokenizer([text for row in table.captions[:4096] for text in row])
    each = {"open_clip": min(4096, len(table)) / (time.perf_counter() - began)}
    began = time.perf_counter()
    stored = tokenize_captions(table, model, folder / "tokens")
    each["stored"] = len(table) / (time.perf_counter() - began)
    chunk = automatic_chunk(model, stored, batch, device)
    sides: dict[str, tuple[Any, int, int]] = {
        "stored": (stored, batch, chunk),
        "on the fly": (OnTheFly(stored, table, model), batch, chunk),
        "plain": (stored, part, part),
        "cached": (stored, part, -(-part // 4)),
    }
    rates, work, peaks = {}, {}, {}
    for side, (captions, size, pieces) in sides.items():
        order = EpochOrder(len(table), size, SEED)
        objective = TextAlignment(model, images, captions, order, lr=1e-5, chunk=pieces, device=device)
        rates[side], work[side], peaks[side] = run(objective, folder / side.replace(" ", "-"), steps, device)
        objective.give_back()
        print(f"{side:>12}: {rates[side]:10,.1f} pairs/s", file=sys.stderr)
    compared = rates if device.type == "cuda" else work
    return {
        "model": name, "batch": batch, "chunk": chunk, "part": part, "tokens": stored.longest,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "pairs_per_second": rates, "pairs_per_processor_second": work, "peak_gb": peaks,
        "captions_tokenised_per_second": each,
        "stored_vs_on_the_fly": compared["stored"] / compared["on the fly"],
        "cached_vs_plain": compared["cached"] / compared["plain"],
        "tokenizer_vs_open_clip": each["stored"] / each["open_clip"],
    }  # fmt: skip


def run(objective: TextAlignment, folder: Path, steps: int, device: torch.device) -> tuple[float, float, float | None]:
    """Pairs a second of the clock and of the processor, medians over the steps; the device's largest memory in GB."""
    ended: list[tuple[float, float]] = []
    after_step = objective.after_step

    def timed() -> None:
        after_step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended.append((time.perf_counter(), time.process_time()))

    objective.after_step = timed  # type: ignore[method-assign]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    total = WARM_STEPS + steps
    fit(objective, folder, FitSettings(steps=total, device=str(device), checkpoint_every=total, unit="pairs"))
    clock, processor = np.median(np.diff(ended, axis=0)[WARM_STEPS - 1 :], axis=0)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return objective.order.batch_size / clock, objective.order.batch_size / processor, peak


def captioned_table(rows: int) -> Table:
    """Rows with one caption of 14 words each, 16 tokens with the ends."""
    words = np.array(WORDS)[np.random.default_rng(SEED).integers(len(WORDS), size=(rows, 14))]
    captions = [[" ".join(row)] for row in words]
    return read_table(
        pd.DataFrame({"image": [b"none"] * rows, "captions": captions, "id": list(map(str, range(rows)))})
    )


def random_embeddings(folder: Path, rows: int, dim: int) -> Embeddings:
    """An artefact of random unit vectors."""
    vectors = np.random.default_rng(SEED).standard_normal((rows, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Artefact.begin(folder, KIND, {"what": "images"}) as artefact:
        write_shard(folder, 0, vectors, list(map(str, range(rows))))
        artefact.finish(dim=dim)
    return Embeddings(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--model", help="as open_clip names it; its text tower is trained")
    parser.add_argument("--batch", type=int, help="pairs per step")
    parser.add_argument("--part", type=int, help="pairs per step of plain and cached")
    parser.add_argument("--steps", type=int, help="timed steps of each side")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    full = device.type == "cuda" and not options.quick
    name = options.model or ("quick" if options.quick else "ViT-L-14" if full else "ViT-B-32")
    batch = options.batch or (32_768 if full else 512 if options.quick else 256)
    part = options.part or (8_192 if full else 128)
    steps = options.steps or (6 if full or options.quick else 3)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(name, batch, part, steps, device, Path(folder))))


if __name__ == "__main__":
    main()
