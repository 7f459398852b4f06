"""Methods compared: hyper-parameters by validation, the line to the base on the test, over seeds.

For each method, validation chooses, with the first seed, the hyper-parameters (by the mean of image to image and text
to image, at the best place of the line to the base; those with Re-A take the choice of the same method without it) and
the place alpha on the line. The test is measured along the whole line of the chosen hyper-parameters, with each seed.
What is there is not made again.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mcip.core.files import atomic_write, write_json
from mcip.core.progress import console
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.evaluation.several import measure_models
from mcip.evaluation.tasks import Task
from mcip.reporting import plots
from mcip.reporting.curves import Point, curves
from mcip.reporting.seeds import Spread, mean_and_spread, percents, seeds_table
from mcip.stages.adapt import adapt
from mcip.stages.align import align
from mcip.stages.interpolate import interpolate
from mcip.stages.isoclip import isoclip
from mcip.stages.tune import tune

SEED: Final = 37


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


@dataclass
class Comparison:
    """What all methods share.

    Attributes:
        out: Where everything goes.
        base: The model that all start from.
        labelled: The images that are tuned on.
        captioned: The pairs of Re-A.
        mined: The captions of the labelled images.
        stored: The base's embeddings of them.
        held_out: The tasks of "validation" and of the "test".
        alphas: The places on each line.
        adapting: Parameters of `mcip.adapt` that no grid names.
        tuning: Likewise of `mcip.tune`.
        aligning: Likewise of `mcip.align`.
    """

    out: Path
    base: str
    labelled: str
    captioned: str
    mined: MinedCaptions
    stored: Path
    held_out: dict[str, list[Task]]
    alphas: Sequence[float]
    adapting: dict[str, Any]
    tuning: dict[str, Any]
    aligning: dict[str, Any]
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    def run(self, methods: Sequence[Method], seeds: int) -> str:
        """Compare methods; the table as Markdown. It is written, with curves, after each method."""
        base = mean_and_spread([_with_mean(self.measure({0.0: self.base}, "test")[0.0])])
        found: dict[str, dict[str, Any]] = {}
        table = ""
        for method in methods:
            grid = [found[method.after]["settings"]] if method.after in found else method.grid
            console.print(f"{method.name}: {len(grid)} settings, {seeds if method.trained else 1} seeds")
            found[method.name] = self._compare(replace(method, grid=grid), range(SEED, SEED + seeds))
            table = self._write(base, found)
        return table

    def measure(self, models: Mapping[float, str], held_out: str) -> dict[float, dict[str, float]]:
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

    def _compare(self, method: Method, seeds: Sequence[int]) -> dict[str, Any]:
        def score(values: dict[str, float]) -> float:
            return statistics.fmean(self._axes(values, "validation"))

        settings = max(
            method.grid,
            key=lambda one: max(map(score, self.measure(self._line(method, one, SEED), "validation").values())),
        )
        lines = [self._line(method, settings, seed) for seed in (seeds if method.trained else seeds[:1])]
        validated = self.measure(lines[0], "validation")
        alpha = max(lines[0], key=lambda place: score(validated[place]))
        tested = [self.measure(line, "test") for line in lines]
        line = {place: mean_and_spread([_with_mean(one[place]) for one in tested]) for place in lines[0]}
        points = {place: self._point([one[place] for one in tested]) for place in lines[0]}
        return {"settings": settings, "alpha": alpha, "line": line, "points": points}

    def _axes(self, values: dict[str, float], held_out: str) -> tuple[float, float]:
        """The means over the tasks of image to image and of text to image."""
        tasks = self.held_out[held_out]
        images, text = (
            statistics.fmean(values[task.name] for task in tasks if task.kind == kind) for kind in ("i2i", "t2i")
        )
        return images, text

    def _point(self, over_seeds: Sequence[dict[str, float]]) -> Point:
        axes = [dict(zip(("images", "text"), self._axes(values, "test"), strict=True)) for values in over_seeds]
        images, text = mean_and_spread(axes).values()
        return Point(images.mean, text.mean, images.deviation, text.deviation)

    def _line(self, method: Method, settings: dict[str, Any], seed: int) -> dict[float, str]:
        """The models of a line by alpha."""
        name = "-".join([method.stage, *(f"{key}={value}" for key, value in settings.items()), f"seed={seed}"])
        if not method.trained:
            folder = self.out / "models" / name
            return {1.0: str(folder if folder.exists() else isoclip(self.base, folder, **settings))}
        trained, models = self._trained(method, settings, seed, self.out / "runs" / name), {}
        for alpha in self.alphas:
            model = trained
            if alpha < 1:
                folder = self.out / "models" / f"{name}-alpha={alpha}" / "model"
                model = str(folder if folder.exists() else interpolate(trained, self.base, folder, alpha=alpha))
            if method.realign:
                out = self.out / "runs" / f"{name}-alpha={alpha}+re-a"
                model = str(align(self.captioned, out, model, seed=seed, **self.aligning))
            models[alpha] = model
        return models

    def _trained(self, method: Method, settings: dict[str, Any], seed: int, out: Path) -> str:
        shared: dict[str, Any] = {"embeddings": self.stored, "seed": seed}
        if method.stage == "adapt":
            return str(adapt(self.labelled, out, self.base, **{**shared, **self.adapting, **settings}))
        captions = self.mined if settings["method"] == "mcip" else None
        return str(tune(self.labelled, out, self.base, captions=captions, **{**shared, **self.tuning, **settings}))

    def _write(self, base: dict[str, Spread], found: dict[str, dict[str, Any]]) -> str:
        """Write table and curves of the methods that are compared; the table as Markdown."""
        rows = {"base": base}
        start = self._point([{name: spread.mean for name, spread in base.items()}])
        lines = {"base": [start]}
        for name, one in found.items():
            settings = ", ".join(f"{key} {value}" for key, value in one["settings"].items() if key != "method")
            alpha = f", alpha {one['alpha']:g}" if len(one["line"]) > 1 else ""
            rows[f"{name} ({settings}{alpha})"] = one["line"][one["alpha"]]
            lines[name] = [start, *(one["points"][place] for place in sorted(one["points"]))]
        table = seeds_table(rows)
        with atomic_write(self.out / "compare.md") as temporary:
            temporary.write_text(table, encoding="utf-8")
        write_json(self.out / "compare.json", {"base": base, "methods": found})
        plots.save(curves(lines, ("image to image, mAP in %", "text to image, R@5 in %")), self.out, "compare")
        return table


def _with_mean(values: dict[str, float]) -> dict[str, float]:
    """The values with their mean over the tasks."""
    return {**values, "mean": statistics.fmean(values.values())}
