"""Pretrain Toyshop's base model: `python -m mcip.toyshop.pretrain` writes runs/toyshop-base/model.

Every image shows another product, so nothing in pretraining rewards telling two products with the same caption
apart. What it took and what it reached stands in `base/pretraining.json`, beside the weights.
"""

from __future__ import annotations

import time
from pathlib import Path

from safetensors.torch import load_file, save_file

from mcip.core.files import atomic_write, read_json, write_json
from mcip.stages.pretrain import pretrain
from mcip.toyshop.captions import every_phrase
from mcip.toyshop.tables import Slice, write_slice

BASE = Path(__file__).parent / "base"
# Streams of products: pretraining has its own, so that no product of the demo is in it.
TRAIN = Slice("pretraining", stream=1, products=36_000, captions=4)
VALIDATION = Slice("pretraining-val", stream=2, products=1_000, captions=1)


def main(out: str = "runs/toyshop-base", steps: int = 1000) -> None:
    """Draw the images, pretrain, and write the weights in half precision with the record of how they were made."""
    start = time.time()
    folder = Path(out)
    train = write_slice(TRAIN, folder / "train.parquet")
    validation = write_slice(VALIDATION, folder / "val.parquet")
    run = folder / "run"
    model = pretrain(
        str(train), run, BASE, validation=str(validation), vocabulary=every_phrase(), steps=steps, validate_every=200
    )
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(
        model / "open_clip_model.safetensors").items()}  # fmt: skip
    with atomic_write(BASE / "open_clip_model.safetensors") as temporary:
        save_file(halves, temporary)
    manifest = read_json(run / "manifest.json")
    write_json(
        BASE / "pretraining.json",
        {
            "command": "python -m mcip.toyshop.pretrain",
            "minutes": round((time.time() - start) / 60, 1),
            "images": TRAIN.products,
            "steps": steps,
            "validation": manifest["validation"],
            "versions": manifest["versions"],
        },
    )


if __name__ == "__main__":
    main()
