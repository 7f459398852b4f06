"""The memory that `mcip plan` says beside the memory that training takes, on the CPU.

python benchmarks/plan_memory.py            ViT-B-32 in float32, 32 to 128 images a step; about three minutes
python benchmarks/plan_memory.py --quick    8 images a step

Three steps of the image tower with ArcMargin and AdamW on random pixels, each size in a process of its own, on Linux.
`measured_gb` is what the process's resident memory grows by at its peak, from before the tower is made, with an
allocator that gives back what is freed; `planned_gb` is the sum of the plan's parts, and `ratio` the first over the
second. The aim is 0.85 to 1.15. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
from resident_memory import resident

from mcip import models
from mcip.losses import ArcMargin
from mcip.stages.plan import plan

MODEL: Final = "ViT-B-32"
CLASSES: Final = 10_000
STEPS: Final = 3
SEED: Final = 37
# A parameter of glibc's allocator, by its number in malloc.h.
M_MMAP_THRESHOLD: Final = -3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a trial")
    sizes = (8,) if parser.parse_args().quick else (32, 64, 128)
    rows = [compared(size) for size in sizes]
    print(json.dumps({"model": MODEL, "precision": "fp32", "classes": CLASSES, "sizes": rows}))


def compared(size: int) -> dict[str, Any]:
    planned = sum(plan(model=MODEL, batch_size=size, classes=CLASSES, precision="fp32").memory.values()) / 1e9
    context = multiprocessing.get_context("spawn")
    receives, sends = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(size, sends))
    process.start()
    measured = receives.recv() / 1e9
    process.join()
    row = {"batch_size": size, "planned_gb": round(planned, 2), "measured_gb": round(measured, 2)}
    return {**row, "ratio": round(measured / planned, 3)}


def measure(size: int, result: Connection) -> None:
    """Send the bytes that training takes."""
    torch.manual_seed(SEED)
    before = resident("VmRSS")
    # The text tower stays off the device when images are tuned.
    visual = models.create(MODEL, SEED).clip.visual.train()
    libc = ctypes.CDLL("libc.so.6")
    # What is freed is given back at once: the plan counts tensors, not what an allocator keeps for later.
    libc.mallopt(M_MMAP_THRESHOLD, 65_536)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    loss = ArcMargin(CLASSES, 512)
    optimizer = torch.optim.AdamW([*visual.parameters(), *loss.parameters()], lr=1e-6, fused=True)
    pixels, labels = torch.randn(size, 3, 224, 224), torch.randint(CLASSES, (size,))
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss(torch.nn.functional.normalize(visual(pixels), dim=-1), labels).backward()
        optimizer.step()
    result.send(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
