"""Official BrushNet checkpoints (TencentARC's `BrushNetModel`) as the configuration and the weights of a
residual branch. Both kinds have the same keys; SDXL's has three levels and `add_embedding` besides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mtadiffusion.errors import UserError
from mtadiffusion.models.blocks import copy_tensors
from mtadiffusion.models.branch_config import check_family, shared_fields

if TYPE_CHECKING:
    from mtadiffusion.models.branch import InpaintBranch

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""What the weights are called in an official folder."""

# Their names against our branch's.
_NAMES = (
    (r"^conv_in_condition\.", "conv_in."),
    (r"^(down|up)_blocks\.(\d+)\.resnets\.", r"\1_levels.\2.layers."),
    (r"^(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r"\1_levels.\2.resampler."),
    (r"^mid_block\.resnets\.", "mid_level.layers."),
    (r"^brushnet_(down|up)_blocks\.", r"zero_\1."),
    (r"^brushnet_mid_block\.", "zero_mid."),
)
_SIZE_CHANNELS = 256
"""Channels that embed each of SDXL's six sizes; no shape tells them from the pooled text's."""

_NORM_GROUPS = 32
_OTHER = "the checkpoint belongs to another backbone, or is no BrushNet"


def is_brushnet(keys: Iterable[str]) -> bool:
    """Whether tensors of these names are a BrushNet's."""
    return "conv_in_condition.weight" in keys


def read_brushnet(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The branch's configuration and BrushNet's weights, from its folder or its safetensors file.

    Raises:
        UserError: no such weights, or a BrushNet that no branch is defined for.
    """
    from safetensors.torch import load_file

    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        remedy = "point at the folder or the file that holds it; pickled .bin weights are not read"
        raise UserError("branch", f"must be a BrushNet with {WEIGHTS}", str(path), remedy)
    weights = load_file(file)
    config = _config_beside(file)
    return brushnet_config(config) if config else config_of_weights(weights), weights


def brushnet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the residual branch that an official BrushNet's config.json describes.

    Raises:
        UserError: a BrushNet with attention or another part that no branch is defined for.
    """
    if "conditioning_channels" not in config:
        raise UserError(
            "branch", "must hold a BrushNet's config.json", None, "use from_pretrained for our own"
        )
    check_family(config)
    types = {*config["down_block_types"], config["mid_block_type"], *config["up_block_types"]}
    if strange := sorted(types - {"DownBlock2D", "MidBlock2D", "UpBlock2D"}):
        raise UserError("branch", "must be a BrushNet without attention", strange)
    channels = config["in_channels"]
    return {
        **shared_fields(config),
        **_residual(),
        "in_channels": channels + config["conditioning_channels"],
        "latent_channels": channels,
    }


def config_of_weights(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same, read off the weights, with what all of Stable Diffusion shares for what no shape shows:
    32 groups a norm and SDXL's 6 x 256 channels of sizes.

    Raises:
        UserError: not a BrushNet's weights, or widths for which those do not hold.
    """
    if not is_brushnet(weights):
        raise UserError("branch", "must hold BrushNet's layers", sorted(weights)[:3], _OTHER)
    if attentions := sorted(key for key in weights if ".attentions." in key):
        raise UserError("branch", "must be a BrushNet without attention", attentions[0])
    layers = _layers_of_levels(weights)
    widths = [
        _shape(weights, f"down_blocks.{level}.resnets.0.conv1.weight")[0] for level in range(len(layers))
    ]
    if any(width % _NORM_GROUPS for width in widths):
        remedy = "put the BrushNet's config.json beside its weights"
        raise UserError("branch", f"must have widths of whole {_NORM_GROUPS}s without one", widths, remedy)
    in_channels = _shape(weights, "conv_in_condition.weight")[1]
    return {
        **_residual(),
        **_added_fields(weights),
        "in_channels": in_channels,
        "latent_channels": (in_channels - 1) // 2,
        "block_out_channels": tuple(widths),
        "layers_per_block": tuple(layers),
        "mid_layers": sum(key.startswith("mid_block.") and key.endswith(".conv1.weight") for key in weights),
        "norm_num_groups": _NORM_GROUPS,
        "time_embedding_dim": _shape(weights, "time_embedding.linear_1.weight")[0],
    }


def load_brushnet_weights(branch: InpaintBranch, weights: Mapping[str, Tensor]) -> None:
    """Load weights in BrushNet's layout into `branch`; see `InpaintBranch.load_brushnet_state_dict`."""
    if branch.config.block != "residual":
        raise UserError("block", "must be 'residual' to take BrushNet's weights", branch.config.block)
    renamed = {_renamed(key): value for key, value in weights.items()}
    own = dict(branch.named_parameters())
    if strange := sorted(own.keys() ^ renamed.keys()):
        raise UserError("BrushNet weights", "must have the branch's layers", strange[:3], _OTHER)
    edge = f"up_levels.{len(branch.up_levels) - 1}.layers.{len(branch.up_levels[-1].layers) - 1}.conv2."
    for name, value in renamed.items():
        extra = int(branch.config.edge_head and name.startswith(edge))
        shape = (own[name].shape[0] - extra, *own[name].shape[1:])
        if tuple(value.shape) != shape:
            rule = f"must have the branch's shape {shape} in {name}"
            raise UserError("BrushNet weights", rule, tuple(value.shape), _OTHER)
    copy_tensors(branch, renamed)


def _residual() -> dict[str, Any]:
    return {"block": "residual", "position": "none", "edge_head": False, "hole_fill": "black"}


def _config_beside(file: Path) -> dict[str, Any] | None:
    """BrushNet's config.json in the folder of its weights; None if there is none, or another model's."""
    path = file.with_name("config.json")
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("branch", f"has a config.json that is damaged ({error})", str(path)) from error
    return config if "conditioning_channels" in config else None


def _layers_of_levels(weights: Mapping[str, Tensor]) -> list[int]:
    """The number of layers of each level on the way down."""
    found = (re.fullmatch(r"down_blocks\.(\d+)\.resnets\.\d+\.conv1\.weight", key) for key in weights)
    levels = [int(match[1]) for match in found if match]
    return [levels.count(level) for level in range(max(levels, default=-1) + 1)]


def _added_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of SDXL's added embedding, where there is one."""
    if "add_embedding.linear_1.weight" not in weights:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _SIZE_CHANNELS,
        "projection_class_embeddings_input_dim": _shape(weights, "add_embedding.linear_1.weight")[1],
    }


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in weights:
        raise UserError("branch", f"must hold BrushNet's {name}", None, _OTHER)
    return tuple(weights[name].shape)


def _renamed(key: str) -> str:
    for pattern, replacement in _NAMES:
        key, found = re.subn(pattern, replacement, key)
        if found:
            break
    return key
