"""What the API offers for photographs: values to click on, filters by them, and collapsed results."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mcip.retrieval.index import open_index
from mcip.stages.index import index as build_index
from tests.data.dng import dng
from tests.images import file_bytes, noise_image
from tests.retrieval.test_photo_columns import photograph


@pytest.fixture(scope="module")
def album(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs in two folders, and a burst of four."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(12):
        folder = root / "photos" / ("Paris" if number < 8 else "Rome")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(photograph(number, f"2024:{number + 1:02}:15 12:00:00"))
    for quality in (90, 92, 94, 96):
        (root / "photos" / f"burst-{quality}.jpg").write_bytes(file_bytes(noise_image(99), "JPEG", quality=quality))
    build_index(str(root / "photos"), str(root / "t.lance"), model=str(base), device="cpu")
    return root / "t.lance"


def test_values_and_their_filters(album: Path, connect: Callable[..., TestClient]) -> None:
    client = connect(album)
    answer = client.get("/facets").json()
    found = {column["name"]: {one["value"]: one for one in column["values"]} for column in answer["columns"]}
    assert {value: one["count"] for value, one in found["folder"].items()} == {"Paris": 8, "Rome": 4}
    assert {value: one["count"] for value, one in found["camera"].items()} == {
        "Canon EOS R5": 4, "Canon EOS 90D": 4, "ILCE-7M3": 4,
    }  # fmt: skip
    assert answer["dates"] == [{"name": "taken", "first": "2024-01-15", "last": "2024-12-15"}]
    assert answer["version"] == client.get("/about").json()["version"]
    for values in found.values():
        for one in values.values():
            hits = client.get("/search", params={"where": one["where"], "k": 50}).json()["hits"]
            assert len(hits) == one["count"]
    assert "path" not in found


@pytest.mark.parametrize(
    "where",
    [
        "taken >= '2024-06-01' and camera like 'Canon%'",
        "taken BETWEEN '2024-03-15' AND '2024-03-15T12:00:00'",
        "taken < '2024-02-01' OR rating IS NOT NULL",
        "NOT (camera = 'ILCE-7M3') AND taken_offset = '+02:00'",
        "array_has(keywords, 'x') OR latitude > 1.5",
    ],
)
def test_a_filter_means_the_same_everywhere(where: str, album: Path, connect: Callable[..., TestClient]) -> None:
    index = open_index(album, device="cpu")
    answer = connect(album).get("/search", params={"where": where, "k": 50}).json()
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in index.browse(50, where=where)]


def test_collapsed_results(album: Path, connect: Callable[..., TestClient]) -> None:
    client = connect(album)
    index = open_index(album, device="cpu")
    names = [f"burst-{quality}.jpg" for quality in (90, 92, 94, 96)]
    least = min(float(index.vector(one) @ index.vector(other)) for one in names for other in names) - 1e-3
    query: dict[str, str | float] = {"id": names[0], "k": 5, "collapse": least}
    first = client.get("/search", params=query).json()
    groups = [{hit["id"], *(other["id"] for other in hit["others"])} for hit in first["hits"]]
    assert set(names) <= groups[0]
    assert first["hits"][0]["others"][0]["metadata"]["folder"] == "."
    second = client.get("/search", params={**query, "offset": first["next_offset"] or 5}).json()
    members = [one for group in groups for one in group]
    assert len(set(members)) == len(members)
    assert not set(members) & {hit["id"] for hit in second["hits"]}
    everything = client.get("/search", params={"k": 50, "collapse": least}).json()["hits"]
    assert sum(1 + len(hit["others"]) for hit in everything) == 16
    plain = client.get("/search", params={"id": names[0], "k": 5}).json()["hits"]
    assert [hit["others"] for hit in plain] == [[]] * 5
    for wrong in (-1, 1.5, "x"):
        assert client.get("/search", params={"collapse": wrong}).status_code == 422


def test_files_that_pillow_alone_cannot_tell_are_opened(tmp_path: Path) -> None:
    for package in ("pillow_heif", "pillow_jxl", "rawpy"):
        pytest.importorskip(package)
    importlib.import_module("pillow_heif").register_heif_opener()
    files = {f"1.{kind.lower()}": file_bytes(noise_image(1), kind) for kind in ("HEIF", "JXL")}
    files["1.dng"] = dng(np.full((48, 64, 3), 128, np.uint8))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    # In a process that has decoded no such file yet, as a server is.
    code = (
        "import hashlib, pathlib, sys\n"
        "from mcip.server.files import IndexedFile\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    content = path.read_bytes()\n"
        "    file = IndexedFile(str(path), hashlib.sha256(content).hexdigest()).open(10**6)\n"
        "    assert file.read(0, file.size) == content\n"
        "    print(file.media_type)\n"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["image/heif", "image/jxl", "image/x-dcraw"], done.stderr
