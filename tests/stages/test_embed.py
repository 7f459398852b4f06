"""Embedding images and captions: the model's own vectors, in shards, unreadable images counted and listed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mcip import models
from mcip.core.artefacts import MANIFEST
from mcip.core.errors import ArtefactError, ConfigError, DataError
from mcip.core.files import read_json, write_json
from mcip.data import read_table
from mcip.embeddings import encode
from mcip.embeddings.compact import Codec, Compact
from mcip.embeddings.store import Embeddings
from mcip.models import compiled
from mcip.stages.embed import embed

Damage = Callable[[dict[int, bytes]], Path]


@pytest.fixture
def damaged(train: Path, tmp_path: Path) -> Damage:
    """`train` with other bytes for the images of some rows."""

    def make(content: dict[int, bytes]) -> Path:
        rows = pq.read_table(train).to_pylist()
        for row, image in content.items():
            rows[row]["image"] = {"bytes": image, "path": None}
        path = tmp_path / "damaged.parquet"
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train)), path)
        return path

    return make


def test_vectors_are_the_models_own(train: Path, base: Path, tmp_path: Path) -> None:
    embed(str(train), tmp_path / "a", str(base), decode="exact", shard_rows=10, batch_size=4)
    found = Embeddings(tmp_path / "a")
    table, model = read_table(train), models.load(base)
    transform = model.transform()
    expected = model.embed_pixels(torch.stack([transform(table.image(row)) for row in range(len(table))]))
    assert found.ids == table.ids
    assert [len(shard) for shard in found.shards] == [10, 10, 10, 2]
    np.testing.assert_allclose(found.array(), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.array(), axis=1), 1, atol=1e-5)
    manifest = read_json(tmp_path / "a" / "manifest.json")
    assert (manifest["rows"], manifest["dim"], manifest["complete"]) == (32, 16, True)
    assert len(manifest["files"]) == 12, "vectors, rows and a mark for each shard"


@pytest.mark.parametrize("form", ["int8", "binary", "dim=8", "first=8,binary"])
def test_embeddings_are_stored_in_fewer_bytes(form: str, train: Path, base: Path, tmp_path: Path) -> None:
    full = embed(str(train), tmp_path / "full", str(base), batch_size=5)
    found = embed(str(train), tmp_path / "a", str(base), embedding=form, shard_rows=10, batch_size=5)
    codec = Codec.fit(Compact.parse(form), full.array())
    assert np.array_equal(np.concatenate(found.shards), codec.compress(full.array()))
    assert sum(shard.nbytes for shard in found.shards) == 32 * codec.compact.bytes_of(16)
    np.testing.assert_allclose(found.array(), codec.stored(full.array()), atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([block for _, block in found.blocks()]), found.array())
    np.testing.assert_array_equal(found.take([31, 3]), found.array()[[31, 3]])
    np.testing.assert_allclose(found.queries(full.take([4])), codec.project(full.take([4])), atol=1e-6)
    assert found.dim == found.array().shape[1]
    with pytest.raises(ArtefactError, match="embedding"):
        embed(str(train), tmp_path / "a", str(base), embedding="float32", shard_rows=10, batch_size=5)


@pytest.mark.parametrize(("sampled", "expected"), [(8192, 32), (16, 48)])
def test_a_sample_of_all_rows_is_embedded_once(
    sampled: int, expected: int, train: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    embed_pixels = models.Model.embed_pixels

    def spy(self: models.Model, pixels: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        rows.append(len(pixels))
        return embed_pixels(self, pixels, normalize)

    full = embed(str(train), tmp_path / "full", str(base), batch_size=5).array()
    monkeypatch.setattr(encode, "SAMPLED", sampled)
    monkeypatch.setattr(models.Model, "embed_pixels", spy)
    found = embed(str(train), tmp_path / "a", str(base), embedding="int8", shard_rows=10, batch_size=5)
    assert sum(rows) == expected
    np.testing.assert_allclose((found.array() * full).sum(axis=1), 1, atol=1e-2)


def test_more_dimensions_than_the_model_has_are_refused(train: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 16 dimensions"):
        embed(str(train), tmp_path / "a", str(base), embedding="dim=17")


def test_the_compiled_tower_gives_the_same_vectors(
    train: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: set[int] = set()

    def eager(graph: Any, inputs: list[torch.Tensor]) -> Any:
        sizes.update(len(tensor) for tensor in inputs if tensor.shape[1:] == (3, 32, 32))
        return graph

    monkeypatch.setattr(compiled, "BACKEND", eager)
    plain = embed(str(train), tmp_path / "plain", str(base), batch_size=5, shard_rows=16)
    assert "Compil" not in capsys.readouterr().err
    found = embed(str(train), tmp_path / "compiled", str(base), batch_size=5, shard_rows=16, compile="on")
    assert sizes == {5}, "the last batch of a shard is padded"
    assert "Compiled the image tower in" in capsys.readouterr().err
    np.testing.assert_allclose(found.array(), plain.array(), atol=1e-6)
    made_from = [read_json(tmp_path / name / MANIFEST)["made_from"]["compile"] for name in ("plain", "compiled")]
    assert made_from == ["auto", "on"]


def test_where_compilation_fails_images_are_embedded_without(
    train: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", fail)
    found = embed(str(train), tmp_path / "compiled", str(base), compile="on")
    notes = " ".join(capsys.readouterr().err.split())
    assert "could not be compiled" in notes
    assert "no compiler here" in notes
    np.testing.assert_array_equal(
        found.array(), embed(str(train), tmp_path / "plain", str(base), compile="off").array()
    )


def test_decoding_is_recorded_and_resumed_alike_only(train: Path, base: Path, tmp_path: Path) -> None:
    fast, exact = (embed(str(train), tmp_path / way, str(base), decode=way) for way in ("fast", "exact"))
    assert read_json(tmp_path / "fast" / "manifest.json")["made_from"]["decode"] == "fast"
    assert (fast.array() * exact.array()).sum(axis=1).mean() > 0.999
    with pytest.raises(ArtefactError, match="decode"):
        embed(str(train), tmp_path / "fast", str(base), decode="exact")


def test_captions_in_half_precision(pool: Path, base: Path, tmp_path: Path) -> None:
    embed(str(pool), tmp_path / "a", str(base), what="captions", embedding="float16", shard_rows=20, batch_size=7)
    found = Embeddings(tmp_path / "a")
    texts = pool.read_text().splitlines()
    assert found.shards[0].dtype == np.float16
    assert found.ids == [str(row) for row in range(len(texts))]
    np.testing.assert_allclose(found.array(), models.load(base).encode(texts), atol=1e-3)


def test_the_batch_size_and_precision_reach_the_text_tower(
    pool: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, bool]] = []
    embed_tokens = models.Model.embed_tokens

    def spy(self: models.Model, tokens: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        calls.append((len(tokens), torch.is_autocast_enabled("cpu")))
        return embed_tokens(self, tokens, normalize)

    monkeypatch.setattr(models.Model, "embed_tokens", spy)
    embed(str(pool), tmp_path / "a", str(base), what="captions", batch_size=20, precision="bf16", device="cpu")
    assert calls == [(20, True), (20, True), (12, True)]


def test_a_second_run_does_nothing(train: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(str(train), tmp_path / "a", str(base))
    monkeypatch.setattr(models.Model, "embed_pixels", None)
    assert embed(str(train), tmp_path / "a", str(base)).folder == tmp_path / "a"


@pytest.mark.parametrize(
    ("change", "key"),
    [({"transform": "paper"}, "transform"), ({"embedding": "float16"}, "embedding"), ({"split": "x"}, None)],
)
def test_other_parameters_are_refused_by_name(
    change: dict[str, str], key: str | None, train: Path, base: Path, tmp_path: Path
) -> None:
    embed(str(train), tmp_path / "a", str(base))
    if key is None:
        with pytest.raises(DataError, match="has no split 'x'"):
            embed(str(train), tmp_path / "a", str(base), **change)  # type: ignore[arg-type]
        return
    with pytest.raises(ArtefactError, match=rf"\({key}: '\w+' there, '\w+' now\)"):
        embed(str(train), tmp_path / "a", str(base), **change)  # type: ignore[arg-type]


def test_a_model_of_another_dimension_is_refused(
    train: Path, base: Path, tmp_path: Path, tiny_config: dict[str, Any]
) -> None:
    embed(str(train), tmp_path / "a", str(base))
    other = models.save(models.from_config(tiny_config), tmp_path / "other")
    with pytest.raises(ArtefactError, match=r"was made with other inputs or parameters \(model: "):
        embed(str(train), tmp_path / "a", str(other))


def test_unreadable_images_are_left_out_and_listed(damaged: Damage, base: Path, tmp_path: Path) -> None:
    table = damaged({3: b"no image", 31: b""})
    embed(str(table), tmp_path / "a", str(base), shard_rows=8, batch_size=4, max_unreadable=0.1)
    found, ids = Embeddings(tmp_path / "a"), read_table(table).ids
    assert set(found.unreadable) == {ids[3], ids[31]}
    assert found.ids == [name for row, name in enumerate(ids) if row not in (3, 31)]
    assert len(found) == len(found.array()) == 30


def test_a_batch_and_a_shard_without_a_readable_image(damaged: Damage, base: Path, tmp_path: Path) -> None:
    table = damaged(dict.fromkeys(range(8, 16), b"no image"))
    embed(str(table), tmp_path / "a", str(base), shard_rows=8, batch_size=4, max_unreadable=0.5)
    found = Embeddings(tmp_path / "a")
    assert [len(shard) for shard in found.shards] == [8, 0, 8, 8]
    assert len(found.ids) == 24


def test_too_many_unreadable_images_stop_it_however_often_it_is_started(
    damaged: Damage, base: Path, tmp_path: Path
) -> None:
    table = damaged(dict.fromkeys(range(12), b"no image"))
    arguments = (str(table), tmp_path / "a", str(base))
    for _ in range(3):
        with pytest.raises(DataError, match=r"12 of the 32 images .* max_unreadable"):
            embed(*arguments, shard_rows=8, batch_size=4, max_unreadable=0.2)
    embed(*arguments, shard_rows=8, batch_size=4, max_unreadable=0.5)
    assert len(Embeddings(tmp_path / "a")) == 20


def test_images_go_to_where_the_image_tower_is(base: Path) -> None:
    model = models.load(base)
    model.clip.visual.to("meta")
    assert model.embed_pixels(torch.zeros(2, 3, 32, 32)).device.type == "meta"
    assert model.encode(["a mug"], convert_to_tensor=True).device.type == "cpu"


def flipped(path: Path, place: int) -> None:
    """Change one bit, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["vectors-00001.npy", "rows-00001.parquet", "shard-00001.json", "cut off", "gone"])
