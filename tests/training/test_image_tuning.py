"""Batches taken in parts, the penalty on leaving the base, and the compiled tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mcip import models
from mcip.core.errors import ConfigError
from mcip.core.processes import Processes
from mcip.data import Pixels, read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.losses import ArcMargin, MultiCaptionArcMargin
from mcip.models import compiled
from mcip.models.compiled import pays
from mcip.models.image_tower import drop_patches, patch_dropout
from mcip.training import EpochOrder
from mcip.training.objectives import CaptionTerm, ImageTuning, image_tuning
from mcip.training.optimizer import freeze_parameters, freeze_statistics, layer_factors


def tuning(base: Path, train: Path, mined: Path | None, **changes: Any) -> ImageTuning:
    model, table = models.load(base), read_table(train)
    images = Pixels(table, model.transform("paper", train=True), cache_gb=1.0, max_unreadable=0.5)
    torch.manual_seed(4)
    class_loss = ArcMargin(8, 16, margin=0.2, scale=20.0)
    loss = MultiCaptionArcMargin(margin=0.2, scale=20.0, smoothing=0.1)
    captions = CaptionTerm.of(MinedCaptions(mined), table.ids, model, loss, 0.3) if mined else None
    order = EpochOrder(len(table), 12, 3)
    return ImageTuning(model, images, order, class_loss, lr=1e-4, class_lr=1e-2, captions=captions, **changes)


def dropping(base: Path, train: Path, mined: Path | None = None, **changes: Any) -> ImageTuning:
    """`tuning` that leaves out half of the patches."""
    objective = tuning(base, train, mined, **changes)
    drop_patches(objective.modules["image_tower"], 0.5)
    objective._patch_dropout = patch_dropout(objective.modules["image_tower"].train())
    return objective


def batch_of(objective: ImageTuning, rows: int) -> tuple[Tensor, list[int]]:
    """The first batch as if only some of its images could be read."""
    pixels, numbers = next(objective.batches(range(1)))
    return pixels[:rows], numbers[:rows]


def gradients(objective: ImageTuning, batches: list[Any]) -> tuple[dict[str, float], list[Tensor]]:
    total: dict[str, float] = {}
    for batch in batches:
        losses = objective.losses(batch, torch.Generator().manual_seed(1))
        losses["loss"].backward()
        total = {name: total.get(name, 0.0) + loss.item() for name, loss in losses.items()}
    parameters = [parameter for group in objective.groups for parameter in group.parameters]
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return total, found


@pytest.mark.parametrize(("parts", "rows"), [(2, 12), (3, 11), (5, 12), (4, 2), (12, 7)])
@pytest.mark.parametrize("method", ["gpr-ft", "mcip", "patch dropout"])
def test_parts_add_up_to_the_batch(method: str, parts: int, rows: int, base: Path, train: Path, mined: Path) -> None:
    kind = dropping if method == "patch dropout" else tuning
    objective = kind(base, train, mined if method == "mcip" else None, keep=0.5)
    with torch.no_grad():  # else the distance, which starts at 0, has no gradient
        for parameter in objective.groups[0].parameters:
            parameter.mul_(1.1)
    batch = batch_of(objective, rows)
    whole, expected = gradients(objective, [batch])
    split = objective.parts(batch, parts, torch.Generator().manual_seed(1))
    assert len(split) <= parts
    assert max(len(part.pixels) for part in split) <= -(-12 // parts)
    by_part, found = gradients(objective, split)
    assert by_part == pytest.approx(whole, rel=1e-5)
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)


def test_a_batch_of_nothing_has_no_parts(base: Path, train: Path) -> None:
    objective = tuning(base, train, None)
    assert objective.parts(batch_of(objective, 0), 3, torch.Generator()) == []


def test_images_without_captions_weigh_nothing_in_any_part(base: Path, train: Path, mined: Path) -> None:
    objective = tuning(base, train, mined)
    assert objective.captions is not None
    lookup = objective.captions.lookup
    batch = batch_of(objective, 12)
    without = set(batch[1][:4])
    rows = np.arange(len(lookup.starts))
    ends = np.where(np.isin(rows, list(without)), lookup.starts, lookup.ends)
    object.__setattr__(lookup, "ends", ends)
    whole, expected = gradients(objective, [batch])
    by_part, found = gradients(objective, objective.parts(batch, 3, torch.Generator().manual_seed(1)))
    assert by_part == pytest.approx(whole, rel=1e-5)
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)


def test_the_penalty_is_on_the_distance_to_the_base_on_the_same_pixels(base: Path, train: Path) -> None:
    objective, plain = tuning(base, train, None, keep=2.0), tuning(base, train, None)
    batch = batch_of(objective, 12)
    first = objective.losses(batch, torch.Generator().manual_seed(1))
    assert first["distance"].item() == pytest.approx(0, abs=1e-6)
    for each in (objective, plain):
        with torch.no_grad():
            each.modules["image_tower"].get_parameter("proj").add_(0.1 * torch.ones(32, 16).tril())
    found = objective.losses(batch, torch.Generator().manual_seed(1))
    without = plain.losses(batch, torch.Generator().manual_seed(1))
    pixels = objective.transform.finish(batch[0], torch.Generator().manual_seed(1))
    old = models.load(base).embed_pixels(pixels)
    new = F.normalize(objective.modules["image_tower"](pixels), dim=-1)
    distance = (1 - (old * new).sum(1)).mean()
    torch.testing.assert_close(found["distance"], distance)
    torch.testing.assert_close(found["loss"], without["loss"] + 2.0 * distance)
    assert distance > 0.01
    assert not any("base" in name for name in objective.tensors)


def test_layers_have_their_own_learning_rates(base: Path, train: Path) -> None:
    objective = tuning(base, train, None, layer_decay=0.5)
    tower = objective.groups[0]
    factors = layer_factors(objective.modules["image_tower"], 0.5)
    assert tower.lr_factors == [factors[name] for name, _ in objective.modules["image_tower"].named_parameters()]
    assert objective.groups[1].lr_factors is None


@pytest.mark.parametrize("kind", [tuning, dropping])
def test_the_compiled_tower_gives_the_same_gradients(
    kind: Any, base: Path, train: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    objective = kind(base, train, None)
    tower = objective.modules["image_tower"].train()
    names = list(tower.state_dict())
    batches = [batch_of(objective, rows) for rows in (12, 9)]
    expected = [gradients(objective, [batch]) for batch in batches]
    objective.compile_for(12, "fp32")
    # The short batch is padded: a second shape would have to be compiled.
    stances: list[Literal["default", "fail_on_recompile"]] = ["default", "fail_on_recompile"]
    for batch, (losses, before), stance in zip(batches, expected, stances, strict=True):
        with torch.compiler.set_stance(stance):
            found, after = gradients(objective, [batch])
        assert found == pytest.approx(losses, rel=1e-5)
        for gradient, other in zip(after, before, strict=True):
            torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)
    assert "Compiled the image tower in" in capsys.readouterr().err
    assert objective._compiled is not None
    assert list(tower.state_dict()) == names


def test_where_compilation_fails_the_run_goes_on_without(
    base: Path, train: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", fail)
    objective = tuning(base, train, None)
    batch = batch_of(objective, 12)
    expected, _ = gradients(objective, [batch])
    objective.compile_for(12, "fp32")
    assert gradients(objective, [batch])[0] == expected
    notes = " ".join(capsys.readouterr().err.split())
    assert "could not be compiled" in notes
    assert "no compiler here" in notes
    assert gradients(objective, [batch])[0] == expected


def test_batch_normalisation_is_refused_in_several_processes(
    base: Path, train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is frozen, and so stays in evaluation mode."""
    model, table = models.load(base), read_table(train)
    model.clip.visual.ln_post = torch.nn.Sequential(torch.nn.BatchNorm1d(32))
    images = Pixels(table, model.transform("paper", train=True))

    def make() -> ImageTuning:
        return ImageTuning(model, images, EpochOrder(len(table), 4, 3), ArcMargin(8, 16), lr=1e-4, class_lr=1e-2)

    make()
    monkeypatch.setattr(image_tuning, "processes", lambda: Processes(0, 2))
    with pytest.raises(ConfigError, match="batch normalisation"):
        make()
    freeze_parameters(model.clip.visual, "ln_post")
    make()
    model.clip.visual.ln_post = torch.nn.Sequential(torch.nn.BatchNorm1d(32))
    with pytest.raises(ConfigError, match="batch normalisation"):
        make()
    freeze_statistics(model.clip.visual)
    make()


