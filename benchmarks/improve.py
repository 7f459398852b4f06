"""`mcip improve` within a budget, and a recipe that was chosen by hand, on the same base, splits and captions.

python benchmarks/improve.py ../shared/data/fashion.parquet --budget 30m
python benchmarks/improve.py --quick       a trial on a few drawn products and two steps

The recipe is that of examples/real_pictures/run.py: MCIP of 4,000 steps of 64 images, between the base and what was
tuned at alpha 0.85. Started again, it resumes. The last line is JSON: image to image in per cent on the test split, by
the base, by what `mcip improve` chose and by the recipe. Expected: improve at least as good as the recipe within 1
point.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.evaluation.several import measure_models
from mcip.evaluation.tasks import Task
from mcip.reporting.results import read_results
from mcip.stages.improve import improve
from mcip.stages.interpolate import interpolate
from mcip.stages.tune import tune
from mcip.toyshop.tables import Slice, write_slice

QUICK = Slice("improve", stream=203, products=30, images=5, captions=1)
RECIPE: dict[str, Any] = {
    "method": "mcip", "caption_weight": 0.15, "steps": 4000, "batch_size": 64, "lr": 5e-4,
    "center_init": "class-means", "center_lr_factor": 10.0, "transform": "model",
}  # fmt: skip
ALPHA = 0.85


def main() -> None:
    """Improve, tune by the recipe, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="labelled images")
    parser.add_argument("--model", default="toyshop", help="the base")
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--favour", default="images", choices=["images", "balance", "text"])
    parser.add_argument("--pool", help="captions to mine")
    parser.add_argument("--out", type=Path, default=Path("runs/improve"), help="where everything goes")
    parser.add_argument("--quick", action="store_true", help="a trial")
    given = parser.parse_args()
    data, budget, recipe = given.data, given.budget, RECIPE
    if given.quick:
        data, budget, recipe = str(write_slice(QUICK, given.out / QUICK.file)), "1s", {**RECIPE, "steps": 2}
    if data is None:
        parser.error("name the labelled images, or give --quick")
    better = given.out / "better"
    improve(data, better, given.model, budget=budget, favour=given.favour, pool=given.pool)
    facts = read_json(better / "manifest.json")
    found = {path: read_results(better / path) for path in facts["results"]}
    reached = {results.model: results.measured["i2i"].percent for results in found.values()}
    hand = by_hand(data, better / "work", given.model, recipe, given.out)
    seconds = round(sum(facts["seconds"].values()))
    figures = {"base": reached["base"], "improve": reached[facts["chosen"]], "recipe": hand}
    print(json.dumps({**figures, "chosen": facts["chosen"], "seconds": seconds, "budget": budget}))


def by_hand(data: str, work: Path, model: str, recipe: dict[str, Any], out: Path) -> float | None:
    """Image to image on the test split of an improvement, by the recipe trained on its training split."""
    captions = MinedCaptions(work / "captions")
    ids = set(captions.images["id"].to_pylist())
    table = read_table(data)
    train = table.subset([row for row, name in enumerate(table.ids) if name in ids])
    tuned = tune(train, out / "recipe", model, captions=captions, **recipe)
    between = out / "between" / "model"
    path = between if between.exists() else interpolate(tuned, model, between, alpha=ALPHA)
    (results,) = measure_models({"recipe": path}, [Task("i2i", "i2i", str(work / "test.parquet"))], out / "results")
    return read_results(results).measured["i2i"].percent


if __name__ == "__main__":
    main()
