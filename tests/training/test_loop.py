"""The training loop: clipping, groups, validation, early stopping, and resuming."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

from mcip.core.errors import ConfigError
from mcip.training import CHECKPOINTS, Group, fit
from mcip.training.checkpoint import Checkpoints
from mcip.training.health import REPORT
from mcip.training.settings import learning_rate_factor

from .toy import KilledError, Toy, settings, stop_at


def test_it_equals_a_bare_loop(tmp_path: Path) -> None:
    toy, bare = Toy(), Toy()
    fit(toy, tmp_path / CHECKPOINTS, settings(max_grad_norm=0.5, seed=7, warmup=3, min_lr_ratio=0.2))
    optimizer = torch.optim.AdamW(
        [{"params": group.parameters, "lr": group.lr, "weight_decay": group.weight_decay} for group in bare.groups],
        fused=True,
    )
    for step in range(10):
        for group, bare_group in zip(optimizer.param_groups, bare.groups, strict=True):
            group["lr"] = bare_group.lr * learning_rate_factor(step, 10, 3, 0.2)
        bare.losses(step, torch.Generator().manual_seed(7 * 1_000_003 + step))["loss"].backward()
        for bare_group in bare.groups:
            torch.nn.utils.clip_grad_norm_(bare_group.parameters, 0.5)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(toy.first.weight, bare.first.weight)
    assert torch.equal(toy.second.weight, bare.second.weight)


def test_parameters_of_a_group_may_learn_at_rates_of_their_own(tmp_path: Path) -> None:
    def one_group(toy: Toy) -> Group:
        weights = [*toy.first.parameters(), *toy.second.parameters()]
        return Group("both", weights, 0.1, 0.2, lr_factors=[0.25, 1.0])

    toy, bare = Toy(), Toy()
    toy.groups = [one_group(toy)]
    fit(toy, tmp_path / CHECKPOINTS, settings(max_grad_norm=0.5, steps=5))
    weights = one_group(bare).parameters
    optimizers = [torch.optim.AdamW([p], weight_decay=0.2, fused=True) for p in weights]
    for step in range(5):
        bare.losses(step, torch.Generator().manual_seed(step))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        for optimizer, factor in zip(optimizers, (0.25, 1.0), strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 * factor * learning_rate_factor(step, 5, 0, 0.0)
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(toy.first.weight, bare.first.weight)
    assert torch.equal(toy.second.weight, bare.second.weight)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["lr"] > 0.05


def test_gradients_are_clipped_after_they_are_unscaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loss scale of 1024, as fp16 has it, the optimiser sees the same clipped gradients as without."""
    clip = torch.nn.utils.clip_grad_norm_
    expected: list[float] = []
    found: list[float] = []

    def record(norms: list[float]) -> Any:
        def spy(parameters: Any, limit: float) -> Tensor:
            norms.append(float(clip(parameters, limit)))
            return torch.tensor(norms[-1])

        return spy

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record(expected))
    plain = Toy()
    fit(plain, tmp_path / "a" / CHECKPOINTS, settings(max_grad_norm=0.5))

    scaled = Toy()
    parameters = [p for group in scaled.groups for p in group.parameters]

    def scale(self: GradScaler, loss: Tensor) -> Tensor:
        return loss * 1024

    def unscale(self: GradScaler, optimizer: torch.optim.Optimizer) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad /= 1024

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record(found))
    monkeypatch.setattr(GradScaler, "scale", scale)
    monkeypatch.setattr(GradScaler, "unscale_", unscale)
    fit(scaled, tmp_path / "b" / CHECKPOINTS, settings(max_grad_norm=0.5))
    assert len(found) == 20
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert max(found) > 0.5
    torch.testing.assert_close(plain.first.weight, scaled.first.weight)


