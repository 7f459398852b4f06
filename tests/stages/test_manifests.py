"""What the stages record: every parameter, but those that are stated not to change the result."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
import torch

import mcip
from mcip.core.device import pick_precision
from mcip.core.errors import ConfigError
from mcip.core.files import read_json
from mcip.core.parameters import COMPUTING, recorded
from mcip.stages.pretrain import pretrain

# What stands in a manifest under another name, or in the fingerprint of the data; and what changes no result.
ELSEWHERE: dict[str, set[str]] = {
    "embed": {"split", "columns", "batch_size"},
    "mine": {"columns", "pool_columns", "batch_size", "embeddings", "trained_model"},
    "adapt": {"columns"},
    "tune": {"columns"},
    "align": {"columns"},
    "pretrain": {"columns"},
}
STAGES: list[Any] = [
    pretrain,
    *(
        found
        for name in mcip.__all__
        if getattr(found := getattr(mcip, name), "__module__", "").startswith("mcip.stages.")
    ),
]
TRAINING: dict[str, Any] = {"steps": 1, "batch_size": 4, "device": "cpu"}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_parameter_is_recorded(
    name: str, train: Path, pool: Path, base: Path, mined: Path, tmp_path: Path
) -> None:
    stage = pretrain if name == "pretrain" else getattr(mcip, name)
    inputs: dict[str, dict[str, Any]] = {
        "embed": {"model": base},
        "mine": {"model": base, "pool": pool},
        "adapt": {"model": base, "captions": mined, **TRAINING},
        "tune": {"model": base, "captions": mined, **TRAINING},
        "align": {"model": base, **TRAINING},
        "pretrain": {"config": base, **TRAINING},
    }
    stage(data=train, out=tmp_path / "out", **inputs[name])
    manifest = read_json(tmp_path / "out" / "manifest.json")
    expected = inspect.signature(stage).parameters.keys() - COMPUTING - ELSEWHERE[name]
    assert expected <= manifest["made_from"].keys()
    assert str(tmp_path) not in str(manifest["made_from"]), "inputs are recorded by what they hold"


def test_a_training_records_what_would_make_it_come_out_differently(train: Path, base: Path, tmp_path: Path) -> None:
    mcip.tune(str(train), tmp_path / "out", str(base), method="gpr-ft", **TRAINING)
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert manifest["computed_on"] == {
        "torch": torch.__version__, "device": "cpu", "device_name": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(), "precision": "fp32", "processes": 1,
    }  # fmt: skip
    assert not {"threads", "device", "torch"} & manifest["made_from"].keys(), "a run may resume elsewhere"


def test_what_is_no_parameter_is_not_recorded() -> None:
    def stage(data: str, out: str, size: int = 3) -> None:
        """Do nothing."""

    assert recorded(stage, {"data": "a", "out": "b", "size": 3, "other": 1}, data="f") == {"data": "f", "size": 3}
    assert recorded(stage, {"data": "a", "out": "b", "size": 3}, leave_out=("size",)) == {"data": "a"}
    with pytest.raises(TypeError, match="stage has no parameter 'colour'"):
        recorded(stage, {}, colour="red")


def test_what_is_no_choice_is_refused_by_every_stage_before_anything_else(tmp_path: Path) -> None:
    refused = []
    for stage in STAGES:
        parameters = inspect.signature(stage).parameters
        needed = {name: tmp_path / name for name, one in parameters.items() if one.default is inspect.Parameter.empty}
        for name, one in parameters.items():
            if get_origin(stage.__globals__.get(str(one.annotation).removesuffix(" | None"))) is Literal:
                with pytest.raises(ConfigError, match=f"{name} is 'no such': it is one of "):
                    stage(**{**needed, name: "no such"})
                refused.append(f"{stage.__name__}.{name}")
    assert {"tune.method", "index.ann", "index.engine", "embed.what", "search.output", "export.quantize"} <= set(
        refused
    )
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision is 'fp8': it is one of auto, fp32, bf16, fp16"):
        pick_precision("fp8", torch.device("cpu"))  # type: ignore[arg-type]
