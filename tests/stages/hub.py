"""A stand-in for the Hugging Face hub on loopback, as far as making a repository and committing files goes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.models.site import serving


@dataclass
class Hub:
    """What the hub holds.

    Attributes:
        address: Where it is.
        repos: By OWNER/NAME, the content of each file.
        private: The repositories that were made private.
        tokens: The tokens that requests came with.
        large: The content of large files by their SHA-256.
        refuse: Answer this instead of making a repository.
    """

    address: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    tokens: set[str | None] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)
    refuse: int | None = None

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """The status and the JSON that answer a request."""
        parts = path.split("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if self.refuse is not None:
                return self.refuse, {"error": "no"}
            self.private |= {name} if asked.get("visibility") == "private" or asked.get("private") else set()
            known = name in self.repos
            self.repos.setdefault(name, {})
            return 409 if known else 200, {"url": f"{self.address}/{name}"}
        if parts == ["api", "validate-yaml"]:
            return 200, {"warnings": [], "errors": []}
        if parts[-2] == "preupload":
            files = [{"path": file["path"], "uploadMode": self.mode(file), "shouldIgnore": False}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return 200, {"files": files}
        if parts[-1] == "batch":
            objects = [
                {"oid": one["oid"], "size": one["size"],
                 "actions": {"upload": {"href": f"{self.address}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            return 200, {"transfer": "basic", "objects": objects}
        if parts[0] == "put":
            self.large[parts[1]] = body
            return 200, {}
        assert parts[-2] == "commit"
        return self.commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])

    @staticmethod
    def mode(file: dict[str, Any]) -> str:
        return "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular"

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.repos[repo][value["path"]] = self.large[value["oid"]]
        url = f"{self.address}/{repo}/commit/1"
        return 200, {"commitUrl": url, "commitOid": "1" * 40, "success": True}


@contextmanager
def stand_in() -> Iterator[Hub]:
    """The hub for as long as a block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens.add(self.headers.get("Authorization"))
            status, content = hub.answer(self.path, body)
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as hub.address:
        yield hub
