"""Queries: by image, text, both, negatives, filters; what they return and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mcip
from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, DataError, ModelError, UnreadableImage
from mcip.data import decode
from mcip.data.photo_metadata import PHOTO_COLUMNS
from mcip.retrieval.ann.cache import derived_folder
from mcip.retrieval.index import Index
from mcip.retrieval.results import Results
from tests.tiny import CONFIG

from .conftest import cosines

Run = Callable[..., Index]


def ids(results: Results) -> list[str]:
    return [hit.id for hit in results]


def test_by_image(index: Index, album: Path, names: list[str]) -> None:
    path = album / names[7]
    found = index.search(image=path, k=5)
    expected = cosines(index, index.encode_images([decode(path)])[0], names)
    assert found[0].id == names[7]
    assert ids(found) == sorted(names, key=lambda name: -expected[name])[:5]
    for hit in found:
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-3)
        assert (hit.path, hit.width, hit.height) == (str(album / hit.id), 64, 64)
        assert hit.metadata == {**dict.fromkeys(PHOTO_COLUMNS.names), "folder": str(Path(hit.id).parent)}
    assert ids(index.search(image=decode(path), k=5)) == ids(found)
    assert ids(index.search(image=str(path), k=5)) == ids(found)
    assert ids(index.search(image=path.as_uri(), k=5)) == ids(found)
    assert ids(index.search(image="id:" + names[7], k=5)) == ids(found)


def test_by_text(index: Index, names: list[str]) -> None:
    expected = cosines(index, index.encode_texts(["a red mug"])[0], names)
    found = index.search(text="a red mug", k=100)
    assert ids(found) == sorted(names, key=lambda name: -expected[name])
    assert [hit.score for hit in found] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-3)


def test_by_vectors(index: Index, names: list[str]) -> None:
    vectors = np.stack([index.vector(name) for name in names])
    one_by_one = [index.search(image="id:" + name, k=3) for name in names]
    together = index.search_vectors(vectors, "image", 3)
    assert [ids(found) for found in together] == [ids(found) for found in one_by_one]
    assert [ids(found) for found in index.search_vectors(vectors[:1], "image", 3)] == [ids(one_by_one[0])]
    with pytest.raises(ConfigError, match=r"have shape \(16,\), but those of .* have 16 dimensions"):
        index.search_vectors(vectors[0], "image")


def test_pages_fit_together(index: Index) -> None:
    whole = index.search(text="blue", k=36)
    pages = [index.search(text="blue", k=10, offset=offset) for offset in range(0, 50, 10)]
    assert [len(page) for page in pages] == [10, 10, 10, 6, 0]
    assert [hit for page in pages for hit in page] == list(whole)


def test_filters(index: Index, names: list[str]) -> None:
    found = index.search(text="blue", where="folder = 'a/b' AND width >= 64", k=100)
    assert sorted(ids(found)) == [name for name in names if name.startswith("a/b/")]
    whole = [hit for hit in index.search(text="blue", k=100) if hit.metadata["folder"] == "a/b"]
    assert list(found) == whole
    assert ids(index.search(text="blue", where="folder = 'nowhere'")) == []
    assert len(index.search(text="blue", where=" ")) == 10
    for where in ("folder = ", "foldr = 'a'", "folder", "1; DROP TABLE x"):
        with pytest.raises(ConfigError, match=r"The filter is wrong at character \d+: "):
            index.search(text="blue", where=where)


def test_similar_leaves_the_image_itself_out(index: Index, names: list[str]) -> None:
    found = index.similar(names[3], k=4)
    assert ids(found) == ids(index.search(image="id:" + names[3], k=5))[1:]
    assert ids(index.similar(names[3], k=4, where="folder = 'a'")) != ids(found)
    for ask in (index.similar, index.row, index.image_file, index.thumbnail, index.vector):
        with pytest.raises(DataError, match=r"holds no image with the id \"it's gone\""):
            ask("it's gone")


def test_rows_images_and_thumbnails(index: Index, album: Path, names: list[str]) -> None:
    row = index.row(names[0])
    assert row == {
        "id": names[0], "path": str(album / names[0]), "width": 64, "height": 64, "folder": str(Path(names[0]).parent),
        **dict.fromkeys(PHOTO_COLUMNS.names),
    }  # fmt: skip
    assert index.columns == list(row)
    assert index.image_file(names[0]) == ((album / names[0]).read_bytes(), "image/jpeg")
    small = index.thumbnail(names[0])
    assert small is not None
    assert max(decode(small).size) == 24


def test_only_what_was_indexed_is_given_out(run_index: Run, own_album: Path) -> None:
    index = run_index()
    first, second = sorted(own_album.glob("*.jpg"))[:2]
    first.write_bytes(second.read_bytes())
    second.unlink()
    with pytest.raises(UnreadableImage, match="has changed since it was indexed: run `mcip index` again"):
        index.image_file(first.name)
    with pytest.raises(UnreadableImage, match="no file"):
        index.image_file(second.name)
    assert index.thumbnail(first.name) is None


def test_reranking(index: Index) -> None:
    def by_name(hits: Any) -> list[float]:
        assert len(hits) == 36
        return [float(sum(map(ord, hit.id))) for hit in hits]

    found = index.search(text="blue", k=3, rerank=by_name)
    everything = index.search(text="blue", k=36)
    expected = sorted(everything, key=lambda hit: -float(sum(map(ord, hit.id))))
    assert ids(found) == [hit.id for hit in expected[:3]]
    assert found[0].score == float(sum(map(ord, found[0].id)))
    with pytest.raises(ConfigError, match="gave 1 scores for 36 hits"):
        index.search(text="blue", rerank=lambda hits: [1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to look for: give an image or a text.$"),
        ({"negative": ["striped"]}, "Negatives alone only say what not to find"),
        ({"text": "a", "k": 0}, "k is 0"),
        ({"text": "a", "offset": -1}, "offset -1"),
        ({"text": ["a", "b"], "weights": [1]}, "1 weights for 0 images and 2 texts"),
        ({"text": "a", "weights": [-1]}, "must be 0 or more"),
        ({"text": "a", "weights": [0]}, "one of them above 0"),
        ({"text": "a", "weights": [float("nan")]}, "must be 0 or more"),
    ],
)
def test_bad_queries(arguments: dict[str, Any], message: str, index: Index) -> None:
    with pytest.raises(ConfigError, match=message):
        index.search(**arguments)


def test_bad_images(index: Index, album: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"no file .*gone\.jpg"):
        index.search(image=album / "gone.jpg")
    with pytest.raises(UnreadableImage, match="not an image"):
        index.search(image=album / "notes.md")
    with pytest.raises(DataError, match="no image with the id 'gone'"):
        index.search(image="id:gone")


def test_another_model_is_refused(indexed: Path, base: Path, tmp_path: Path, tiny_config: dict[str, Any]) -> None:
    other = models.save(models.from_config(tiny_config), tmp_path / "other")
    with pytest.raises(ModelError, match=r"was made with the model .*base, whose weights are not those of .*other"):
        mcip.open_index(indexed, str(other))
    assert mcip.open_index(indexed, models.load(base)).search(text="a")
    assert mcip.open_index(indexed).fingerprint == models.load(base).fingerprint


def test_a_model_that_is_gone(own_album: Path, tmp_path: Path) -> None:
    folder = models.save(models.from_config(CONFIG, seed=3), tmp_path / "m")
    mcip.index(str(own_album), str(tmp_path / "p.lance"), model=str(folder), device="cpu")
    folder.rename(tmp_path / "n")
    index = mcip.open_index(tmp_path / "p.lance", device="cpu")
    name = sorted(own_album.glob("*.jpg"))[0].name
    assert index.similar(name)
    with pytest.raises(ModelError, match=r"which cannot be loaded.*Say where it is now with --model"):
        index.search(text="a")
    assert mcip.open_index(tmp_path / "p.lance", tmp_path / "n", "cpu").search(text="a")


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"There is nothing at this place.*mcip index FOLDER --model MODEL --db"):
        mcip.open_index(tmp_path / "nowhere.lance")
    assert list(tmp_path.iterdir()) == []


def test_a_new_version_is_picked_up(run_index: Run, own_album: Path) -> None:
    index = run_index()
    assert not index.refresh()
    Image.new("RGB", (20, 20), "green").save(own_album / "new.png")
    run_index()
    assert len(index.search(text="a", where="width = 20")) == 0
    assert index.refresh()
    assert ids(index.search(text="a", where="width = 20")) == ["new.png"]
    assert index.image_file("new.png")[1] == "image/png"


def test_stages_are_cheap_to_import() -> None:
    code = "import sys, mcip.stages.search, mcip.stages.duplicates; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "pyarrow", "PIL", "lance", "rich", "pandas"} & set(modules)


ODD_IDS = ("a\nb.png", "a'b.png", 'a"b.png', "a\\b.png", "a%_b.png", "a\tb.png", "--x.png", "\u202eb.png", "a`b#1.png")


def test_ids_with_odd_characters(run_index: Run, own_album: Path) -> None:
    for number, name in enumerate(ODD_IDS):
        Image.new("RGB", (20 + number, 20), (number * 20, 0, 0)).save(own_album / name)
    index = run_index()
    for number, name in enumerate(ODD_IDS):
        assert index.row(name)["width"] == 20 + number
        assert index.image_file(name)[1] == "image/png"
        vector = index.vector(name)
        assert np.linalg.norm(vector) == pytest.approx(1)
        assert name not in ids(index.similar(name, 50))
        assert name in ids(index.search(image="id:" + name, k=len(ODD_IDS)))
        assert index.thumbnail(name) is None
    for missing in ("a\x00b", "\udcff.png", "' OR 1=1 --", ""):
        with pytest.raises(DataError, match="holds no image with the id"):
            index.row(missing)


def test_one_snapshot_answers_from_one_version(run_index: Run, own_album: Path) -> None:
    index = run_index()
    snapshot = index.snapshot()
    before = index.search(text="a", k=100)
    Image.new("RGB", (20, 20), "green").save(own_album / "new.png")
    gone = sorted(own_album.glob("*.jpg"))[0]
    gone.unlink()
    run_index()
    assert index.refresh()
    after = index.search(text="a", k=100)
    assert (before.version, after.version) == (snapshot.version, index.engine.table.version)
    assert snapshot.version < index.engine.table.version
    assert snapshot.search_parts(index.parts(text="a"), k=100) == before
    assert snapshot.row(gone.name)["width"] == 64
    assert len(snapshot.vector(gone.name)) == 16
    with pytest.raises(DataError, match="no image with the id 'new"):
        snapshot.row("new.png")
    assert index.row("new.png")["width"] == 20
    assert {len(snapshot), len(before)} == {36}


def test_a_query_takes_one_snapshot(index: Index, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a refresh does while a query is answered, all of its parts come from one version."""
    expected = [index.search(image="id:" + names[0], text="blue", k=5), index.similar(names[0], 5)]
    first, taken = index.snapshot(), list[object]()

    class Watched(Index):
        def __getattribute__(self, name: str) -> object:
            if name == "_snapshot":
                taken.append(first)
            return super().__getattribute__(name)

    monkeypatch.setattr(index, "__class__", Watched)
    asks: list[Callable[[], object]] = [
        lambda: index.search(image="id:" + names[0], text="blue", k=5), lambda: index.similar(names[0], 5),
        lambda: index.browse(3), lambda: index.row(names[0]), lambda: index.vector(names[0]),
        lambda: index.image_file(names[0]), lambda: index.thumbnail(names[0]), lambda: index.columns,
        lambda: index.parts(image="id:" + names[0]), lambda: len(index), lambda: index.engine,
    ]  # fmt: skip
    for ask in asks:
        taken.clear()
        ask()
        assert len(taken) == 1
    assert [asks[0](), asks[1]()] == expected


def test_the_model_is_checked_once(indexed: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(indexed, models.load(base))

    def fail(model: models.Model) -> str:
        raise AssertionError("The weights are hashed again.")

    monkeypatch.setattr(models.Model, "fingerprint", property(fail))
    for _ in range(3):
        assert index.search(text="blue", negative="striped")


def test_no_model_is_needed_for_ids(
    index: Index, names: list[str], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", None)
    assert derived_folder(str(indexed)).is_dir()
    assert index.search(image="id:" + names[0])