def test_a_resumed_run_embeds_damaged_shards_again(damage: str, train: Path, base: Path, tmp_path: Path) -> None:
    whole = embed(train, tmp_path / "whole", base, shard_rows=8, device="cpu")
    expected = {path.name: path.read_bytes() for path in Path(whole).iterdir() if path.name != MANIFEST}
    begun = tmp_path / "begun"
    size = len(expected.get(damage, b"")) or 1
    for place in range(3, size, max(1, size // 12)):
        shutil.rmtree(begun, ignore_errors=True)
        shutil.copytree(whole, begun)
        manifest = {**read_json(begun / MANIFEST), "complete": False}
        write_json(begun / MANIFEST, manifest)
        (begun / "shard-00003.json").unlink()
        if damage in expected:
            flipped(begun / damage, place)
        elif damage == "cut off":
            (begun / "vectors-00001.npy").write_bytes(expected["vectors-00001.npy"][:200])
        else:
            (begun / "vectors-00001.npy").unlink()
        embed(train, begun, base, shard_rows=8, device="cpu")
        found = {path.name: path.read_bytes() for path in begun.iterdir() if path.name != MANIFEST}
        assert {name: found[name] == content for name, content in expected.items()} == dict.fromkeys(expected, True)
        if damage not in expected:
            break
