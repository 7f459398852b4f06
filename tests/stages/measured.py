"""What an evaluation wrote, and what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mcip.core.files import read_json


def metrics(path: Path) -> dict[str, dict[str, float]]:
    return {task["name"]: task["metrics"] for task in read_json(path)["tasks"]}


def write_suite(path: Path, *tasks: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(list(tasks)))
    return str(path)


def write_table(path: Path, like: Path, rows: list[dict[str, Any]]) -> str:
    path.unlink(missing_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(like)), path)
    return str(path)
