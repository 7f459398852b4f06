"""What `mcip doctor` checks. A check that fails is a finding too, so that a broken installation is explained."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mcip.core.errors import ConfigError
from mcip.core.optional import EXTRAS, module_or_none
from mcip.stages.diagnosis import Finding

_GIB: Final = 2**30
# Modules of extras, apart from those that take seconds to import.
_QUICKLY_IMPORTED: Final = {
    "search": ("lance", "rabitqlib"), "fast": ("simplejpeg",), "photos": ("pillow_heif", "pillow_jxl", "rawpy"),
    "onnx": ("onnxruntime",), "milvus": ("pymilvus",),
}  # fmt: skip
# Less than a large model takes.
_LEAST_FREE: Final = 2 * _GIB


def run_checks(network: bool, timeout: float) -> Iterator[Finding]:
    """All findings, group by group.

    Args:
        network: Whether hub and site are asked.
        timeout: Seconds to wait for each of them.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "Versions": _versions,
        "Devices": _devices,
        "Extras": _extras,
        "Caches": _caches,
        "Network": functools.partial(_network, network, timeout),
    }
    for group, check in checks.items():
        try:
            yield from check()
        # A library that is damaged can raise anything when it is imported: finding that out is the purpose.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            package = (error.name or "mcip").partition(".")[0] if isinstance(error, ImportError) else "mcip"
            remedy = f"Install the package again: pip install --force-reinstall {package}"
            yield Finding(group, "check", f"could not be completed ({reason})", "missing", remedy)


