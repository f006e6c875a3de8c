"""The forward noise process as training sees it: noising, the prediction target, and one DDIM step back.

z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (docs/method.md, notation and section 4). Sampling from a
trained model is the diffusers scheduler's work, not this module's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtadiffusion.errors import UserError


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """Cumulative noise levels and what the backbone predicts."""

    alphas_cumprod: Tensor
    """float (T,): abar_t."""

    prediction_type: str
    """`epsilon` or `v_prediction`, as in the scheduler's configuration."""

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(
                "backbone", "must predict epsilon or v (scheduler prediction_type)", self.prediction_type
            )
        if self.prediction_type == "epsilon" and float(self.alphas_cumprod[-1]) == 0:
            rule = "must predict v where its schedule ends in nothing but noise"
            remedy = "set prediction_type to v_prediction or rescale_betas_zero_snr to false in its scheduler"
            raise UserError("backbone", rule, self.prediction_type, remedy)

    @classmethod
    def from_scheduler(cls, scheduler: Any, device: torch.device | str = "cpu") -> NoiseSchedule:
        """The schedule of a diffusers scheduler."""
        return cls(
            alphas_cumprod=scheduler.alphas_cumprod.to(device=device, dtype=torch.float32),
            prediction_type=scheduler.config.prediction_type,
        )

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def device(self) -> torch.device:
        """Where the noise levels lie."""
        return self.alphas_cumprod.device

    def factors(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) -> sqrt(abar_t), sqrt(1 - abar_t), each (B, 1, 1, 1). A timestep below 0 is noise-free."""
        level = self.alphas_cumprod[timesteps.clamp(min=0)]
        level = torch.where(timesteps < 0, torch.ones_like(level), level)[:, None, None, None]
        return level.sqrt(), (1 - level).sqrt()

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """z_t of `clean` (B, C, h, w) at `timesteps` (B,)."""
        signal, spread = self.factors(timesteps)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the backbone should predict: eps, or v = sqrt(abar_t) eps - sqrt(1 - abar_t) z_0."""
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self.factors(timesteps)
        return signal * noise - spread * clean

    def min_snr_weights(self, timesteps: Tensor, limit: float) -> Tensor:
        """(B,) weights of the loss at `timesteps`: the signal-to-noise ratio, at most `limit`, over what the
        kind of prediction already weighs with (Hang et al. 2023, section 3.4)."""
        level = self.alphas_cumprod[timesteps]
        ratio = (level / (1 - level)).clamp(min=1e-10)  # a schedule may end in nothing but noise
        return ratio.clamp(max=limit) / (ratio if self.prediction_type == "epsilon" else ratio + 1)

    def split_prediction(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The (z_0, eps) that `prediction` at z_t = `noisy` stands for, each (B, C, h, w)."""
        signal, spread = self.factors(timesteps)
        if self.prediction_type == "epsilon":
            return (noisy - spread * prediction) / signal, prediction
        return signal * noisy - spread * prediction, signal * prediction + spread * noisy
