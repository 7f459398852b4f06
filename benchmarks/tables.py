"""Opening, checking and shuffling a large parquet table: seconds and peak memory, in a process of its own.

python benchmarks/tables.py            10,000,000 rows, about two minutes and 4 GB of disk, which are freed again
python benchmarks/tables.py --quick    200,000 rows, a few seconds

Rows are an image's URI and a label, as a crawl has them; nothing is read from the URIs. Measured are the steps of
`mcip tune` before its first batch:
  open         `mcip.read_table`: the parquet file is written to the cache as a memory-mapped table, columns are
               checked, ids must differ
  labelled     the rows with a label; the classes are numbered
  fingerprint  over ids, labels, captions, splits and URIs
  shuffle      the order of an epoch, and the labels of its first and last batch
Seconds are the clock's; those of the CPU say what idle cores would take. Peak memory is the largest resident set, pages
of the memory map and the imports (0.15 GB; no PyTorch) among it. Expected of 10,000,000 rows on two idle cores: less
than 60 s and 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as TextTable

ROWS, CLASSES = 10_000_000, 170_000
WRITTEN_AT_ONCE = 500_000
BATCH, SEED = 128, 37


def write_table(path: Path, rows: int) -> None:
    """Write a parquet file with the columns image, a URI, and label."""
    generator = np.random.default_rng(SEED)
    schema = pa.schema([("image", pa.string()), ("label", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, WRITTEN_AT_ONCE):
            numbers = range(start, min(start + WRITTEN_AT_ONCE, rows))
            images = [f"s3://images/part-{number // 10_000:05}/{number:09}-{number * 2654435761 % 2**32:08x}.jpg"
                      for number in numbers]  # fmt: skip
            labels = [f"class-{label:06}" for label in generator.integers(0, CLASSES, len(numbers))]
            writer.write_table(pa.table({"image": images, "label": labels}, schema))


def measure(path: Path) -> dict[str, float]:
    """The seconds of each step, and the peak memory before the table and after it, in GB."""
    import mcip
    from mcip.data.selection import labelled
    from mcip.training import EpochOrder

    figures = {"imports_gb": peak_gb()}
    since, worked = time.perf_counter(), time.process_time()

    def note(step: str) -> None:
        nonlocal since, worked
        figures[f"{step}_s"], since = round(time.perf_counter() - since, 2), time.perf_counter()
        figures[f"{step}_cpu"], worked = round(time.process_time() - worked, 2), time.process_time()
        figures[f"{step}_gb"] = peak_gb()

    table = mcip.read_table(path)
    note("open")
    table, without = labelled(table)
    assert not without
    note("labelled")
    assert len(table.fingerprint) == 64
    note("fingerprint")
    order = EpochOrder(len(table), BATCH, SEED)
    for step in (0, order.steps_per_epoch - 1):
        assert (table.label_numbers[order.batch(step)] >= 0).all()
    note("shuffle")
    for unit in ("s", "cpu"):
        figures[f"total_{unit}"] = round(sum(value for name, value in figures.items() if name.endswith(f"_{unit}")), 2)
    return figures


def peak_gb() -> float:
    """The largest resident set of this process so far, in 10^9 bytes.

    Linux counts that of the process which started it into `ru_maxrss`.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return round(int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help=f"[{ROWS:,}]")
    parser.add_argument("--quick", action="store_true", help="200,000 rows")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))
        return
    rows = options.rows or (200_000 if options.quick else ROWS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.parquet"
        write_table(path, rows)
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(path)], check=True, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"MCIP_CACHE": str(Path(folder) / "cache")},
        )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    shown = TextTable("step", "seconds", "of the CPU", "peak GB", title=f"{rows:,} rows")
    for step in ("open", "labelled", "fingerprint", "shuffle"):
        shown.add_row(
            step, f"{figures[f'{step}_s']:.2f}", f"{figures[f'{step}_cpu']:.2f}", f"{figures[f'{step}_gb']:.2f}"
        )
    Console().print(shown)
    print(json.dumps({"rows": rows, "quick": options.quick, **figures}))


if __name__ == "__main__":
    main()
