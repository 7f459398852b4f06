"""Tensors of which each process holds a part: `DTensor`s, of which each process writes its rows into a checkpoint.

They are a tower's weights (FSDP2) or class centers: clipping, the optimiser and checkpoints need not know which. Rows
are read from whichever file has them, so that any number of processes can go on with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import torch
import torch.distributed as dist
from torch import Tensor

from mcip.core.processes import Processes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

# Stands for a sharded tensor in what the first process writes: its place among the parts of each process.
_PLACE: Final = "sharded tensor"


@dataclass(frozen=True)
class SavedRows:
    """A tensor as several processes wrote it.

    Attributes:
        parts: Consecutive rows, those of each process.
    """

    parts: Sequence[Tensor]

    @property
    def shape(self) -> torch.Size:
        """That of the whole tensor."""
        return torch.Size([sum(map(len, self.parts)), *self.parts[0].shape[1:]])

    @property
    def dtype(self) -> torch.dtype:
        """That of all parts."""
        return self.parts[0].dtype

    def take(self, rows: range) -> Tensor:
        """Rows from one to another; only the parts that have them are read."""
        found, start = [], 0
        for part in self.parts:
            found.append(part[max(0, rows.start - start) : max(0, rows.stop - start)])
            start += len(part)
        return torch.cat(found)


def mesh_of(device: torch.device) -> DeviceMesh:
    """All processes of the run in one dimension, with the devices of this type."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, (dist.get_world_size(),))


def rows_of_shard(rows: int, team: Processes) -> range:
    """The rows of a sharded tensor that a process holds: equal parts, of which the last are shorter or empty."""
    size = -(-rows // team.count)
    return range(min(rows, team.rank * size), min(rows, (team.rank + 1) * size))


def sharded_by_rows(part: Tensor, rows: int, device: torch.device, mesh: DeviceMesh | None = None) -> DTensor:
    """A tensor of `rows` rows, of which each process holds those of `rows_of_shard`.

    Args:
        part: The rows of this process.
        rows: Of all processes together.
        device: Where they lie.
        mesh: The processes; all of the run if not given.
    """
    from torch.distributed.tensor import DTensor, Shard

    shape = torch.Size([rows, *part.shape[1:]])
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        part.to(device), mesh or mesh_of(device), [Shard(0)], run_check=False, shape=shape, stride=stride
    )


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process holds a part of it."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return part


def whole(value: Any, keep: bool = True) -> Any:
    """Bring the shards of each tensor in nested dicts and lists together, on the CPU; the rest is left as it is.

    All processes call it. Where `keep` is false the result is not needed here, and empty tensors stand in it.
    """

    def full(tensor: Any) -> Tensor:
        found = tensor.detach().full_tensor()
        return found.cpu() if keep else torch.empty(0)

    return _replaced(value, _is_sharded_tensor, full)


def separate(value: Any, parts: list[Tensor]) -> Any:
    """What nested dicts and lists hold, with the place of each sharded tensor's own rows among `parts` in its stead."""

    def place(tensor: Tensor) -> dict[str, int]:
        parts.append(local(tensor.detach()).cpu())
        return {_PLACE: len(parts) - 1}

    return _replaced(value, _is_sharded_tensor, place)


def put_together(value: Any, parts: Sequence[Sequence[Tensor]]) -> Any:
    """The reverse of `separate`, by the parts of all processes in the order of their ranks: `SavedRows` for tensors."""

    def is_place(item: Any) -> bool:
        return isinstance(item, Mapping) and item.keys() == {_PLACE}

    return _replaced(value, is_place, lambda item: SavedRows([own[item[_PLACE]] for own in parts]))


def _is_sharded_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and is_sharded(value)


def _replaced(value: Any, applies: Callable[[Any], bool], replace: Callable[[Any], Any]) -> Any:
    """Nested dicts and lists with other items in the place of some."""
    if applies(value):
        return replace(value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, applies, replace) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, applies, replace) for item in value)
    return value


def part_like(saved: Tensor | SavedRows, like: Tensor) -> Tensor:
    """A tensor of a checkpoint as `like` is: in shards on its device, or whole."""
    if not is_sharded(like):
        return saved.take(range(saved.shape[0])) if isinstance(saved, SavedRows) else saved
    rows, sharded = saved if isinstance(saved, SavedRows) else SavedRows([saved]), cast("DTensor", like)
    own = rows_of_shard(rows.shape[0], Processes(dist.get_rank(), dist.get_world_size()))
    return sharded_by_rows(rows.take(own), rows.shape[0], like.device, sharded.device_mesh)


def optimizer_parts(state: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The state of an optimiser in a checkpoint, as it belongs to parameters that may be sharded."""

    def like(value: Tensor | SavedRows, parameter: Tensor) -> Tensor:
        # Moments in 8 bits are a type of their own, of unsharded parameters alone.
        if not isinstance(value, SavedRows) and (value.shape != parameter.shape or type(value) is not Tensor):
            return value
        # Fused optimisers take for granted that moments lie in memory as their parameter does, channels last or not.
        return torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(part_like(value, parameter))

    parts = {
        number: {name: like(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": parts}
