"""Serve an index and query it by HTTP, as a program would.

    python examples/serve.py   12 seconds of CPU time

Expected: the server answers "a red mug" with three images of one product, 0.596 the best score.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mcip
from mcip.toyshop.tables import Slice, write_slice

OUT = Path("runs/serve")


def main() -> None:
    """Index some images, start the server, query it, and stop it."""
    table = write_slice(Slice("shop", stream=72, products=25, images=4, captions=1), OUT / "shop.parquet")
    mcip.index(table, db=OUT / "shop.lance", model="toyshop", thumbnails=64)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "mcip", "serve", str(OUT / "shop.lance"), "--port", str(port)])
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{address}/healthz")
        with urllib.request.urlopen(f"{address}/search?text=a+red+mug&k=3", timeout=20) as answer:
            for hit in json.load(answer)["hits"]:
                print(f"{hit['score']:.3f}  {hit['id']}")
    finally:
        server.terminate()
        server.wait()


def wait_until_ready(url: str, seconds: float = 60) -> None:
    """Wait until the index is loaded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if json.load(answer)["status"] == "ready":
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} was not ready within {seconds:g} s")


if __name__ == "__main__":
    main()
