"""i-CIR: an image of an object and a text ("at night"), looking for images of that very object as the text has it.

Psomas et al., "Instance-Level Composed Image Retrieval", NeurIPS 2025, arXiv 2510.25387.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path, PurePosixPath

from mcip.core.errors import DataError
from mcip.evaluation.benchmarks.base import Benchmark, ComposedRetrieval
from mcip.evaluation.benchmarks.files import files_table, lines_of
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read(places: Places, preset: Preset) -> ComposedRetrieval:
    """Read query_files.csv and database_files.csv, with lines of image, text and object, and their images."""
    root = places.folder("icir")
    queries, gallery = (_lines(root, f"{name}_files.csv", name) for name in ("query", "database"))
    query_row, gallery_row = (
        {name: row for row, name in enumerate(dict.fromkeys(name for name, _, _ in lines))}
        for lines in (queries, gallery)
    )
    entries: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, text, label in gallery:
        entries[label].append((gallery_row[name], text))
    if alone := sorted({label for _, _, label in queries} - entries.keys()):
        raise DataError(f"{root / 'database_files.csv'} has no image for the queries of {alone[0]!r}.")
    return ComposedRetrieval(
        files_table(root, query_row),
        tuple(query_row[name] for name, _, _ in queries),
        tuple(text for _, text, _ in queries),
        tuple(label for _, _, label in queries),
        files_table(root, gallery_row),
        {label: tuple(lines) for label, lines in entries.items()},
    )


def _lines(root: Path, file: str, folder: str) -> list[tuple[str, str, str]]:
    """The lines of a list; paths start at the folder of the images, whatever stands before it."""
    lines = []
    for cells in csv.reader(lines_of(root / file)):
        parts = PurePosixPath(cells[0]).parts
        if len(cells) != 3 or folder not in parts:
            raise DataError(f"{root / file}: the line {','.join(cells)!r} is not {folder}/<image>,<text>,<object>.")
        lines.append(("/".join(parts[parts.index(folder) :]), cells[1].strip(), cells[2].strip()))
    return lines


BENCHMARKS = (Benchmark("icir", "i-CIR", "composed", ("icir",), read, {"queries": 1_883, "objects": 202}),)
