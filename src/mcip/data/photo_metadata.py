"""What a photograph says of itself: EXIF and XMP as columns of an index. Damaged metadata is null, never an error."""

from __future__ import annotations

import datetime
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa
from PIL import ExifTags, Image

from mcip.data.formats import eager_size, jxl_boxes, open_lazily, register_extra
from mcip.data.quiet import without_pillow_warnings
from mcip.data.raw import is_raw
from mcip.data.xmp import read_xmp

# `taken` is the time on the clock of the place, and `taken_offset` how far it was from UTC, such as "+02:00", where the
# camera has noted that.
PHOTO_COLUMNS: Final = pa.schema(
    [
        pa.field("taken", pa.timestamp("us")),
        pa.field("taken_offset", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("lens", pa.string()),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("rating", pa.int8()),
        pa.field("keywords", pa.list_(pa.string())),
    ]
)
_MAX_LETTERS: Final = 200
_MAX_KEYWORDS: Final = 200
_DATE: Final = re.compile(
    r"\s*(\d{4})[:\-/.](\d\d)[:\-/.](\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?"
    r"\s*(Z|[+-]\d\d:?\d\d)?[\s\0]*"
)
_XMP_ANGLE: Final = re.compile(r"\s*(\d+),(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?([NSEW])\s*")
# The time, its parts of a second, and its offset, as EXIF has them.
_TIMES: Final = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_RATING: Final = 0x4746
_XP_KEYWORDS: Final = 0x9C9E
_XMP_TAG: Final = 700
_TIFF: Final = (b"II*\0", b"MM\0*")

_Tags = Mapping[int, Any]
# The tags of the image and of EXIF, those of GPS, and an XMP packet.
_Blocks = tuple[_Tags, _Tags, bytes]


def photo_metadata(content: bytes) -> dict[str, Any]:
    """The columns of `PHOTO_COLUMNS` that an image file has a value for.

    Ratings and keywords are XMP's where it has them, everything else EXIF's. What is damaged is left out.

    Args:
        content: The file; its pixels are not decoded.

    Example:
        >>> photo_metadata(b"no image")
        {}
    """
    with without_pillow_warnings():
        blocks: _Blocks = _tried(_blocks, content) or ({}, {}, b"")
        tags, gps, packet = blocks
        xmp = _tried(read_xmp, packet) or {}
    first = {name: values[0] for name, values in xmp.items() if values}
    taken, offset = _exif_time(tags) or _tried(parse_time, first.get("taken") or first.get("created")) or (None, None)
    found = {
        "taken": taken,
        "taken_offset": offset,
        "camera": _camera(_text(tags.get(ExifTags.Base.Make)), _text(tags.get(ExifTags.Base.Model)))
        or _camera(_text(first.get("make")), _text(first.get("model"))),
        "lens": _text(tags.get(ExifTags.Base.LensModel)) or _text(first.get("lens")),
        **_position(gps, first),
        "rating": _first(_rating(first.get("rating")), _rating(tags.get(_RATING))),
        "keywords": _keywords(xmp.get("keywords", [])) or _keywords(_xp_keywords(tags.get(_XP_KEYWORDS))),
    }
    return {name: value for name, value in found.items() if value is not None}


def _tried(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, or None where it raises: damaged metadata makes Pillow raise many kinds of errors."""
    try:
        return function(*arguments)
    except Exception:
        return None


def _blocks(content: bytes) -> _Blocks:
    """The EXIF data and the XMP packet of a file, whose pixels are not decoded."""
    if is_raw(content) or content.startswith(_TIFF):
        return _tiff_blocks(content)
    register_extra(content)
    if eager_size(content) is not None:
        boxes = dict(jxl_boxes(content))
        # Four bytes say where the data begins, unless the writer has forgotten them.
        found = boxes.get(b"Exif", b"")
        exif = _exif(found if found.startswith(_TIFF) else found[4 + int.from_bytes(found[:4], "big") :])
        return *_tags(exif), boxes.get(b"xml ", b"")
    with open_lazily(content) as image:
        # `getexif` would look behind the pixels of a PNG, and decode them for that.
        exif = _exif(image.info.get("exif", b""))
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return *_tags(exif), packet.encode() if isinstance(packet, str) else bytes(packet)


def _tiff_blocks(content: bytes) -> _Blocks:
    """The same of TIFF, and of camera RAW, most of which is TIFF, perhaps with another number in its first bytes."""
    if content.startswith(b"FUJIFILM"):
        start, length = struct.unpack_from(">II", content, 84)
        return _blocks(content[start : start + length])
    if content[4:8] == b"ftyp":
        # Canon's CR3 has a TIFF file each for its tags: of the image, of EXIF, and of GPS.
        image, details, gps = (_canon_part(content, name) for name in (b"CMT1", b"CMT2", b"CMT4"))
        return {**image, **details}, gps, b""
    if not content.startswith(_TIFF):
        content = (b"II*\0" if content.startswith(b"II") else b"MM\0*") + content[4:]
    exif = _exif(content)
    packet = _tried(exif.get, _XMP_TAG)
    return *_tags(exif), packet if isinstance(packet, bytes) else _tried(bytes, packet) or b""


def _exif(content: bytes) -> Image.Exif:
    exif = Image.Exif()
    _tried(exif.load, content)
    return exif


def _tags(exif: Image.Exif) -> tuple[_Tags, _Tags]:
    """The tags of an image together with those of EXIF, and the tags of GPS."""
    details, gps = (_tried(exif.get_ifd, part) or {} for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))
    return {**(_tried(dict, exif) or {}), **details}, dict(gps)


def _canon_part(content: bytes, name: bytes) -> _Tags:
    at = content.find(name, 4, 65_536)
    if at < 0:
        return {}
    size = int.from_bytes(content[at - 4 : at], "big")
    found: _Tags = _tried(dict, _exif(content[at + 4 : at - 4 + size])) or {}
    return found


def parse_time(value: object) -> tuple[datetime.datetime, str | None] | None:
    """A time of EXIF or XMP as it was on the clock, and its offset from UTC such as "+02:00" where it is there.

    Raises:
        ValueError: It is no time that a calendar has.

    Example:
        >>> parse_time("2024:06:01 12:30:00+0200")
        (datetime.datetime(2024, 6, 1, 12, 30), '+02:00')
    """
    match = _DATE.fullmatch(str(value))
    if match is None:
        return None
    *numbers, fraction, offset = match.groups()
    moment = datetime.datetime(*(int(number or 0) for number in numbers))  # type: ignore[arg-type]
    if fraction:
        moment = moment.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    if offset:
        offset = "+00:00" if offset == "Z" else f"{offset[:3]}:{offset[-2:]}"
    return moment, offset


def _exif_time(tags: _Tags) -> tuple[datetime.datetime, str | None] | None:
    for time, fraction, offset in _TIMES:
        parts = _text(tags.get(fraction)) or "", _text(tags.get(offset)) or ""
        for ending in (f".{parts[0]}{parts[1]}", parts[1], ""):
            found: tuple[datetime.datetime, str | None] | None
            found = _tried(parse_time, f"{_text(tags.get(time)) or ''}{ending}")
            if found is not None:
                return found
    return None


def _text(value: object) -> str | None:
    """A text without what follows a zero byte, without control characters, and not long; None for an empty one."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    shown = "".join(letter for letter in value.partition("\0")[0][: 4 * _MAX_LETTERS] if letter.isprintable())
    return shown.strip()[:_MAX_LETTERS] or None


def _camera(make: str | None, model: str | None) -> str | None:
    """Maker and model as people say them: "Canon EOS R5" rather than "Canon Canon EOS R5"."""
    if make is None or model is None:
        return model or make
    return model if model.lower().startswith(make.split()[0].lower()) else f"{make} {model}"


def _position(gps: _Tags, xmp: Mapping[str, str]) -> dict[str, float]:
    """Latitude and longitude in degrees, north and east positive, if both are there."""
    pairs = [
        _tried(_angle, gps.get(value), gps.get(reference), letters, limit)
        for value, reference, letters, limit in (
            (ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS", 90),
            (ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW", 180),
        )
    ]
    if None in pairs:
        pairs = [_tried(_xmp_angle, xmp.get("latitude"), 90), _tried(_xmp_angle, xmp.get("longitude"), 180)]
    return {} if None in pairs else {"latitude": pairs[0], "longitude": pairs[1]}


def _angle(parts: Any, reference: object, letters: str, limit: float) -> float | None:
    degrees, minutes, seconds = (float(part) for part in parts)
    letter = (_text(reference) or "?").upper()
    angle = degrees + minutes / 60 + seconds / 3600
    if letter not in letters or not (math.isfinite(angle) and 0 <= angle <= limit):
        return None
    return -angle if letter == letters[1] else angle


def _xmp_angle(text: Any, limit: float) -> float | None:
    match = _XMP_ANGLE.fullmatch(text)
    if match is None:
        return None
    degrees, minutes, seconds, letter = match.groups()
    return _angle((degrees, minutes, seconds or 0), letter, "NS" if limit == 90 else "EW", limit)


def _rating(value: object) -> int | None:
    """Stars from 0 to 5, -1 for a rejected image."""
    number = _tried(float, value)
    return int(number) if number is not None and number in (-1, 0, 1, 2, 3, 4, 5) else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _xp_keywords(value: object) -> list[str]:
    if isinstance(value, tuple):
        value = _tried(bytes, value)
    return value.decode("utf-16-le", "ignore").split(";") if isinstance(value, bytes) else []


def _keywords(values: list[str]) -> list[str] | None:
    shown = [text for value in values[:_MAX_KEYWORDS] if (text := _text(value)) is not None]
    return list(dict.fromkeys(shown)) or None
