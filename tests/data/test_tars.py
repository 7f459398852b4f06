"""Tars are read whole or refused, and each sample's image is its own."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mcip.core.errors import DataError
from mcip.data import read_captions, read_table, tar_archive
from mcip.data.tars import _key
from tests.images import file_bytes, noise_image

from .test_pools_and_tars import texts, write_tar

PNG = file_bytes(noise_image())
OTHER = file_bytes(noise_image(1))


def sample(**facts: Any) -> dict[str, bytes]:
    return {"0.png": PNG, "0.json": json.dumps(facts).encode()}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a/0.jpg", ("a/0", "jpg")),
        ("./0.depth.PNG", ("0", "depth.png")),
        ("22.05.png", ("22.05", "png")),
        ("22.05.depth.png", ("22.05", "depth.png")),
        ("IMG.2020.05.06.jpg", ("IMG.2020.05.06", "jpg")),
        ("0.12", ("0", "12")),
        ("README", ("README", "")),
    ],
)
def test_keys(name: str, key: tuple[str, str]) -> None:
    assert _key(name) == key


@pytest.mark.parametrize("order", [("0.depth.png", "0.png"), ("0.png", "0.depth.png")])
def test_the_plain_image_of_a_sample_is_taken(tmp_path: Path, order: tuple[str, str]) -> None:
    contents = {"0.png": PNG, "0.depth.png": OTHER}
    table = read_table(write_tar(tmp_path / "t.tar", {name: contents[name] for name in order}))
    assert table.ids == ["t/0"]
    assert table.image(0).tobytes() == noise_image().tobytes()


def test_numbers_belong_to_the_key(tmp_path: Path) -> None:
    members = {"22.05.png": PNG, "22.05.txt": b"a", "22.06.png": OTHER, "22.06.txt": b"b"}
    table = read_table(write_tar(tmp_path / "t.tar", members))
    assert (table.ids, table.captions) == (["t/22.05", "t/22.06"], [["a"], ["b"]])
    assert table.image(1).tobytes() == noise_image(1).tobytes()


@pytest.mark.parametrize("names", [("0.png", "0.jpg"), ("0.depth.png", "0.rgb.png")])
def test_two_images_that_are_alike_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"sample 0 of t\.tar has 2 images .*give the others a name of their own"):
        read_table(write_tar(tmp_path / "t.tar", dict.fromkeys(names, PNG)))


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_every_cut_is_noticed(tmp_path: Path, ending: str) -> None:
    """Also one between two members, or in a header."""
    members = {f"{number}.{suffix}": PNG[:100] for number in range(3) for suffix in ("png", "txt", "cls")}
    members |= {name: b"x" for name in members if not name.endswith("png")}
    path = write_tar(tmp_path / f"whole{ending}", members)
    content = path.read_bytes()
    end = len(content) if ending == ".tar.gz" else 18 * 512
    for size in range(0, end, 256 if ending == ".tar" else len(content) // 30):
        cut = tmp_path / f"cut{ending}"
        cut.write_bytes(content[:size])
        for read in (read_table, read_captions):
            with pytest.raises(DataError, match="is no tar file, damaged or cut off"):
                read(cut)


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"0.png": PNG, "1.png": PNG, "2.png": PNG})
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1].offset
    content[second + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"its end is missing at byte {second:,}"):
        read_table(path)


def test_two_tars_in_one_file_are_refused(tmp_path: Path) -> None:
    """The second would be passed over."""
    path = write_tar(tmp_path / "t.tar", {"0.png": PNG})
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match="more follows its end"):
        read_table(path)


@pytest.mark.parametrize(
    ("facts", "captions"),
    [
        ({"captions": None, "caption": "x"}, ["x"]),
        ({"captions": [], "caption": "x"}, ["x"]),
        ({"captions": ["a", None, " ", "b"]}, ["a", "b"]),
        ({"captions": "a"}, ["a"]),
        ({"caption": None}, []),
    ],
)
def test_json_captions(tmp_path: Path, facts: dict[str, Any], captions: list[str]) -> None:
    path = write_tar(tmp_path / "t.tar", sample(**facts))
    assert read_table(path).captions == [captions]
    if captions:
        assert texts(path) == captions


@pytest.mark.parametrize("captions", [{"en": "a cup"}, [{"raw": "a cup"}], [["a"]], 7, True, ["a", 7]])
def test_captions_that_are_no_texts_are_refused(tmp_path: Path, captions: Any) -> None:
    path = write_tar(tmp_path / "t.tar", sample(captions=captions))
    for read in (read_table, read_captions):
        with pytest.raises(DataError, match=r"sample 0 of t\.tar: captions must be a text or a list of texts, not "):
            read(path)


@pytest.mark.parametrize(("name", "value"), [("label", ["a"]), ("label", 0.5), ("id", {"a": 1}), ("split", True)])
def test_facts_that_are_no_texts_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"sample 0 of t\.tar: {name} must be a text or a whole number"):
        read_table(write_tar(tmp_path / "t.tar", sample(**{name: value})))


def test_digits_of_json_are_kept(tmp_path: Path) -> None:
    table = read_table(write_tar(tmp_path / "t.tar", sample(id=109876543210987654321, label="007")))
    assert (table.ids, table.labels) == (["109876543210987654321"], ["007"])


def test_members_that_are_not_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no image; its members are \.mp4, \.txt"):
        read_table(write_tar(tmp_path / "t.tar", {"0.mp4": b"x", "0.txt": b"a"}))


def test_tars_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for split, image in (("train", PNG), ("val", OTHER)):
        write_tar(tmp_path / split / "00000.tar", {"0.png": image})
    write_tar(tmp_path / "train" / "00.001.tar", {"0.png": OTHER})
    write_tar(tmp_path / "train" / "00.002.tar.gz", {"0.png": OTHER})
    table = read_table(tmp_path)
    assert table.ids == ["train/00.001/0", "train/00.002/0", "train/00000/0", "val/00000/0"]
    assert table.splits == ["train", "train", "train", "val"]


def test_hidden_members_are_left_out(tmp_path: Path) -> None:
    members = {"./0.png": PNG, "._0.png": b"x", "__MACOSX/0.png": b"x", "a/.hidden/1.png": b"x"}
    assert read_table(write_tar(tmp_path / "t.tar", members)).ids == ["t/0"]


def test_names_that_are_not_utf8_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("é.png", "è.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    assert read_table(path).ids == [r"t/\xe9", r"t/\xe8"]


def stating(size: int, name: str = "0.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("packed", [False, True])
def test_a_member_that_states_4_gb_is_refused_before_it_is_read(tmp_path: Path, kind: bytes, packed: bool) -> None:
    path = tmp_path / "t.tar"
    content = stating(4 * 2**30, kind=kind) + bytes(2**20)
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"4,294,967,296 bytes|states more|cut off|200 times"):
            read_table(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of members that are not read."""
    monkeypatch.setattr(tar_archive, "_FREE_BYTES", 2**20)
    path = tmp_path / "t.tar.gz"
    content = stating(64 * 2**20, "a.bin") + bytes(64 * 2**20) + stating(0, "0.txt") + bytes(1024)
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        read_captions(path)


