"""A better model for your own labelled images: mine captions, tune by MCIP, compare with the base on unseen classes.

    python examples/tune_own_labels.py                       23 seconds of CPU time
    python examples/tune_own_labels.py photos pool.txt test  a folder of class folders, captions, other class folders

It draws small tables of its own where none are given: 80 products to tune on, 20 others to test on. Expected then: the
mAP of image to image rises from 66.6 to 77.4 percent, and text to image stays at 88.8 (R@5).
"""

from __future__ import annotations

import sys
from pathlib import Path

import mcip
from mcip.toyshop.tables import Slice, write_slice

OUT = Path("runs/tune-own-labels")


def own_tables() -> tuple[str, str, str]:
    """Tables to tune on, to mine from, and to test on."""
    train = write_slice(Slice("train", stream=70, products=80, images=5), OUT / "train.parquet")
    pool = write_slice(Slice("pool", stream=71, products=200, images=1, captions=1), OUT / "pool.parquet")
    test = write_slice(Slice("test", stream=72, products=20, images=4, captions=1), OUT / "test.parquet")
    return str(train), str(pool), str(test)


def main() -> None:
    """Tune a model, and measure it beside its base."""
    train, pool, test = sys.argv[1:4] if len(sys.argv) == 4 else own_tables()
    captions = mcip.mine(train, pool, OUT / "captions", "toyshop", k=5)
    tuned = mcip.tune(
        train, OUT / "mcip", "toyshop", captions=captions, caption_weight=0.2, transform="model", steps=80,
        batch_size=32, lr=2.5e-4, center_init="class-means", center_lr_factor=20,
    )  # fmt: skip
    results = mcip.evaluate({"base": "toyshop", "mcip": tuned}, OUT / "results", data=test)
    print(results.to_pandas().to_string())


if __name__ == "__main__":
    main()
