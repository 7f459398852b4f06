"""`mcip serve --processes 2`: one address, one set of limits and numbers, one end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.retrieval.index import open_index
from mcip.server.settings import Settings
from mcip.stages.serve import serve
from tests.server.answers import expected, found
from tests.tiny import CONFIG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares connections out")


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that answer: those that listen."""
        below = psutil.Process(self.process.pid).children()
        return [child for child in below if any(one.status == "LISTEN" for one in child.net_connections())]

    def get(self, path: str) -> str:
        """By a connection of its own, which any of the processes may get."""
        with urllib.request.urlopen(self.address + path, timeout=60) as response:
            return str(response.read().decode())


@pytest.fixture
def running(served: Path, tmp_path: Path) -> Iterator[Running]:
    command = [sys.executable, "-m", "mcip", "serve", str(served), "--port", "0", "--device", "cpu", "--processes", "2"]
    log = tmp_path / "log"
    environment = {**os.environ, "COLUMNS": "200"}
    with log.open("w") as file, subprocess.Popen(command, stderr=file, stdout=file, env=environment) as process:
        try:
            while "can be searched now" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            [address] = re.findall(r"http://127\.0\.0\.1:\d+/", log.read_text())
            yield Running(process, address, log)
        finally:
            process.kill()


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=30)[1]


def test_both_answer_and_their_numbers_are_added_up(running: Running, served: Path) -> None:
    assert len(running.children) == 2
    right = expected(open_index(served, device="cpu").search(text="a red car", k=5))
    for _ in range(40):
        assert found(json.loads(running.get("search?text=a%20red%20car&k=5"))) == right
    numbers = running.get("metrics")
    assert 'mcip_requests_total{method="GET",route="/search",status="200"} 40.0' in numbers
    assert f"mcip_images {float(len(open_index(served, device='cpu')))}" in numbers
    # Each embedded the text once: the connections were shared out.
    assert 'mcip_text_cache_total{result="miss"} 2.0' in numbers


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_all(running: Running, number: signal.Signals, status: int) -> None:
    children = running.children
    running.process.send_signal(number)
    assert running.process.wait(60) == status
    assert gone(children)
    assert "Traceback" not in running.log.read_text()


def test_one_that_dies_ends_all(running: Running) -> None:
    first, second = running.children
    first.kill()
    assert running.process.wait(60) == 1
    assert gone([second])
    assert "A process of the server ended by itself (-9): start the server again." in running.log.read_text()


def test_none_outlives_the_one_that_started_it(running: Running) -> None:
    children = running.children
    running.process.kill()
    assert gone(children)


def test_a_port_is_not_shared_with_another_server(running: Running, served: Path) -> None:
    port = int(re.findall(r":(\d+)/", running.address)[0])
    for processes in (1, 2):
        with pytest.raises(ConfigError, match="choose another --port"):
            serve(str(served), port=port, processes=processes)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="choose another --port"):
        serve(str(served), port=taken.getsockname()[1], processes=2)


def test_why_an_index_cannot_be_opened_is_told(served: Path, tmp_path: Path) -> None:
    other = models.save(models.from_config(CONFIG, seed=9), tmp_path / "other")
    with pytest.raises(ModelError, match="vectors of different models cannot be compared"):
        serve(str(served), port=0, model=str(other), device="cpu", processes=2)


def test_what_all_may_take_is_shared_out() -> None:
    shared = Settings(max_connections=601, max_waiting=1).shared_by(2)
    assert (shared.max_connections, shared.max_waiting, shared.max_upload) == (301, 1, Settings.max_upload)


def test_elsewhere_it_is_refused(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="only on Linux"):
        serve(str(served), port=0, processes=2)
