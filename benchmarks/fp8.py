"""What products in 8 bits cost in quality: GPR-FT on Toyshop in fp32, bf16 and bf16 with `mcip tune --fp8`.

python benchmarks/fp8.py            about half an hour on two cores; resumes in the folder --out
python benchmarks/fp8.py --quick    a model that learned nothing, two steps: whether it runs

Toyshop's base is a ResNet, which has no linear layers in its blocks: a small vision transformer is pretrained first.
Then it is tuned by the demo's recipe with fewer steps, with each precision and each of some seeds, and measured on the
demo's tasks. The products are rounded as on a GPU, on a CPU too, where they save no time. The last line is JSON: each
column in per cent by precision, a mean over the seeds, the largest difference between two seeds, and what fp8 adds to
bf16. Needs mcip[fp8].
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from mcip.core.files import read_json, write_json
from mcip.evaluation.several import measure_models
from mcip.stages.pretrain import pretrain
from mcip.stages.tune import tune
from mcip.toyshop.captions import every_phrase
from mcip.toyshop.method import TEST, Recipe, tasks
from mcip.toyshop.tables import Slice, write_slice
from mcip.training import float8

CONFIG: Final[dict[str, Any]] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"layers": 4, "width": 96, "head_width": 32, "patch_size": 16, "image_size": 64},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 3},
    },
    "preprocess_cfg": {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
}
PRECISIONS: Final[dict[str, dict[str, Any]]] = {
    "fp32": {"precision": "fp32"}, "bf16": {"precision": "bf16"}, "fp8": {"precision": "bf16", "fp8": True},
}  # fmt: skip


def run(
    out: Path, products: int, pretrain_steps: int, steps: int, seeds: range, precisions: list[str]
) -> dict[str, Any]:
    """Pretrain, tune and measure; the figures."""
    parts = (
        Slice("pretraining", stream=1, products=products * 16, captions=4),
        replace(TEST.labelled, products=products),
        replace(TEST.products, products=products // 2),
        replace(TEST.images, products=products),
    )
    captioned, labelled, held_out, images = (
        str(write_slice(part, out / "tables" / f"{part.name}-{part.products}.parquet")) for part in parts
    )
    write_json(out / "config" / "open_clip_config.json", CONFIG)
    base = pretrain(
        captioned, out / "base", out / "config", vocabulary=every_phrase(), steps=pretrain_steps, batch_size=128,
        warmup=pretrain_steps // 10, validate_every=0,
    )  # fmt: skip
    recipe = Recipe()
    models = {"base": str(base)}
    for name in precisions:
        for seed in seeds:
            tuned = tune(
                labelled, out / f"{name}-{seed}", str(base), method="gpr-ft", steps=steps, seed=seed,
                batch_size=recipe.batch_size, lr=recipe.lr, center_init=recipe.center_init,
                center_lr_factor=recipe.center_lr_factor, transform=recipe.transform, **PRECISIONS[name],
            )  # fmt: skip
            models[f"{name}-{seed}"] = str(tuned)
    files = measure_models(models, tasks(held_out, images), out / "results", suite="toyshop", precision="fp32")
    found = {name: scores(file) for name, file in zip(models, files, strict=True)}
    means, spread = {}, {}
    for name in precisions:
        of_seeds = {column: [found[f"{name}-{seed}"][column] for seed in seeds] for column in found["base"]}
        means[name] = {column: round(statistics.mean(values), 2) for column, values in of_seeds.items()}
        spread[name] = {column: round(max(values) - min(values), 2) for column, values in of_seeds.items()}
    added = {column: round(value - means["bf16"][column], 2) for column, value in means["fp8"].items()}
    return {"base": found["base"], **means, "spread": spread, "fp8_minus_bf16": added}


def scores(file: Path) -> dict[str, float]:
    """The headline of each task of a results file, in per cent."""
    return {task["name"]: round(100 * task["metrics"][task["headline"]], 2) for task in read_json(file)["tasks"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="whether it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/fp8"), help="where everything is kept")
    parser.add_argument("--products", type=int, default=300, help="of the labelled slice")
    parser.add_argument("--pretrain-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200, help="of tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without-fp32", action="store_true", help="two precisions only")
    options = parser.parse_args()
    precisions = [name for name in PRECISIONS if name != "fp32" or not options.without_fp32]
    cuda = torch.cuda.is_available()
    if not cuda:
        float8.check_float8 = lambda device, precision: None
    sizes = options.products, options.pretrain_steps, options.steps, range(37, 37 + options.seeds)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            sizes = 8, 2, 2, range(37, 38)
            found = run(Path(folder), *sizes, precisions)
    else:
        found = run(options.out, *sizes, precisions)
    products, pretrain_steps, steps, seeds = sizes
    facts = {"products": products, "pretrain_steps": pretrain_steps, "steps": steps, "seeds": len(seeds)}
    card = torch.cuda.get_device_name() if cuda else "CPU"
    print(json.dumps({"card": card, "torch": torch.__version__, "quick": options.quick, **facts, **found}))


if __name__ == "__main__":
    main()
