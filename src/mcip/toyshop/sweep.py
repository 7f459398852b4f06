"""Try hyper-parameters of the demo on validation products: `python -m mcip.toyshop.sweep --caption-weight 0.5`.

It trains on the demo's labelled and captioned images, and measures on products and captions that are neither in
training nor in the demo's test. Each run goes to a folder of its own under runs/sweep.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mcip.toyshop.method import VALIDATION, Recipe, run


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
