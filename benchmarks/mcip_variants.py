"""What might make MCIP better: variants of its caption loss beside plain MCIP, on Toyshop's validation products.

python benchmarks/mcip_variants.py            about an hour on one core that has nothing else to do
python benchmarks/mcip_variants.py --quick    a trial with a few products, two steps and one seed

Each variant is tuned by the recipe of `mcip demo` and measured at three places of the line to the base: image to image
(mAP) and text to image (R@5), in percent, on products that are neither in training nor in the demo's test. Plain MCIP
is tuned with several caption weights, 0 (GPR-FT) among them. Its points, joined by straight lines along the caption
weight and along alpha, are what a variant is held against: `gain` is by how many points of text to image a variant lies
above them at equal image to image, the mean over its places. All settings are tuned with the first seed; the best
setting of each variant, plain MCIP, and one more caption weight, which shows how large a gain is by chance, with all
seeds. A line of a seed is held against plain MCIP of the same seed. `beyond chance` is the gain less that of the one
more caption weight with the same seed: a variant wins where that is clearly above 0.

Started again, it resumes. The table is written to variants.md after each training; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from mcip_variant_losses import MARGIN, SCALE, Captions, Setting
from torch import Tensor

from mcip import models
from mcip.core.files import atomic_write, read_json, write_json
from mcip.core.progress import console
from mcip.data import Pixels, read_table
from mcip.embeddings import Embeddings
from mcip.embeddings.class_means import class_means
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.embeddings.mining import images_folder
from mcip.evaluation.validation import Validation
from mcip.stages.align import align
from mcip.stages.mine import mine
from mcip.stages.training import arc_margin
from mcip.toyshop.compare import QUICK
from mcip.toyshop.method import BASE, TEST, Recipe, Tables, World
from mcip.training import EpochOrder, FitSettings, fit
from mcip.training.objectives import ImageTuning

SEED: Final = 37
ALPHAS: Final = (1.0, 0.85, 0.7)
QUICK_RECIPE: Final = Recipe(steps=2, batch_size=8, align_steps=2, align_batch_size=8, k=2)

# Image to image and text to image of a model.
Point: TypeAlias = tuple[float, float]
# Those of the places ALPHAS of a tuned model's line to the base.
Line: TypeAlias = tuple[Point, ...]


PLAIN: Final = [Setting("plain", weight) for weight in (0.2, 0.0, 0.1, 0.35, 0.5, 0.05)]
# Of plain MCIP too, but no part of the lines: a gain that is chance.
CONTROL: Final = Setting("plain, another weight", 0.15)
VARIANTS: Final = [
    *(Setting("shared captions weighted down", sharing=power) for power in (0.5, 1.0, 2.0)),
    *(Setting("soft targets over an image's captions", own=temperature) for temperature in (0.05, 0.02)),
    *(Setting("soft targets over the batch's captions", batch=temperature) for temperature in (0.04, 0.02)),
    *(Setting("mined again by what is tuned", miner=miner) for miner in ("tuned", "realigned")),
    *(Setting("weight on a schedule", first, last) for first, last in ((0.4, 0.0), (0.0, 0.4))),
    *(Setting("with keep", keep=keep) for keep in (0.3, 1.0, 3.0)),
    *(Setting("queue of captions", queue=images) for images in (256, 1024)),
]


class Trials:
    """Tunes and measures; each line is a file, so that a later run goes on from there."""

    def __init__(self, out: Path, world: World, recipe: Recipe) -> None:
        """Draw the images, mine captions, and measure the base."""
        self.out, self.recipe = out, recipe
        self.files = Tables.write(world.validation(), out / "tables")
        self.base = models.load(BASE)
        self.table = read_table(self.files.labelled)
        self.mined = mine(self.files.labelled, self.files.pool, out / "captions", self.base, k=recipe.k)
        stored = Embeddings(images_folder(out / "captions" / "embeddings", self.table, self.base))
        self.centers, self.similar = class_means(self.table, stored), stored.take(range(len(stored)))
        transform = self.base.transform(recipe.transform, train=True, decode="fast")
        self.pixels = Pixels(self.table, transform)

    @cached_property
    def measures(self) -> list[Validation]:
        """What measures the model in `live`."""
        held_out = (self.files.products, self.files.images)
        return [Validation(self.live, read_table(path), "image", torch.device("cpu")) for path in held_out]

    @cached_property
    def live(self) -> models.Model:
        """The model whose weights are those that are measured."""
        return self.base.copy()

    def line(self, setting: Setting, seed: int) -> Line:
        """What a setting reaches with a seed at the places of its line."""
        path = self.out / "lines" / f"{setting}, seed {seed}.json".replace(", ", "-").replace(" ", "=")
        if not path.exists():
            tuned = self.tuned(setting, seed).clip.visual.state_dict()
            write_json(path, [self.point(tuned, alpha) for alpha in ALPHAS])
        return tuple((images, text) for images, text in read_json(path))

    def point(self, tuned: dict[str, Tensor], alpha: float) -> Point:
        """What the weights at `alpha` on the line from the base to those of a tuned image tower reach, in percent."""
        base = self.base.clip.visual.state_dict()
        between = {
            name: torch.lerp(base[name], end, alpha) if end.is_floating_point() else end for name, end in tuned.items()
        }
        self.live.clip.visual.load_state_dict(between)
        self.live.clip.eval()
        of_images, of_text = self.measures
        return 100 * of_images()["i2i_map"], 100 * of_text()["t2i_r5"]

    def tuned(self, setting: Setting, seed: int) -> models.Model:
        """The base, tuned; the same as by `mcip.tune` where the setting is one that this has."""
        recipe, model = self.recipe, self.base.copy()
        mined = self.captions(setting.miner, seed)
        texts = mined.text_embeddings(self.base)
        captions: Any = Captions(
            setting, recipe.steps, mined.of_images(self.table.ids), texts.take(range(len(texts))), self.similar,
            self.table.label_numbers,
        )  # fmt: skip
        objective = ImageTuning(
            model, self.pixels, EpochOrder(len(self.table), recipe.batch_size, seed),
            arc_margin(len(self.table.classes), model.embed_dim, MARGIN, SCALE, seed, self.centers), lr=recipe.lr,
            class_lr=recipe.lr * recipe.center_lr_factor, captions=captions, keep=setting.keep,
        )  # fmt: skip
        settings = FitSettings(
            steps=recipe.steps, min_lr_ratio=0.1, seed=seed, device="cpu", per_step=recipe.batch_size,
            title=f"{setting}, seed {seed}", report_to="none",
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            fit(objective, Path(folder) / "checkpoints", settings)
        return model

    def captions(self, miner: str, seed: int) -> MinedCaptions:
        """The captions of the training images as a miner finds them."""
        if miner == "base":
            return self.mined
        folder = self.out / "miners" / f"seed={seed}"
        if not (folder / "tuned").exists():
            models.save(self.tuned(PLAIN[0], seed), folder / "tuned")
        model = str(folder / "tuned")
        if miner == "realigned":
            recipe = self.recipe
            model = str(align(
                self.files.captioned, folder / "re-a", model, seed=seed, steps=recipe.align_steps,
                batch_size=recipe.align_batch_size, lr=recipe.align_lr,
            ))  # fmt: skip
        files, k = self.files, self.recipe.k
        return mine(files.labelled, files.pool, folder / f"by-{miner}", model, trained_model=self.base, k=k)


def plain_at(images: float, base: Point, lines: Sequence[Line]) -> float:
    """Text to image that plain MCIP reaches at some image to image: the highest of the straight lines there.

    Args:
        images: Image to image.
        base: The point of the base.
        lines: Those of plain MCIP by caption weight, each with a point for each alpha.
    """
    joined = [[base, *line] for line in lines] + [[base, *points] for points in zip(*lines, strict=True)]
    heights = []
    for points in joined:
        along, across = np.array(sorted(points)).T
        heights.append(np.interp(images, along, across, right=np.nan))
    return float(np.nanmax(heights)) if not np.isnan(heights).all() else float("nan")


def gain(line: Line, base: Point, lines: Sequence[Line]) -> float:
    """Points of text to image above plain MCIP, the mean over the places of a line that plain MCIP reaches."""
    return float(np.nanmean([text - plain_at(images, base, lines) for images, text in line]))


@dataclass
class Found:
    """What is measured so far.

    Attributes:
        base: The base's point.
        lines: By setting, the line of each seed.
    """

    base: Point
    lines: dict[Setting, dict[int, Line]]

    def gains(self, setting: Setting) -> list[float]:
        """The gain with each seed with which all of plain MCIP is measured."""
        plain = {seed: [self.lines[one][seed] for one in PLAIN if seed in self.lines.get(one, {})]
                 for seed in self.lines[setting]}  # fmt: skip
        return [
            gain(line, self.base, plain[seed])
            for seed, line in self.lines[setting].items()
            if len(plain[seed]) == len(PLAIN)
        ]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each setting: the mean over the seeds at each alpha, the gain with each seed and beyond chance."""
        gains = {setting: [] if setting in PLAIN else self.gains(setting) for setting in self.lines}
        chance = gains.get(CONTROL, [])
        return [
            {
                "variant": setting.variant, "setting": str(setting), "seeds": len(lines),
                "points": {str(alpha): np.mean([line[place] for line in lines.values()], 0).round(2).tolist()
                           for place, alpha in enumerate(ALPHAS)},
                "gains": [round(one, 2) for one in gains[setting]],
                "beyond_chance": [] if setting == CONTROL else [
                    round(one - other, 2) for one, other in zip(gains[setting], chance, strict=False)
                ],
            }
            for setting, lines in self.lines.items()
        ]  # fmt: skip

    def markdown(self) -> str:
        """The rows as a table."""
        heads = [f"alpha {alpha:g}" for alpha in ALPHAS]
        lines = [
            f"| variant | setting | {' | '.join(heads)} | gain | beyond chance | seeds |",
            "|---|---|---|---|---|---:|---:|---:|",
            f"| base | | | | {self.base[0]:.1f} / {self.base[1]:.1f} | | | |",
        ]
        for row in self.rows():
            points = ["{:.1f} / {:.1f}".format(*row["points"][str(alpha)]) for alpha in ALPHAS]
            gains = [_spread(row["gains"]), _spread(row["beyond_chance"])]
            lines.append(f"| {' | '.join([row['variant'], row['setting'], *points, *gains, str(row['seeds'])])} |")
        return "\n".join([*lines, ""])


