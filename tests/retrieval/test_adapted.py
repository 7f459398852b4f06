"""An index brought to an adapted model, and back: without an image, in one commit, whenever it is killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, McipError
from mcip.retrieval.adapted import Adapter
from mcip.retrieval.index import Index
from mcip.retrieval.table import open_table
from mcip.stages.adapt import adapt
from mcip.stages.index import index as build_index
from tests.retrieval.test_killed import content
from tests.tiny import run, run_killed_over_and_over


@pytest.fixture(scope="module")
def adapter(train: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `mcip adapt` from the model of `indexed`."""
    out = tmp_path_factory.mktemp("runs") / "adapter"
    adapt(str(train), out, str(base), steps=20, batch_size=16, lr=2e-2, device="cpu")
    return out


@pytest.fixture
def own_db(indexed: Path, tmp_path: Path) -> Path:
    """A copy of `indexed` that a test may change."""
    return shutil.copytree(indexed, tmp_path / "copy.lance")


def vectors(db: Path) -> dict[str, np.ndarray[Any, Any]]:
    index = Index(db, device="cpu")
    return {name: index.vector(name) for name in index.engine.table.read(["id"])["id"].to_pylist()}


def largest_difference(first: Path, second: Path) -> float:
    mine, others = vectors(first), vectors(second)
    assert mine.keys() == others.keys()
    return max(float(np.abs(mine[name] - others[name]).max()) for name in mine)


def test_it_equals_an_index_of_the_adapted_model_up_to_float16(
    own_db: Path, indexed: Path, album: Path, adapter: Path, embedded: list[int], tmp_path: Path
) -> None:
    assert largest_difference(own_db, indexed) == 0
    before = open_table(str(own_db))
    build_index(db=str(own_db), adapter=adapter, device="cpu")
    assert embedded == [], "no image is embedded"
    assert largest_difference(own_db, indexed) > 0.01
    after = open_table(str(own_db))
    assert after.version == before.version + 1, "one commit"
    assert after.identity.fingerprint == models.load(adapter / "model").fingerprint
    assert after.identity.model == str((adapter / "model").absolute())
    assert after.schema.names == before.schema.names

    build_index(str(album), str(tmp_path / "new.lance"), model=str(adapter / "model"), thumbnails=24, device="cpu")
    assert largest_difference(own_db, tmp_path / "new.lance") < 1e-3
    rest = [name for name in after.schema.names if name != "vector"]
    tables = [open_table(str(db)).read(rest).drop_columns("_rowid") for db in (own_db, tmp_path / "new.lance")]
    assert tables[0].sort_by("id").equals(tables[1].sort_by("id"))
    # Afterwards it is an index of the adapted model like any.
    changes = build_index(str(album), str(own_db), device="cpu").changes
    assert changes is not None
    assert (changes.embedded, changes.kept) == (0, 36)


def test_there_and_back(own_db: Path, indexed: Path, adapter: Path, base: Path) -> None:
    build_index(db=str(own_db), adapter=adapter, device="cpu")
    version = open_table(str(own_db)).version
    build_index(db=str(own_db), adapter=adapter, device="cpu")
    assert open_table(str(own_db)).version == version, "done once"
    build_index(db=str(own_db), adapter=adapter, undo=True, device="cpu")
    identity = open_table(str(own_db)).identity
    assert (identity.fingerprint, identity.model) == (models.load(base).fingerprint, str(base))
    assert largest_difference(own_db, indexed) < 2e-3
    found = build_index(db=str(own_db), adapter=adapter, undo=True, device="cpu")
    assert len(found.index) == 36


@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_killed_and_started_again(ann: str, own_album: Path, base: Path, adapter: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed.lance", tmp_path / "killed.lance"
    for db in (undisturbed, killed):
        first = {"data": str(own_album), "db": str(db), "model": str(base), "ann": ann, "device": "cpu"}
        assert run("index", first) == 0
    arguments: dict[str, Any] = {"adapter": adapter, "ann": ann, "device": "cpu"}
    assert run("index", {**arguments, "db": str(undisturbed)}) == 0
    assert run_killed_over_and_over("index", {**arguments, "db": str(killed)}, 3) >= 2
    assert content(killed) == content(undisturbed)
    assert open_table(str(killed)).version == open_table(str(undisturbed)).version


def test_an_open_index_is_not_mixed_with_the_new_vectors(own_db: Path, adapter: Path) -> None:
    index = Index(own_db, device="cpu")
    name = next(iter(index.engine.table.read(["id"])["id"].to_pylist()))
    before = index.vector(name)
    build_index(db=str(own_db), adapter=adapter, device="cpu")
    assert np.array_equal(index.vector(name), before)
    with pytest.raises(McipError, match="made anew with another model"):
        index.refresh()


def test_an_index_of_another_model_is_refused(
    run_index: Callable[..., Index], adapter: Path, own_db: Path, tmp_path: Path
) -> None:
    db = run_index(model="toyshop").uri
    with pytest.raises(ArtefactError, match=r"was made with the model .*, not with"):
        build_index(db=db, adapter=adapter, device="cpu")
    with pytest.raises(ArtefactError, match="is not an artefact"):
        build_index(db=str(own_db), adapter=tmp_path, device="cpu")


def test_wrong_parameters(own_db: Path, album: Path, adapter: Path) -> None:
    with pytest.raises(ConfigError, match="name its folder with --adapter"):
        build_index(db=str(own_db), undo=True)
    several: tuple[dict[str, Any], ...] = ({"data": str(album)}, {"model": "toyshop"}, {"check": True})
    for wrong in several:
        with pytest.raises(ConfigError, match="leave the images, --model and --check out"):
            build_index(db=str(own_db), adapter=adapter, **wrong)


def test_a_matrix_that_has_no_good_inverse_is_not_undone(own_db: Path, adapter: Path) -> None:
    run = Adapter.open(adapter)
    run.matrix[:, 0] = 1e-4 * run.matrix[:, 0]
    run.change(open_table(str(own_db)))
    with pytest.raises(ArtefactError, match="condition number"):
        run.change(open_table(str(own_db)), undo=True)
