"""Models, tables and runs small enough for tests, and processes that are killed at a chosen moment."""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcip.models import Model
from mcip.training import LOGS

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"size": 32, "resize_mode": "squash"},
}
# As SigLIP's: a timm image tower without a projector, a custom text tower, a logit bias, a tokenizer of the hub.
TINY_SIGLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "none",
            "image_size": 160,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 100,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 64,
            "heads": 2,
            "layers": 1,
            "pool_type": "last",
            "proj_bias": True,
            "no_causal_mask": True,
        },
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
}
PRELOADED = (
    "mcip.stages.embed",
    "mcip.stages.mine",
    "mcip.stages.tune",
    "mcip.stages.align",
    "mcip.stages.adapt",
    "mcip.stages.pretrain",
    "mcip.stages.index",
    "mcip.retrieval.index",
    "mcip.reporting.evaluation",
    "mcip.reporting.report",
    "mcip.training.objectives",
    "matplotlib.figure",
    "timm",
    "open_clip",
    "tests.tiny",
)


def pixels_for(model: Model, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, model.image_size, model.image_size, generator=generator)


class Mischief:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below `folder`, but for the logs of a training run."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in LOGS
    }


def start(stage: str, arguments: dict[str, Any], kill_at: int | None = None) -> multiprocessing.process.BaseProcess:
    """Run `mcip.<stage>.<stage>(**arguments)` in a process of its own.

    Args:
        stage: The name of the stage.
        arguments: Its arguments.
        kill_at: Kill it with SIGKILL just before it does this one (counted from 1) of the things that make a file last
            or appear: flushing it to the disk, replacing another. Of an index changes of its table count too, and each
            moment just after one of all these.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_run, args=(stage, arguments, kill_at))
    process.start()
    return process


def run(stage: str, arguments: dict[str, Any], kill_at: int | None = None) -> int:
    """Run a stage as `start` does, to its end; its exit code, 0 or -SIGKILL."""
    process = start(stage, arguments, kill_at)
    process.join(120)
    code = process.exitcode
    assert code in (0, -signal.SIGKILL), f"{stage} ended with {code}"
    return code


def run_killed_over_and_over(stage: str, arguments: dict[str, Any], stride: int) -> int:
    """Run a stage and kill it at the first moment, again and kill it `stride` moments later, until it ends by itself.

    Returns:
        How often it was killed.
    """
    kills = 0
    while run(stage, arguments, kill_at=1 + kills * stride) != 0:
        kills += 1
    return kills


def run_killed_when(stage: str, arguments: dict[str, Any], reached: Callable[[], bool]) -> None:
    """Run a stage and kill it as soon as `reached()`; it must not have ended before."""
    process = start(stage, arguments)
    while not reached():
        assert process.is_alive(), f"{stage} ended too early, with {process.exitcode}"
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _run(stage: str, arguments: dict[str, Any], kill_at: int | None) -> None:
    import torch

    torch.set_num_threads(1)
    if kill_at is not None:
        _kill_at(kill_at, table=stage == "index")
    getattr(importlib.import_module(f"mcip.stages.{stage}"), stage)(**arguments)


def _kill_at(moment: int, table: bool) -> None:
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def count_one() -> None:
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def call(*args: Any, **kwargs: Any) -> Any:
            count_one()
            result = function(*args, **kwargs)
            if table:
                count_one()
            return result

        return call

    os.fsync = counted(os.fsync)
    for name in ("replace", "rename"):
        setattr(Path, name, counted(getattr(Path, name)))
    if table:
        from mcip.retrieval.table import IndexTable

        for name in ("append", "upsert", "delete", "change_identity"):
            setattr(IndexTable, name, counted(getattr(IndexTable, name)))
