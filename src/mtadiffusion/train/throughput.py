"""What a training step costs and what the device could do: FLOPs a sample, attainable FLOP/s, peak memory."""

from __future__ import annotations

import json
import resource
import time
from functools import lru_cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mtadiffusion.config import BranchConfig, TrainConfig
from mtadiffusion.models.conditioning import branch_input
from mtadiffusion.models.injection import BranchInjection
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.precision import autocast_dtype
from mtadiffusion.train.setup import new_branch

_TOKENS = 77
_TRIALS = 3


class DeviceLoad:
    """How well a run uses its device."""

    def __init__(self, config: TrainConfig, backbone: Backbone, device: torch.device) -> None:
        self._config, self._unet, self._device = config, backbone.unet, device
        self._latent_side = config.data.size // backbone.latent_factor
        self._dtype = autocast_dtype(config) or torch.float32

    def figures(self, samples_per_second: float) -> dict[str, float]:
        """`peak_share`: FLOP/s against those of a large matrix product on this device; `memory_gb`."""
        flops = sample_flops(self._config.branch, self._unet, self._latent_side)["training"]
        share = samples_per_second * flops / attainable_flops(str(self._device), self._dtype)
        return {"peak_share": share, "memory_gb": peak_memory_gb(self._device)}


def sample_flops(settings: BranchConfig, unet: Any, latent_side: int) -> dict[str, float]:
    """FLOPs of one sample of side `latent_side`, 2 a multiply-add, counted on networks without weights.

    Returns:
        `unet` and `branch`, one forward pass of each, and `training`: both ways through both, where the
        frozen UNet has no gradient of its weights, the style VGG left out and nothing computed twice.
    """
    config = {name: value for name, value in dict(unet.config).items() if not name.startswith("_")}
    return dict(_sample_flops(settings, json.dumps(config), latent_side))


@lru_cache(maxsize=8)
def _sample_flops(settings: BranchConfig, unet_config: str, side: int) -> dict[str, float]:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(json.loads(unet_config))
        branch: Any = new_branch(settings, unet, initialise="fresh")
        unet.requires_grad_(False)
        injection = BranchInjection(unet)
        noisy = torch.empty(1, unet.config.in_channels, side, side)
        text = torch.empty(1, _TOKENS, unet.config.cross_attention_dim)
        timesteps, added = torch.zeros(1), _added_conditions(unet)
        counts: dict[str, float] = {}
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            outcome = branch(branch_input(noisy, noisy, noisy[:, :1]), timesteps, **added)
            counts["branch"] = float(counter.get_total_flops())
            with injection.features(outcome.features):
                prediction = unet(noisy, timesteps, encoder_hidden_states=text, **added).sample
            counts["unet"] = counter.get_total_flops() - counts["branch"]
            prediction.sum().backward()
            counts["training"] = float(counter.get_total_flops())
    return counts


def _added_conditions(unet: Any) -> dict[str, Any]:
    """SDXL's pooled text and sizes, where the backbone asks for them."""
    if unet.config.addition_embed_type != "text_time":
        return {}
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    return {"added_cond_kwargs": {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}}


@lru_cache(maxsize=4)
def attainable_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product on this device as it is set up now, the best of a few."""
    side = 512 if device.startswith("cpu") else 8192
    factor = torch.ones(side, side, device=device, dtype=dtype)
    seconds = [_seconds_of_product(factor) for _ in range(_TRIALS)]
    return 2 * side**3 / min(seconds)


def _seconds_of_product(factor: torch.Tensor) -> float:
    started = time.perf_counter()
    (factor @ factor)[0, 0].item()  # waits for the device
    return time.perf_counter() - started


def peak_memory_gb(device: torch.device) -> float:
    """Most memory that was in use so far, in 10^9 bytes: the GPU's by tensors, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
