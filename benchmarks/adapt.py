"""`mcip.adapt` on Toyshop: what a matrix on stored embeddings gains, what it costs, and how long it trains.

python benchmarks/adapt.py                 trains on the labelled slice of `mcip demo --full`, and tests on it
python benchmarks/adapt.py --validation    measures on validation slices instead: choose hyper-parameters by these

The images are embedded first, once for all runs in the folder --out; only the training is timed. The last line is
JSON: image-to-image mAP and text-to-image R@5 in per cent, and the seconds by the clock and of CPU time. Every
parameter of `mcip.adapt` is a flag, as in --keep 3; its defaults were chosen on the validation slices. Expected on two
idle cores: under 60 seconds, and at or beyond the line through (53.0, 53.8) and (55.6, 50.5) of image to image and text
to image; measured on the test slices: 53.3 and 54.7.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from mcip.core.files import read_json
from mcip.evaluation.several import measure_models
from mcip.stages.adapt import adapt
from mcip.stages.embed import embed
from mcip.stages.mine import mine
from mcip.toyshop.method import BASE, FULL_TEST, Recipe, World, tasks, write_pool
from mcip.toyshop.tables import write_slice

SCORES = ("i2i_map", "t2i_r5")


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validation", action="store_true", help="measure on the validation slices")
    parser.add_argument("--captions", action="store_true", help="mine captions, and use their loss as well")
    parser.add_argument("--out", type=Path, default=Path("runs/adapt"), help="where tables and embeddings are kept")
    known, others = parser.parse_known_args()
    recipe = parameters(others)
    print(json.dumps(run(FULL_TEST.validation() if known.validation else FULL_TEST, recipe, known.captions, known.out)))


def parameters(flags: list[str]) -> dict[str, Any]:
    """Flags such as `--keep 3` as parameters; values are read as JSON where they are any."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return {name.removeprefix("--").replace("-", "_"): value_of(text) for name, text in pairs}


def value_of(text: str) -> Any:
    """A number, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def run(world: World, recipe: dict[str, Any], captions: bool, out: Path) -> dict[str, Any]:
    """Adapt the base model by a recipe and measure it in a world."""
    labelled, products, gallery = (
        str(write_slice(part, out / "tables" / part.file)) for part in (world.labelled, world.products, world.images)
    )
    images = embed(labelled, out / "images", BASE, device="cpu")
    mined = None
    if captions:
        captioned = str(write_slice(world.captioned, out / "tables" / world.captioned.file))
        name = world.images.name
        pool = write_pool(captioned, gallery, out / "tables" / f"pool-{name}.parquet")
        mined = mine(labelled, str(pool), out / f"captions-{name}", BASE, k=Recipe.k, device="cpu")
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    began, used = time.perf_counter(), time.process_time()
    adapted = adapt(labelled, folder, BASE, embeddings=images.folder, captions=mined, device="cpu", **recipe)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    results = out / "results"
    shutil.rmtree(results, ignore_errors=True)
    measured = [task for task in tasks(products, gallery) if task.name in SCORES]
    (file,) = measure_models({"adapted": str(adapted)}, measured, results, suite="toyshop")
    found = {task["name"]: round(100 * task["metrics"][task["headline"]], 1) for task in read_json(file)["tasks"]}
    facts = {"captions": captions, "threads": torch.get_num_threads(), "recipe": recipe}
    return {**found, "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), **facts}


if __name__ == "__main__":
    main()