def test_groups_are_clipped_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(parameters: list[Tensor], limit: float) -> Tensor:
        sizes.append(len(parameters))
        return torch.tensor(1.0)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    fit(Toy(), tmp_path / CHECKPOINTS, settings(steps=2))
    assert sizes == [1, 1, 1, 1]


@pytest.mark.parametrize(("stop", "ema"), [(1, 0.0), (3, 0.5), (4, 0.0), (8, 0.5), (9, 0.0)])
def test_it_resumes_as_if_nothing_had_been(stop: int, ema: float, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"checkpoint_every": 3, "validate_every": 2, "ema": ema}
    scores = [0.1, 0.3, 0.2, 0.9, 0.4, 0.5]
    whole = Toy(list(scores), dropout=0.5)
    torch.manual_seed(1)
    done = fit(whole, tmp_path / "a" / CHECKPOINTS, settings(**arguments))

    broken = Toy(list(scores), dropout=0.5)
    stop_at(broken, stop)
    torch.manual_seed(2)
    with pytest.raises(KilledError):
        fit(broken, tmp_path / "b" / CHECKPOINTS, settings(**arguments))
    saved = stop // 3 * 3
    again = Toy(scores[(saved // 2 + 1 if saved else 0) :], dropout=0.5)
    torch.manual_seed(3)
    found = fit(again, tmp_path / "b" / CHECKPOINTS, settings(**arguments))

    assert again.trained_batches == list(range(saved, 10))
    assert found == done
    assert found.best_step == 6
    assert again.unreadable == whole.unreadable
    assert torch.equal(again.first.weight, whole.first.weight)
    assert torch.equal(again.second.weight, whole.second.weight)
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "images_per_second"}
            for line in path.read_text().splitlines()
        ]
        for path in (tmp_path / "a" / "metrics.jsonl", tmp_path / "b" / "metrics.jsonl")
    ]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    toy, short = Toy([0.1, 0.6, 0.4, 0.2]), Toy()
    done = fit(toy, tmp_path / "a" / CHECKPOINTS, settings(steps=6, validate_every=2, select="a"))
    assert (done.best_step, done.best_score, done.steps) == (2, 0.6, 6)
    assert done.validation["4"] == {"a": 0.4, "b": 0.5}
    short.batches = lambda steps: iter(range(2))  # type: ignore[method-assign]
    fit(short, tmp_path / "b" / CHECKPOINTS, settings(steps=6))
    assert torch.equal(toy.first.weight, short.first.weight)


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    toy, plain = Toy(), Toy()
    naive, trained, validated = plain.first.weight.detach().clone(), [], []
    plain.after_step = lambda: trained.append(plain.first.weight.detach().clone())  # type: ignore[method-assign]
    fit(plain, tmp_path / "a" / CHECKPOINTS, settings(steps=6))
    expected = [naive]
    for step, weight in enumerate(trained, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected.append(decay * expected[-1] + (1 - decay) * weight)
    scores = iter([0.1, 0.2, 0.9, 0.3])

    def validate() -> dict[str, float]:
        validated.append(toy.first.weight.detach().clone())
        return {"a": next(scores)}

    toy.validate = validate  # type: ignore[method-assign]
    fit(toy, tmp_path / "b" / CHECKPOINTS, settings(steps=6, validate_every=2, ema=0.5))
    for step, weight in zip((0, 2, 4, 6), validated, strict=True):
        torch.testing.assert_close(weight, expected[step])
    assert torch.equal(toy.first.weight, validated[2])
    last = Toy()
    fit(last, tmp_path / "c" / CHECKPOINTS, settings(steps=6, ema=0.5))
    torch.testing.assert_close(last.first.weight.detach(), expected[6])


def test_the_start_may_be_the_best(tmp_path: Path) -> None:
    toy = Toy([0.9, 0.6, 0.4])
    done = fit(toy, tmp_path / CHECKPOINTS, settings(steps=4, validate_every=2))
    assert done.best_step == 0
    assert done.best_score == pytest.approx(0.7)
    assert toy.first.weight.tolist() == [[1.0] * 4]


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    toy = Toy([0.1, 0.2, 0.3, 0.2, 0.2, 0.9, 0.9])
    done = fit(toy, tmp_path / CHECKPOINTS, settings(steps=12, validate_every=2, patience=2))
    assert (done.steps, done.best_step, toy.trained_batches) == (8, 4, list(range(8)))


def test_a_batch_of_nothing_is_no_step(tmp_path: Path) -> None:
    toy = Toy()
    toy.empty = set(range(10))
    fit(toy, tmp_path / CHECKPOINTS, settings())
    assert toy.first.weight.tolist() == [[1.0] * 4]


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"The loss is (nan|inf) at step 1; there is no checkpoint yet\. Lower the learning"
    ):
        fit(Toy(factor=math.inf), tmp_path / CHECKPOINTS, settings())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path) -> None:
    """The loss stays finite, its gradient does not: the root of 0."""
    toy, before = Toy(), Toy()
    losses = toy.losses

    def broken(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        found = losses(batch, generator)
        return {**found, "loss": found["loss"] + (0 * toy.first.weight).sum().sqrt()} if batch == 6 else found

    toy.losses = broken  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"The gradient of the first is (nan|inf) at step 7; .* of step 6, is kept"):
        fit(toy, tmp_path / "a" / CHECKPOINTS, settings(checkpoint_every=3, log_every=100))
    short = settings(checkpoint_every=3, log_every=100)
    before.batches = lambda steps: iter(range(6))  # type: ignore[method-assign]
    fit(before, tmp_path / "b" / CHECKPOINTS, short)
    saved = Checkpoints(tmp_path / "a" / CHECKPOINTS).load("latest")
    assert saved["step"] == 6
    assert torch.equal(saved["tensors"]["first"], before.first.weight)
    assert toy.first.weight.isfinite().all()
    report = json.loads((tmp_path / "a" / REPORT).read_text())
    assert (report["step"], report["checkpoint_step"]) == (7, 6)
    assert [step["step"] for step in report["steps"]][-1] == 7


