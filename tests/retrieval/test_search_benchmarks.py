"""The benchmarks of searching run, and their last line is JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def figures(name: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / name), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_mixed_queries() -> None:
    found = figures("mixed_queries.py")["toyshop"]
    assert set(found) == {"colour", "colour and kind"}
    for row in found.values():
        assert row["queries"] == 30
        # Both parts together find what neither does alone.
        assert row["sum"] > max(row["image"], row["text"])
    assert found["colour"]["sum"] > found["colour"]["plain sum"]


def test_search_choices() -> None:
    found = figures("search_choices.py")
    recalls = [[recall for recall, _ in row] for row in found["texts"].values()]
    assert all(0 <= recall <= 1 for row in recalls for recall in row)
    assert recalls[0] == sorted(recalls[0])
    assert min(found["exact"].values()) > 0
    assert list(found["growth"]["added"]) == ["0.05", "0.1", "0.2", "0.3"]
    assert found["growth"]["crossover"] > 0
