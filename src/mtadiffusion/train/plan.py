"""What a run would train: sizes, memory and steps, from configurations alone; no weight is loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mtadiffusion.config import TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.models.loading import empty_components
from mtadiffusion.models.registry import resolve_backbone
from mtadiffusion.train.backbone import networks_of_a_step
from mtadiffusion.train.dataset import record_source
from mtadiffusion.train.setup import check_style_vgg, new_branch

_FLOAT32 = 4
_MOMENT_BYTES = {"adamw": 2 * _FLOAT32, "adamw8bit": 2, "sgd": 0}
"""What the optimiser keeps of a trained weight, beside itself, its gradient and its moving average."""


def plan(config: TrainConfig) -> dict[str, Any]:
    """JSON-ready figures of a run, in the order to be shown; of a hub id only configurations are fetched.

    Raises:
        UserError: the backbone or the data is not there.
    """
    data, path = config.data, resolve_backbone(config.backbone, "backbone", ())
    source = record_source(data.source, "train", data.source_seed, data.size)
    records = min(data.records or len(source), len(source))
    frozen = empty_components(path, "backbone")
    branch = new_branch(config.branch, frozen["unet"], initialise="fresh")
    held = {name: part for name, part in frozen.items() if name in networks_of_a_step(config)}
    samples = config.steps * config.samples_a_step
    return {
        "backbone": str(path),
        "branch": config.branch.start_from or f"new, from {config.branch.initialise} weights",
        "style VGG": _style_vgg(config),
        "critic": f"new, {config.critic.width} channels" if config.loss.adversarial > 0 else "none",
        "data": data.source,
        "latent cache": _cache(config),
        "records": records,
        **{
            f"{name.replace('_', ' ')}, million parameters": round(_millions(part), 1)
            for name, part in (*frozen.items(), ("branch", branch))
        },
        "resolution": f"{data.size}x{data.size}",
        "steps": config.steps,
        "samples a step": config.samples_a_step,
        "samples in all": samples,
        "visits to each record": round(samples / records, 2) if records else 0,
        "networks frozen beside the branch": ", ".join(held),
        "GB of frozen weights": round(_frozen_gb(held, config.frozen_dtype), 2),
        "GB of the branch, its gradient, moments and average": round(_trained_gb(branch, config), 2),
        "GB of activations": "not estimated",
        "precision": config.precision,
        "device": config.device,
    }


def _style_vgg(config: TrainConfig) -> str:
    if not config.loss.needs_vgg:
        return "none"
    how, weights = config.style_vgg.initialise, config.style_vgg.weights
    if how == "random":
        return how
    try:
        check_style_vgg(config.style_vgg)
    except UserError:
        return f"{how}, {weights}, which is not there"
    return f"{how}, {weights}"


def _cache(config: TrainConfig) -> str:
    if not config.data.cached:
        return "none"
    return config.data.cache_dir or "made in the run's folder at first"


def _frozen_gb(networks: dict[str, nn.Module], dtype: str) -> float:
    """Of the weights that are in memory while steps are taken; the autoencoder's stay in float32."""
    width = getattr(torch, dtype).itemsize
    return sum(
        _millions(part) * (_FLOAT32 if name == "vae" else width) / 1e3 for name, part in networks.items()
    )


def _trained_gb(branch: nn.Module, config: TrainConfig) -> float:
    return _millions(branch) * (3 * _FLOAT32 + _MOMENT_BYTES[config.optim.kind]) / 1e3


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
