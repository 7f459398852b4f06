"""Opening the mined captions of 10,000,000 images: seconds and peak memory.

python benchmarks/mined_captions.py            some minutes, most of them to write 2.5 GB into a temporary folder
python benchmarks/mined_captions.py --quick    seconds, with 100,000 images

A process of its own opens the captions artefact, looks up the captions of all images (the ids in another order than
they were mined in), and takes those of 100 batches of 128. The aim: under 60 seconds and 2 GB, of which the modules are
0.1 GB, PyTorch, which the batches need, 0.5 GB, and the ids that it looks up, an Arrow array, 0.2 GB. Reading and
checking the files is part of it. Expected: the peak of the lookup, and that with the batches, in 10^9 bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from resident_memory import peak_gb
from rich.console import Console

from mcip.core.artefacts import Artefact
from mcip.embeddings.mined_captions import KIND, MinedCaptions, write_tables

K = 20


def write(folder: Path, images: int) -> None:
    """The captions artefact of images that got 20 captions each, out of half as many as there are images."""
    rng = np.random.default_rng(0)
    unique = max(1, images // 2)
    captions = rng.integers(0, unique, images * K, np.int32)
    offsets = np.arange(images + 1, dtype=np.int64) * K
    pieces = ([f"a caption of a web page, number {row}" for row in range(start, min(start + 65_536, unique))]
              for start in range(0, unique, 65_536))  # fmt: skip
    with Artefact.begin(folder, KIND, {"images": images}) as artefact:
        write_tables(folder, ids(images), offsets, captions, rng.random(images * K, np.float32), pieces)
        artefact.finish(threshold=None, unreadable={})


def ids(images: int) -> pa.Array:
    names = pc.binary_join_element_wise("image-", pc.cast(pa.array(np.arange(images)), pa.string()), "")
    return pc.cast(names, pa.large_string())


def use(folder: Path, images: int) -> None:
    """Open the artefact and look up its captions; the seconds and the peak memory in GB."""
    requested = ids(images).take(pa.array(np.random.default_rng(1).permutation(images)))
    start = time.perf_counter()
    figures, worked = {"start_gb": peak_gb()}, time.process_time()
    lookup = MinedCaptions(folder).of_images(requested)
    opened = time.perf_counter() - start
    figures |= {"lookup_gb": peak_gb(), "cpu": time.process_time() - worked}
    for batch in range(100):
        rows = np.random.default_rng(batch).integers(0, images, 128)
        unique, targets = lookup.batch(rows.tolist())
        assert targets.shape == (128, len(unique))
    batches = time.perf_counter() - start - opened
    figures |= {"seconds": opened, "milliseconds_a_batch": 10 * batches, "peak_gb": peak_gb()}
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 images")
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--use", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.use:
        use(given.use, given.images)
        return
    images = 100_000 if given.quick else given.images
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "captions", images)
        command = [sys.executable, __file__, "--use", str(Path(folder) / "captions"), "--images", str(images)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = {"images": images, **found}
    Console(stderr=True).print_json(data=found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
