"""`mcip doctor`: what is there, what is missing, and what to do about it. Nothing here asks the network."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub.constants
import psutil  # type: ignore[import-untyped]
import pytest
import requests
import torch
from rich.console import Console

from mcip.core.errors import ConfigError
from mcip.models.download import RELEASED
from mcip.stages.diagnosis import Diagnosis, Finding
from mcip.stages.doctor import doctor
from mcip.stages.doctor_checks import folder_bytes, run_checks, usable_cores
from tests.models.site import serving

DECLARED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = DECLARED["optional-dependencies"]
METADATA = [
    "rich>=14.1",
    "torch>=2.6",
    "pylance>=14; extra == 'search'",
    "mcip[search]; extra == 'serve'",
    "fastapi>=0.115; extra == 'serve'",
]
VERSIONS = {"mcip": "0.2.0", "rich": "14.2", "torch": "2.14.1", "pylance": "14.0", "fastapi": "0.165"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages that are installed, by name, in the place of those of this environment."""
    versions = dict(VERSIONS)

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    class Metadata:
        def get_all(self, _: str) -> list[str]:
            return ["search", "serve"]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: METADATA)
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: Metadata())
    return versions


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """A hub and a site of released models on loopback; the list holds the status of their next answers."""
    statuses = [200]

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MCIP_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with serving(Answer) as address:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setenv("MCIP_RELEASES_URL", address)
        yield statuses


def findings(group: str, network: bool = False) -> dict[str, Finding]:
    return {finding.name: finding for finding in run_checks(network, 2.0) if finding.group == group}


def test_versions_with_remedies(installed: dict[str, str]) -> None:
    assert [finding.status for finding in findings("Versions").values()] == ["ok"] * 4
    installed["rich"] = "13.9"
    del installed["torch"]
    found = findings("Versions")
    assert found["rich"].value == "13.9 is installed, >=14.1 is needed"
    assert found["torch"].value == "not installed"
    assert [found[name].status for name in ("mcip", "rich", "torch")] == ["ok", "missing", "missing"]
    assert [found[name].remedy for name in ("mcip", "rich", "torch")] == [
        "", "pip install 'rich>=14.1'", "pip install 'torch>=2.6'",
    ]  # fmt: skip


def test_an_extra_needs_its_own_packages_and_those_of_extras_within(installed: dict[str, str]) -> None:
    found = findings("Extras")
    assert (found["search"].status, found["serve"].status) == ("ok", "ok")
    assert found["ray"].remedy == "Install the checkout again: pip install --editable ."
    del installed["fastapi"]
    assert findings("Extras")["search"].status == "ok"
    del installed["pylance"]
    serve = findings("Extras")["serve"]
    assert serve.status == "optional"
    assert serve.value.endswith("(pylance not installed, fastapi not installed)")
    assert serve.remedy == "pip install 'mcip[serve]'"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    total = psutil.virtual_memory().total
    monkeypatch.setattr("mcip.retrieval.ann.select.available_memory", lambda: 3 * 2**29)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = findings("Devices")
    assert found["memory"].value == f"{total / 2**30:.1f} GiB, of which this container may use 1.5 GiB"
    assert found["CPU cores"].value.startswith(f"{usable_cores()} of ")
    assert found["CUDA"].status == "optional"
    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    cuda = findings("Devices")["CUDA"]
    assert cuda.status == "missing"
    assert cuda.value == "there is an NVIDIA driver, but this build of torch is without CUDA"
    assert "pytorch.org" in cuda.remedy


def test_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "cache"))
    assert findings("Caches")["mcip"].value.startswith(f"{tmp_path / 'cache'}: not there yet, ")
    (tmp_path / "cache/hashes").mkdir(parents=True)
    (tmp_path / "cache/hashes/a").write_bytes(bytes(1000))
    (tmp_path / "cache/link").symlink_to(tmp_path / "cache/hashes/a")
    assert folder_bytes(tmp_path / "cache") == 1000
    assert findings("Caches")["mcip"].value.startswith(f"{tmp_path / 'cache'}: 0.00 GiB, ")
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "cache/hashes/a"))
    found = findings("Caches")["mcip"]
    assert found.status == "missing"
    assert found.remedy == "Set MCIP_CACHE to a folder that can be written."


