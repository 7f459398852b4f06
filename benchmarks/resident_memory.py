"""Memory of this process as Linux counts it, without what the process that started it had (as `ru_maxrss` has)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def resident(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes in memory now (VmRSS), or at most so far (VmHWM)."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def peak_gb() -> float:
    """The largest resident set so far, in 10^9 bytes."""
    return resident("VmHWM") / 1e9
