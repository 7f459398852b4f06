"""Speed and memory of `mcip.metrics` and `mcip.embed`: ratios measured side by side, with the same results.

python benchmarks/metrics.py            about 10 minutes on two cores; the k-NN part needs 5 GB of memory
python benchmarks/metrics.py --quick    about a minute, at a smaller size
python benchmarks/metrics.py --only map captions

`map` is full mAP at GPR1200's size (12,000 x 12,000 x 768) against a loop that ranks one query at a time, as the MCIP
reference does (timed on some of the queries). `peers` compares with torchmetrics, pytorch-metric-learning and
open-metric-learning at a size that they can hold; those that are not installed are left out. `knn` is 5,000 of 50,000
queries against 1,281,167 vectors, and the bare products. `captions` is recall between 25,010 captions and 5,000 images.
`embed` is a folder of JPEG files through ViT-B-32 with one process that decodes and the other cores for the model,
against the model on pixels in memory, and the decoding alone. The aim on two idle cores: map 20 times the loop or
more, knn 1.3 times the products or less, under 1 GB for map and captions, embed 0.95 of the model or more.
OMP_NUM_THREADS=1 steadies the ratios where the cores are busy. Ratios are medians over interleaved pairs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from mcip.metrics import average_precisions, cross_modal_recall, knn_classify

DIM = 768
PAIRS = 5


def clusters(classes: int, per_class: int, seed: int = 0) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """L2-normalised embeddings in noisy clusters, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    x = torch.randn(len(labels), DIM, generator=generator)
    x += 0.4 * torch.randn(classes, DIM, generator=generator)[labels]
    return torch.nn.functional.normalize(x), labels.numpy()


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def one_at_a_time(x: torch.Tensor, labels: NDArray[np.int64], queries: range) -> list[float]:
    """Average precision by ranking the whole gallery for one query after the other."""
    gallery = x.T
    precisions = []
    for query in queries:
        order = (x[query, None] @ gallery).topk(len(x), sorted=True).indices[0].numpy()
        total = 0.0
        ranks = np.flatnonzero(labels[order] == labels[query])
        for seen, rank in enumerate(ranks, 1):
            total += seen / (rank + 1.0)
        precisions.append(total / len(ranks))
    return precisions