def test_a_leap_of_the_loss_stops_it(tmp_path: Path) -> None:
    toy = Toy()
    losses = toy.losses

    def leaping(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: loss * (1000 if batch == 13 else 1) for name, loss in losses(batch, generator).items()}

    toy.losses = leaping  # type: ignore[method-assign]
    long = settings(steps=20, log_every=1, checkpoint_every=5)
    with pytest.raises(ConfigError, match=r"The loss leapt to .* before step 14, from .* of step 10, is kept"):
        fit(toy, tmp_path / CHECKPOINTS, long)
    with pytest.raises(ConfigError, match="The loss leapt"):
        fit(toy, tmp_path / CHECKPOINTS, long)
    assert fit(toy, tmp_path / CHECKPOINTS, replace(long, max_loss_ratio=0.0)).steps == 20
    assert not (tmp_path / REPORT).exists()


def test_batches_that_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be taken in parts"):
        fit(Toy(), tmp_path / CHECKPOINTS, settings(accumulate=2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"accumulate": 0}, "accumulate is 0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"max_loss_ratio": 0.5}, "max_loss_ratio is 0.5"),
        ({"steps": 0}, "0 steps to train"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"validate_every": -2}, "validate_every is -2"),
        ({"patience": -1}, "patience is -1"),
        ({"min_lr_ratio": 2.0}, "min_lr_ratio is 2.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"device": "cuda:99"}, "cannot be used here"),
        ({"validate_every": 1, "select": "c"}, r"select is 'c'; the validation gives \['a', 'b'\]"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(Toy([0.1] * 9), tmp_path / CHECKPOINTS, settings(**wrong))


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    toy = Toy()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(toy, tmp_path / CHECKPOINTS, settings())
    assert torch.equal(torch.rand(1), expected)
    assert not list((tmp_path / CHECKPOINTS).glob("best*"))
