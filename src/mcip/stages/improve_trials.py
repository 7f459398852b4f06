"""The trials of `mcip improve`: each an artefact of its own, measured on validation, its time counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mcip.core.artefacts import MANIFEST
from mcip.core.files import read_json, write_json
from mcip.core.progress import console
from mcip.core.time_limit import TimeIsUpError, time_limit
from mcip.embeddings.encode import copy_embeddings
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.embeddings.store import Embeddings
from mcip.evaluation.several import measure_models
from mcip.models import load
from mcip.models.carried import ADAPTER_FILE, read_adapter
from mcip.reporting.improvement import Tried
from mcip.reporting.results import read_results
from mcip.stages.adapt import adapt
from mcip.stages.align import align
from mcip.stages.improve_data import Prepared
from mcip.stages.improve_plan import ALPHAS, HALFWAY, Plan, Trial
from mcip.stages.improve_speed import BATCH
from mcip.stages.interpolate import interpolate
from mcip.stages.tune import tune

# Seconds between the moments at which the time that is spent is written down.
_BEAT: Final = 5.0
# The share of image to image in the score; the rest is that of text.
FAVOURS: Final = {"images": 1.0, "balance": 0.5, "text": 0.25}


class Ledger:
    """The seconds that each part of a run took, over all its starts, and what was cut short for lack of time."""

    def __init__(self, path: Path, budget: float, reserve: float = 0.0) -> None:
        """Read what an earlier start wrote; trials leave the seconds of `reserve` to what comes after them."""
        content = read_json(path) if path.exists() else {}
        self.path, self.budget, self.reserve = path, budget, reserve
        self.seconds: dict[str, float] = content.get("seconds", {})
        self.left_out: list[str] = content.get("left_out", [])
        self.steps: dict[str, int] = content.get("steps", {})

    @property
    def spent(self) -> float:
        """The seconds of all parts."""
        return sum(self.seconds.values())

    @property
    def left(self) -> float:
        """The seconds that trials may still take."""
        return self.budget - self.reserve - self.spent

    @contextlib.contextmanager
    def count(self, part: str) -> Iterator[None]:
        """Count the time of the block; it is written down every few seconds, so that a killed run loses little."""
        before, start, over = self.seconds.get(part, 0.0), time.monotonic(), threading.Event()

        def note() -> None:
            self.seconds[part] = round(before + time.monotonic() - start, 2)
            self._write()

        def beat() -> None:
            while not over.wait(_BEAT):
                note()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            note()

    def add(self, part: str, seconds: float) -> None:
        """Count seconds that have gone."""
        self.seconds[part] = round(self.seconds.get(part, 0.0) + seconds, 2)

    def has_time(self, part: str, seconds: float) -> bool:
        """Whether there is time for a part that was not begun; where not, it is left out for good."""
        if part in self.left_out:
            return False
        if part in self.seconds or seconds <= self.left:
            return True
        self._leave_out(part, "is left out")
        return False

    def decide(self, part: str, steps: int) -> int:
        """How many steps a part has: what was decided first, in an earlier start perhaps."""
        if part not in self.steps:
            self.steps[part] = steps
            self._write()
        return self.steps[part]

    def cut(self, part: str) -> None:
        """Leave out a part that was begun."""
        self._leave_out(part, "is cut")

    def _leave_out(self, part: str, what: str) -> None:
        self.left_out.append(part)
        self._write()
        console.print(f"{part} {what}: the budget is spent.", soft_wrap=True)

    def _write(self) -> None:
        write_json(self.path, {"seconds": self.seconds, "left_out": self.left_out, "steps": self.steps})


@dataclass
class Trials:
    """Runs trials and measures them on validation.

    Attributes:
        base: The model that is improved, as its stages take it.
        data: What is trained and measured on.
        mined: The captions of the training images.
        images: The folder with the embeddings of the training images, by the base or by what tunings start from.
        plan: The plan of the run.
        ledger: Counts the time.
        folder: Where the trials go.
        image_share: The share of image to image in the score.
        options: seed, workers, device, precision and max_unreadable, as all stages take them.
        start: What tunings start from, by name.
        tried: What was measured, in order, by name; the base is the first.
        paths: The model folders by name.
        expected: The stage of each trial that was run, and the seconds that it was expected to take.
    """

    base: str
    data: Prepared
    mined: MinedCaptions
    images: Path
    plan: Plan
    ledger: Ledger
    folder: Path
    image_share: float
    options: dict[str, Any]
    start: str = "base"
    tried: dict[str, Tried] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    expected: dict[str, tuple[str, float]] = field(default_factory=dict)

    def run(self) -> str:
        """Run the plan; the name of the best model on validation."""
        with self.ledger.count("base"):
            self._measure("base", self.base, "the model as it was", "base", 0.0)
        adapted = self.best([name for trial in self.plan.adapters if (name := self._trial(trial)) is not None])
        if adapted is not None:
            self._start_from(adapted)
        tunings, finalist = self.plan.tunings, None
        for count, planned in zip(self.plan.counts, self.plan.steps, strict=True):
            steps = self.ledger.decide("the last tuning", self._that_fit(planned)) if count == 1 else planned
            made = [(trial, self._trial(trial.long(steps), self.start)) for trial in tunings[:count]]
            done = [(trial, name) for trial, name in made if name is not None]
            if not done:
                break
            if count > 1:
                # A short training is worth most somewhere between: at its end the higher learning rates have lost more.
                for _, name in done:
                    self._line(name, (HALFWAY,))
            done.sort(key=lambda pair: -self.tried[self._best_of_line(pair[1])].score)
            tunings, finalist = [trial for trial, _ in done], done[0][1]
        for name in filter(None, [adapted, finalist]):
            self._line(name)
        before = self.best(list(self.tried))
        if before not in (None, "base") and self.data.captioned is not None:
            for trial in self.plan.realignments:
                self._trial(trial, before)
        return self.best(list(self.tried)) or "base"

    def best(self, names: Sequence[str]) -> str | None:
        """The name with the highest score, of equal ones the first; None of none."""
        return max(names, key=lambda name: self.tried[name].score, default=None)

    def runners_up(self, chosen: str, count: int = 2) -> list[str]:
        """The best of each line other than the chosen model's, and so no two neighbours of one line."""
        known = dict.fromkeys(tried.line for tried in self.tried.values())
        lines = [line for line in known if line not in (self.tried[chosen].line, "base")]
        return sorted(map(self._best_of_line, lines), key=lambda name: -self.tried[name].score)[:count]

    def _best_of_line(self, line: str) -> str:
        """The best of a trained model and what lies between it and the base."""
        best = self.best([name for name, tried in self.tried.items() if tried.line == line])
        assert best is not None
        return best

    def _that_fit(self, steps: int) -> int:
        """Fewer steps for the last tuning, the model in the end, where those before took longer than was planned."""
        after = self.plan.check_seconds * (1 + 2 * len(ALPHAS))
        after += sum(
            self.plan.check_seconds + trial.steps * self.plan.step_seconds["align"] for trial in self.plan.realignments
        )
        step = self.plan.step_seconds["tune"] * self._pace("tune")
        return max(1, min(steps, int((self.ledger.left - after) / step))) if step else steps

    def _start_from(self, adapted: str) -> None:
        """Let tunings start where a matrix has led already, if that is better than the base."""
        run = self.folder / adapted
        if self.tried[adapted].score <= self.tried["base"].score or not read_json(run / MANIFEST)["folded"]:
            return
        with self.ledger.count("embeddings of the start"):
            model, matrix = load(self.paths[adapted]), read_adapter(run / ADAPTER_FILE).numpy()
            stored = copy_embeddings(
                Embeddings(self.images), self.data.train, model, self.folder.parent / "start", matrix=matrix
            )
        self.start, self.images = adapted, stored.artefact.folder

    def _trial(self, trial: Trial, start: str = "base") -> str | None:
        """Run a trial and measure it; None where there was no time for it."""
        overhead = self.plan.check_seconds
        expected = overhead + trial.steps * self.plan.step_seconds[trial.stage]
        name = trial.name if start == "base" else f"{start}+{trial.name}"
        # A tuning leaves time for the line between it and the base.
        later = overhead * len(ALPHAS) if trial.stage == "tune" else 0.0
        if not self.ledger.has_time(name, expected * self._pace(trial.stage) + later):
            return None
        with self._limited(name, later):
            self._run(trial, name, start)
            self.expected[name] = trial.stage, expected
        return name if name in self.tried else None

    @contextlib.contextmanager
    def _limited(self, name: str, later: float = 0.0) -> Iterator[None]:
        """Count the time of a block, and leave it where the budget, less some seconds for later, is spent."""
        try:
            with time_limit(self.ledger.left - later), self.ledger.count(name):
                yield
        except TimeIsUpError:
            self.ledger.cut(name)

    def _run(self, trial: Trial, name: str, start: str) -> None:
        out = self.folder / name
        common = {"steps": trial.steps, "report_to": "none", **trial.settings, **self.options}
        if trial.stage == "adapt":
            model = adapt(self.data.train, out, self.base, captions=self.mined, embeddings=self.images, **common)
        elif trial.stage == "tune":
            captions = self.mined if trial.settings["method"] == "mcip" else None
            model = tune(
                self.data.train, out, self.paths[start], captions=captions, embeddings=self.images,
                batch_size=min(BATCH, len(self.data.train)), center_init="class-means", center_lr_factor=10.0,
                transform="model", **common,
            )  # fmt: skip
        else:
            assert self.data.captioned is not None
            pairs = self.data.captioned
            model = align(
                pairs, out, self.paths[start], batch_size=min(2 * BATCH, len(pairs)), **common,
            )  # fmt: skip
        self._measure(name, str(model), trial.text, name, 1.0)

    def _pace(self, stage: str) -> float:
        """How much longer the trials of a stage took than was expected: 1 to 3, since starts weigh on short ones."""
        pairs = [(self.ledger.seconds[name], seconds) for name, (of, seconds) in self.expected.items() if of == stage]
        taken, expected = (sum(values) for values in zip(*pairs, strict=True)) if pairs else (1.0, 1.0)
        return min(3.0, max(1.0, taken / expected))

    def _line(self, name: str, alphas: Sequence[float] = ALPHAS) -> None:
        """Measure models between the base and a trained one."""
        for alpha in alphas:
            between = f"{name}-alpha{alpha:g}"
            if between not in self.tried and self.ledger.has_time(between, self.plan.check_seconds):
                with self._limited(between):
                    out = self.folder / between / "model"
                    model = out if out.exists() else interpolate(self.paths[name], self.base, out, alpha=alpha)
                    self._measure(between, str(model), f"interpolated with the base, alpha {alpha:g}", name, alpha)

    def _measure(self, name: str, path: str, what: str, line: str, alpha: float) -> None:
        [results] = measure_models(
            {name: path}, self.data.tasks(self.data.val), self.folder.parent / "validation",
            **{key: self.options[key] for key in ("workers", "device", "precision", "max_unreadable")},
        )  # fmt: skip
        found = {task: measured.percent or 0.0 for task, measured in read_results(results).measured.items()}
        share = self.image_share if self.data.text else 1.0
        text = found.get(self.data.text or "")
        score = share * found["i2i"] + (1 - share) * (text or 0.0)
        self.paths[name] = path
        self.tried[name] = Tried(name, what, line, alpha, found["i2i"], text, score)
