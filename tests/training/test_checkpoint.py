"""Checkpoints: damaged ones, those of another step or model, and code in them are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mcip.core.errors import ArtefactError
from mcip.training import CHECKPOINTS, fit
from mcip.training.checkpoint import Checkpoints, copy_into

from .toy import KilledError, Toy, settings, stop_at


def interrupted(folder: Path, **changes: Any) -> None:
    """Train with validation and checkpoints, and stop it at step 8 of 10."""
    toy = Toy([0.1, 0.3, 0.2, 0.2, 0.2, 0.2])
    stop_at(toy, 8)
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