def test_a_negative_size_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    header = bytearray(stating(0))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(DataError, match=r"negative|cut off"):
        read_table(path)


@pytest.mark.parametrize("suffix", ["txt", "json", "cls"])
def test_texts_of_tars_are_bounded(tmp_path: Path, suffix: str) -> None:
    path = write_tar(tmp_path / "t.tar", {"0.png": PNG, f"0.{suffix}": b" " * (2**24 + 1)})
    with pytest.raises(DataError, match=rf"the member 0\.{suffix} states 16,777,217 bytes; at most 16,777,216"):
        read_table(path)


@pytest.mark.parametrize("ending", [".tar.bz2", ".tar.xz", ".tgz"])
def test_other_compressions(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    with tarfile.open(path, "w:" + {".tgz": "gz"}.get(ending, ending[5:])) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo("0.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
    assert read_table(path).ids == ["t/0"]


def test_nested_json_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 0 of t\.tar: its \.json member is not JSON"):
        read_table(write_tar(tmp_path / "t.tar", {"0.png": PNG, "0.json": b"[" * 200_000}))
    with pytest.raises(DataError, match=r"t\.tar"):
        read_table(write_tar(tmp_path / "t.tar", {"0.png": PNG, "0.json": rb'{"caption": "\ud800"}'}))


def test_a_tar_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "t.tar", {"0.png": PNG})
    read = Path.open

    def vanished(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == path:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", vanished)
    with pytest.raises(DataError, match=r"t\.tar.*No such file"):
        read_table(path)
