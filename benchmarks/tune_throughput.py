"""Throughput of `mcip.tune`: ratios measured side by side in one run, each the median over the rounds.

python benchmarks/tune_throughput.py            about 20 minutes on two cores
python benchmarks/tune_throughput.py --quick    about a minute
python benchmarks/tune_throughput.py --busy     for busy cores: one thread, CPU time instead of the clock's

Four sides train the same model on the same images in turn, round after round:
  gpr-ft      the trainer (`mcip.training.loop`) with class labels
  mcip        the trainer with class labels and 20 captions an image, looked up among embeddings on disk
  reference   the same, but the text tower embeds each image's 20 captions on every step, as the MCIP reference does
              (texts tokenised before)
  bare        a loop over finished pixels in memory: forward, ArcMargin, backward, clipping, AdamW
Images, labels, captions and weights are random: none of them matters for the speed. The trainer's sides augment as
the paper does, on images that are decoded already. Expected on two idle cores: mcip at least 0.95 of gpr-ft and 3
times the reference, gpr-ft at least 0.95 of bare.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table as TextTable
from torch import Tensor
from torch.nn import functional as F

from mcip import models
from mcip.core.artefacts import Artefact
from mcip.core.choices import Precision
from mcip.core.device import autocast
from mcip.data import Pixels, Table, read_table
from mcip.embeddings.mined_captions import CaptionLookup, MinedCaptions
from mcip.embeddings.store import KIND, Embeddings, write_shard
from mcip.losses import ArcMargin, MultiCaptionArcMargin
from mcip.models import compiled
from mcip.training import EpochOrder, FitSettings, fit
from mcip.training.objectives import CaptionTerm, ImageTuning

CAPTIONS_PER_IMAGE = 20
POOL = 20_000
WARM_STEPS = 2
SEED = 37
CPU = torch.device("cpu")
Clock = Callable[[], float]
RATIOS = {  # name: the side, the side it is compared with, what is wanted
    "mcip_vs_gpr_ft": ("mcip", "gpr-ft", 0.95),
    "mcip_vs_reference": ("mcip", "reference", 3.0),
    "trainer_vs_bare": ("gpr-ft", "bare", 0.95),
}


@dataclass(frozen=True)
class Size:
    """How much is trained: steps per run, rounds of all sides, batches of different images."""

    batch: int
    steps: int
    rounds: int
    batches: int = 4


# Many short runs: on a shared machine the speed drifts within seconds, and neighbours in time see the same.
SIZES = {"ViT-B-32": Size(16, 4, 9), "toyshop": Size(192, 5, 21)}


class Side(Protocol):
    """What trains so many steps, the image tower compiled ("on", "graphs") or not, and returns seconds a step."""

    def __call__(self, steps: int, compile: str = "off") -> float: ...


class RandomCaptions(MinedCaptions):
    """Stands in for the artefact of `mcip mine`: random captions for each image, random unit vectors on disk."""

    def __init__(self, folder: Path, dim: int) -> None:
        vectors = np.random.default_rng(SEED).standard_normal((POOL, dim), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        artefact = Artefact.begin(folder, KIND, {})
        write_shard(folder, 0, vectors, [str(caption) for caption in range(POOL)])
        artefact.finish(dim=dim)
        self.folder = folder

    def text_embeddings(self, model: models.Model) -> Embeddings:
        """The vectors."""
        return Embeddings(self.folder)

    def of_images(self, ids: Sequence[str]) -> CaptionLookup:
        """As many for each image."""
        generator = np.random.default_rng(SEED)
        chosen = [np.sort(generator.choice(POOL, CAPTIONS_PER_IMAGE, replace=False)) for _ in ids]
        starts = np.arange(len(ids)) * CAPTIONS_PER_IMAGE
        return CaptionLookup(starts, starts + CAPTIONS_PER_IMAGE, np.concatenate(chosen))


class TimedTuning(ImageTuning):
    """`ImageTuning` that measures the time of its steps, from the loading of the images to the optimiser's step."""

    clock: Clock = time.perf_counter
    seconds = 0.0

    def batches(self, steps: range) -> Iterator[tuple[Tensor, list[int]]]:
        """The same batches, with a clock."""
        loaded = super().batches(steps)
        since = 0.0
        for number in range(len(steps)):
            if number == WARM_STEPS:
                since = self.clock()
            yield next(loaded)
        self.seconds = self.clock() - since


