"""Try hyper-parameters of the demo on validation products: `python -m mcip.toyshop.sweep --caption-weight 0.5`.

It trains on the demo's labelled and captioned images, and measures on products and captions that are neither in
training nor in the demo's test. Each run goes to a folder of its own under runs/sweep. `--full`
takes the images and the recipe of `mcip demo --full`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mcip.toyshop.method import FULL_RECIPE, FULL_TEST, TEST, Recipe, run


def main() -> None:
    """Run one recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the images and the recipe of `mcip demo --full`")
    for field, default in vars(Recipe()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(default), help=f"default: {default}")
    given = {field: value for field, value in vars(parser.parse_args()).items() if value is not None}
    world, recipe = (FULL_TEST, FULL_RECIPE) if given.pop("full") else (TEST, Recipe())
    name = "-".join(["full"] * (world is FULL_TEST) + [f"{field}={value}" for field, value in given.items()])
    run(world.validation(), replace(recipe, **given), Path("runs/sweep") / (name or "default"))


if __name__ == "__main__":
    main()
