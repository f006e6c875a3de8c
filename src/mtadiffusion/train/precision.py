"""How a run computes: in which precision, and how its loss is scaled for it."""

from __future__ import annotations

import torch

from mtadiffusion.config import TrainConfig


def set_precision(device: torch.device, config: TrainConfig) -> None:
    """Let a GPU compute in TF32 where asked to; it holds for the process."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32


def autocast_dtype(config: TrainConfig) -> torch.dtype | None:
    """What branch and UNet compute in; None: in the weights' own float32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)


def loss_scaler(device: torch.device, config: TrainConfig) -> torch.amp.GradScaler:
    """Scales the loss in float16, whose gradients would vanish; does nothing in the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
