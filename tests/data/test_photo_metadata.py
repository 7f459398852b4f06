"""What photographs say of themselves, in every format, and nothing where it is damaged."""

from __future__ import annotations

import datetime
import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mcip.data.photo_metadata import PHOTO_COLUMNS, parse_time, photo_metadata
from mcip.data.xmp import read_xmp

from .dng import dng

RDF = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:aux="http://ns.adobe.com/exif/1.0/aux/">%s</rdf:RDF></x:xmpmeta>'
)
XMP = RDF % (
    '<rdf:Description xmp:Rating="4"><dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>dog &amp; co</rdf:li><rdf:li/>'
    "</rdf:Bag></dc:subject></rdf:Description>"
)
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF", "JXL")
EXPECTED = {
    "taken": datetime.datetime(2024, 6, 1, 12, 30, 15, 250_000), "taken_offset": "+02:00", "camera": "Canon EOS R5",
    "lens": "RF 50mm", "latitude": 52.5, "longitude": -13.26, "rating": 4, "keywords": ["cat", "dog & co"],
}  # fmt: skip


def exif_of(**changes: object) -> Image.Exif:
    exif = Image.Exif()
    facts = {
        "make": "Canon", "model": "Canon EOS R5", "taken": "2024:06:01 12:30:15", "offset": "+02:00", "fraction": "25",
        "lens": "RF 50mm\0", "gps": {1: "N", 2: (52.0, 30.0, 0.0), 3: "W", 4: (13.0, 15.0, 36.0)}, **changes,
    }  # fmt: skip
    exif[271], exif[272] = facts["make"], facts["model"]
    exif.get_ifd(0x8769).update({
        36867: facts["taken"], 36881: facts["offset"], 37521: facts["fraction"], 0xA434: facts["lens"],
    })  # fmt: skip
    exif.get_ifd(0x8825).update(facts["gps"])  # type: ignore[call-overload]
    return exif


def photograph(kind: str = "JPEG", exif: bytes | None = None, xmp: bytes = b"") -> bytes:
    """An image file with this metadata."""
    options: dict[str, object] = {"exif": exif_of().tobytes() if exif is None else exif, "xmp": xmp}
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    if kind == "PNG":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options = {"exif": options["exif"], "pnginfo": texts}
    stream = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "TIFF"])
def test_every_format(kind: str) -> None:
    assert photo_metadata(photograph(kind, xmp=XMP.encode())) == EXPECTED
    assert EXPECTED.keys() == set(PHOTO_COLUMNS.names)


def test_tiff_and_raw() -> None:
    exif, stream = exif_of(), io.BytesIO()
    exif[700] = XMP.encode()
    Image.new("RGB", (16, 8)).save(stream, "TIFF", exif=exif)
    found = photo_metadata(stream.getvalue())
    assert (found["camera"], found["rating"], found["keywords"]) == ("Canon EOS R5", 4, ["cat", "dog & co"])
    raw = dng(
        np.zeros((48, 64, 3), np.uint8), taken="2024:06:01 12:30:15", make="NIKON CORPORATION", model="NIKON D850"
    )
    taken = datetime.datetime(2024, 6, 1, 12, 30, 15)
    assert photo_metadata(raw) == {"taken": taken, "camera": "NIKON D850"}
    # Panasonic's RW2 is TIFF but for its first bytes.
    assert photo_metadata(b"IIU\0" + raw[4:])["taken"] == taken


