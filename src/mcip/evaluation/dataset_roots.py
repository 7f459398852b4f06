"""Where the data sets of the benchmarks lie: under one folder by their usual names, or as a YAML file says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import yaml

from mcip.core.errors import ConfigError, DataError

T = TypeVar("T")

# Data set -> the paths its folder may have, in lower case.
FOLDERS: Final[dict[str, tuple[str, ...]]] = {
    "gpr1200": ("gpr1200",),
    "instre": ("instre", "instre_release"),
    "cub": ("cub_200_2011", "cub-200-2011", "cub200", "cub"),
    "cars": ("cars196", "stanford_cars", "stanford-cars", "cars"),
    "sop": ("stanford_online_products", "sop"),
    "roxford5k": ("roxford5k",),
    "rparis6k": ("rparis6k",),
    "revisitop1m": ("revisitop1m",),
    "adience": ("adience",),
    "ilias": ("ilias",),
    "icir": ("icir", "icir_v1.0.0"),
    "yfcc100m": ("ilias/yfcc100m", "yfcc100m"),
    "imagenet": ("imagenet", "imagenet-1k", "imagenet1k", "ilsvrc2012"),
    "imagenet-v2": ("imagenet-v2", "imagenetv2", "imagenetv2-matched-frequency-format-val"),
    "imagenet-sketch": ("imagenet-sketch", "imagenet_sketch", "sketch"),
    "imagenet-a": ("imagenet-a",),
    "imagenet-r": ("imagenet-r",),
    "objectnet": ("objectnet-1.0", "objectnet"),
    "aircraft": ("fgvc-aircraft-2013b", "aircraft"),
    "flowers": ("flowers-102", "flowers102", "flowers"),
    "flickr30k": ("flickr30k",),
    "coco": ("coco", "mscoco", "mscoco_captions"),
}


class AbsentError(DataError):
    """A data set, or a file or folder of it, is not there: its benchmarks are missing rather than wrong."""


class Places:
    """Finds data sets, and keeps what has been read of them for the other benchmarks of a run."""

    def __init__(self, data: str) -> None:
        """Look where `data` says.

        Args:
            data: A folder with one folder per data set, or a YAML file of data set names and where each lies: a folder
                (relative to the file), or whatever else `mcip.data.read_table` takes.

        Raises:
            ConfigError: There is no such folder or file, or it names an unknown data set.
        """
        self.data = data
        self._kept: dict[str, object] = {}
        path = Path(os.path.expanduser(data))  # noqa: PTH111 - takes any text
        if os.path.isdir(path):  # noqa: PTH112
            found = {
                data_set: next(filter(None, (_below(path, folder) for folder in folders)), None)
                for data_set, folders in FOLDERS.items()
            }
            self._found = {data_set: str(folder) for data_set, folder in found.items() if folder is not None}
        elif os.path.isfile(path):  # noqa: PTH113
            self._found = _listed(path)
        else:
            raise ConfigError(
                f"There is no folder {data}: --data is the folder that holds the benchmarks' folders, or a YAML file "
                "that says where each of them lies."
            )

    def missing(self, data_set: str) -> str | None:
        """Why a data set is not there, or None."""
        if data_set in self._found:
            return None
        return f"{self.data} has no folder {' or '.join(FOLDERS[data_set])}"

    def place(self, data_set: str) -> str:
        """Where a data set lies, as `mcip.data.read_table` takes it.

        Raises:
            AbsentError: It is not there.
        """
        if (why := self.missing(data_set)) is not None:
            raise AbsentError(why)
        return self._found[data_set]

    def folder(self, data_set: str) -> Path:
        """The folder in which a data set lies.

        Raises:
            AbsentError: It is not there.
            DataError: It is not a folder.
        """
        path = Path(self.place(data_set))
        if not path.is_dir():
            raise DataError(f"{path} is not a folder: {data_set} is read from its official files only.")
        return path

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` returned when it was first called for this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # type: ignore[return-value]


def _below(path: Path, folder: str) -> Path | None:
    """The folder of this path below `path`, whatever the case of its letters; None where there is none."""
    for name in folder.split("/"):
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise ConfigError(f"cannot read the folder {path}: {error.strerror}") from error
        found = (entry for entry in entries if entry.name.lower() == name and entry.is_dir())
        if (inner := next(found, None)) is None:
            return None
        path = inner
    return path


def _listed(path: Path) -> dict[str, str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(place, str) for place in content.values()):
        raise ConfigError(f"{path} must have one `data set: place` per line, for example `gpr1200: /data/GPR1200`.")
    if unknown := [name for name in content if name not in FOLDERS]:
        raise ConfigError(f"{path}: there is no data set {unknown[0]!r}; there are {', '.join(FOLDERS)}.")
    local = {name: str(path.parent / os.path.expanduser(place)) for name, place in content.items()}  # noqa: PTH111
    return {name: local[name] if os.path.exists(local[name]) else place for name, place in content.items()}  # noqa: PTH110
