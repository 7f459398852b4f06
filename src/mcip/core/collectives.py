"""What the processes of a run say to each other: tensors by torch.distributed, and that they are alive."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from mcip.core.errors import ConfigError
from mcip.core.processes import Processes

# Seconds between signs of life, and after how many without one a process counts as dead. The sum of the last two is
# below a minute.
_BEAT, _DEAD_AFTER, _GRACE = 2.0, 40.0, 5.0
# How long one operation may take: others may wait for the first process while it reads a table or validates.
_PATIENCE = timedelta(hours=2)
_REACH = timedelta(seconds=60)
_FAILURE = "failure"
_ending = threading.Event()
_store: Any = None
_rank = 0


def connect(found: Processes) -> None:
    """Connect the processes, by gloo for tensors on the CPU and NCCL for those on a CUDA device.

    Raises:
        ConfigError: They cannot be reached.
    """
    global _store, _rank
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(min(found.local_rank, torch.cuda.device_count() - 1))
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
        # A connection of its own: the others may be busy with an operation for long.
        own = TCPStore(*address, is_master=False, timeout=_REACH)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"Process {found.rank} of {found.count} cannot reach the others at {address[0]}:{address[1]} ({error})."
        ) from error
    _store = PrefixStore(f"mcip/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", own)
    _rank = found.rank
    threading.Thread(target=_watch, args=(found,), daemon=True, name="mcip-watch").start()
    atexit.register(_end, found)


def gather(tensor: Tensor, count: int) -> Tensor:
    """The tensors of all processes, one after the other in dimension 0."""
    own = torch.tensor([len(tensor)])
    sizes = [torch.empty_like(own) for _ in range(count)]
    dist.all_gather(sizes, own)
    lengths = [int(size) for size in sizes]
    if tensor.dtype == torch.bool:
        return gather(tensor.to(torch.uint8), count).to(torch.bool)
    padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(count)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def gather_with_gradient(tensor: Tensor, rank: int, count: int) -> Tensor:
    """See `Processes.gather_with_gradient`."""
    gathered: Tensor = _Gather.apply(tensor, rank, count)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rank: int, count: int) -> Tensor:
        lengths = gather(torch.tensor([len(tensor)]), count).tolist()
        ctx.rows = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
        return gather(tensor, count)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.rows], None, None


def record_failure(message: str) -> bool:
    """Let the other processes know why this one ends; whether it was the first to say so."""
    content = f"{_rank} {message}"
    try:
        return bool(_store.compare_set(_FAILURE, "", content).decode() == content)
    except RuntimeError:  # the process that held the store is gone
        return True


def reason_of_end() -> str:
    """Why another process ended, as a message; waits a moment for one that is about to say so."""
    failure = ""
    until = time.monotonic() + _GRACE / 2
    while not failure and time.monotonic() < until:
        with contextlib.suppress(RuntimeError):
            failure = _failure()
        time.sleep(0.1)
    rank, _, message = failure.partition(" ")
    if not failure:
        return "Another process of this run ended without a word. Run the same command again to resume."
    return f"Process {rank} of this run failed: {message}"


def _failure() -> str:
    return str(_store.get(_FAILURE).decode()) if _store.check([_FAILURE]) else ""


def _watch(found: Processes) -> None:
    """Give signs of life, and end this process where another has failed or gives none.

    Each watches the next; what it finds is said to all.
    """
    watched, last, changed, number = (found.rank + 1) % found.count, "", time.monotonic(), 0
    while not _ending.wait(_BEAT):
        number += 1
        try:
            _store.set(f"alive/{found.rank}", str(number))
            if _store.check([f"ended/{watched}"]):
                changed = time.monotonic()
            elif _store.check([f"alive/{watched}"]):
                beat = _store.get(f"alive/{watched}").decode()
                last, changed = (beat, time.monotonic()) if beat != last else (last, changed)
            if time.monotonic() - changed > _DEAD_AFTER:
                record_failure(f"process {watched} gives no sign of life. Run the same command again to resume.")
            failed = bool(_failure())
        except RuntimeError:
            failed = True
        if failed:
            break
    else:
        return
    # An operation that waits for the failed process may never return: the main thread gets a moment to end by itself.
    if not _ending.wait(_GRACE):
        print(f"Error: {reason_of_end()}", file=sys.stderr, flush=True)
        os._exit(1)


def _end(found: Processes) -> None:
    _ending.set()
    with contextlib.suppress(RuntimeError):
        _store.set(f"ended/{found.rank}", "1")
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