def test_canons_newer_raw_and_fujis() -> None:
    tags = exif_of().tobytes().removeprefix(b"Exif\0\0")
    box = struct.pack(">I4s", 8 + len(tags), b"CMT1") + tags
    assert photo_metadata(struct.pack(">I4s4s", 12, b"ftyp", b"crx ") + box)["camera"] == "Canon EOS R5"
    jpeg = photograph()
    header = b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + struct.pack(">II", 92, len(jpeg))
    assert photo_metadata(header + jpeg)["lens"] == "RF 50mm"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024:06:01 12:30:15", (datetime.datetime(2024, 6, 1, 12, 30, 15), None)),
        ("2024-06-01T12:30:15.123456789Z", (datetime.datetime(2024, 6, 1, 12, 30, 15, 123_456), "+00:00")),
        ("2024-06-01T12:30-03:30", (datetime.datetime(2024, 6, 1, 12, 30), "-03:30")),
        ("2024-06-01", (datetime.datetime(2024, 6, 1), None)),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
    ],
)
def test_times(text: str, expected: object) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"taken": "0000:00:00 00:00:00"}, {"taken", "taken_offset"}),
        ({"taken": "2024:13:01 00:00:00"}, {"taken", "taken_offset"}),
        ({"gps": {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}}, {"latitude", "longitude"}),
        ({"gps": {1: "N", 2: (1.0, 0.0, 0.0)}}, {"latitude", "longitude"}),
        ({"gps": {1: "?", 2: (1.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)}}, {"latitude", "longitude"}),
        ({"make": "", "model": "\0"}, {"camera"}),
        ({"lens": "   "}, {"lens"}),
        ({"offset": "somewhere"}, {"taken_offset"}),
    ],
)
def test_what_is_damaged_is_left_out_alone(changes: dict[str, object], lost: set[str]) -> None:
    found = photo_metadata(photograph(exif=exif_of(**changes).tobytes(), xmp=XMP.encode()))
    assert EXPECTED.keys() - found.keys() == lost
    assert {name: found[name] for name in EXPECTED if name not in lost | {"taken"}} == {
        name: value for name, value in EXPECTED.items() if name not in lost | {"taken"}
    }


def test_xmp_alone() -> None:
    packet = RDF % (
        "<rdf:Description><xmp:Rating>-1</xmp:Rating><tiff:Make>SONY</tiff:Make><tiff:Model>ILCE-7M3</tiff:Model>"
        "<aux:Lens>FE 35mm</aux:Lens></rdf:Description><rdf:Description "
        'exif:DateTimeOriginal="2024-06-01T08:00:00+09:00" exif:GPSLatitude="35,30.0S" exif:GPSLongitude="139,45,36E"/>'
    )
    assert photo_metadata(photograph(exif=b"", xmp=packet.encode())) == {
        "taken": datetime.datetime(2024, 6, 1, 8), "taken_offset": "+09:00", "camera": "SONY ILCE-7M3",
        "lens": "FE 35mm", "latitude": -35.5, "longitude": 139.76, "rating": -1,
    }  # fmt: skip


def test_entities_are_not_expanded_and_packets_are_bounded() -> None:
    document = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    assert read_xmp((document + XMP.replace("cat", "&b;")).encode()) == {}
    assert read_xmp(XMP.replace("cat", "&undefined;").encode()) == {}
    assert read_xmp(XMP.encode()) == {"rating": ["4"], "keywords": ["cat", "dog & co", ""]}
    long = read_xmp(XMP.replace("cat", "x" * 100_000).encode())
    assert len(long["keywords"][0]) <= 2000
    assert read_xmp(XMP.encode() + b" " * 4_000_000) == {}
    many = "".join(f"<rdf:li>{number}</rdf:li>" for number in range(5000))
    assert len(read_xmp(XMP.replace("<rdf:li>cat</rdf:li>", many).encode())["keywords"]) == 1000


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_random_metadata_never_raises(exif: bytes, xmp: bytes) -> None:
    assert photo_metadata(photograph(exif=b"Exif\0\0" + exif, xmp=xmp)).keys() <= set(PHOTO_COLUMNS.names)


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "raw"]),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_never_raise(kind: str, changes: list[tuple[int, int]]) -> None:
    whole = (
        dng(np.zeros((8, 8, 3), np.uint8), taken="2024:06:01 12:30:15")
        if kind == "raw"
        else photograph(kind, xmp=XMP.encode())
    )
    content = bytearray(whole)
    for place, value in changes:
        content[place % len(content)] = value
    for name, value in photo_metadata(bytes(content)).items():
        assert PHOTO_COLUMNS.field(name) is not None
        assert value is not None


@given(st.text(max_size=60))
def test_random_texts_in_exif_are_printable_or_null(text: str) -> None:
    found = photo_metadata(photograph(exif=exif_of(lens=text, taken=text).tobytes()))
    assert found.get("lens", "x").isprintable()
