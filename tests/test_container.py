"""The container: its files fit the project, and it indexes and serves where a container engine is there."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mcip.cli.main import main
from mcip.retrieval.milvus.external import STORAGE, storage
from mcip.stages.serve import serve as serve_stage

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
_INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "USER", "VOLUME", "WORKDIR"}
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
# The services of this package's own image.
OWN = [name for name, service in COMPOSE["services"].items() if service.get("build") == "."]
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


def test_paths_and_programs_of_the_image_exist() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    # What is copied from the first stage is made there, and the command is a script of the package.
    for source in re.findall(r"^COPY --from=build (\S+)", last, re.M):
        assert f"python -m venv {source}" in DOCKERFILE
        assert f"PATH={source}/bin:$PATH" in last
    (entry,) = json.loads(re.search(r"^ENTRYPOINT (.+)$", last, re.M)[1])  # type: ignore[index]
    assert entry in PYPROJECT["project"]["scripts"]
    assert main(json.loads(re.search(r"^CMD (.+)$", last, re.M)[1])) == 0  # type: ignore[index]
    made = set(re.search(r"mkdir ([^&]+)&&", last)[1].split())  # type: ignore[index]
    mounted = {
        volume.rsplit(":", 2)[1 if volume.endswith(":ro") else -1]
        for name in OWN
        for volume in COMPOSE["services"][name]["volumes"]
    }
    assert mounted == made
    assert {re.search(rf"^{word} (.+)$", last, re.M)[1] for word in ("WORKDIR", "VOLUME")} <= made  # type: ignore[index]
    minimum = re.search(r">=(\d+\.\d+)", PYPROJECT["project"]["requires-python"])[1]  # type: ignore[index]
    python = re.search(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.M)[1]  # type: ignore[index]
    assert [int(part) for part in python.split(".")] >= [int(part) for part in minimum.split(".")]


def test_environment_variables_are_ones_that_are_read() -> None:
    set_here = {name for service in OWN for name in COMPOSE["services"][service]["environment"]}
    set_here |= set(re.findall(r"\b(MCIP_\w+)=", DOCKERFILE))
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in set_here:
        assert f'"{name}"' in sources, name


def test_the_server_is_not_root_and_is_reached_from_this_machine_alone() -> None:
    # Everything behind the last USER runs as that user, who owns what is written to and nothing else.
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    users = re.findall(r"^USER (\S+)$", last, re.M)
    assert len(users) == 1
    assert users[0] not in ("root", "0")
    assert re.search(rf"useradd .*{users[0]}\b", last)
    assert re.findall(r"chown (\S+ \S+)", last) == [f"{users[0]} /data"]
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert all(
        "user" not in COMPOSE["services"][name] and "privileged" not in COMPOSE["services"][name] for name in OWN
    )
    # Inside the container it listens for the engine's network, with a token; outside at the loopback alone.
    command = COMPOSE["services"]["serve"]["command"]
    assert command[command.index("--host") + 1] == "0.0.0.0"
    port = inspect.signature(serve_stage).parameters["port"].default
    assert f"EXPOSE {port}" in last
    serve = COMPOSE["services"]["serve"]
    assert serve["ports"] == [f"127.0.0.1:8000:{port}"]
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
