"""Tasks: what a table allows, what is refused, and the embeddings of class names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mcip import models
from mcip.core.errors import ConfigError, DataError
from mcip.data import read_table
from mcip.evaluation.encoders import class_embeddings
from mcip.evaluation.own_tasks import own_tasks, why_not_class_names
from mcip.evaluation.suites import read_suite
from mcip.evaluation.tasks import task_from
from mcip.stages.evaluate import evaluate


def write_suite(path: Path, *tasks: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(list(tasks)))
    return str(path)


def test_class_embeddings_are_the_mean_over_templates(base: Path) -> None:
    model = models.load(base)
    found = class_embeddings(model, ["red_mug", "star"], ("a {}", "the {}!"))
    expected = model.encode(["a red mug", "the red mug!"], convert_to_tensor=True).mean(0)
    np.testing.assert_allclose(found[0], (expected / expected.norm()).numpy(), atol=1e-5)
    assert found.shape == (2, 16)


def test_equal_class_names_have_equal_embeddings(base: Path) -> None:
    names = ["star", *(f"thing {number}" for number in range(9)), "red_mug", "star", "red mug"]
    found = class_embeddings(models.load(base), names, ("a {}", "the {}!", "{}"), batch_size=8)
    assert found.shape == (13, 16)
    np.testing.assert_array_equal(found[[0, 10]], found[[11, 12]])
    assert len(np.unique(found, axis=0)) == 11


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([f"product {n % 101}" for n in range(303)], "there are 101 labels, more than 100"),
        ([f"product {n}" for n in range(40)], "most labels have one image only"),
        (["cup", "Aramis Men Classic EDT Perfume 110 ml"] * 3, "'Aramis Men .*' has more than 6 words"),
        (["cup", "11319"] * 3, "the label '11319' is not a word"),
        (["cup", "Red cockaded Woodpecker"] * 3, None),
    ],
)
def test_labels_that_name_products_are_no_classes(labels: list[str], reason: str | None) -> None:
    found = why_not_class_names(labels)
    assert found is None if reason is None else re.search(reason, found or "")


def test_own_tasks_are_what_the_table_allows(val: Path, tmp_path: Path) -> None:
    rows = pq.read_table(val).to_pylist()

    def kinds(name: str, **change: Any) -> list[str]:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist([{**row, **change} for row in rows], pq.read_schema(val)), path)
        return [task.kind for task in own_tasks(read_table(path), str(path))[0]]

    assert kinds("labels", captions=[]) == ["i2i", "zero-shot"]
    assert kinds("captions", label=None) == ["t2i", "i2t"]
    assert kinds("one class", captions=[], label="one") == ["i2i"]
    with pytest.raises(DataError, match="neither labels nor captions"):
        kinds("nothing", captions=[], label=None)


GOOD = {"name": "a", "kind": "i2i", "data": "x"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**GOOD, "spilt": "test"}, r"suite, task 1: unknown key 'spilt'; did you mean 'split'\?"),
        ({**GOOD, "zzz": 1}, "unknown key 'zzz'; there are name, kind"),
        ({"name": "a", "kind": "i2i"}, "data missing"),
        ({**GOOD, "kind": "i2x"}, "kind is 'i2x': it is one of i2i, knn"),
        ({**GOOD, "kind": "knn"}, "k-NN needs index_split or index_data"),
        ({**GOOD, "templates": ["a photo"]}, "every template needs a {}"),
        ({**GOOD, "templates": "a {}"}, "templates is 'a {}', not of the type list"),
        ({**GOOD, "exclude_self": "no"}, "exclude_self is 'no', not of the type bool"),
        ({**GOOD, "name": 7}, "name is 7, not of the type str"),
        ({**GOOD, "limit": 0}, "limit is 0; it is at least 1"),
        ({**GOOD, "name": " "}, "A task has no name"),
        ({**GOOD, "transform": "papers"}, "transform is 'papers': it is one of model, paper"),
        ({**GOOD, "preset": "papers"}, "preset is 'papers': it is one of paper, standard"),
        ({**GOOD, "index_data": "y"}, "index_split and index_data are of k-NN, not of i2i"),
    ],
)
def test_wrong_tasks(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_from(entry, "suite, task 1")


def test_an_unknown_metric_is_named_with_those_there_are(val: Path, base: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "s.yaml", {**GOOD, "data": str(val), "metric": "mpa"})
    with pytest.raises(ConfigError, match="Task 'a': there is no metric 'mpa'; there are map, "):
        evaluate([f"base={base}"], tmp_path / "out", suite=str(suite))


def test_wrong_suites(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the suite"):
        read_suite(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="two tasks with the name 'a'"):
        read_suite(write_suite(tmp_path / "twice.yaml", GOOD, GOOD))
    (tmp_path / "no list.yaml").write_text("name: a")
    with pytest.raises(ConfigError, match="must be a list of tasks"):
        read_suite(tmp_path / "no list.yaml")
    (tmp_path / "broken.yaml").write_text("- {")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_suite(tmp_path / "broken.yaml")
