"""What a run would train: sizes, memory and steps, from configurations alone; no weight is loaded."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mtadiffusion.config import TrainConfig
from mtadiffusion.models.registry import resolve_backbone
from mtadiffusion.train.dataset import record_source
from mtadiffusion.train.setup import new_branch

_FLOAT32 = 4
_TRAINED_COPIES = 5
"""A trained weight is there as itself, its gradient, AdamW's two moments and its moving average."""


def plan(config: TrainConfig) -> dict[str, Any]:
    """JSON-ready figures of a run, in the order to be shown.

    Raises:
        UserError: the backbone or the data is not there.
    """
    data, folder = config.data, resolve_backbone(config.backbone, "backbone")
    source = record_source(data.source, "train", data.source_seed, data.size)
    records = min(data.records or len(source), len(source))
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        frozen = {
            "unet": unet,
            "vae": _vae(folder / "vae"),
            "text encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")),
        }
        branch = new_branch(config.branch, unet, initialise="fresh")
    sizes = {name: _millions(network) for name, network in frozen.items()} | {"branch": _millions(branch)}
    trained = _TRAINED_COPIES * _FLOAT32 * sizes["branch"] / 1e3
    resident = _FLOAT32 * sum(sizes[name] for name in frozen) / 1e3
    samples = config.steps * config.samples_a_step
    return {
        "backbone": str(folder),
        "data": data.source,
        "records": records,
        **{f"{name}, million parameters": round(size, 1) for name, size in sizes.items()},
        "resolution": f"{data.size}x{data.size}",
        "steps": config.steps,
        "samples a step": config.samples_a_step,
        "samples in all": samples,
        "visits to each record": round(samples / records, 2),
        "GB of frozen weights": round(resident, 2),
        "GB of the branch, its gradient, AdamW and average": round(trained, 2),
        "GB of activations": "not estimated",
        "precision": config.precision,
        "device": config.device,
    }


def _vae(folder: Any) -> nn.Module:
    config: dict[str, Any] = AutoencoderKL.load_config(folder)
    kinds: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    return kinds[config["_class_name"]].from_config(config)


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
