"""Webdataset tars: neighbouring members of one name are a sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from mcip.core.errors import DataError
from mcip.data.cache import generated
from mcip.data.images import IMAGE_SUFFIXES
from mcip.data.locate import normal_split, split_of
from mcip.data.schema import FEATURES


def tar_rows(files: list[Path], root: Path) -> datasets.Dataset:
    """Read webdataset tars as the table's columns.

    An image member, .txt (one caption), .cls (the label) and .json with label, captions or caption, split and id. An id
    that is not given is "<tar>/<key>". The images are copied into the cache.
    """

    def generate() -> Iterator[dict[str, Any]]:
        for file in files:
            split = split_of(file, root)
            for key, members in _samples(file):
                yield _row(file, key, members, split)

    return generated(generate, FEATURES, files, f"table of {root}")


def tar_captions(files: list[Path]) -> datasets.Dataset:
    """Read the captions of webdataset tars (.txt members and those in .json members), without their images."""

    def generate() -> Iterator[dict[str, Any]]:
        for file in files:
            for _, members in _samples(file, skip_images=True):
                for caption in _captions(members, file):
                    yield {"caption": caption}

    return generated(generate, datasets.Features({"caption": datasets.Value("string")}), files, "captions")


def _row(file: Path, key: str, members: dict[str, bytes], split: str) -> dict[str, Any]:
    where = f"sample {key} of {file.name}"
    facts = _json_member(members, file, key)
    images = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{where} has no image; its members are {', '.join('.' + suffix for suffix in members)}")
    label = members["cls"].decode("utf-8").strip() if "cls" in members else facts.get("label")
    return {
        "image": {"bytes": members[images[0]], "path": f"{key}.{images[0]}"},
        "label": None if label is None or label == "" else str(label),
        "captions": _captions(members, file),
        "split": normal_split(str(facts["split"])) if facts.get("split") else split,
        "id": str(facts["id"]) if facts.get("id") is not None else f"{file.name.partition('.')[0]}/{key}",
    }


def _captions(members: dict[str, bytes], file: Path) -> list[str]:
    if "txt" in members:
        try:
            return [members["txt"].decode("utf-8").strip()]
        except UnicodeDecodeError as error:
            raise DataError(f"{file.name}: a .txt member is not UTF-8 text ({error.reason})") from error
    facts = _json_member(members, file, "")
    found = facts.get("captions", facts.get("caption")) or []
    return [found] if isinstance(found, str) else [str(caption) for caption in found]


def _json_member(members: dict[str, bytes], file: Path, key: str) -> dict[str, Any]:
    if "json" not in members:
        return {}
    try:
        facts = json.loads(members["json"])
    except ValueError as error:
        raise DataError(f"{file.name}: {key}.json is not JSON: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _samples(file: Path, skip_images: bool = False) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Group a tar's neighbouring members by their name up to the first dot of the base name, as webdataset does."""
    key, members = "", dict[str, bytes]()
    try:
        with tarfile.open(file, "r:*") as archive:
            for member in archive:
                vars(archive)["members"] = []  # else the list of members grows with the archive
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                suffix = suffix.lower()
                if not member.isfile() or not stem or not suffix:
                    continue
                this = f"{folder}/{stem}".removeprefix("./").lstrip("/")
                if this != key and members:
                    yield key, members
                    members = {}
                key = this
                if skip_images and suffix not in ("txt", "json"):
                    continue
                stream = archive.extractfile(member)
                assert stream is not None
                members[suffix] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{file} is no tar file, or cut off: {error}") from error
    if members:
        yield key, members
