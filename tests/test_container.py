"""The container: its files fit the project, and it indexes and serves where a container engine is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mcip.cli.main import main
from mcip.retrieval.milvus.external import STORAGE, storage

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
_INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "USER", "VOLUME", "WORKDIR"}
TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize("service", ["index", "serve"])
def test_commands_of_the_services_are_ones_of_mcip(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", word) for word in COMPOSE["services"][service]["command"]]
    assert main([*command, "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["db"] == "/data/photos.lance"


def test_the_image_holds_what_is_copied_and_extras_that_exist() -> None:
    instructions = [line.split()[0] for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    assert set(instructions) <= _INSTRUCTIONS
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    assert copied
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
    assert set(re.search(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.M)[1].split(",")) <= extras  # type: ignore[index]


def test_the_server_is_not_root_and_is_reached_from_this_machine_alone() -> None:
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.M)
    serve = COMPOSE["services"]["serve"]
    assert serve["ports"] == ["127.0.0.1:8000:8000"]
    assert "MCIP_TOKEN" in serve["environment"]
    assert all(volume.endswith(":ro") for volume in serve["volumes"] if "/photos" in volume)


def test_the_profile_of_milvus_holds_what_it_needs_and_nothing_of_it_is_reached_from_outside() -> None:
    services = COMPOSE["services"]
    of_milvus = {name: service for name, service in services.items() if "profiles" in service}
    assert set(of_milvus) == {"etcd", "minio", "milvus"}
    for service in of_milvus.values():
        assert service["profiles"] == ["milvus"]
        assert "ports" not in service
        assert "healthcheck" in service
        assert re.search(r":[vR][\w.-]+$", service["image"])
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(COMPOSE["volumes"])
    # Without the profile, indexing starts all the same.
    assert services["index"]["depends_on"]["milvus"] == {"condition": "service_healthy", "required": False}
    for name in ("index", "serve"):
        assert services[name]["environment"]["MCIP_MILVUS_URI"] == "http://milvus:19530"


def test_milvus_3_reads_the_table_that_the_index_writes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = yaml.safe_load((ROOT / "compose.milvus3.yaml").read_text())["services"]
    assert set(services) <= set(COMPOSE["services"])
    for service in ("index", "serve"):
        command = [re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", word) for word in services[service]["command"]]
        assert main([*command, "--print-config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["db"] == "s3://a-bucket/photos.lance"
        assert services[service]["environment"]["AWS_ENDPOINT"] == "http://minio:9000"
    monkeypatch.setenv(STORAGE, services["index"]["environment"][STORAGE])
    assert storage("s3://a-bucket/photos.lance")["endpoint_url"] == "http://minio:9000"
    assert re.search(r"milvus:\$\{MILVUS_VERSION:-v3\.\d+\.\d+\}$", services["milvus"]["image"])


@pytest.mark.skipif(
    shutil.which("docker") is None or os.environ.get("MCIP_TEST_CONTAINER") != "1",
    reason="the container is built and started only with docker, and MCIP_TEST_CONTAINER=1",
)
@pytest.mark.timeout(3600)
def test_it_indexes_and_serves(tmp_path: Path) -> None:
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
    variables = {**os.environ, "PHOTOS": str(tmp_path), "MCIP_TOKEN": TOKEN, "MODEL": "toyshop"}
    compose = ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "--project-name", "mcip-test"]
    try:
        subprocess.run([*compose, "up", "--build", "--detach"], env=variables, check=True)
        request = urllib.request.Request(
            "http://127.0.0.1:8000/search?text=red&k=1", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        for _ in range(60):
            try:
                answer = urllib.request.urlopen(request, timeout=10).read()
                break
            except OSError:
                time.sleep(2)
        assert b"red.png" in answer or b"blue.png" in answer or b"green.png" in answer
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=variables, check=True)
