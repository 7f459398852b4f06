"""`mcip duplicates`: groups are the connected components of the pairs above the threshold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError
from mcip.retrieval.index import Index
from mcip.retrieval.near_duplicates import duplicate_groups
from mcip.stages.duplicates import duplicates

Run = Callable[..., Index]


def naive_groups(index: Index, threshold: float) -> list[list[str]]:
    """Every pair compared, and groups grown from one picture to the next."""
    names = index.engine.table.read(["id"])["id"].to_pylist()
    vectors = {name: index.vector(name) for name in names}
    near = {one: {o for o in names if o != one and float(vectors[one] @ vectors[o]) >= threshold} for one in names}
    groups, seen = [], set[str]()
    for name in names:
        group, todo = set[str](), [name]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                group.add(one)
                todo += near[one]
        if len(group) > 1:
            groups.append(sorted(group))
    return sorted(groups)


@pytest.mark.parametrize("ann", ["exact", "graph"])
@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_groups_are_connected_components(ann: str, quantile: float, index: Index) -> None:
    names = index.engine.table.read(["id"])["id"].to_pylist()
    vectors = np.stack([index.vector(name) for name in names])
    cosines = np.sort((vectors @ vectors.T)[~np.eye(len(names), dtype=bool)])
    at = int(quantile * len(cosines))
    # Between two cosines that are apart, so that rounding decides nothing.
    gap = at + int(np.argmax(np.diff(cosines[at : at + 8])))
    threshold = float((cosines[gap] + cosines[gap + 1]) / 2)
    found = duplicate_groups(index.engine, threshold, neighbours=35)
    table = index.engine.row_ids
    ids = {slot: index.hits([slot])[0].id for slot in range(len(table))}
    assert sorted(sorted(ids[slot] for slot in group.slots) for group in found) == naive_groups(index, threshold)
    for group in found:
        for one, other, cosine in group.pairs:
            assert one < other
            assert cosine == pytest.approx(float(index.vector(ids[one]) @ index.vector(ids[other])), abs=1e-3)
    assert [len(group.slots) for group in found] == sorted((len(group.slots) for group in found), reverse=True)


def test_copies_are_found_and_shown(
    run_index: Run, own_album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(own_album.glob("*.jpg"))[:2]
    for number in range(3):
        shutil.copy(first, own_album / f"copy-{number}.jpg")
    shutil.copy(second, own_album / "<b>.jpg")
    index = run_index()
    index.engine.table.delete(["copy-0.jpg"])
    (own_album / "copy-1.jpg").unlink()
    monkeypatch.setattr(models, "load", None)
    page = duplicates(index.uri, tmp_path / "out", threshold=1.0, shown=1)
    told = json.loads((tmp_path / "out" / "duplicates.json").read_text())
    assert told["pictures"] == 39
    assert [sorted(one["id"] for one in group["pictures"]) for group in told["groups"]] == [
        sorted([first.name, "copy-1.jpg", "copy-2.jpg"]),
        sorted([second.name, "<b>.jpg"]),
    ]
    assert {pair["cosine"] for group in told["groups"] for pair in group["pairs"]} == {1.0}
    html = page.read_text()
    assert "2 groups of near-duplicates" in html
    assert "The 1 largest groups are shown" in html
    assert html.count("data:image/jpeg;base64,") == 2
    assert html.count("image cannot be read") == 1
    assert "http" not in html.replace("http-equiv", "")
    page = duplicates(index.uri, tmp_path / "out", threshold=1.0)
    assert "&lt;b&gt;.jpg" in page.read_text()
    assert "<b>.jpg" not in page.read_text()


def test_what_is_refused(index: Index, tmp_path: Path) -> None:
    for threshold, neighbours in ((1.5, 3), (-1.0, 3), (0.9, 0)):
        with pytest.raises(ConfigError, match="threshold is"):
            duplicates(index.uri, tmp_path / "out", threshold=threshold, neighbours=neighbours)
    with pytest.raises(ArtefactError, match="is no index"):
        duplicates(str(tmp_path / "none"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
