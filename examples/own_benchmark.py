"""A benchmark of your own: a YAML list of tasks over your tables, measured, and a report.

    python examples/own_benchmark.py   10 seconds of CPU time

Expected: four tasks for the toyshop model - the same product 76.9 (mAP), neighbours 72.5 (top-1), the shape by its name
23.8 (top-1), an image by its caption 97.5 percent (R@5) - and runs/own-benchmark/report.html.
"""

from __future__ import annotations

from pathlib import Path

import mcip
from mcip.toyshop.tables import Slice, write_slice

OUT = Path("runs/own-benchmark")
# The tasks are of the table given as `data`; one of another table names it, as in {..., data: others.parquet}.
TASKS = """
- {name: same product, kind: i2i, split: query}
- {name: product by its neighbours, kind: knn, split: query, index_split: index}
- {name: shape by its name, kind: zero-shot, label: shape, templates: ["a {}."]}
- {name: image by its caption, kind: t2i, split: query}
"""


def main() -> None:
    """Write the tables and the list of tasks, measure, and report."""
    products = Slice("products", stream=72, products=20, images=4, captions=1, splits=("index", "query"))
    write_slice(products, OUT / "products.parquet")
    suite = OUT / "suite.yaml"
    suite.write_text(TASKS, encoding="utf-8")
    results = mcip.evaluate({"base": "toyshop"}, OUT / "results", data=OUT / "products.parquet", suite=str(suite))
    print(results.to_pandas().to_string())
    print(mcip.report(results, OUT))


if __name__ == "__main__":
    main()
