"""Queries: by picture, text, both, negatives, filters; what they return and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mcip
from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, DataError, ModelError, UnreadableImage
from mcip.data import decode
from mcip.retrieval.ann.cache import derived_folder
from mcip.retrieval.index import Index
from mcip.retrieval.results import Hit, Results
from mcip.stages.search import search
from tests.tiny import CONFIG

from .conftest import cosines

Run = Callable[..., Index]


def ids(results: Results) -> list[str]:
    return [hit.id for hit in results]


def test_by_picture(index: Index, album: Path, names: list[str]) -> None:
    path = album / names[7]
    found = index.search(image=path, k=5)
    wanted = cosines(index, index.encode_images([decode(path)])[0], names)
    assert found[0].id == names[7]
    assert ids(found) == sorted(names, key=lambda name: -wanted[name])[:5]
    for hit in found:
        assert hit.score == pytest.approx(wanted[hit.id], abs=1e-3)
        assert (hit.path, hit.width, hit.height) == (str(album / hit.id), 64, 64)
        assert hit.metadata == {"folder": str(Path(hit.id).parent)}
    assert ids(index.search(image=decode(path), k=5)) == ids(found)
    assert ids(index.search(image=str(path), k=5)) == ids(found)
    assert ids(index.search(image=path.as_uri(), k=5)) == ids(found)
    assert ids(index.search(image="id:" + names[7], k=5)) == ids(found)


def test_by_text(index: Index, names: list[str]) -> None:
    wanted = cosines(index, index.encode_texts(["a red mug"])[0], names)
    found = index.search(text="a red mug", k=100)
    assert ids(found) == sorted(names, key=lambda name: -wanted[name])
    assert [hit.score for hit in found] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-3)


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


def test_similar_leaves_the_picture_itself_out(index: Index, names: list[str]) -> None:
    found = index.similar(names[3], k=4)
    assert ids(found) == ids(index.search(image="id:" + names[3], k=5))[1:]
    assert ids(index.similar(names[3], k=4, where="folder = 'a'")) != ids(found)
    for ask in (index.similar, index.row, index.picture, index.thumbnail, index.vector):
        with pytest.raises(DataError, match=r"holds no picture with the id \"it's gone\""):
            ask("it's gone")


def test_rows_pictures_and_thumbnails(index: Index, album: Path, names: list[str]) -> None:
    row = index.row(names[0])
    assert row == {
        "id": names[0], "path": str(album / names[0]), "width": 64, "height": 64, "folder": str(Path(names[0]).parent),
    }  # fmt: skip
    assert index.columns == list(row)
    assert index.picture(names[0]) == ((album / names[0]).read_bytes(), "image/jpeg")
    small = index.thumbnail(names[0])
    assert small is not None
    assert max(decode(small).size) == 24


def test_only_what_was_indexed_is_given_out(run_index: Run, own_album: Path) -> None:
    index = run_index()
    first, second = sorted(own_album.glob("*.jpg"))[:2]
    first.write_bytes(second.read_bytes())
    second.unlink()
    with pytest.raises(UnreadableImage, match="has changed since it was indexed: run `mcip index` again"):
        index.picture(first.name)
    with pytest.raises(UnreadableImage, match="no file"):
        index.picture(second.name)
    assert index.thumbnail(first.name) is None


def test_reranking(index: Index) -> None:
    def by_name(hits: Any) -> list[float]:
        assert len(hits) == 36
        return [float(sum(map(ord, hit.id))) for hit in hits]

    found = index.search(text="blue", k=3, rerank=by_name)
    everything = index.search(text="blue", k=36)
    wanted = sorted(everything, key=lambda hit: -float(sum(map(ord, hit.id))))
    assert ids(found) == [hit.id for hit in wanted[:3]]
    assert found[0].score == float(sum(map(ord, found[0].id)))
    with pytest.raises(ConfigError, match="gave 1 scores for 36 hits"):
        index.search(text="blue", rerank=lambda hits: [1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to look for: give a picture or a text.$"),
        ({"negative": ["striped"]}, "Negatives alone only say what not to find"),
        ({"text": "a", "k": 0}, "k is 0"),
        ({"text": "a", "offset": -1}, "offset -1"),
        ({"text": ["a", "b"], "weights": [1]}, "1 weights for 0 pictures and 2 texts"),
        ({"text": "a", "weights": [-1]}, "must be 0 or more"),
        ({"text": "a", "weights": [0]}, "one of them above 0"),
        ({"text": "a", "weights": [float("nan")]}, "must be 0 or more"),
    ],
)
def test_bad_questions(arguments: dict[str, Any], message: str, index: Index) -> None:
    with pytest.raises(ConfigError, match=message):
        index.search(**arguments)


def test_bad_pictures(index: Index, album: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"no file .*gone\.jpg"):
        index.search(image=album / "gone.jpg")
    with pytest.raises(UnreadableImage, match="not an image"):
        index.search(image=album / "notes.md")
    with pytest.raises(DataError, match="no picture with the id 'gone'"):
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
    with pytest.raises(ArtefactError, match=r"There is nothing at this place.*mcip index PHOTOS --model MODEL --db"):
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
    assert index.picture("new.png")[1] == "image/png"


def test_results_are_frozen_and_json() -> None:
    hit = Hit("a", 0.5, "a.jpg", 1, 2, {"when": np.datetime64("2020-01-02"), "price": float("nan"), "tags": ("x",)})
    results = Results((hit,))
    with pytest.raises(FrozenInstanceError):
        hit.score = 1  # type: ignore[misc]
    told = json.loads(json.dumps(results.as_dict(), allow_nan=False))
    assert told == {
        "hits": [
            {
                "id": "a", "score": 0.5, "path": "a.jpg", "width": 1, "height": 2,
                "metadata": {"when": "2020-01-02", "price": None, "tags": ["x"]},
            }
        ]
    }  # fmt: skip
    assert results[0] is hit
    assert results[:1] == (hit,)
    assert len(results) == 1


def test_command_outputs(indexed: Path, album: Path, index: Index, tmp_path: Path, names: list[str]) -> None:
    path, db = str(album / names[0]), str(indexed)
    wanted = index.search(image=path, text="blue", k=3)
    told = json.loads(str(search(db, ["blue", path], k=3, output="json", device="cpu")))
    assert told == json.loads(json.dumps(wanted.as_dict()))
    paths = str(search(db, image=[path], text=["blue"], k=3, output="paths", device="cpu"))
    assert paths.splitlines() == [hit.path for hit in wanted]
    table = str(search(db, [path], k=3, device="cpu"))
    assert all(word in table for word in ("score", names[0], "64 x 64", "1.000"))
    sheet = search(db, ["blue"], k=7, output="sheet", out=tmp_path / "s.png", device="cpu")
    with Image.open(sheet) as picture:
        assert (picture.format, picture.size) == ("PNG", (8 + 5 * 200, 8 + 2 * 232))
        colours = {picture.getpixel((8 + 96 + 200 * n, 8 + 96)) for n in range(5)}
    assert (255, 255, 255) not in colours
    with pytest.raises(ConfigError, match="is no name for a picture"):
        search(db, ["blue"], output="sheet", out=tmp_path / "s.txt", device="cpu")


def test_no_model_is_needed_for_ids(
    index: Index, names: list[str], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", None)
    assert derived_folder(str(indexed)).is_dir()
    assert index.search(image="id:" + names[0])
