"""Fixtures that the tests of the stages share: a tiny model, tiny tables, a pool, mined captions."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import settings

from mcip import models
from mcip.models import Model
from mcip.stages.export import export
from mcip.stages.mine import mine
from mcip.toyshop.tables import Slice, write_slice
from tests.order import by_process
from tests.tiny import CONFIG, TINY_SIGLIP

# How long an example takes says nothing about the code on a machine that does other work as well. The examples are the
# same in each run; `make fuzz` draws others.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=300)
settings.load_profile("repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: for a quarter of their time tests wait for servers, disks and seconds to pass."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, in each process."""
    items[:] = by_process(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in a line per reason what was not tested, and what it takes."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"Not tested ({count} tests): {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The caches lie in the tests' own folder, for the processes they start too."""
    cache = tmp_path_factory.mktemp("datasets")
    os.environ["HF_DATASETS_CACHE"] = str(cache)
    os.environ["MCIP_CACHE"] = str(tmp_path_factory.mktemp("mcip"))
    datasets.config.HF_DATASETS_CACHE = cache


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """SIGINT interrupts, here and in processes that tests start, also where the tests run as a background job."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """So small models are faster on one thread, and processes that compare results bit for bit use as many."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Whatever ran before, a test draws the same numbers."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture
def tiny_config() -> dict[str, Any]:
    """A vision transformer of 16 pixels and a text tower of 12 tokens, with all that makes preprocessing its own."""
    return {
        "model_cfg": {
            "embed_dim": 8,
            "quick_gelu": True,
            "vision_cfg": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16},
            "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash"},
    }


@pytest.fixture(params=["clip", "siglip"])
def config(request: pytest.FixtureRequest, tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config if request.param == "clip" else TINY_SIGLIP


@pytest.fixture
def tiny(tiny_config: dict[str, Any]) -> Model:
    return models.from_config(tiny_config, seed=3)


@pytest.fixture
def tiny_folder(tiny: Model, tmp_path: Path) -> Path:
    return models.save(tiny, tmp_path / "tiny", made_by={"method": "test"})


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def base(shared: Path) -> Path:
    """A model folder: a vision transformer of 32 pixels with random weights, 16 dimensions."""
    return models.save(models.from_config(CONFIG, seed=1), shared / "base")


@pytest.fixture(scope="session")
def onnx(shared: Path, base: Path) -> Path:
    """`base` as an ONNX model."""
    return Path(export(base, shared / "onnx", format="onnx"))


@pytest.fixture(scope="session")
def train(shared: Path) -> Path:
    """8 products with 4 images of 2 captions each."""
    return write_slice(Slice("train", stream=101, products=8, images=4, captions=2), shared / "train.parquet")


@pytest.fixture(scope="session")
def val(shared: Path) -> Path:
    """5 products with 3 images of 1 caption each."""
    part = Slice("val", stream=102, products=5, images=3, captions=1, splits=("val",))
    return write_slice(part, shared / "val.parquet")


@pytest.fixture(scope="session")
def pool(shared: Path) -> Path:
    """48 different captions in 52 lines."""
    shapes, places = ("mug", "star", "fish", "ball"), ("on wood", "in the snow", "at night")
    lines = [f"a {c} {s} {p}" for c in ("red", "blue", "green", "teal") for s in shapes for p in places]
    path = shared / "pool.txt"
    path.write_text("\n".join([*lines[:20], lines[3], lines[3], *lines[20:], lines[0], lines[47]]) + "\n")
    return path


@pytest.fixture(scope="session")
def mined(shared: Path, base: Path, train: Path, pool: Path) -> Path:
    """A captions artefact for `train`: the top 5, without the least similar 30 %."""
    return Path(mine(str(train), str(pool), shared / "mined", str(base), k=5, quantile=0.3))
