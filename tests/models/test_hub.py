"""Files of the hub: from the cache without a network, checked when they are fetched, and quick to fail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub
import pytest

from mcip.core.errors import ModelError
from mcip.models import hub
from tests.models.site import serving

CONTENT = b"the weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0" * 40


class Site:
    """A hub with one repository, someone/tiny."""

    def __init__(self) -> None:
        self.files = {"model.bin": CONTENT, "tokenizer_config.json": b"{}", "tokenizer.json": b"[]", "other.txt": b""}
        self.stated: dict[str, int] = {}  # sizes that are stated instead of the true ones
        self.etags = {"model.bin": SHA256}
        self.requests: list[str] = []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            site.requests.append(path)
            if path.startswith("/api/models/someone/tiny"):
                siblings = [
                    {"rfilename": name, "size": site.stated.get(name, len(content))}
                    for name, content in site.files.items()
                ]
                facts = {"id": "someone/tiny", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                if "/tree/" in path:
                    facts = [
                        {"type": "file", "path": file["rfilename"], "size": file["size"], "oid": "a" * 40}
                        for file in siblings
                    ]  # type: ignore[assignment]
                self.send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"}, body)
                return
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            name = rest.partition("/")[2]
            if repo != "someone/tiny":
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            elif name not in site.files:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body)
            else:
                etag = site.etags.get(name, hashlib.sha1(site.files[name]).hexdigest())
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                if name in site.stated:
                    headers["X-Linked-Size"] = str(site.stated[name])
                self.send(200, site.files[name], headers, body)

        def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as url:
        use(url, tmp_path / "cache", monkeypatch)
        yield site


def use(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_a_file_is_fetched_once_and_then_taken_without_a_network(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = hub.fetch_file("someone/tiny", "model.safetensors", "model.bin")
    assert path.read_bytes() == CONTENT
    site.requests.clear()
    assert hub.fetch_file("someone/tiny", "model.safetensors", "model.bin") == path
    assert site.requests == []


def test_what_the_hub_lacks_is_named(site: Site) -> None:
    with pytest.raises(ModelError, match=r"someone/tiny of the Hugging Face hub has no a.bin and no b.bin\."):
        hub.fetch_file("someone/tiny", "a.bin", "b.bin")
    with pytest.raises(ModelError, match=r"no repository someone/tny that is open to you"):
        hub.fetch_file("someone/tny", "model.bin")


def test_a_file_that_is_not_what_the_hub_states_is_refused(site: Site, tmp_path: Path) -> None:
    site.files["model.bin"] = b"the w_ights"
    with pytest.raises(ModelError, match="damaged on its way"):
        hub.fetch_file("someone/tiny", "model.bin")
    site.files["model.bin"] = CONTENT
    assert hub.fetch_file("someone/tiny", "model.bin").read_bytes() == CONTENT


def test_a_file_of_absurd_size_is_not_fetched(site: Site) -> None:
    site.stated = {"model.bin": 60_000_000_000, "tokenizer.json": 60_000_000_000}
    with pytest.raises(ModelError, match=r"model.bin of someone/tiny has 60,000,000,000 bytes"):
        hub.fetch_file("someone/tiny", "model.bin")
    with pytest.raises(ModelError, match=r"tokenizer.json of someone/tiny has 60,000,000,000 bytes"):
        hub.fetch_files("someone/tiny", "tokenizer_config.json", ["*token*.json"], complete)


def complete(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file()


def test_matching_files_are_fetched_once(site: Site) -> None:
    hub.fetch_file("someone/tiny", "tokenizer_config.json")
    folder = hub.fetch_files("someone/tiny", "tokenizer_config.json", ["*token*.json"], complete)
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    site.requests.clear()
    assert hub.fetch_files("someone/tiny", "tokenizer_config.json", ["*token*.json"], complete) == folder
    assert site.requests == []


def test_without_a_network_one_attempt_is_made_and_the_message_says_how_to_prefetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("http://127.0.0.1:9", tmp_path, monkeypatch)
    attempts: list[str] = []

    def ask(url: str, timeout: float) -> huggingface_hub.HfFileMetadata:
        attempts.append(url)
        return huggingface_hub.get_hf_file_metadata(url, timeout=timeout)

    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    expected = r"Could not fetch a.bin of someone/tiny .*hf download someone/tiny.*HF_HUB_OFFLINE=1"
    with pytest.raises(ModelError, match=expected):
        hub.fetch_file("someone/tiny", "a.bin", "b.bin")
    assert len(attempts) == 1
    with pytest.raises(ModelError, match=expected):
        hub.fetch_files("someone/tiny", "a.bin", ["*.bin"], complete)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="offline mode is enabled"):
        hub.fetch_file("someone/tiny", "a.bin")


@pytest.mark.parametrize("repo", ["../x", "/etc", "a/b/c", "", "https://example.org/x"])
def test_a_path_is_no_repository(repo: str) -> None:
    with pytest.raises(ModelError, match="is not the name of a repository"):
        hub.fetch_file(repo, "config.json")
