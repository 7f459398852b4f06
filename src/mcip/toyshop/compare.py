"""The paper's methods beside the cheap alternatives on Toyshop: `python -m mcip.toyshop.compare --seeds 3`.

How they are compared stands in `mcip.stages.compare_methods`. Images and steps are those of `mcip demo`; three seeds
take about an hour on one core that has nothing else to do. Everything goes to runs/compare: compare.md (the table),
compare.json, and compare.png and compare.svg (text to image over image to image). Started again, it resumes; `--quick`
is a trial with a world of a few products and two steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from mcip import models
from mcip.data import read_table
from mcip.embeddings.mining import images_folder
from mcip.stages.compare_methods import METHODS, Comparison
from mcip.stages.mine import mine
from mcip.toyshop.method import BASE, TEST, Recipe, Tables, World, tasks
from mcip.toyshop.tables import Slice

ALPHAS: Final = (0.5, 0.7, 0.85, 1.0)
_VALIDATED: Final = ("i2i_map", "t2i_r5")
QUICK: Final = World(
    labelled=Slice("quick-labelled", stream=40, products=8, images=4),
    captioned=Slice("quick-captioned", stream=41, products=24, captions=1),
    products=Slice("quick", stream=42, products=6, images=4, splits=("index", "query")),
    images=Slice("quick-captions", stream=43, products=12, captions=1),
)
_QUICK_RECIPE: Final = Recipe(steps=2, batch_size=8, adapt_steps=2, align_steps=2, align_batch_size=8, k=2)


def begin(out: Path, quick: bool) -> Comparison:
    """Draw the worlds and mine captions."""
    test, recipe = (QUICK, _QUICK_RECIPE) if quick else (TEST, Recipe())
    tables = {name: Tables.write(world, out / "tables") for name, world in
              (("test", test), ("validation", test.validation()))}  # fmt: skip
    held_out = {name: tasks(of.products, of.images) for name, of in tables.items()}
    held_out["validation"] = [task for task in held_out["validation"] if task.name in _VALIDATED]
    of_test = tables["test"]
    mined = mine(of_test.labelled, of_test.pool, out / "captions", BASE, k=recipe.k)
    stored = images_folder(out / "captions" / "embeddings", read_table(of_test.labelled), models.load(BASE))
    return Comparison(
        out, BASE, of_test.labelled, of_test.captioned, mined, stored, held_out, (0.5, 1.0) if quick else ALPHAS,
        adapting={"steps": recipe.adapt_steps},
        tuning={
            "lr": recipe.lr, "steps": recipe.steps, "batch_size": recipe.batch_size, "center_init": recipe.center_init,
            "center_lr_factor": recipe.center_lr_factor, "transform": recipe.transform,
            "caption_weight": recipe.caption_weight,
        },
        aligning={"steps": recipe.align_steps, "batch_size": recipe.align_batch_size, "lr": recipe.align_lr},
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method")
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS], help="only these")
    parser.add_argument("--quick", action="store_true", help="a trial: few products, two steps, one choice each")
    given = parser.parse_args(arguments)
    methods = [
        replace(method, grid=method.grid[:1]) if given.quick else method
        for method in METHODS if given.methods is None or method.name in given.methods
    ]  # fmt: skip
    print(begin(given.out / "quick" if given.quick else given.out, given.quick).run(methods, given.seeds))


if __name__ == "__main__":
    main()
