"""The method is chosen by the table's size and by the memory that the process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcip.retrieval.ann.select import EXACT_VALUES, available_memory, choose, fits_in_memory, graph_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_choice_by_size_and_memory() -> None:
    assert choose(EXACT_VALUES // 512, 512) == "exact"
    assert choose(EXACT_VALUES // 512 + 1, 512, memory=10**12) == "graph"
    assert choose(10**6, 768, memory=2 * graph_bytes(10**6, 768)) == "graph"
    assert choose(10**6, 768, memory=2 * graph_bytes(10**6, 768) - 2) == "disk"


def test_vectors_are_held_in_memory_where_there_is_room_beside_the_graph() -> None:
    needed = graph_bytes(10**6, 768) + 2 * 768 * 10**6
    assert fits_in_memory(10**6, 768, memory=2 * needed)
    assert not fits_in_memory(10**6, 768, memory=2 * needed - 2)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, MACHINE, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, MACHINE, id="version 2 without a limit"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000000\n"}, 1_000_000, id="version 2, inside"
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "2000000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
            },
            2_000_000,
            id="version 2, a group around it",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "12:cpu,cpuacct:/x\n5:memory:/x\n0::/\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "3000000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            3_000_000,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:memory:/docker/0123\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000\n",
            },
            4_000_000,
            id="version 1, the path of the host",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999999999\n"}, MACHINE, id="above"
        ),
    ],
)  # fmt: skip
def test_limits_of_control_groups_are_respected(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_memory(write(tmp_path, files)) == expected


def test_a_limit_changes_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, dim = 10**5, 768
    root = write(
        tmp_path,
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(2 * graph_bytes(rows, dim) - 2)},
    )
    monkeypatch.setattr("mcip.retrieval.ann.select.available_memory", lambda: available_memory(root))
    assert choose(rows, dim) == "disk"