def _spread(gains: Sequence[float]) -> str:
    if len(gains) < 2:
        return "".join(f"{one:+.2f}" for one in gains)
    return f"{statistics.mean(gains):+.2f} ± {statistics.stdev(gains):.2f}"


def best_settings(found: Found) -> list[Setting]:
    """The control, and of each variant the setting with the highest gain."""
    best: dict[str, Setting] = {}
    for setting in found.lines:
        if setting not in PLAIN:
            other = best.get(setting.variant)
            if other is None or found.gains(setting)[0] > found.gains(other)[0]:
                best[setting.variant] = setting
    return list(best.values())


def main() -> None:
    """Tune, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/variants"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of plain MCIP and of the best settings")
    names = list(dict.fromkeys(setting.variant for setting in VARIANTS))
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these variants, beside plain MCIP")
    parser.add_argument("--quick", action="store_true", help="a trial: few products, two steps, one seed")
    given = parser.parse_args()
    out = given.out / "quick" if given.quick else given.out
    trials = Trials(out, QUICK if given.quick else TEST, QUICK_RECIPE if given.quick else Recipe())
    base = trials.point(trials.base.clip.visual.state_dict(), 0.0)
    found = Found(base, {})

    def measure(settings: Iterable[Setting], seed: int) -> None:
        for setting in settings:
            found.lines.setdefault(setting, {})[seed] = trials.line(setting, seed)
            with atomic_write(out / "variants.md") as temporary:
                temporary.write_text(found.markdown(), encoding="utf-8")

    measure([*PLAIN, CONTROL, *(setting for setting in VARIANTS if setting.variant in given.only)], SEED)
    best = best_settings(found)
    seeds = 1 if given.quick else given.seeds
    for seed in range(SEED + 1, SEED + seeds):
        measure([*PLAIN, *best], seed)
    console.print(found.markdown(), markup=False, soft_wrap=True)
    print(json.dumps({"quick": given.quick, "base": base, "seeds": seeds, "rows": found.rows()}))


if __name__ == "__main__":
    main()
