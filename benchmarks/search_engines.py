"""The sides of `benchmarks/search.py`: mcip, and the libraries that it is compared with, on the same vectors."""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

import lance
import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
from PIL import Image
from search_graphs import RaBitQ, RaBitQ4, RaBitQ8, SymphonyQg, Usearch, UsearchI8
from search_vectors import BLOCK, WIDTHS, Found, K, Queries, Vectors

from mcip.retrieval.ann import engine as ann_engine
from mcip.retrieval.ann import hnsw
from mcip.retrieval.ann.hnsw import CONNECTIVITY, EXPANSION_ADD
from mcip.retrieval.ann.lance_disk import partitions
from mcip.retrieval.encoder import Encoder
from mcip.retrieval.identity import Identity
from mcip.retrieval.index import Index
from mcip.retrieval.milvus.load import load
from mcip.retrieval.table import create_table, open_table, schema_of
from mcip.retrieval.vector_column import vectors_array

PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
REFINE = 20  # candidates that are compared with full vectors, for each neighbour, where vectors are compressed
IMAGE = Image.new("RGB", (1, 1))

faiss: Any = importlib.import_module("faiss")


class Engine(Protocol):
    """One side. `prepare` and `build` run in one process, the searches in another one."""

    @property
    def widths(self) -> tuple[int, ...]: ...
    def prepare(self, vectors: Vectors) -> None:
        """What comes before an index: the vectors in the library's own files."""

    def build(self, vectors: Vectors, texts: Queries) -> None:
        """Build the index; only mcip looks at the sample of text queries, to calibrate itself."""

    def open(self) -> None: ...
    def search(self, query: Queries, kind: str, width: int) -> Found:
        """The numbers of the ten vectors nearest to a query (D,)."""


class LookedUp(Encoder):
    """A model whose embeddings are there already: all of `Index.search` is measured but the forward pass."""

    def __init__(self, query: Queries) -> None:
        self.query = query[None]

    def images(self, images: Any) -> Queries:
        return self.query

    def texts(self, texts: Any) -> Queries:
        return self.query


