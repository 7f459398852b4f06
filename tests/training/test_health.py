"""What stops a run: losses and gradients that are not finite, and leaps; and the report that it leaves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mcip.core.errors import ConfigError
from mcip.core.files import read_json
from mcip.training.health import REPORT, Health, stack_norms


def health(folder: Path, ratio: float = 4.0, means: list[float] | None = None) -> Health:
    return Health(folder, ["image tower", "class loss"], ratio, means or [])


def add(watch: Health, step: int, loss: float, norms: tuple[float, float] | None = (1.0, 2.0)) -> None:
    values = {"loss": torch.tensor(loss), "class_loss": torch.tensor(2 * loss)}
    watch.add(step, values, None if norms is None else torch.tensor(norms))


def test_the_means_are_those_of_the_steps_since_the_last(tmp_path: Path) -> None:
    watch = health(tmp_path)
    assert watch.steps == 0
    add(watch, 1, 2.0)
    watch.check(None)
    add(watch, 2, 4.0)
    assert watch.steps == 2
    assert watch.means(2, None) == {"loss": 3.0, "class_loss": 6.0}
    assert watch.steps == 0
    add(watch, 3, 8.0)
    assert watch.means(3, None)["loss"] == 8.0


@pytest.mark.parametrize(
    ("loss", "norms", "reason"),
    [
        (math.nan, (1.0, 2.0), "The loss is nan at step 7; the last checkpoint, of step 5, is kept"),
        (1.0, (1.0, math.inf), "The gradient of the class loss is inf at step 7"),
    ],
)
def test_a_report_of_what_is_not_finite(loss: float, norms: tuple[float, float], reason: str, tmp_path: Path) -> None:
    watch = health(tmp_path, means=[3.0, 2.5])
    add(watch, 6, 2.0)
    add(watch, 7, loss, norms)
    with pytest.raises(ConfigError, match=reason):
        watch.check(5)
    report = read_json(tmp_path / REPORT)
    assert report["reason"].startswith(reason)
    assert (report["step"], report["checkpoint_step"], report["mean_losses_before"]) == (7, 5, [3.0, 2.5])
    assert [step["step"] for step in report["steps"]] == [6, 7]
    assert report["steps"][0]["gradient_norms"] == {"image tower": 1.0, "class loss": 2.0}
    assert "--lr" in report["what_to_do"][0]
    health(tmp_path)
    assert not (tmp_path / REPORT).exists(), "the next start removes it"


def test_gradients_may_be_infinite_where_the_loss_is_scaled(tmp_path: Path) -> None:
    watch = health(tmp_path)
    add(watch, 1, 2.0, None)
    watch.check(None)
    assert watch.means(1, None)["loss"] == 2.0


def test_a_leap_is_judged_by_the_ten_means_before_it(tmp_path: Path) -> None:
    def run(ratio: float, losses: list[float], earlier: list[float]) -> None:
        watch = health(tmp_path, ratio, earlier)
        for step, loss in enumerate(losses, 1):
            add(watch, step, loss)
            watch.means(step, None)

    steady = [8.0] + [1.0] * 12
    run(4.0, [*steady, 3.9, 8.0], [])  # not above the ratio; not above the first
    run(0.0, [*steady, 1e9], [])
    run(4.0, [8.0, *[1.0] * 8, 99.0], [])  # too early to tell
    with pytest.raises(ConfigError, match=r"The loss leapt to 8\.1 before step 14, from 1; there is no checkpoint"):
        run(4.0, [*steady, 8.1], [])
    with pytest.raises(ConfigError, match=r"The loss leapt to 8\.1 before step 1, from 1"):
        run(4.0, [8.1], steady)
    assert "--max-loss-ratio" in read_json(tmp_path / REPORT)["what_to_do"][-1]
    with pytest.raises(ConfigError, match=r"max_loss_ratio is 0\.5"):
        health(tmp_path, 0.5)


def test_an_optimiser_leaves_weights_as_they_are_where_a_norm_is_not_finite() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    for norm, moves in ((1.0, True), (math.inf, False), (math.nan, False), (2.0, True)):
        before, steps = weight.detach().clone(), float(optimizer.state[weight].get("step", 0.0))
        weight.grad = torch.full((3,), norm)
        norms, broken = stack_norms([torch.tensor(1.0), weight.grad.norm()])
        optimizer.found_inf = broken  # type: ignore[attr-defined]
        optimizer.step()
        assert norms.shape == (2,)
        assert torch.equal(before, weight.detach()) != moves
        assert weight.isfinite().all()
        assert float(optimizer.state[weight]["step"]) == steps + moves