def _versions() -> Iterator[Finding]:
    """Python, this package, and what it depends on, by the versions that its metadata asks for."""
    yield Finding("Versions", "Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("Versions", "mcip", importlib.metadata.version("mcip"))
    for requirement in requirements():
        problem = _problem(requirement)
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        if problem:
            yield Finding("Versions", requirement.name, problem, "missing", remedy)
        else:
            yield Finding("Versions", requirement.name, importlib.metadata.version(requirement.name))


def requirements(extra: str = "") -> list[Requirement]:
    """What the package needs, or what one of its extras adds to that; extras within the extra are followed."""
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, importlib.metadata.requires("mcip") or []):
        if not _applies(requirement, extra) or (extra and _applies(requirement, "")):
            continue
        if canonicalize_name(requirement.name) == "mcip":
            parts = [part for name in sorted(requirement.extras) for part in requirements(name)]
        else:
            parts = [requirement]
        found.update((canonicalize_name(part.name), part) for part in parts)
    return list(found.values())


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _problem(requirement: Requirement) -> str:
    """What is wrong with an installed package; empty where nothing is."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{version} is installed, {requirement.specifier} is needed"


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
            value = f"{facts.name}, {facts.total_memory / _GIB:.1f} GiB, --precision auto is {precision}"
            yield Finding("Devices", f"cuda:{number}", value)
    elif shutil.which("nvidia-smi"):
        reason = "this build of torch is without CUDA" if torch.version.cuda is None else "torch cannot use the driver"
        remedy = "Install the build of torch for your driver: https://pytorch.org/get-started/locally/"
        yield Finding("Devices", "CUDA", f"there is an NVIDIA driver, but {reason}", "missing", remedy)
    else:
        yield Finding("Devices", "CUDA", "no NVIDIA GPU", "optional")
    mps = torch.backends.mps.is_available()
    yield Finding("Devices", "MPS", "available" if mps else "no Apple GPU", "ok" if mps else "optional")
    yield Finding("Devices", "CPU cores", f"{usable_cores()} of {os.cpu_count()}")
    yield Finding("Devices", "memory", _memory())


def usable_cores() -> int:
    """The cores that this process may run on."""
    import psutil  # type: ignore[import-untyped]

    process = psutil.Process()
    # macOS has no affinity.
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def _memory() -> str:
    import psutil

    from mcip.retrieval.ann.select import available_memory

    total, usable = psutil.virtual_memory().total, available_memory()
    limit = f", of which this container may use {usable / _GIB:.1f} GiB" if usable < total else ""
    return f"{total / _GIB:.1f} GiB{limit}"


def _extras() -> Iterator[Finding]:
    provided = importlib.metadata.metadata("mcip").get_all("Provides-Extra") or []
    for extra, purpose in EXTRAS.items():
        if extra not in provided:  # an editable installation whose metadata are older than its code
            remedy = "Install the checkout again: pip install --editable ."
            yield Finding("Extras", extra, f"{purpose} (unknown to the installed metadata)", "optional", remedy)
            continue
        problems = {needed.name: _problem(needed) for needed in requirements(extra)}
        lacking = [f"{name} {problem}" for name, problem in problems.items() if problem]
        if lacking:
            remedy = f"pip install 'mcip[{extra}]'"
            yield Finding("Extras", extra, f"{purpose} ({', '.join(lacking)})", "optional", remedy)
        elif broken := _broken(extra):
            yield Finding("Extras", extra, f"{purpose} ({broken})", "missing", f"pip install --upgrade 'mcip[{extra}]'")
        else:
            yield Finding("Extras", extra, purpose)


def _broken(extra: str) -> str:
    """Why what an extra has installed cannot be imported; empty where it can."""
    try:
        for name in _QUICKLY_IMPORTED.get(extra, ()):
            module_or_none(name)
    except ConfigError as error:
        return str(error).partition(". ")[0]
    return ""


def _caches() -> Iterator[Finding]:
    import datasets
    from huggingface_hub import constants

    from mcip.core.hashes import cache_root

    folders = {
        "mcip": (cache_root(), "MCIP_CACHE"),
        "hub models": (Path(constants.HF_HUB_CACHE), "HF_HUB_CACHE"),
        "hub data sets": (Path(datasets.config.HF_DATASETS_CACHE), "HF_DATASETS_CACHE"),
        "open_clip": (Path("~/.cache/clip").expanduser(), "HOME"),
    }
    for name, (folder, variable) in folders.items():
        # os.path says no, and does not raise, where this user may not look.
        existing = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))  # noqa: PTH110
        free = shutil.disk_usage(existing).free
        size = f"{folder_bytes(folder) / _GIB:.2f} GiB" if folder.is_dir() else "not there yet"
        value = f"{folder}: {size}, {free / _GIB:.1f} GiB free"
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            remedy = f"Set {variable} to a folder that can be written."
            yield Finding("Caches", name, f"{folder}: {existing} cannot be written", "missing", remedy)
        elif free < _LEAST_FREE:
            remedy = f"Free space on that disk, or set {variable} to a folder on another one."
            yield Finding("Caches", name, value, "missing", remedy)
        else:
            yield Finding("Caches", name, value)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder. Links count nothing, and what cannot be read is left out."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            path = Path(place, file)
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except OSError:  # removed meanwhile, or closed to this user
                continue
    return total


def _network(asked: bool, timeout: float) -> Iterator[Finding]:
    from huggingface_hub import constants

    from mcip.models.download import RELEASED, default_cache, released_url

    remedy = (
        "Fetch what you need where there is a network (`hf download OWNER/NAME`), and copy its folder into the cache "
        "of hub models."
    )
    if constants.HF_HUB_OFFLINE:
        value = "not asked: offline mode (HF_HUB_OFFLINE=1), models come from the cache"
        yield Finding(
            "Network", "hub", value, "optional", "Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to fetch models."
        )
    elif asked:
        yield _reachable("hub", constants.ENDPOINT, timeout, remedy)
    else:
        yield Finding("Network", "hub", "not asked", "optional")
    for name, released in RELEASED.items():
        path = default_cache() / released.file
        if path.is_file():
            yield Finding("Network", name, f"in the cache: {path}")
        elif asked:
            remedy = f"Fetch the file elsewhere and put it at {path}, or set MCIP_RELEASES_URL to where it lies now."
            yield _reachable(name, released_url(released.file), timeout, remedy)
        else:
            yield Finding("Network", name, "not asked, and not in the cache", "optional")


def _reachable(name: str, url: str, timeout: float, remedy: str) -> Finding:
    """Ask for the headers of an address."""
    import requests

    try:
        with requests.head(url, timeout=timeout, allow_redirects=True) as answer:
            answer.raise_for_status()
    except requests.RequestException as error:
        # Without the addresses of objects in memory that the message holds.
        reason = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
        return Finding("Network", name, f"{url} cannot be reached ({reason})", "missing", remedy)
    return Finding("Network", name, f"{url} answers")
