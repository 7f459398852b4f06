"""XMP packets: the few properties that an index keeps, read without entities and within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn
from xml.parsers import expat

# Packets with the whole history of an edited image have some 100 kB.
_MAX_BYTES: Final = 4_000_000
_MAX_LETTERS: Final = 1000
_MAX_VALUES: Final = 1000
_ITEM: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns# li"
_PROPERTIES: Final = {
    "http://ns.adobe.com/xap/1.0/ Rating": "rating",
    "http://purl.org/dc/elements/1.1/ subject": "keywords",
    "http://ns.adobe.com/tiff/1.0/ Make": "make",
    "http://ns.adobe.com/tiff/1.0/ Model": "model",
    "http://ns.adobe.com/exif/1.0/aux/ Lens": "lens",
    "http://cipa.jp/exif/1.0/ LensModel": "lens",
    "http://ns.adobe.com/exif/1.0/ DateTimeOriginal": "taken",
    "http://ns.adobe.com/photoshop/1.0/ DateCreated": "created",
    "http://ns.adobe.com/exif/1.0/ GPSLatitude": "latitude",
    "http://ns.adobe.com/exif/1.0/ GPSLongitude": "longitude",
}


def read_xmp(packet: bytes) -> dict[str, list[str]]:
    """The values of each property of a packet that is known here: make, model, lens, taken, rating, keywords, ...

    Returns:
        Nothing for a damaged packet, one of more than 4 MB, and one with a document type, which could define entities.
    """
    if not 0 < len(packet) <= _MAX_BYTES:
        return {}
    reader = _Reader()
    try:
        reader.parser.Parse(packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError):
        return {}
    return reader.found


class _Reader:
    """Collects properties, which are attributes, or elements with a text or a list in them."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.property: str | None = None
        self.letters = ""
        self.items: list[str] = []
        self.parser: Any = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartDoctypeDeclHandler = _refuse
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        for attribute, value in attributes.items():
            if attribute in _PROPERTIES:
                self.found.setdefault(_PROPERTIES[attribute], [value[:_MAX_LETTERS]])
        if name in _PROPERTIES:
            self.property, self.items = _PROPERTIES[name], []
        self.letters = ""

    def text(self, letters: str) -> None:
        """Letters of an element; those of one text may come in several parts."""
        if self.property is not None and len(self.letters) < _MAX_LETTERS:
            self.letters += letters[:_MAX_LETTERS]

    def end(self, name: str) -> None:
        """An element ends."""
        if self.property is None:
            return
        if name == _ITEM and len(self.items) < _MAX_VALUES:
            self.items.append(self.letters)
        elif _PROPERTIES.get(name) == self.property:
            self.found.setdefault(self.property, self.items or [self.letters])
            self.property = None


def _refuse(*_: object) -> NoReturn:
    raise ValueError("a document type")