def test_when_compilation_pays() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [pays("auto", cuda, steps) for steps in (999, 1000)] == [False, True]
    assert not pays("auto", cpu, 10**6)
    assert pays("on", cpu, 1)
    assert not pays("off", cuda, 10**6)
    assert pays("graphs", cuda, 1)
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        pays("graphs", cpu, 10**6)
    with pytest.raises(ConfigError, match="cannot go with --parallel fsdp"):
        pays("graphs", cuda, 10**6, sharded=True)


def test_graphs_begin_a_step_with_each_call(base: Path, train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a call would keep what the last one wrote, and record another graph."""
    modes: list[Any] = []
    order: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any, mode: str = "") -> Any:
        modes.append(mode)

        def run(*arguments: Any) -> Any:
            order.append("run")
            return graph(*arguments)

        return run

    monkeypatch.setattr(compiled, "BACKEND", backend)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: order.append("step"))
    objective = tuning(base, train, None, keep=0.5)
    objective.modules["image_tower"].train()
    batches = [batch_of(objective, rows) for rows in (12, 9)]
    expected = [gradients(objective, [batch]) for batch in batches]
    objective.compile_for(12, "fp32", graphs=True)
    for batch, (losses, before) in zip(batches, expected, strict=True):
        found, after = gradients(objective, [batch])
        assert found == pytest.approx(losses, rel=1e-5)
        for gradient, other in zip(after, before, strict=True):
            torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)
    assert modes == ["reduce-overhead"]
    assert order == ["run", "step", "run", "step", "run"]  # the first compiles
