"""What a run would train: sizes, memory and steps, from configurations alone; no weight is loaded."""

from __future__ import annotations

from typing import Any

from torch import nn

from mtadiffusion.config import TrainConfig
from mtadiffusion.models.loading import empty_components
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
    data, path = config.data, resolve_backbone(config.backbone, "backbone")
    source = record_source(data.source, "train", data.source_seed, data.size)
    records = min(data.records or len(source), len(source))
    frozen = {name.replace("_", " "): part for name, part in empty_components(path, "backbone").items()}
    branch = new_branch(config.branch, frozen["unet"], initialise="fresh")
    sizes = {name: _millions(network) for name, network in frozen.items()} | {"branch": _millions(branch)}
    trained = _TRAINED_COPIES * _FLOAT32 * sizes["branch"] / 1e3
    resident = _FLOAT32 * sum(sizes[name] for name in frozen) / 1e3
    samples = config.steps * config.samples_a_step
    return {
        "backbone": str(path),
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


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
