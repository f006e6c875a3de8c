"""The processes that train together, on accelerate: how networks are wrapped, what is agreed on among all.

One process alone is the common case: nothing is wrapped then. Whether several copy the branch (DDP) or split
it (FSDP2) is the launcher's business: `torchrun`, or `accelerate launch` with its configuration.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, reduce
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mtadiffusion.errors import UserError
from mtadiffusion.models.loading import torch_device

_LONGEST_WAIT = timedelta(hours=12)
"""The first process fills a latent cache, or validates, while the others wait."""


class Processes:
    """This process among those of the run.

    Args:
        device: torch device of a process alone; of several, each takes its own of this kind.
        some_unused: whether a forward pass may leave trainable parameters out.

    Raises:
        UserError: no such device, or several were asked for, and the launcher started this one alone.
    """

    def __init__(self, device: str, *, some_unused: bool = False) -> None:
        replicas = DistributedDataParallelKwargs(
            broadcast_buffers=False, find_unused_parameters=some_unused, gradient_as_bucket_view=True
        )
        self._accelerator = Accelerator(
            cpu=device == "cpu",
            device_placement=False,
            mixed_precision="no",  # the training step has its own autocast
            kwargs_handlers=[replicas, InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
        )
        self.count: int = self._accelerator.num_processes
        self.index: int = self._accelerator.process_index
        self.is_main: bool = self._accelerator.is_main_process
        if self.count == 1:
            _check_alone()
        self.device = self._accelerator.device if self.count > 1 else torch_device(device, "device")

    @property
    def wraps(self) -> bool:
        """Whether networks are wrapped, so that gradients are reduced in the backward pass alone."""
        return str(self._accelerator.distributed_type.value) != "NO"

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The module wrapped for all processes, and the optimiser of its parameters as they are then."""
        wrapped, prepared = self._accelerator.prepare(module, optimizer)
        return wrapped, prepared.optimizer

    def backward_context(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """For one of a step's forward and backward passes: only the last reduces the gradients."""
        return contextlib.nullcontext() if last else self._accelerator.no_sync(wrapped)

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        if self.count == 1:
            return flag
        return bool(reduce(torch.tensor(float(flag), device=self.device), "sum") > 0)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value's mean over the processes."""
        if self.count == 1:
            return dict(values)
        means = reduce(torch.tensor(list(values.values()), device=self.device), "mean")
        return dict(zip(values, means.tolist(), strict=True))

    def wait(self) -> None:
        """Return when all processes have come here."""
        self._accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others do."""
        with self._accelerator.main_process_first():
            yield

    def close(self) -> None:
        """Leave the group; the last thing that is done."""
        if self.count > 1:
            self._accelerator.end_training()


def _check_alone() -> None:
    """`accelerate launch --cpu --num_processes N` starts one process without a word, unless it has mpirun."""
    of_several = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ
    if of_several and os.environ.get("ACCELERATE_USE_CPU") == "True":
        remedy = "use torchrun --nproc-per-node N, or accelerate launch --multi_gpu --num_processes N "
        remedy += "with --set device=cpu"
        raise UserError("accelerate launch --cpu", "starts one process of those asked for", None, remedy)


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which each process may hold a part only. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of it, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def split_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, divided among the processes as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """A network's state dict in full. All processes must call it."""
    return {name: whole(value) for name, value in network.state_dict().items()}


def load_whole(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict in full into a module whose parameters may be divided."""
    own: dict[str, Any] = module.state_dict()
    module.load_state_dict({name: split_like(value, own.get(name, value)) for name, value in tensors.items()})
