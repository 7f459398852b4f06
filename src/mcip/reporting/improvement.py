"""How a better model was found, for the page of `mcip improve`: what was tried, the curves, and what to run next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcip.core.progress import duration
from mcip.reporting.curves import Point, curves
from mcip.reporting.page import Plot, plot_of
from mcip.reporting.words import KIND_WORDS


@dataclass(frozen=True)
class Tried:
    """A model that was measured on validation.

    Attributes:
        name: Its name.
        what: What it is, in words.
        line: The name of the trained model on whose line from the base it lies.
        alpha: Its place there: 0 is the base, 1 the trained model.
        images: Image to image, in percent.
        text: Text to image or zero-shot, in percent; None where there is neither.
        score: What it was chosen by.
    """

    name: str
    what: str
    line: str
    alpha: float
    images: float
    text: float | None
    score: float


@dataclass(frozen=True)
class Improvement:
    """How a better model was found.

    Attributes:
        chosen: The name of the model that validation chose.
        rules: How images were split and how the model was chosen, in sentences.
        tried: What was measured on validation.
        text: The kind of task that stands for text; None where there is none.
        seconds: What each part took.
        left_out: What there was no time for.
        budget: Seconds.
        commands: What to run next: a purpose and a command line.
    """

    chosen: str
    rules: Sequence[str]
    tried: Sequence[Tried]
    text: str | None
    seconds: Mapping[str, float]
    left_out: Sequence[str]
    budget: float
    commands: Sequence[tuple[str, str]]

    @property
    def text_word(self) -> str:
        """What text is measured by."""
        return KIND_WORDS["t2i" if self.text == "t2i" else "zero-shot"]

    @property
    def rows(self) -> list[tuple[Tried, str]]:
        """What was tried from the best score to the worst, with the time it took."""
        ordered = sorted(self.tried, key=lambda tried: -tried.score)
        return [(tried, duration(self.seconds.get(tried.name, 0.0))) for tried in ordered]

    @property
    def other_seconds(self) -> dict[str, str]:
        """What everything else took."""
        names = {tried.name for tried in self.tried}
        return {part: duration(seconds) for part, seconds in self.seconds.items() if part not in names}

    @property
    def spent(self) -> str:
        """The time of all parts, and the budget."""
        return f"{duration(sum(self.seconds.values()))} of {duration(self.budget)}"

    @property
    def plot(self) -> Plot | None:
        """The lines from the base to the trained models, on validation."""
        if self.text is None:
            return None
        base = next(tried for tried in self.tried if tried.line == "base")
        lines: dict[str, list[Point]] = {}
        for tried in sorted(self.tried, key=lambda tried: tried.alpha):
            if tried.line != "base":
                lines.setdefault(tried.line, [Point(base.images, base.text or 0.0)])
                lines[tried.line].append(Point(tried.images, tried.text or 0.0))
        chosen = next(tried for tried in self.tried if tried.name == self.chosen)
        # A line of one model says little; those that were followed are drawn, with the chosen one.
        shown = {name: points for name, points in lines.items() if len(points) > 2 or name == chosen.line}
        axes = ("image to image, mAP in %", f"{self.text_word}, {'R@5' if self.text == 't2i' else 'top 1'} in %")
        alt = f"{axes[1]} over {axes[0]}; the table below has the numbers."
        return plot_of("On validation images", lambda theme: curves(shown, axes, theme), alt)
