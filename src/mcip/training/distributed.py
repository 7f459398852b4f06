"""Training in several processes: each has the gradients of its own rows, and they are summed (DDP, FSDP2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mcip.core.processes import Processes
from mcip.core.shards import is_sharded, mesh_of


def sum_gradients(module: nn.Module) -> nn.Module:
    """The module, whose gradients are summed over the processes while backward runs (DDP).

    One whose weights are sharded does so already, and one that trains nothing need not.
    """
    parameters = list(module.parameters())
    if any(map(is_sharded, parameters)) or not any(parameter.requires_grad for parameter in parameters):
        return module
    from torch.nn.parallel import DistributedDataParallel

    parallel = DistributedDataParallel(module)
    parallel.register_comm_hook(None, lambda state, bucket: _sum(bucket))
    return parallel


@contextlib.contextmanager
def keep_gradients(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block gradients are added up in each process by itself, to be summed over the processes later."""
    from torch.nn.parallel import DistributedDataParallel

    with contextlib.ExitStack() as stack:
        for module in modules:
            if isinstance(module, DistributedDataParallel):
                stack.enter_context(module.no_sync())
        yield


def _sum(bucket: Any) -> torch.futures.Future[Tensor]:
    """DDP divides by the number of processes; the loss is a mean over the global batch already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


def shard_tower(tower: nn.Module, device: torch.device) -> None:
    """Keep a part of each weight in each process, and bring a block's weights together while it runs (FSDP2).

    Args:
        tower: Its parameters become `DTensor`s.
        device: Where it is trained.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = mesh_of(device)
    # Blocks before what holds them, as `fully_shard` wants it.
    for module in [*reversed([block for part in tower.modules() for block in _blocks(part)]), tower]:
        sharded: FSDPModule = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
        # Memory for the whole weights is made now: made in a validation, torch would refuse to train with it.
        sharded.unshard()
        sharded.reshard()


def _blocks(part: nn.Module) -> list[nn.Module]:
    """The children of a list of like modules, such as the blocks of a transformer."""
    children = list(part.children()) if isinstance(part, nn.ModuleList | nn.Sequential) else []
    like = len(children) > 1 and len({type(child) for child in children}) == 1
    return [child for child in children if any(True for _ in child.parameters())] if like else []


def average_gradients(parameters: Iterable[nn.Parameter], team: Processes) -> None:
    """Make gradients that every process computed alike equal to the last bit, so that their weights stay equal."""
    for parameter in parameters:
        if parameter.grad is not None and not is_sharded(parameter):
            team.sum(parameter.grad).div_(team.count)