def test_a_full_disk_is_missing_with_the_variable_that_moves_each_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    found = findings("Caches")
    assert {finding.status for finding in found.values()} == {"missing"}
    variables = {"mcip": "MCIP_CACHE", "hub models": "HF_HUB_CACHE", "hub data sets": "HF_DATASETS_CACHE"}
    for name, variable in variables.items():
        assert "0.0 GiB free" in found[name].value
        assert found[name].remedy == f"Free space on that disk, or set {variable} to a folder on another one."


def test_hub_and_released_models_answer(site: list[int], tmp_path: Path) -> None:
    names = ["hub", *RELEASED]
    assert [(name, found.status) for name, found in findings("Network", True).items()] == [(n, "ok") for n in names]
    site[0] = 404
    found = findings("Network", True)
    assert [found[name].status for name in names] == ["missing"] * len(names)
    assert found["hub"].value.endswith("cannot be reached (HTTP 404)")
    assert "hf download" in found["hub"].remedy
    name, released = next(iter(RELEASED.items()))
    path = tmp_path / released.file
    assert str(path) in found[name].remedy
    path.write_bytes(b"weights")
    assert findings("Network", True)[name].value == f"in the cache: {path}"


def test_a_network_that_does_not_answer(site: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(*_: object, timeout: float, **__: object) -> None:
        assert timeout == 2.0
        raise requests.ConnectTimeout("no answer")

    monkeypatch.setattr(requests, "head", no_answer)
    found = findings("Network", True)
    assert found["hub"].value.endswith("cannot be reached (ConnectTimeout)")
    assert all(finding.status == "missing" for finding in found.values())


def test_offline_mode_is_named_and_nothing_is_asked(site: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "head", lambda *_, **__: pytest.fail("the network was asked"))
    assert {finding.value for finding in findings("Network").values()} == {
        "not asked", "not asked, and not in the cache",
    }  # fmt: skip
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1" in findings("Network")["hub"].value


def test_a_broken_library_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it could not be imported
    found = findings("Devices")
    assert found["check"].status == "missing"
    assert "ModuleNotFoundError" in found["check"].value
    assert found["check"].remedy == "Install the package again: pip install --force-reinstall torch"


def test_a_broken_extra_is_a_finding(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its packages are there in the versions that are needed."""
    (tmp_path / "rabitqlib.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rabitqlib", raising=False)
    search = findings("Extras")["search"]
    assert search.status == "missing"
    assert "rabitqlib is installed, but cannot be imported (numpy.dtype size changed)" in search.value
    assert search.remedy == "pip install --upgrade 'mcip[search]'"


def test_tables_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (Finding("Versions", "[b]", "1"), Finding("Extras", "ray", "absent", "missing", "pip install 'mcip[ray]'"))
    shown = io.StringIO()
    Console(file=shown, width=100).print(Diagnosis(parts))
    assert [line.split() for line in shown.getvalue().splitlines()] == [
        ["Versions"], ["ok", "[b]", "1"], [], ["Extras"], ["missing", "ray", "absent"],
        ["pip", "install", "'mcip[ray]'"], [], ["1", "missing:", "ray."],
    ]  # fmt: skip
    monkeypatch.setattr("mcip.stages.doctor_checks.run_checks", lambda *_: parts)
    text = doctor(network=False, output="json")
    assert isinstance(text, str)
    assert json.loads(text)[1] == {
        "group": "Extras", "name": "ray", "value": "absent", "status": "missing", "remedy": "pip install 'mcip[ray]'",
    }  # fmt: skip


def test_parameters_are_checked() -> None:
    with pytest.raises(ConfigError, match="timeout is 0"):
        doctor(timeout=0)
    with pytest.raises(ConfigError, match="output is 'xml'"):
        doctor(output="xml")  # type: ignore[arg-type]
