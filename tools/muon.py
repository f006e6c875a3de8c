"""Muon: momentum whose matrices are orthogonalised, so that every direction of a layer learns at one pace.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the update's scale is that of
Liu et al. 2025 (arXiv 2502.16982), which makes AdamW's learning rates fit. For the inner layers; convolutions
are matrices of (out, in * height * width).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz steps and coefficients of the original."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. Under `torchrun` each process does a share of the matrices.

    Args:
        params: tensors of two or more dimensions.
        lr: learning rate; an update's root mean square is 0.2 times it.
        momentum: decay of the running mean of gradients.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of all parameters; gradients are the same in all processes."""
        for group in self.param_groups:
            learned = [p for p in group["params"] if p.grad is not None]
            updates = _in_shares([self._direction(p, group["momentum"]) for p in learned])
            for parameter, update in zip(learned, updates, strict=True):
                scale = 0.2 * math.sqrt(max(update.shape))
                parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * scale)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
        mean.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum).reshape(len(parameter), -1)


def _in_shares(matrices: list[Tensor]) -> list[Tensor]:
    """All matrices orthogonalised, each by one process."""
    if not dist.is_initialized():
        return [orthogonalised(matrix) for matrix in matrices]
    rank, workers = dist.get_rank(), dist.get_world_size()
    mine = [m if i % workers == rank else torch.zeros_like(m) for i, m in enumerate(matrices)]
    done = [orthogonalised(m) if i % workers == rank else m for i, m in enumerate(mine)]
    message = torch.cat([matrix.reshape(-1) for matrix in done])
    dist.all_reduce(message)
    parts = message.split([matrix.numel() for matrix in matrices])
    return [part.view(matrix.shape) for part, matrix in zip(parts, matrices, strict=True)]


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix (m, n) with singular values of about one (0.7 to 1.2), by Newton-Schulz steps."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def inner_matrices(network: nn.Module) -> list[nn.Parameter]:
    """The weights of a UNet or autoencoder that Muon is meant for: all of its layers' but the outermost."""
    return [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.ndim >= 2 and not name.startswith(("conv_in", "conv_out"))
    ]
