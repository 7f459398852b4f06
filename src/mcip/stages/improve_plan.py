"""The plan of `mcip improve`: which trials, and how long each is and takes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rich.table import Table as RichTable

from mcip.core.errors import ConfigError
from mcip.core.progress import duration
from mcip.stages.improve_speed import BATCH, Speed

ALPHAS: Final = (0.3, 0.5, 0.7, 0.85)
HALFWAY: Final = 0.5
# The trials of each round, the most that there is time for. Rounds take equal time, so that the last training, which is
# the model in the end, gets half of the time or a third.
_ROUNDS: Final = ((8, 2, 1), (4, 1), (2, 1), (1,))
# The least and, in passes over the data, the most that is trained.
_LEAST_STEPS: Final = 100
# The least that tunings are compared after. With fewer steps, of many images, all of them are a little worse than the
# base, the more so the higher the learning rate, whichever is best in the end.
_LEAST_COMPARED: Final = 400
_MOST_EPOCHS: Final = 20
_FEWEST_AT_MOST: Final = 100
_ADAPT_STEPS: Final = 600
_ADAPT_BATCH: Final = 256
# The share of the budget that adapters may take before they get fewer steps.
_ADAPT_SHARE: Final = 0.1
# Captions that an image has, about.
_CAPTIONS: Final = 10
_ALIGN_STEPS: Final = 300
_LEAST_ALIGN_STEPS: Final = 10
# Seconds that a trial takes beside its steps and its validation: loading, saving, hashing.
_OVERHEAD: Final = 1.0
# The part of the plan that has to be left time for.
TEST: Final = "the test, once, and the page"
_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        name: Of its folder.
        stage: "adapt", "tune" or "align".
        settings: The parameters that are its own.
        steps: Its length.
    """

    name: str
    stage: str
    settings: dict[str, Any] = field(hash=False)
    steps: int = 0

    @property
    def text(self) -> str:
        """The trial for people: "tune, method mcip, lr 0.0001, 200 steps"."""
        return ", ".join([self.stage, *(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                                        for key, value in self.settings.items()), f"{self.steps} steps"])  # fmt: skip

    def long(self, steps: int) -> Trial:
        """The same with another length."""
        return Trial(f"{self.name}-{steps}", self.stage, self.settings, steps)


ADAPTERS: Final = tuple(Trial(f"adapt-keep{keep:g}", "adapt", {"keep": keep}) for keep in (1.0, 0.3, 3.0))
# In the order in which they are tried where the time is short.
TUNINGS: Final = tuple(
    Trial(f"{method}-lr{lr:g}" + (f"-w{weight:g}" if method == "mcip" else ""), "tune",
          {"method": method, "lr": lr} | ({"caption_weight": weight} if method == "mcip" else {"keep": 1.0}))
    for method, lr, weight in (
        ("mcip", 1e-4, 0.2), ("gpr-ft", 1e-4, 0.0), ("mcip", 4e-4, 0.2), ("mcip", 1e-5, 0.2), ("gpr-ft", 1e-5, 0.0),
        ("gpr-ft", 4e-4, 0.0), ("mcip", 1e-4, 0.5), ("mcip", 3e-5, 0.2),
    )
)  # fmt: skip
REALIGNMENTS: Final = tuple(Trial(f"re-a-lr{lr:g}", "align", {"lr": lr}) for lr in (1e-4, 1e-5))


@dataclass(frozen=True)
class Plan:
    """What a run will do, and the seconds that each part is expected to take.

    Attributes:
        budget: Seconds in all.
        parts: What is done, with its estimated seconds.
        adapters: Trials of a matrix on stored embeddings.
        tunings: The trials of the first round of successive halving (Jamieson and Talwalkar, AISTATS 2016); of each
            round the best go to the next.
        counts: The trials of each round.
        steps: The steps of a trial of each round.
        realignments: Trials of Re-A.
        step_seconds: Of a step of a trial, by its stage.
        check_seconds: What a trial takes beside its steps.
    """

    budget: float
    parts: dict[str, float]
    adapters: list[Trial]
    tunings: list[Trial]
    counts: list[int]
    steps: list[int]
    realignments: list[Trial]
    step_seconds: dict[str, float]
    check_seconds: float

    def __rich__(self) -> RichTable:
        table = RichTable("what", "takes about", title=f"A plan for {duration(self.budget)}")
        for part, seconds in self.parts.items():
            table.add_row(part, duration(seconds))
        seconds = sum(self.parts.values())
        table.add_row("in all", duration(seconds))
        if seconds > self.budget:
            table.caption = f"More than the budget of {duration(self.budget)}: what there is no time for is left out."
        return table

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        return asdict(self)

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> Plan:
        """The plan that `as_dict` gave."""
        trials = {key: [Trial(**trial) for trial in content[key]] for key in ("adapters", "tunings", "realignments")}
        return cls(**{**content, **trials})


