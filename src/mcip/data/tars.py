"""Webdataset tars: neighbouring members of one name are a sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import datasets

from mcip.core.errors import DataError
from mcip.data.cache import generated
from mcip.data.cells import json_captions
from mcip.data.images import IMAGE_SUFFIXES
from mcip.data.locate import normal_split, split_of
from mcip.data.schema import FEATURES
from mcip.data.tar_archive import TarMember, tar_members

_MAX_TEXT_BYTES: Final = 16 * 2**20
_TEXTS: Final = ("txt", "cls", "json")
_TAR_SUFFIX: Final = re.compile(r"\.(tar(\.\w+)?|tgz)$", re.IGNORECASE)


def tar_rows(files: list[Path], root: Path) -> datasets.Dataset:
    """Read webdataset tars as the table's columns.

    A sample has one image member, .txt (one caption), .cls (the label) and .json with label, captions or caption, split
    and id. Of several images the one whose suffix is one word is taken, so 0.jpg beside 0.depth.png. An id that is not
    given is "<path of the tar below the root>/<key>". The images are copied into the cache.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for file in files:
            split = split_of(file, root)
            prefix = file.relative_to(root).parent / _TAR_SUFFIX.sub("", file.name)
            for key, members in _samples(file):
                yield _row(file, key, members, split, prefix.as_posix())

    return generated(rows, FEATURES, files, f"table of {root}")


def tar_captions(files: list[Path]) -> datasets.Dataset:
    """Read the captions of webdataset tars (.txt members and those in .json members), without their images."""

    def rows() -> Iterator[dict[str, Any]]:
        for file in files:
            for key, members in _samples(file, skip_images=True):
                for caption in _captions(members, f"sample {key} of {file.name}"):
                    yield {"caption": caption}

    return generated(rows, datasets.Features({"caption": datasets.Value("string")}), files, "captions")


def _row(file: Path, key: str, members: dict[str, bytes], split: str, prefix: str) -> dict[str, Any]:
    where = f"sample {key} of {file.name}"
    facts = _facts(members, where)
    suffix = _image_member(members, where)
    label = _decoded(members["cls"], where, "cls") if "cls" in members else _fact(facts, "label", where)
    identity = _fact(facts, "id", where)
    stated = _fact(facts, "split", where)
    return {
        "image": {"bytes": members[suffix], "path": f"{key}.{suffix}"},
        "label": label or None,
        "captions": _captions(members, where),
        "split": normal_split(stated) if stated else split,
        "id": f"{prefix}/{key}" if identity is None else identity,
    }


def _dotted(suffixes: Iterable[str]) -> str:
    return ", ".join(f".{suffix}" for suffix in suffixes)


def _image_member(members: dict[str, bytes], where: str) -> str:
    images = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    plain = [suffix for suffix in images if "." not in suffix]
    candidates = plain or images
    if not candidates:
        raise DataError(f"{where} has no image; its members are {_dotted(members)}")
    if len(candidates) > 1:
        raise DataError(
            f"{where} has {len(candidates)} images ({_dotted(candidates)}), and nothing says which one it is of: give "
            "the others a name of their own, or a second word in front of their suffix, such as .depth.png"
        )
    return candidates[0]


def _captions(members: dict[str, bytes], where: str) -> list[str]:
    if "txt" in members:
        return json_captions(_decoded(members["txt"], where, "txt"), where)
    facts = _facts(members, where)
    return json_captions(facts.get("captions"), where) or json_captions(facts.get("caption"), where)


def _facts(members: dict[str, bytes], where: str) -> dict[str, Any]:
    """The .json member; nothing where it is no object, as it then names no columns."""
    if "json" not in members:
        return {}
    try:
        facts = json.loads(members["json"])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: its .json member is not JSON: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _fact(facts: dict[str, Any], name: str, where: str) -> str | None:
    """A text or whole number of the .json member, as a text."""
    value = facts.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = json.dumps(value, ensure_ascii=False)
        raise DataError(f"{where}: {name} must be a text or a whole number, not {shown[:100]}")
    return str(value)


def _decoded(content: bytes, where: str, suffix: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its .{suffix} member is not UTF-8 text ({error.reason})") from error


def _samples(file: Path, skip_images: bool = False) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Group a tar's neighbouring members by their key."""
    key, members = "", dict[str, bytes]()
    for member in tar_members(file):
        this, suffix = _key(member.name)
        if not this or not suffix:
            continue
        if this != key and members:
            yield key, members
            members = {}
        key = this
        if suffix in members:
            raise DataError(f"{file.name} has the member {member.name} more than once")
        content = _content(member, suffix, skip_images)
        if content is not None:
            members[suffix] = content
    if members:
        yield key, members


def _content(member: TarMember, suffix: str, skip_images: bool) -> bytes | None:
    """The contents of a member that is read; empty bytes for others, which messages name."""
    if suffix in _TEXTS:
        return member.read(_MAX_TEXT_BYTES)
    if skip_images:
        return None
    is_image = f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES
    return member.read() if is_image else b""


def _key(name: str) -> tuple[str, str]:
    """A member's key and suffix: split at the first dot of its base name, as webdataset does, but not inside a number.

    So "a/0.depth.png" is "a/0" and "depth.png", and "22.05.png" is "22.05" and "png".
    """
    folder, _, base = name.rpartition("/")
    words = base.split(".")
    end = 1
    while end < len(words) - 1 and words[end].isdecimal():
        end += 1
    stem, suffix = ".".join(words[:end]), ".".join(words[end:]).lower()
    key = f"{folder}/{stem}" if stem else ""
    return key.removeprefix("./").lstrip("/"), suffix