def timed(owner: Any, name: str) -> list[float]:
    """Replace a function by the same one that appends the seconds of each call to the list that is returned."""
    seconds: list[float] = []
    function = getattr(owner, name)

    def measured(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
        return result

    setattr(owner, name, measured)
    return seconds


class Mcip:
    """`Index.search`, by the method and the widths that it chooses itself."""

    widths = (0,)

    def __init__(self, folder: Path) -> None:
        self.uri = str(folder / "photos.lance")

    def prepare(self, vectors: Vectors) -> None:
        identity = Identity.new(model="none", fingerprint="none", dim=vectors.shape[1], transform="model", thumbnails=0)
        table = create_table(self.uri, schema_of(identity, pa.schema([("label", pa.string())])))
        for start in range(0, len(vectors), 16 * BLOCK):
            part = vectors[start : start + 16 * BLOCK]
            names = [str(number) for number in range(start, start + len(part))]
            facts = {
                "id": names,
                "vector": vectors_array(part),
                "path": [f"/photos/{name}.jpg" for name in names],
                "width": pa.array([640] * len(part), pa.int32()),
                "height": pa.array([480] * len(part), pa.int32()),
                "hash": [hashlib.sha256(name.encode()).hexdigest() for name in names],
                "stamp": names,
                "label": [f"label {int(name) % 1000}" for name in names],
            }
            table = table.append(pa.table(facts, schema=table.schema))

    def build(self, vectors: Vectors, texts: Queries) -> None:
        Index(self.uri, probe_texts=lambda _: texts)

    def open(self) -> None:
        self.index = Index(self.uri)
        self.seconds = {
            "engine": timed(ann_engine.Engine, "search"),
            "graph": timed(hnsw.Graph, "search"),
            "rescoring": timed(ann_engine, "rescore"),
        }

    def search(self, query: Queries, kind: str, width: int) -> Found:
        self.index.encoder = LookedUp(query)
        results = self.index.search(text="a text", k=K) if kind == "text" else self.index.search(image=IMAGE, k=K)
        return np.array([int(hit.id) for hit in results], np.int64)


class Lance:
    """An index of the library of LanceDB, in the table itself."""

    kind = ""
    parameters: Mapping[str, Any] = MappingProxyType({})
    widths: tuple[int, ...] = PROBES

    def __init__(self, folder: Path) -> None:
        self.uri = str(folder / "vectors.lance")

    def prepare(self, vectors: Vectors) -> None:
        for start in range(0, len(vectors), 16 * BLOCK):
            part = vectors[start : start + 16 * BLOCK]
            rows = pa.table({"number": np.arange(start, start + len(part)), "vector": vectors_array(part)})
            lance.write_dataset(rows, self.uri, mode="append" if start else "create")

    def build(self, vectors: Vectors, texts: Queries) -> None:
        lance.dataset(self.uri).create_index(
            "vector", self.kind, metric="dot", **{"num_partitions": partitions(len(vectors)), **self.parameters}
        )

    def open(self) -> None:
        self.table = lance.dataset(self.uri)

    def nearest(self, width: int) -> dict[str, Any]:
        return {"nprobes": width, "refine_factor": REFINE}

    def search(self, query: Queries, kind: str, width: int) -> Found:
        nearest = {"column": "vector", "q": query, "k": K, "metric": "dot", **self.nearest(width)}
        found = self.table.to_table(columns=["number", "_distance"], nearest=nearest)
        return np.asarray(found["number"].to_numpy())


class LanceHnsw(Lance):
    kind = "IVF_HNSW_SQ"
    # A graph for each partition: one, since a search that is to find 95 % would visit most of several.
    parameters: Mapping[str, Any] = {"num_partitions": 1, "m": CONNECTIVITY, "ef_construction": EXPANSION_ADD}
    widths = WIDTHS

    def nearest(self, width: int) -> dict[str, Any]:
        return {"nprobes": 1, "ef": max(width, 2 * K), "refine_factor": 2}


class LanceRq(Lance):
    kind = "IVF_RQ"


class LancePq(Lance):
    """As many bytes a vector as IVF_RQ has: a code of eight bits for eight dimensions."""

    kind = "IVF_PQ"

    def build(self, vectors: Vectors, texts: Queries) -> None:
        self.parameters = {"num_sub_vectors": vectors.shape[1] // 8}
        super().build(vectors, texts)


class Milvus(Mcip):
    """A server of Milvus, through mcip: `Index.search` of an index whose vectors it holds.

    `MCIP_MILVUS_URI` is its address. `memory` is that of this process alone, and `disk` that of the table.
    """

    def build(self, vectors: Vectors, texts: Queries) -> None:
        table = open_table(self.uri)
        uri = os.environ["MCIP_MILVUS_URI"]
        load(table.change_identity(milvus={"uri": uri, "collection": f"mcip_{table.identity.created}"}))
        super().build(vectors, texts)

    def server_mb(self) -> int | None:
        """Memory of the server, where it listens on this machine; None elsewhere."""
        port = urlsplit(os.environ["MCIP_MILVUS_URI"]).port
        listening = (found for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN)
        process = next((found.pid for found in listening if found.laddr.port == port), None)
        return None if process is None else round(psutil.Process(process).memory_info().rss / 1e6)


class Faiss:
    """An index of FAISS, read into memory."""

    widths: tuple[int, ...] = (0,)

    def __init__(self, folder: Path) -> None:
        self.file = os.fspath(folder / "index.faiss")

    def prepare(self, vectors: Vectors) -> None: ...
    def new(self, dim: int, size: int) -> Any:
        return faiss.IndexFlatIP(dim)

    def build(self, vectors: Vectors, texts: Queries) -> None:
        index = self.new(vectors.shape[1], len(vectors))
        if not index.is_trained:
            step = max(1, len(vectors) // 100_000)
            index.train(vectors[::step].astype(np.float32))
        for start in range(0, len(vectors), BLOCK):
            index.add(vectors[start : start + BLOCK].astype(np.float32))
        faiss.write_index(index, self.file)

    def open(self) -> None:
        self.index = faiss.read_index(self.file)

    def options(self, width: int) -> Any:
        return None

    def search(self, query: Queries, kind: str, width: int) -> Found:
        return np.asarray(self.index.search(query[None], K, params=self.options(width))[1][0])


class FaissHnsw(Faiss):
    widths = WIDTHS

    def new(self, dim: int, size: int) -> Any:
        index = faiss.IndexHNSWFlat(dim, CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EXPANSION_ADD
        return index

    def options(self, width: int) -> Any:
        return faiss.SearchParametersHNSW(efSearch=width)


class FaissHnswSq(FaissHnsw):
    """Vectors quantized to bytes, the best candidates compared in half precision."""

    def new(self, dim: int, size: int) -> Any:
        index = faiss.index_factory(dim, f"HNSW{CONNECTIVITY}_SQ8,Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT)
        faiss.downcast_index(index.base_index).hnsw.efConstruction = EXPANSION_ADD
        return index

    def options(self, width: int) -> Any:
        return faiss.IndexRefineSearchParameters(k_factor=2, base_index_params=super().options(width))


class FaissHnswFp16(FaissHnsw):
    """Vectors in half precision."""

    def new(self, dim: int, size: int) -> Any:
        index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EXPANSION_ADD
        return index


class FaissPq(Faiss):
    """IVF-PQ whose best candidates are compared with their vectors in half precision."""

    widths = PROBES

    def new(self, dim: int, size: int) -> Any:
        return faiss.index_factory(
            dim, f"IVF{partitions(size)},PQ{dim // 8},Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT
        )

    def options(self, width: int) -> Any:
        visited = faiss.SearchParametersIVF(nprobe=width)
        return faiss.IndexRefineSearchParameters(k_factor=REFINE, base_index_params=visited)


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "mcip": Mcip,
    "milvus": Milvus,
    "usearch": Usearch,
    "usearch-i8": UsearchI8,
    "rabitq-4": RaBitQ4,
    "rabitq-5": RaBitQ,
    "rabitq-8": RaBitQ8,
    "symphony-qg": SymphonyQg,
    "lance-hnsw": LanceHnsw,
    "faiss-hnsw": FaissHnsw,
    "faiss-hnsw-sq8": FaissHnswSq,
    "faiss-hnsw-fp16": FaissHnswFp16,
    "lance-rq": LanceRq,
    "lance-pq": LancePq,
    "faiss-pq": FaissPq,
    "faiss-flat": Faiss,
}
