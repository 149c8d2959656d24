"""The processes of one run, as torchrun or `accelerate launch` start them: who does what, and how they agree.

Files are how results travel: each process makes its share of the cache's entries, then all read them, so the processes
need one file system in common. Only sums of gradients go over the network.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# Processes with little to do wait for the others at the end of a stage, however long it takes; one that died closes its
# connection, and the launcher stops the rest at once.
PATIENCE = timedelta(days=7)


def size() -> int:
    """Return the number of processes of this run. UserError if the environment holds no such number."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Return the number of this process, from 0. UserError if the environment holds no such number."""
    return _number("RANK", 0) if size() > 1 else 0


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not value.isdecimal() or not value.isascii():
        raise UserError(f"the environment variable {variable} is '{value}', and torchrun sets a number: unset it")
    return int(value)


def main() -> bool:
    """Whether this is the process that writes the run's folder and speaks."""
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of a list that is the same everywhere; may be empty."""
    return items[rank() :: size()]


@contextmanager
def together(device: str = "auto") -> Iterator[None]:
    """Connect the processes (gloo on CPUs, NCCL on GPUs) for the block; nothing to do for a single one."""
    if size() == 1:
        yield
        return
    import torch.distributed as dist
    from accelerate import PartialState

    PartialState(cpu=device == "cpu", timeout=PATIENCE)
    if dist.get_world_size() != size():
        raise RuntimeError(f"{size()} processes were announced and {dist.get_world_size()} are connected")
    yield  # no tear-down: in a sweep the next job goes on with the same connection
    barrier()


def local_device(kind: str) -> str:
    """Return the device of this process: with several processes each takes the GPU of its local rank."""
    return f"{kind}:{_number('LOCAL_RANK', 0)}" if size() > 1 and kind == "cuda" else kind


def agree(value: T) -> T:
    """Return the first process's value, in every process."""
    if size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait until every process is here."""
    if size() > 1:
        import torch.distributed as dist

        dist.barrier()


def add_up(tensors: Sequence["Tensor"]) -> None:
    """Replace every tensor by its sum over the processes, in place; one message for all of a type.

    They may lie on the CPU though the processes talk from GPU to GPU: NCCL sends nothing from elsewhere.
    """
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    for dtype in {tensor.dtype for tensor in tensors}:
        group = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        if dist.get_backend() == "nccl":
            flat = flat.to(local_device("cuda"))
        dist.all_reduce(flat)
        for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))
