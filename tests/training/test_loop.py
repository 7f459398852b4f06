"""The training loop: clipping, groups, validation, early stopping, and resuming."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

from mcip.core.errors import ConfigError
from mcip.training import CHECKPOINTS, fit
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


@pytest.mark.parametrize("stop", [1, 3, 4, 8, 9])
def test_it_resumes_as_if_nothing_had_been(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"checkpoint_every": 3, "validate_every": 2}
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


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    toy = Toy()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(toy, tmp_path / CHECKPOINTS, settings())
    assert torch.equal(torch.rand(1), expected)
    assert not list((tmp_path / CHECKPOINTS).glob("best*"))