def peak_gb() -> float:
    """Peak resident memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_map(quick: bool) -> dict[str, Any]:
    """Full mAP against the loop."""
    x, labels = clusters(300 if quick else 1200, 10)
    average_precisions(x[:512], x, labels[:512], labels)
    ours, loop, error = [], [], 0.0
    for pair in range(PAIRS):
        some = range(pair * 60, pair * 60 + 60)
        loop.append(seconds(lambda some=some: one_at_a_time(x, labels, some)) / len(some) * len(x))  # type: ignore[misc]
        ours.append(seconds(lambda: average_precisions(x, x, labels, labels)))
        found = average_precisions(x[some.start : some.stop], x, labels[some.start : some.stop], labels)
        error = max(error, float(np.abs(found - one_at_a_time(x, labels, some)).max()))
    ratio = statistics.median(one / other for one, other in zip(loop, ours, strict=True))
    return {
        "map_size": len(x),
        "map_seconds": statistics.median(ours),
        "map_loop_seconds": statistics.median(loop),
        "map_times_the_loop": ratio,
        "map_largest_difference": error,
        "map_peak_gb": peak_gb(),
    }


def torchmetrics(x: torch.Tensor, labels: NDArray[np.int64]) -> float:
    from torchmetrics.retrieval import RetrievalMAP

    target = torch.from_numpy(labels)
    rows = torch.arange(len(x))[:, None].expand(-1, len(x))
    return float(RetrievalMAP()(x @ x.T, target[:, None] == target, indexes=rows))


def pytorch_metric_learning(x: torch.Tensor, labels: NDArray[np.int64]) -> float:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    search = CustomKNN(CosineSimilarity(), batch_size=512)
    calculator = AccuracyCalculator(
        include=("mean_average_precision",), k=len(x), knn_func=search, device=torch.device("cpu")
    )
    target = torch.from_numpy(labels)
    found = calculator.get_accuracy(x, target, x, target, ref_includes_query=False)
    return float(found["mean_average_precision"])


def open_metric_learning(x: torch.Tensor, labels: NDArray[np.int64]) -> float:
    from oml.functional.metrics import calc_retrieval_metrics

    target = torch.from_numpy(labels)
    ranked = (x @ x.T).argsort(dim=1, descending=True)
    relevant = [(target == label).nonzero()[:, 0] for label in target]
    found = calc_retrieval_metrics(
        list(ranked), relevant, cmc_top_k=(), precision_top_k=(), map_top_k=(len(x),), verbose=False
    )
    return float(found["map"][len(x)])


PEERS: dict[str, Callable[[torch.Tensor, NDArray[np.int64]], float]] = {
    "torchmetrics": torchmetrics,
    "pytorch_metric_learning": pytorch_metric_learning,
    "open_metric_learning": open_metric_learning,
}


def measure_peers(quick: bool) -> dict[str, Any]:
    """Full mAP against the libraries that are installed."""
    x, labels = clusters(100 if quick else 300, 10)
    expected = float(average_precisions(x, x, labels, labels).mean())
    figures: dict[str, Any] = {"peers_size": len(x)}
    for name, peer in PEERS.items():
        try:
            value = peer(x, labels)
        except ImportError:
            figures[f"{name}_times"] = None
            continue
        pairs = [
            (seconds(lambda peer=peer: peer(x, labels)), seconds(lambda: average_precisions(x, x, labels, labels)))  # type: ignore[misc]
            for _ in range(PAIRS)
        ]
        figures[f"{name}_times"] = statistics.median(theirs / ours for theirs, ours in pairs)
        figures[f"{name}_difference"] = abs(value - expected)
    return figures


def measure_knn(quick: bool) -> dict[str, Any]:
    """k-NN against the bare matrix products over the same blocks."""
    queries, vectors, block = (512, 65_536, 16_384) if quick else (5_000, 1_281_167, 16_384)
    generator = torch.Generator().manual_seed(0)
    train = torch.empty(vectors, DIM)
    for rows in train.split(block):
        rows.normal_(generator=generator)
        torch.nn.functional.normalize(rows, out=rows)
    labels = torch.randint(1000, (vectors,), generator=generator)
    test = torch.nn.functional.normalize(torch.randn(queries, DIM, generator=generator))
    scores = torch.empty(1024 * block)

    def products() -> None:
        for start in range(0, vectors, block):
            part = train[start : start + block]
            for first in range(0, queries, 1024):
                rows = test[first : first + 1024]
                torch.mm(rows, part.T, out=scores[: len(rows) * len(part)].view(len(rows), len(part)))

    pairs = [(seconds(lambda: knn_classify(train, labels, test)), seconds(products)) for _ in range(3)]
    ours = statistics.median(ours for ours, _ in pairs)
    return {
        "knn_queries": queries,
        "knn_vectors": vectors,
        "knn_seconds": ours,
        "knn_seconds_for_50000_x_1281167": ours * (50_000 / queries) * (1_281_167 / vectors),
        "knn_over_product": statistics.median(one / other for one, other in pairs),
    }


def measure_captions(quick: bool) -> dict[str, Any]:
    """Recall between captions and images, both ways."""
    images, _ = clusters(500 if quick else 5000, 1)
    owner = (torch.arange(2501 if quick else 25_010) % len(images)).numpy()
    generator = torch.Generator().manual_seed(1)
    texts = torch.nn.functional.normalize(images[owner] + 0.1 * torch.randn(len(owner), DIM, generator=generator))
    t2i = seconds(lambda: cross_modal_recall(texts, images, owner))
    i2t = seconds(lambda: cross_modal_recall(texts, images, owner, direction="image_to_text"))
    return {
        "captions": len(owner),
        "captions_t2i_seconds": t2i,
        "captions_i2t_seconds": i2t,
        "captions_peak_gb": peak_gb(),
    }


def measure_embed(quick: bool) -> dict[str, Any]:
    """A folder of images through the stage, against the bare model and the bare decoding."""
    # Imported here, so that they do not count in the memory of the other parts.
    import open_clip

    from mcip import models
    from mcip.data import Pixels, read_table
    from mcip.embeddings.encode import embed_images, encode_pixels

    count, batch = (32, 16) if quick else (384, 64)
    # As in a process that was not itself spawned.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))
    model = models.from_config({"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images" / "some", count)
        table = read_table(str(folder / "images"))
        transform = model.transform()
        rows = [range(start, min(start + batch, count)) for start in range(0, count, batch)]

        def pixels() -> list[torch.Tensor]:
            return [part for part, _ in Pixels(table, transform, workers=1, cache_gb=0.0).batches(rows)]

        def stage(out: Path) -> NDArray[np.float32]:
            return embed_images(table, model, out, batch_size=batch, workers=1).array()

        def bare(parts: list[torch.Tensor]) -> NDArray[np.float32]:
            return np.concatenate([encode_pixels(model, transform.finish(part)) for part in parts])

        decode = seconds(pixels)
        prepared = pixels()
        expected = bare(prepared[:1])
        pairs = [(seconds(lambda n=n: stage(folder / str(n))), seconds(lambda: bare(prepared))) for n in range(3)]  # type: ignore[misc]
        difference = float(np.abs(stage(folder / "0")[:batch] - expected).max())
    return {
        "embed_images": count,
        "embed_images_per_second": count / statistics.median(ours for ours, _ in pairs),
        "embed_of_the_model": statistics.median(model / ours for ours, model in pairs),
        "embed_decode_images_per_second": count / decode,
        "embed_largest_difference": difference,
    }


def write_images(folder: Path, count: int) -> None:
    """JPEG files of 500 x 375 pixels, of smooth noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)


PARTS = {
    "map": measure_map,
    "peers": measure_peers,
    "knn": measure_knn,
    "captions": measure_captions,
    "embed": measure_embed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to run")
    options = parser.parse_args()
    figures: dict[str, Any] = {"threads": torch.get_num_threads()}
    context = multiprocessing.get_context("spawn")
    for name in options.only:
        # A process of its own for each part, so that the peak memory is the part's.
        with ProcessPoolExecutor(1, context) as pool:
            figures.update(pool.submit(PARTS[name], options.quick).result())
    table = Table("figure", "value", title="mcip.metrics")
    for key, value in figures.items():
        table.add_row(
            key, "not installed" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        )
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
