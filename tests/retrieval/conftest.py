"""A folder of images, and an index of it that tests may read but not change."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcip import models
from mcip.retrieval.index import Index
from mcip.stages.index import index as build_index
from mcip.toyshop.tables import Slice, draw_product
from tests.retrieval.milvus_server import Server, faiss_of_numpy

PART = Slice("toys", stream=103, products=12, images=3)


@pytest.fixture(autouse=True)
def same_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions around rows at even distances: Lance draws them at random, and a test would fail once in a while."""
    import lance

    create = lance.LanceDataset.create_index

    def create_index(self: lance.LanceDataset, column: str, index_type: str, **options: Any) -> Any:
        if index_type.startswith("IVF"):
            vectors = self.to_table(columns=[column])[column].combine_chunks()
            rows = np.linspace(0, len(vectors) - 1, options["num_partitions"]).astype(np.int64)
            options["ivf_centroids"] = np.stack([vectors[row].values.to_numpy() for row in rows.tolist()])
        return create(self, column, index_type, **options)

    monkeypatch.setattr(lance.LanceDataset, "create_index", create_index)


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images in folders of three levels, and a file that is none."""
    root = tmp_path_factory.mktemp("album") / "photos"
    for number in range(PART.products):
        for row in draw_product(PART, number):
            folder = root if number % 3 == 0 else root / "a" if number % 3 == 1 else root / "a" / "b"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row['id']}.jpg").write_bytes(row["image"]["bytes"])
    (root / "notes.md").write_text("no image")
    return root


@pytest.fixture(scope="session")
def indexed(album: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of `album`."""
    db = tmp_path_factory.mktemp("indexed") / "photos.lance"
    build_index(str(album), str(db), model=str(base), thumbnails=24, device="cpu")
    return db


@pytest.fixture
def index(indexed: Path) -> Index:
    return Index(indexed, device="cpu")


@pytest.fixture
def own_album(album: Path, tmp_path: Path) -> Path:
    """A copy of `album` that a test may change."""
    return shutil.copytree(album, tmp_path / "photos")


@pytest.fixture
def run_index(own_album: Path, base: Path, tmp_path: Path) -> Callable[..., Index]:
    """Index `own_album` with the base model, and open it."""

    def run(**parameters: object) -> Index:
        arguments = {"model": str(base), "device": "cpu", "shard_rows": 10, "batch_size": 4, **parameters}
        build_index(str(own_album), str(tmp_path / "photos.lance"), **arguments)  # type: ignore[arg-type]
        return Index(tmp_path / "photos.lance", device="cpu")

    return run


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the model embedded."""
    sizes: list[int] = []
    encode = models.Model.embed_pixels

    def spy(self: models.Model, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(models.Model, "embed_pixels", spy)
    return sizes


@pytest.fixture
def names(index: Index) -> list[str]:
    return sorted(index.engine.table.read(["id"])["id"].to_pylist())


def cosines(index: Index, query: np.ndarray[Any, Any], names: list[str]) -> dict[str, float]:
    """The cosine of a query to every image, one by one."""
    return {name: float(sum(a * b for a, b in zip(query, index.vector(name), strict=True))) for name in names}


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of Milvus on this machine, which tests may kill and start again."""
    server = Server(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["server", "lite"])
def milvus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where Milvus is: the server, or the file of milvus-lite."""
    if request.param == "lite":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
        with faiss_of_numpy():
            yield str(tmp_path / "vectors.db")
    else:
        server: Server = request.getfixturevalue("milvus_server")
        yield server.uri


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto_server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'mcip[dev]'")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the server, which has the images of `album` in one bucket and nothing in another one."""
    settings = {
        "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'mcip[dev]'")
    client = boto3.client("s3", endpoint_url=endpoint)
    for bucket in ("images", "indexes"):
        client.create_bucket(Bucket=bucket)
    for path in album.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="images", Key=f"photos/{path.relative_to(album)}", Body=path.read_bytes())
    yield client
    for bucket in ("images", "indexes"):
        for found in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=found["Key"])
        client.delete_bucket(Bucket=bucket)