def make_plan(
    speed: Speed,
    budget: float,
    *,
    images: int,
    train: int,
    validation: int,
    test: int,
    classes: int,
    dim: int,
    captions: int,
    realign: int,
) -> Plan:
    """Divide the budget: what must be done, then adapters, then as many and as long tunings as there is time for.

    Args:
        speed: Of this machine with the model.
        budget: Seconds.
        images: All images, each embedded once by the base.
        train: Images that are trained on.
        validation: Images of validation, embedded by each trial.
        test: Images of the test, embedded by each of the models that are measured on it.
        classes: Of the images that are trained on.
        dim: Of the embeddings.
        captions: Of the pool; an eighth of an image's time is taken for each.
        realign: Captioned images to train on; 0 for no Re-A.
    """
    embed = speed.read + speed.embed
    batch = min(BATCH, train)
    check = validation * embed + _OVERHEAD
    most = max(_FEWEST_AT_MOST, _MOST_EPOCHS * -(-train // batch))

    def losses(images: int) -> float:
        """Forward once and backward twice through the products with all class centers and the batch's captions."""
        return 3 * images * dim * (classes + min(captions, _CAPTIONS * images)) * speed.multiply

    adapt_step = 1e-3 + losses(min(_ADAPT_BATCH, train))
    affordable = int((_ADAPT_SHARE * budget / len(ADAPTERS) - check) / adapt_step)
    adapt_steps = min(_ADAPT_STEPS, most, max(_LEAST_STEPS, affordable))
    parts = {
        "embed all images": images * embed,
        "mine captions": captions * speed.embed / 8 + _OVERHEAD,
        f"{len(ADAPTERS)} adapters (mcip adapt)": len(ADAPTERS) * (adapt_steps * adapt_step + check),
        "interpolation with the base": 2 * len(ALPHAS) * check,
        TEST: 4 * (test * embed) + 5,
    }
    left = budget - sum(parts.values())
    step = batch * (speed.read + speed.train) + losses(batch)
    # Re-A gets a tenth of what is left; a step of it, with twice the pairs and no images, takes about as long.
    align_steps = int(min(_ALIGN_STEPS, (0.1 * left / len(REALIGNMENTS) - check) / step)) if realign else 0
    aligned = list(REALIGNMENTS) if align_steps >= _LEAST_ALIGN_STEPS else []
    if aligned:
        parts["realigned text towers (mcip align)"] = len(aligned) * (align_steps * step + check)
        left = budget - sum(parts.values())
    counts, steps = _halving(left, step, check, most)
    rounds = list(zip(counts, steps, strict=True))
    if rounds:
        shown = ", ".join(f"{count} of {length} steps" for count, length in rounds)
        seconds = sum(count * (length * step + _checks(count) * check) for count, length in rounds)
        parts[f"tunings by successive halving (mcip tune): {shown}"] = seconds
    order = ["embed", "mine", "3 ada", "tunings", "inter", "reali", "the t"]
    ordered = sorted(parts, key=lambda part: next(place for place, start in enumerate(order) if part.startswith(start)))
    return Plan(
        budget, {part: parts[part] for part in ordered},
        [trial.long(adapt_steps) for trial in ADAPTERS], list(TUNINGS[: max(counts, default=0)]), counts, steps,
        [trial.long(align_steps) for trial in aligned], {"adapt": adapt_step, "tune": step, "align": step}, check,
    )  # fmt: skip


def _checks(count: int) -> int:
    """How often each trial of a round is measured: also halfway to the base, if there is a choice to make."""
    return 2 if count > 1 else 1


def _halving(seconds: float, step: float, check: float, most: int) -> tuple[list[int], list[int]]:
    """The trials of each round, and their steps: as many trials as can be trained long enough to tell them apart."""
    for counts in _ROUNDS:
        left = seconds - sum(count * _checks(count) for count in counts) * check
        steps = [left / (step * len(counts) * count) for count in counts]
        share = min(1.0, most / steps[-1]) if left > 0 else 0.0
        least = min(_LEAST_COMPARED if len(counts) > 1 else _LEAST_STEPS, most / counts[0])
        if share * steps[0] >= least:
            return list(counts), [int(share * length) for length in steps]
    return [], []


def parse_budget(text: str) -> float:
    """A length of time such as 90s, 30min, 2h or 1.5h, in seconds.

    Raises:
        ConfigError: It is none, or not above 0.

    Example:
        >>> parse_budget("1.5h")
        5400.0
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*", text)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"budget is {text!r}: give a length of time such as 90s, 30min or 2h.")
    return float(match[1]) * _UNITS[match[2]]
