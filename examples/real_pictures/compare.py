"""The paper's methods beside the cheap alternatives on real images, hyper-parameters by validation.

    python examples/real_pictures/compare.py DATA --seeds 3 --methods IsoCLIP adapt

How they are compared stands in `mcip.stages.compare_methods`, base, recipe and tasks in run.py beside this file, whose
folder (runs/real) this one goes on in: compare/compare.md, compare.json, compare.png. All methods are trained without
the bird species of validation. Started again, it resumes. IsoCLIP and adapt take half an hour on one core; each other
setting and seed is a training of 4,000 steps, half an hour more: all methods take a night.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from make_tables import make_tables
from run import Recipe, pretrain_base, test_tasks, validation_tasks

from mcip import models
from mcip.data import read_table
from mcip.embeddings.mining import images_folder
from mcip.stages.compare_methods import METHODS, Comparison
from mcip.stages.mine import mine


def begin(source: Path, out: Path, recipe: Recipe) -> Comparison:
    """Train the base and mine captions, where that was not done."""
    tables = make_tables(source, out / "tables")
    base = pretrain_base(tables, out, recipe)
    labelled, embeddings = tables["tune-sweep"], out / "mining"
    mined = mine(
        labelled, str(source / "captions.parquet"), out / "compare" / "captions", base, k=recipe.k,
        embeddings=embeddings,
    )  # fmt: skip
    stored = images_folder(embeddings, read_table(labelled), models.load(base))
    return Comparison(
        out / "compare", base, labelled, tables["pairs"], mined, stored,
        {"validation": validation_tasks(tables), "test": test_tasks(tables)}, (0.5, 0.7, 0.85, 1.0),
        adapting={"steps": 600},
        tuning={
            "lr": recipe.lr, "steps": recipe.steps, "batch_size": recipe.batch_size, "center_init": "class-means",
            "center_lr_factor": recipe.center_lr_factor, "transform": "model", "precision": "bf16",
            "caption_weight": recipe.caption_weight,
        },
        aligning={
            "steps": recipe.align_steps, "batch_size": recipe.align_batch_size, "lr": recipe.align_lr,
            "precision": "bf16",
        },
    )  # fmt: skip


def main() -> None:
    """Compare the methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the parquet files")
    parser.add_argument("--out", type=Path, default=Path("runs/real"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method")
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS], help="only these")
    given = parser.parse_args()
    methods = [method for method in METHODS if given.methods is None or method.name in given.methods]
    print(begin(given.data, given.out, Recipe()).run(methods, given.seeds))


if __name__ == "__main__":
    main()
