"""The processes of one run, as torchrun and `accelerate launch` start them: each works on its part of the rows.

A stage that cannot do that refuses (`check_one_process`). With one process everything here is an identity, and
torch.distributed is not touched.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mcip.core import errors
from mcip.core.errors import ConfigError, McipError, ProcessError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_started: Processes | None = None
_alone: ContextVar[bool] = ContextVar("_alone", default=False)
# What torch says where the process at the other end of a connection has ended.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo", "Timed out waiting")


@dataclass(frozen=True)
class Processes:
    """The place of this process among those of its run; `processes()` gives it.

    All of them call the same methods in the same order. A process that dies or fails ends the others within a minute.

    Attributes:
        rank: Its number in the run, from 0.
        count: How many there are.
        local_rank: Its number on this machine: the CUDA device that it uses.

    Example:
        >>> team = Processes()
        >>> team.first, team.part(5), team.share({"steps": 3})
        (True, range(0, 5), {'steps': 3})
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the notes, the log, the checkpoints and the manifest."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def part(self, rows: int) -> range:
        """The share of this process in `rows` rows: contiguous, ascending with the rank, equal but for one row."""
        return range(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes one after the other in dimension 0, where their sizes may differ."""
        if not self.several:
            return tensor
        from mcip.core import collectives

        with explain_lost():
            return collectives.gather(tensor.detach(), self.count)

    def gather_with_gradient(self, tensor: torch.Tensor) -> torch.Tensor:
        """`gather`, for a loss of the global batch that every process computes alike.

        Backward gives each process the gradient of its own rows. So the gradients of what is before the call are
        parts, to be summed over the processes, and those of what comes after it are whole and equal everywhere.
        """
        if not self.several:
            return tensor
        from mcip.core import collectives

        with explain_lost():
            return collectives.gather_with_gradient(tensor, self.rank, self.count)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the processes, in place; it has no gradient."""
        return self._reduce(tensor, "SUM")

    def largest(self, tensor: torch.Tensor) -> torch.Tensor:
        """The largest value of each element over the processes, in place; it has no gradient."""
        return self._reduce(tensor, "MAX")

    def _reduce(self, tensor: torch.Tensor, operation: str) -> torch.Tensor:
        if self.several:
            import torch.distributed as dist

            with explain_lost():
                dist.all_reduce(tensor, getattr(dist.ReduceOp, operation))
        return tensor

    def gather_json(self, value: Any) -> list[Any]:
        """The values of all processes by rank, as JSON has them."""
        if not self.several:
            return [value]
        import torch

        encoded = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = self.gather(torch.tensor([len(encoded)])).tolist()
        return [json.loads(bytes(part.tolist())) for part in self.gather(encoded).split(sizes)]

    def share(self, value: T) -> T:
        """The value of the first process, as JSON has it, in all of them; what the others pass is not looked at."""
        if not self.several:
            return value
        shared: T = self.gather_json(value if self.first else None)[0]
        return shared

    def by_first(self, act: Callable[[], T]) -> T:
        """Do something in the first process only, while the others wait; all get its result, or its error.

        Args:
            act: Gives what JSON can hold. Within it `processes()` is a single one.
        """
        if not self.several:
            return act()
        outcome: dict[str, Any] = {}
        failure: McipError | None = None
        if self.first:
            try:
                with alone():
                    outcome = {"value": act()}
            except McipError as error:
                failure = error
                outcome = {"error": type(error).__name__, "message": str(error)}
        outcome = self.share(outcome)
        if failure is not None:
            raise failure
        if "error" in outcome:
            raise getattr(errors, outcome["error"], McipError)(outcome["message"])
        value: T = outcome["value"]
        return value

    def first_then_all(self, act: Callable[[], T]) -> T:
        """Do something in the first process, then in the others, which find the files that it wrote."""
        if self.several:
            self.by_first(lambda: _forget(act()))
            with alone():
                return act()
        return act()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.share(None)


def of_environment() -> Processes:
    """What the launcher says in RANK, WORLD_SIZE and LOCAL_RANK; a single process where it says nothing."""
    count, rank, local_rank = (_number(name, 0) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    return Processes(rank, count, local_rank) if count > 1 else Processes()


def processes() -> Processes:
    """The processes of this run; where there are several, their connection is made at the first call.

    Raises:
        ConfigError: The launcher's variables are incomplete, or the others cannot be reached.
    """
    global _started
    if _alone.get():
        return Processes()
    if _started is None:
        found = of_environment()
        if not found.several:
            _note_single_launch()
            return found
        from mcip.core import collectives

        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing or found.rank >= found.count:
            raise ConfigError(
                f"WORLD_SIZE is {found.count}, but {' and '.join(missing) or 'RANK'} is missing or wrong: start the "
                "command by torchrun or accelerate launch, or unset WORLD_SIZE."
            )
        collectives.connect(found)
        _started = found
    return _started


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let `processes()` be a single one in the block, which runs in this process only."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextlib.contextmanager
def explain_lost() -> Iterator[None]:
    """Turn torch's errors of a lost connection into a `ProcessError` with what the other process said, if it did."""
    try:
        yield
    except RuntimeError as error:
        if _started is None or not any(words in str(error) for words in _LOST):
            raise
        from mcip.core import collectives

        raise ProcessError(collectives.reason_of_end()) from error


def reports(message: str) -> bool:
    """Whether this process is the one to print an error, which ends the others: the first of those that meet it."""
    if _started is None:
        return of_environment().first
    from mcip.core import collectives

    return collectives.record_failure(message)


def check_one_process() -> None:
    """Refuse to write anything where this is one of several processes of one run.

    Raises:
        ConfigError: It is.
    """
    count = of_environment().count
    if count > 1:
        raise ConfigError(
            f"This is one of {count} processes that were started together (WORLD_SIZE), and each would do the whole "
            "work: start the command once, without torchrun or accelerate launch."
        )


@functools.cache
def _note_single_launch() -> None:
    """Say where `accelerate launch` was told of several processes, which shows in MASTER_PORT, and started one."""
    if os.environ.get("ACCELERATE_USE_CPU") and os.environ.get("MASTER_PORT") and not os.environ.get("WORLD_SIZE"):
        from mcip.core.progress import console

        console.print(
            "accelerate launch started this process alone: for several give it --multi_gpu, on CPUs too, and not --cpu."
        )


def _forget(value: object) -> None:
    """Keep nothing of a value that JSON cannot hold."""


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else otherwise