class ReferenceTuning(TimedTuning):
    """MCIP as the reference computes it: the text tower embeds the captions of the batch on every step."""

    clip: Any
    tokens: Tensor

    def losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """The same losses, every caption of an image a column of its own."""
        pixels, rows = batch
        pixels = self.transform.finish(pixels.to(self.device), generator)
        images = self.modules["image_tower"](pixels.contiguous(memory_format=torch.channels_last))
        images = F.normalize(images.float(), dim=-1)
        by_class = self.modules["class_loss"](images, self.labels[rows])
        assert self.captions is not None
        captions = torch.from_numpy(np.concatenate([self.captions.lookup.batch([row])[0] for row in rows]))
        with torch.no_grad():
            texts = F.normalize(self.clip.encode_text(self.tokens[captions % len(self.tokens)]), dim=-1)
        targets = torch.eye(len(rows), dtype=torch.bool).repeat_interleave(CAPTIONS_PER_IMAGE, dim=1)
        by_caption = self.captions.loss(images, texts, targets)
        weight = self.captions.weight
        loss = (1 - weight) * by_class + weight * by_caption
        return {"loss": loss, "class_loss": by_class, "caption_loss": by_caption}


def random_images(folder: Path, count: int, side: int) -> Table:
    """A table of noise with two images per class."""
    generator = np.random.default_rng(SEED)
    lines = ["image,label"]
    for number in range(count):
        noise = generator.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png", compress_level=0)
        lines.append(f"{number}.png,{number // 2}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return read_table(folder / "images.csv")


def make_sides(
    model: models.Model,
    size: Size,
    folder: Path,
    clock: Clock = time.perf_counter,
    device: torch.device = CPU,
    precision: Precision = "fp32",
    reference: bool = True,
) -> dict[str, Side]:
    """The sides by name; `reference` says whether the side of that name is among them."""
    table = random_images(folder, size.batch * size.batches, model.image_size)
    order = EpochOrder(len(table), size.batch, SEED)
    mined = RandomCaptions(folder / "captions", model.embed_dim)
    transform = model.transform("paper", train=True)

    def trainer(kind: type[TimedTuning], captions: MinedCaptions | None) -> Side:
        term = CaptionTerm.of(captions, table.ids, model, MultiCaptionArcMargin(), 0.25) if captions else None
        images = Pixels(table, transform, cache_gb=2.0, max_unreadable=0.0)
        class_loss = ArcMargin(len(set(table.labels)), model.embed_dim)
        objective = kind(model, images, order, class_loss, lr=1e-6, class_lr=1e-4, captions=term, device=device)
        objective.clock = clock
        for _ in images.batches([list(range(len(table)))]):
            pass  # decoded and cached, as from the second epoch on
        if isinstance(objective, ReferenceTuning):
            texts = [" ".join(map(str, range(number, number + 10))) for number in range(1000)]
            objective.clip, objective.tokens = model.clip, model.tokenizer(texts)

        def run(steps: int, compile: str = "off") -> float:
            if compile != "off":
                objective.compile_for(size.batch, precision, graphs=compile == "graphs")
            settings = FitSettings(
                steps=WARM_STEPS + steps, seed=SEED, device=str(device), precision=precision,
                checkpoint_every=10**9, per_step=size.batch, title="train",
            )  # fmt: skip
            with tempfile.TemporaryDirectory() as out:
                fit(objective, Path(out) / "run" / "checkpoints", settings)
            return objective.seconds / steps

        return run

    def bare(steps: int, compile: str = "off") -> float:
        tower: Any = model.clip.visual.to(device, memory_format=torch.channels_last)
        tower.train()
        mode = "reduce-overhead" if compile == "graphs" else None
        call = tower if compile == "off" else torch.compile(tower, dynamic=False, backend=compiled.BACKEND, mode=mode)
        centers = ArcMargin(len(table) // 2, model.embed_dim).to(device)
        parameters = [list(model.image_parameters()), list(centers.parameters())]
        optimizer = torch.optim.AdamW(
            [{"params": own, "lr": lr} for own, lr in zip(parameters, (1e-6, 1e-4), strict=True)],
            fused=True,
        )
        shape = (size.batch, 3, model.image_size, model.image_size)
        pixels = [
            torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last) for _ in range(size.batches)
        ]
        labels = [torch.randint(len(table) // 2, (size.batch,), device=device) for _ in range(size.batches)]
        since = 0.0
        for step in range(WARM_STEPS + steps):
            if step == WARM_STEPS:
                since = clock()
            if compile == "graphs":
                torch.compiler.cudagraph_mark_step_begin()
            with autocast(device, precision):
                images = call(pixels[step % size.batches]).float()
                loss = centers(F.normalize(images, dim=-1), labels[step % size.batches])
            loss.backward()
            for own in parameters:
                torch.nn.utils.clip_grad_norm_(own, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return (clock() - since) / steps

    return {  # those that are compared are neighbours, so that they run one right after the other
        **({"reference": trainer(ReferenceTuning, mined)} if reference else {}),
        "mcip": trainer(TimedTuning, mined),
        "gpr-ft": trainer(TimedTuning, None),
        "bare": bare,
    }


def measure(name: str, size: Size, rounds: int, clock: Clock) -> dict[str, Any]:
    """The sides' images per second and the ratios, medians over the rounds, and the ratios of each round."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sides = list(make_sides(models.create(name), size, Path(folder), clock).items())
        for number in range(rounds):
            for side, run in sides if number % 2 == 0 else reversed(sides):
                steps = max(1, size.steps // 2) if side == "reference" else size.steps
                rates.setdefault(side, []).append(size.batch / run(steps))
    ratios = {
        ratio: [ours / theirs for ours, theirs in zip(rates[a], rates[b], strict=True)]
        for ratio, (a, b, _) in RATIOS.items()
    }
    return {
        "batch": size.batch,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "images_per_second": {side: round(statistics.median(values), 2) for side, values in rates.items()},
        **{ratio: round(statistics.median(values), 3) for ratio, values in ratios.items()},
        "each": {ratio: [round(value, 3) for value in values] for ratio, values in ratios.items()},
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    table = TextTable("model", "batch", "ratio", "median", "lowest", "highest", "wanted")
    for name, result in results.items():
        for ratio, (_, _, target) in RATIOS.items():
            each = result["each"][ratio]
            shown = (f"{value:.2f}" for value in (result[ratio], min(each), max(each)))
            table.add_row(Path(name).name, str(result["batch"]), ratio.replace("_", " "), *shown, f">= {target}")
        rates = ", ".join(f"{side} {rate:.1f}" for side, rate in result["images_per_second"].items())
        table.add_section()
        Console().print(f"{Path(name).name}: images per second: {rates}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="an open_clip name or a model folder [ViT-B-32, toyshop]")
    parser.add_argument("--pairs", type=int, help="rounds of all sides [9 for ViT-B-32, 21 for toyshop]")
    parser.add_argument("--quick", action="store_true", help="two rounds with small batches and few steps")
    parser.add_argument("--busy", action="store_true", help="one thread, and the CPU time that it takes")
    options = parser.parse_args()
    clock = time.process_time if options.busy else time.perf_counter
    results = {}
    for name in options.model or list(SIZES):
        size = SIZES.get(name, Size(32, 10, 7))
        if options.quick:
            size = Size(min(size.batch, 8), 2, rounds=2, batches=2)
        # What a process did before changes how fast it allocates memory: each model gets a process of its own.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results[name] = pool.submit(measure, name, size, options.pairs or size.rounds, clock).result()
    show(results)
    print(json.dumps({"clock": clock.__name__, "quick": options.quick, "models": results}))


if __name__ == "__main__":
    main()
