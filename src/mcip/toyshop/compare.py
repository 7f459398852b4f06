"""The paper's methods beside the cheap alternatives on Toyshop: `python -m mcip.toyshop.compare --seeds 3`.

For each method, validation products choose, with the first seed, the hyper-parameters (by the mean of image to image
and text to image, at the best place of the line to the base; those with Re-A take the choice of the same method without
it) and the place alpha on the line. The test products are measured along the whole line of the chosen hyper-parameters,
with each seed. Images and steps are those of `mcip demo`; three seeds take about an hour on one core that has nothing
else to do. Everything goes to runs/compare: compare.md (the table), compare.json, and compare.png and compare.svg (text
to image over image to image). Started again, it resumes; `--quick` is a trial with a world of a few products and two
steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mcip import models
from mcip.core.files import atomic_write, write_json
from mcip.core.progress import console
from mcip.data import read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.embeddings.mining import images_folder
from mcip.evaluation.several import measure_models
from mcip.evaluation.tasks import Task
from mcip.reporting import plots
from mcip.reporting.curves import Point, curves
from mcip.reporting.seeds import Spread, mean_and_spread, percents, seeds_table
from mcip.stages.adapt import adapt
from mcip.stages.align import align
from mcip.stages.interpolate import interpolate
from mcip.stages.isoclip import isoclip
from mcip.stages.mine import mine
from mcip.stages.tune import tune
from mcip.toyshop.method import BASE, TEST, Recipe, Tables, World, tasks
from mcip.toyshop.tables import Slice

SEED: Final = 37
ALPHAS: Final = (0.5, 0.7, 0.85, 1.0)
_AXES: Final = ("i2i_map", "t2i_r5")


@dataclass(frozen=True)
class Method:
    """A way to a better model.

    Attributes:
        name: What tables call it.
        stage: "isoclip", "adapt" or "tune".
        grid: The hyper-parameters that validation chooses from.
        realign: Whether each model of the line gets its text tower realigned.
        trained: Whether seeds make a difference, and there is a line to the base.
        after: The method whose choice of hyper-parameters it takes over, if that is compared too.
    """

    name: str
    stage: str
    grid: Sequence[dict[str, Any]]
    realign: bool = False
    trained: bool = True
    after: str = ""


def _tunings(method: str, **choices: Sequence[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"method": method}]
    for name, values in choices.items():
        found = [{**one, name: value} for one in found for value in values]
    return found


_LRS = (2.5e-4, 5e-4)
METHODS: Final = (
    Method("IsoCLIP", "isoclip", [
        {"strongest": strongest, "weakest": weakest}
        for strongest in (0, 2, 8, 24) for weakest in (0, 8, 24, 48)
    ], trained=False),
    Method("adapt", "adapt", [{"keep": keep} for keep in (0.3, 1.0, 3.0)]),
    Method("LoRA", "tune", _tunings("mcip", lora=[16], lr=[1e-3, 3e-3], caption_weight=[0.2])),
    Method("GPR-FT with keep", "tune", _tunings("gpr-ft", keep=[1.0, 3.0, 10.0])),
    Method("MCIP with keep", "tune", _tunings("mcip", keep=[0.3, 1.0, 3.0])),
    Method("GPR-FT", "tune", _tunings("gpr-ft", lr=_LRS)),
    Method("2SFT", "tune", _tunings("gpr-ft", lr=_LRS), realign=True, after="GPR-FT"),
    Method("MCIP", "tune", _tunings("mcip", lr=_LRS, caption_weight=[0.2, 0.5])),
    Method("MCIP + Re-A", "tune", _tunings("mcip", lr=_LRS, caption_weight=[0.2, 0.5]), realign=True, after="MCIP"),
)  # fmt: skip
QUICK: Final = World(
    labelled=Slice("quick-labelled", stream=40, products=8, images=4),
    captioned=Slice("quick-captioned", stream=41, products=24, captions=1),
    products=Slice("quick", stream=42, products=6, images=4, splits=("index", "query")),
    images=Slice("quick-captions", stream=43, products=12, captions=1),
)
_QUICK_RECIPE: Final = Recipe(steps=2, batch_size=8, adapt_steps=2, align_steps=2, align_batch_size=8, k=2)


@dataclass
class Comparing:
    """What all methods share.

    Attributes:
        out: Where everything goes.
        recipe: The hyper-parameters that no grid names.
        alphas: The places on each line.
        data: The tables of training.
        mined: The captions of the labelled images.
        stored: The base's embeddings of them.
        held_out: The tasks of validation and of the test.
    """

    out: Path
    recipe: Recipe
    alphas: Sequence[float]
    data: Tables
    mined: MinedCaptions
    stored: Path
    held_out: dict[str, list[Task]]
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    @classmethod
    def begin(cls, out: Path, quick: bool) -> Comparing:
        """Draw the worlds and mine captions."""
        test, recipe = (QUICK, _QUICK_RECIPE) if quick else (TEST, Recipe())
        tables = {name: Tables.write(world, out / "tables") for name, world in
                  (("test", test), ("validation", test.validation()))}  # fmt: skip
        held_out = {name: tasks(of.products, of.images) for name, of in tables.items()}
        held_out["validation"] = [task for task in held_out["validation"] if task.name in _AXES]
        of_test = tables["test"]
        mined = mine(of_test.labelled, of_test.pool, out / "captions", BASE, k=recipe.k)
        stored = images_folder(out / "captions" / "embeddings", read_table(of_test.labelled), models.load(BASE))
        return cls(out, recipe, (0.5, 1.0) if quick else ALPHAS, of_test, mined, stored, held_out)

    def line(self, method: Method, settings: dict[str, Any], seed: int) -> dict[float, str]:
        """The models of a line by alpha; those that are there are not made again."""
        name = "-".join([method.stage, *(f"{key}={value}" for key, value in settings.items()), f"seed={seed}"])
        if not method.trained:
            folder = self.out / "models" / name
            return {1.0: str(folder if folder.exists() else isoclip(BASE, folder, **settings))}
        trained, models = self._trained(method, settings, seed, self.out / "runs" / name), {}
        for alpha in self.alphas:
            model = trained
            if alpha < 1:
                folder = self.out / "models" / f"{name}-alpha={alpha}" / "model"
                model = str(folder if folder.exists() else interpolate(trained, BASE, folder, alpha=alpha))
            if method.realign:
                model = str(align(
                    self.data.captioned, self.out / "runs" / f"{name}-alpha={alpha}+re-a", model, seed=seed,
                    steps=self.recipe.align_steps, batch_size=self.recipe.align_batch_size, lr=self.recipe.align_lr,
                ))  # fmt: skip
            models[alpha] = model
        return models

    def measure(self, models: dict[float, str], held_out: str) -> dict[float, dict[str, float]]:
        """What the models of a line reach, in percent, by alpha and task."""
        found = {}
        for alpha, path in models.items():
            if (path, held_out) not in self.values:
                name = Path(path).relative_to(self.out) if Path(path).is_relative_to(self.out) else Path(path)
                label = name.as_posix().replace("/", "_")
                [results] = measure_models({label: path}, self.held_out[held_out], self.out / held_out, held_out)
                self.values[path, held_out] = percents(results)
            found[alpha] = self.values[path, held_out]
        return found

    def compare(self, method: Method, seeds: Sequence[int]) -> dict[str, Any]:
        """Choose the hyper-parameters and alpha of a method on validation, and measure its line on the test."""
        settings = max(
            method.grid,
            key=lambda one: max(map(score, self.measure(self.line(method, one, SEED), "validation").values())),
        )
        lines = [self.line(method, settings, seed) for seed in (seeds if method.trained else seeds[:1])]
        validated = self.measure(lines[0], "validation")
        alpha = max(lines[0], key=lambda place: score(validated[place]))
        tested = [self.measure(line, "test") for line in lines]
        line = {place: mean_and_spread([with_mean(one[place]) for one in tested]) for place in lines[0]}
        return {"settings": settings, "alpha": alpha, "line": line}

    def _trained(self, method: Method, settings: dict[str, Any], seed: int, out: Path) -> str:
        recipe, labelled = self.recipe, self.data.labelled
        if method.stage == "adapt":
            steps = recipe.adapt_steps
            return str(adapt(labelled, out, BASE, embeddings=self.stored, seed=seed, steps=steps, **settings))
        shared: dict[str, Any] = {
            "lr": recipe.lr, "steps": recipe.steps, "batch_size": recipe.batch_size, "seed": seed,
            "center_init": recipe.center_init, "center_lr_factor": recipe.center_lr_factor,
            "transform": recipe.transform, "caption_weight": recipe.caption_weight, "embeddings": self.stored,
        }  # fmt: skip
        captions = self.mined if settings["method"] == "mcip" else None
        return str(tune(labelled, out, BASE, captions=captions, **{**shared, **settings}))


def score(values: dict[str, float]) -> float:
    """What validation chooses by: the mean of image to image and text to image."""
    return sum(values[name] for name in _AXES) / len(_AXES)


def with_mean(values: dict[str, float]) -> dict[str, float]:
    """The values with their mean over the tasks."""
    return {**values, "mean": sum(values.values()) / len(values)}


def write(out: Path, base: dict[str, Spread], found: dict[str, dict[str, Any]]) -> str:
    """Write table and curves of the methods that are compared; the table as Markdown."""
    rows = {"base": base}
    lines = {"base": [_point(base)]}
    for name, one in found.items():
        settings = ", ".join(f"{key} {value}" for key, value in one["settings"].items() if key != "method")
        alpha = f", alpha {one['alpha']:g}" if len(one["line"]) > 1 else ""
        rows[f"{name} ({settings}{alpha})"] = one["line"][one["alpha"]]
        lines[name] = [_point(base), *(_point(one["line"][place]) for place in sorted(one["line"]))]
    table = seeds_table(rows)
    with atomic_write(out / "compare.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    write_json(out / "compare.json", {"base": base, "methods": found})
    plots.save(curves(lines, ("image to image, mAP in %", "text to image, R@5 in %")), out, "compare")
    return table


def _point(values: dict[str, Spread]) -> Point:
    images, text = (values[name] for name in _AXES)
    return Point(images.mean, text.mean, images.deviation, text.deviation)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method")
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS], help="only these")
    parser.add_argument("--quick", action="store_true", help="a trial: few products, two steps, one choice each")
    given = parser.parse_args(arguments)
    out = given.out / "quick" if given.quick else given.out
    comparing = Comparing.begin(out, given.quick)
    base = mean_and_spread([with_mean(comparing.measure({0.0: BASE}, "test")[0.0])])
    found: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        if given.methods and method.name not in given.methods:
            continue
        grid = [found[method.after]["settings"]] if method.after in found else method.grid
        chosen = replace(method, grid=grid[:1] if given.quick else grid)
        console.print(f"{method.name}: {len(chosen.grid)} settings, {given.seeds if method.trained else 1} seeds")
        found[method.name] = comparing.compare(chosen, range(SEED, SEED + given.seeds))
        # After each method, so that what is done can be looked at while the rest is computed.
        table = write(out, base, found)
    print(table)


if __name__ == "__main__":
    main()
