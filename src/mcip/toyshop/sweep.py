"""Try hyper-parameters of the demo on validation products: `python -m mcip.toyshop.sweep --caption-weight 0.5`.

It trains on the demo's labelled and captioned images, and measures on products and captions that are neither in
training nor in the demo's test. Each run goes to a folder of its own under runs/sweep.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mcip.toyshop.method import TEST, Recipe, run
from mcip.toyshop.tables import Slice

VALIDATION = replace(
    TEST,
    products=Slice("validation", stream=22, products=300, images=10, splits=("index", "query")),
    images=Slice("validation-captions", stream=23, products=1_000, captions=5),
)


def main() -> None:
    """Run one recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field, default in vars(Recipe()).items():
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=type(default), default=default, help=f"default: {default}"
        )
    recipe = Recipe(**vars(parser.parse_args()))
    name = "-".join(f"{field}={value}" for field, value in vars(recipe).items() if value != getattr(Recipe(), field))
    run(VALIDATION, recipe, Path("runs/sweep") / (name or "default"))


if __name__ == "__main__":
    main()
