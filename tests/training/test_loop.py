"""The training loop: schedule, clipping, groups, validation, early stopping, checkpoints and going on from them."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.amp import GradScaler

from mcip.core.errors import ArtefactError, ConfigError
from mcip.training import CHECKPOINTS, EpochOrder, FitSettings, Group, fit
from mcip.training.checkpoint import Checkpoints, copy_into
from mcip.training.loop import learning_rate_factor


class Toy:
    """Two weights that are pulled to the mean of drawn numbers, in two groups."""

    def __init__(self, scores: list[float] | None = None, factor: float = 1.0, dropout: float = 0.0) -> None:
        self.first, self.second = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.second.weight.fill_(-1.0)
        self.modules: dict[str, nn.Module] = {"first": self.first, "second": self.second}
        self.groups = [
            Group("first", list(self.first.parameters()), 0.1, 0.0),
            Group("second", list(self.second.parameters()), 1.0, 0.5),
        ]
        self.tensors = {"first": self.first.weight.detach(), "second": self.second.weight.detach()}
        self.unreadable: dict[str, str] = {}
        self.scores, self.factor, self.dropout = scores, factor, dropout
        self.trained_batches: list[int] = []
        self.norms: list[list[float]] = []
        self.empty: set[int] = set()

    def batches(self, steps: range) -> Iterator[int]:
        yield from steps

    def losses(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.trained_batches.append(batch)
        self.unreadable[f"image {batch}"] = "truncated"
        if batch in self.empty:
            return {}
        inputs = torch.nn.functional.dropout(torch.rand(3, 4, generator=generator), self.dropout)
        out = self.modules["first"](inputs) - self.modules["second"](inputs)
        return {"loss": self.factor * (out - 5).square().mean(), "spread": out.std()}

    def after_step(self) -> None:
        pass

    def validate(self) -> dict[str, float]:
        assert not self.first.training
        return {"a": self.scores.pop(0), "b": 0.5} if self.scores else {}


def settings(**changes: Any) -> FitSettings:
    return FitSettings(**{"steps": 10, "device": "cpu", "precision": "fp32", "log_every": 2, **changes})


def test_the_schedule_in_closed_form() -> None:
    assert [learning_rate_factor(step, 10, 4, 0.1) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate_factor(4, 10, 4, 0.1) == 1.0
    assert learning_rate_factor(7, 10, 4, 0.1) == pytest.approx(0.55)
    assert learning_rate_factor(10, 10, 4, 0.1) == pytest.approx(0.1)
    assert learning_rate_factor(0, 1, 0, 0.0) == 1.0


@given(st.integers(1, 200), st.integers(0, 50), st.floats(0, 1))
def test_the_schedule_rises_then_falls(steps: int, warmup: int, ratio: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup, ratio) for step in range(steps)]
    assert all(0 < factor <= 1 + 1e-12 for factor in factors[: warmup + 1])
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert all(factor >= ratio - 1e-12 for factor in factors[warmup:])


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
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, limit: sizes.append(len(parameters)))
    fit(Toy(), tmp_path / CHECKPOINTS, settings(steps=2))
    assert sizes == [1, 1, 1, 1]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 4, 8, 9])
def test_it_goes_on_as_if_nothing_had_been(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"checkpoint_every": 3, "validate_every": 2}
    scores = [0.1, 0.3, 0.2, 0.9, 0.4, 0.5]
    whole = Toy(list(scores), dropout=0.5)
    torch.manual_seed(1)
    done = fit(whole, tmp_path / "a" / CHECKPOINTS, settings(**arguments))

    broken = Toy(list(scores), dropout=0.5)
    losses = broken.losses

    def stopping(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if batch == stop:
            raise KilledError
        return losses(batch, generator)

    broken.losses = stopping  # type: ignore[method-assign]
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
        ConfigError, match=r"The loss is (nan|inf) at step 2; there is no checkpoint yet\. Lower the learning"
    ):
        fit(Toy(factor=math.inf), tmp_path / CHECKPOINTS, settings())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "0 steps to train"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"device": "cuda:99"}, "cannot be used here"),
        ({"validate_every": 1, "select": "c"}, r"select is 'c'; the validation gives \['a', 'b'\]"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(Toy([0.1] * 9), tmp_path / CHECKPOINTS, settings(**wrong))


def interrupted(folder: Path, **changes: Any) -> None:
    """Train with validation and checkpoints, and stop it at step 8 of 10."""
    toy = Toy([0.1, 0.3, 0.2, 0.2, 0.2, 0.2])
    losses = toy.losses

    def stopping(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if batch == 8:
            raise KilledError
        return losses(batch, generator)

    toy.losses = stopping  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        fit(toy, folder, settings(checkpoint_every=3, validate_every=2, **changes))


@pytest.mark.parametrize("name", ["latest-000000006.pt", "best-000000002.pt"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / CHECKPOINTS
    interrupted(folder)
    content = bytearray((folder / name).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content[: len(content) - 100 * (damage == "cut")])
    if damage == "remove":
        (folder / name).unlink()
    with pytest.raises(ArtefactError, match=rf"{name} is damaged: .* Remove the folder .* to train from the start"):
        fit(Toy([0.2] * 6), folder, settings(checkpoint_every=3, validate_every=2))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"latest": 3}', '{"latest": {"step": 6}}'])
def test_a_damaged_list_of_checkpoints_is_refused(content: str, tmp_path: Path) -> None:
    folder = tmp_path / CHECKPOINTS
    interrupted(folder)
    (folder / "checkpoint.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"checkpoint\.json"):
        fit(Toy(), folder, settings())


def test_weights_of_another_step_are_not_taken_for_the_best(tmp_path: Path) -> None:
    folder = tmp_path / CHECKPOINTS
    interrupted(folder)
    checkpoints = Checkpoints(folder)
    checkpoints.write("best", 4, {"tensors": Toy().tensors})
    checkpoints.commit()
    with pytest.raises(ArtefactError, match="holds the best weights of step 4, but step 2 was the best"):
        fit(Toy([0.2] * 6), folder, settings(checkpoint_every=3, validate_every=2))


def test_best_weights_that_were_not_committed_do_not_count(tmp_path: Path) -> None:
    """Killed between a validation and the next checkpoint, it resumes with the best weights of that checkpoint."""
    folder = tmp_path / CHECKPOINTS
    interrupted(folder)
    Checkpoints(folder).write("best", 8, {"tensors": {}})
    toy = Toy([0.2, 0.2])
    done = fit(toy, folder, settings(checkpoint_every=3, validate_every=2))
    assert (done.best_step, done.best_score) == (2, 0.4)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="1 tensors differ, 'b' among them"):
        copy_into({"a": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(1)}, tmp_path)
    with pytest.raises(ArtefactError, match=r"a is \(3,\) there, \(2,\) here"):
        copy_into({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, tmp_path)


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return print, ("run",)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.write("latest", 1, {"a": Payload()})
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        checkpoints.load("latest")


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    toy = Toy()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(toy, tmp_path / CHECKPOINTS, settings())
    assert torch.equal(torch.rand(1), expected)
    assert not list((tmp_path / CHECKPOINTS).glob("best*"))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_visits_each_row_at_most_once(rows: int, batch_size: int, seed: int) -> None:
    order = EpochOrder(rows, batch_size, seed)
    assert order.batch_size == min(batch_size, rows)
    steps = order.steps_per_epoch
    assert steps == rows // order.batch_size
    for epoch in range(2):
        visited = [row for step in range(steps) for row in order.batch(epoch * steps + step)]
        assert len(visited) == steps * order.batch_size == len(set(visited))
        assert set(visited) <= set(range(rows))


def test_the_order_is_a_function_of_seed_and_step() -> None:
    expected = [EpochOrder(30, 7, 1).batch(step) for step in range(9)]
    backwards = EpochOrder(30, 7, 1)
    assert [backwards.batch(step) for step in reversed(range(9))] == expected[::-1]
    assert expected[:4] != expected[4:8]
    assert EpochOrder(30, 7, 2).batch(0) != expected[0]
    with pytest.raises(ConfigError, match="batch_size is 0"):
        EpochOrder(30, 0, 1)
