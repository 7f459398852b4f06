"""AdamW with moments in 8 bits: what they take, what they compute, that a run resumes, and where it is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mcip import plan
from mcip.core.errors import ConfigError
from mcip.stages.tune import tune
from mcip.training import FitSettings, Group, fit
from mcip.training.optimizer import make_optimizer, set_learning_rates
from tests.together import run_together
from tests.training.toy import KilledError, Toy, settings, stop_at

BETAS, EPS, LR, DECAY = (0.9, 0.999), 1e-8, 1e-3, 0.1


def weights_and_gradients(steps: int, shape: tuple[int, ...] = (64, 128)) -> tuple[nn.Parameter, list[Tensor]]:
    drawn = torch.Generator().manual_seed(3)
    return nn.Parameter(torch.randn(shape, generator=drawn)), [
        torch.randn(shape, generator=drawn) for _ in range(steps)
    ]


def rounded(values: Tensor, levels: Tensor) -> Tensor:
    """Each value as the nearest level times the largest of its block of 256."""
    blocks = values.reshape(-1, 256)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    nearest = (blocks / scales).unsqueeze(2).sub(levels).abs().argmin(dim=2)
    return (levels[nearest] * scales).reshape(values.shape)


def test_it_is_adamw_with_rounded_moments() -> None:
    parameter, gradients = weights_and_gradients(4)
    optimizer = make_optimizer([Group("tower", [parameter], LR, DECAY)], BETAS, EPS, "adamw8bit")
    expected = parameter.detach().double()
    first = second = torch.zeros_like(expected)
    levels: dict[str, Tensor] = {}
    for step, gradient in enumerate(gradients, 1):
        set_learning_rates(optimizer, 1 / step)
        parameter.grad = gradient
        optimizer.step()
        state = optimizer.state[parameter]
        levels = {name: state[name].qmap.double() for name in ("exp_avg", "exp_avg_sq")}
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient.double()
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.double() ** 2
        corrected = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        expected = expected * (1 - LR / step * DECAY) - LR / step * corrected[0] / (corrected[1].sqrt() + EPS)
        first, second = rounded(first, levels["exp_avg"]), rounded(second, levels["exp_avg_sq"])
    # Where a moment lies between two levels, float32 may take the other one.
    apart = (parameter.detach() - expected).abs() > 1e-6
    assert apart.double().mean() < 0.002
    assert sorted(levels["exp_avg"].tolist()) == levels["exp_avg"].tolist()
    assert len(levels["exp_avg"].unique()) == len(levels["exp_avg_sq"].unique()) == 256


def test_moments_take_two_bytes_a_value_and_small_tensors_keep_theirs() -> None:
    large, small = weights_and_gradients(0)[0], weights_and_gradients(0, (64,))[0]
    optimizer = make_optimizer([Group("tower", [large, small], LR, DECAY)], BETAS, EPS, "adamw8bit")
    for parameter in (large, small):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [optimizer.state[large][name] for name in ("exp_avg", "exp_avg_sq")]
    taken = sum(moment.codes.nbytes + moment.scale.nbytes for moment in moments)
    assert taken == large.numel() * 2 * (1 + 4 / 256)
    assert type(optimizer.state[small]["exp_avg"]) is Tensor


def test_a_plan_counts_them() -> None:
    given: dict[str, Any] = {"model": "ViT-B-32", "batch_size": 32, "classes": 1000}
    plain, small = plan(**given), plan(**given, optimizer="adamw8bit")
    for part, values in (("weights, gradients, optimiser", plain.parameters), ("class centers with theirs", 512_000)):
        assert plain.memory[part] == 16 * values
        assert small.memory[part] == pytest.approx((8 + 2 * (1 + 4 / 256)) * values)
    assert plain.disk["checkpoints"] - small.disk["checkpoints"] == pytest.approx(
        (6 - 8 / 256) * (plain.parameters + 512_000)
    )
    with pytest.raises(ConfigError, match="optimizer is 'sgd'"):
        plan(**given, optimizer="sgd")  # type: ignore[arg-type]


class Wide(Toy):
    """A toy with a weight that is large enough for moments in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(64, 128, bias=False)
        with torch.no_grad():
            self.wide.weight.copy_(weights_and_gradients(0, (128, 64))[0])
        self.modules["wide"] = self.wide
        self.groups.append(Group("wide", list(self.wide.parameters()), LR, DECAY))
        self.tensors["wide"] = self.wide.weight.detach()

    def losses(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        found = super().losses(batch, generator)
        return {**found, "loss": found["loss"] + self.wide(torch.rand(8, 64, generator=generator)).square().mean()}


@pytest.fixture
def eight() -> FitSettings:
    return replace(settings(), optimizer="adamw8bit", checkpoint_every=3)


def test_a_run_resumes_to_the_same_bytes(tmp_path: Path, eight: FitSettings) -> None:
    whole, killed, resumed = Wide(), Wide(), Wide()
    fit(whole, tmp_path / "whole" / "checkpoints", eight)
    stop_at(killed, 7)
    with pytest.raises(KilledError):
        fit(killed, tmp_path / "killed" / "checkpoints", eight)
    fit(resumed, tmp_path / "killed" / "checkpoints", eight)
    assert resumed.trained_batches == [6, 7, 8, 9]
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    plain = Wide()
    fit(plain, tmp_path / "plain" / "checkpoints", replace(eight, optimizer="adamw"))
    assert not torch.equal(whole.tensors["wide"], plain.tensors["wide"])
    assert torch.allclose(whole.tensors["wide"], plain.tensors["wide"], atol=3 * LR)


def test_no_step_is_made_with_gradients_that_are_not_finite(tmp_path: Path, eight: FitSettings) -> None:
    toy, seen = Wide(), []
    losses = toy.losses

    def broken(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        seen.append(toy.wide.weight.detach().clone())
        found = losses(batch, generator)
        # The root of nothing: 0, whose gradient is not a number.
        root = toy.wide.weight.sub(toy.wide.weight.detach()).abs().sum().sqrt()
        return {**found, "loss": found["loss"] + (root if batch == 1 else 0)}

    toy.losses = broken  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="gradient"):
        fit(toy, tmp_path / "checkpoints", eight)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], toy.wide.weight)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="optimizer is 'sgd': it is one of adamw, adamw8bit"):
        settings(optimizer="sgd")
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ConfigError, match=r"torchao.*mcip\[fp8\]"):
        make_optimizer([Group("tower", [nn.Parameter(torch.ones(4))], LR, DECAY)], BETAS, EPS, "adamw8bit")


def _refused(arguments: dict[str, str | int], out: str) -> None:
    with pytest.raises(ConfigError, match="in shards do not go with adamw8bit"):
        tune(out=Path(out), **arguments)  # type: ignore[arg-type]


def test_class_centers_in_shards_are_refused(base: Path, train: Path, tmp_path: Path) -> None:
    arguments = {
        "data": str(train), "model": str(base), "method": "gpr-ft", "steps": 2, "batch_size": 4, "device": "cpu",
        "optimizer": "adamw8bit", "shard_centers_from": 1,
    }  # fmt: skip
    run_together(2, _refused, arguments, str(tmp_path / "out"))
