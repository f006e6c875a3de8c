"""CLIP in open_clip's layout of weights: HPS, LAION's and others' checkpoints as transformers' CLIPModel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtadiffusion.errors import UserError
from mtadiffusion.models.clip_scorer import ClipScorer

_RULES = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
)
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
"""Kept by open_clip as matrices on the right, by transformers as linear layers: transposed."""

_VISION_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Of ViT-H, g and bigG; all other widths are divided into heads of 64."""


@dataclass(kw_only=True)
class OpenClipScorer(ClipScorer):
    """Unit vectors of a CLIP whose weights are in open_clip's layout; pictures are prepared as for CLIP."""

    checkpoint: str
    """File of the weights."""

    activation: str = "gelu"
    """`gelu`, or `quick_gelu` for OpenAI's own weights."""

    model: str = "openai/clip-vit-large-patch14"
    """Hub id or folder of a tokenizer; all CLIPs have the same."""

    def load(self) -> None:
        """Load the tokenizer and convert the network."""
        from transformers import CLIPProcessor, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        network: Any = clip_from_open_clip(read_open_clip(Path(self.checkpoint)), self.activation)
        side = network.config.vision_config.image_size
        pictures = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        self._processor = CLIPProcessor(pictures, CLIPTokenizer.from_pretrained(self.model))
        self._network = network.to(self.device).eval()


def read_open_clip(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint of open_clip's training, which may lie under `state_dict`.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = content.get("state_dict", content)
        return {name.removeprefix("module."): tensor.float() for name, tensor in weights.items()}
    except Exception as error:  # whatever the loader makes of a file that is something else
        raise UserError("CLIP weights", "must be a checkpoint in open_clip's layout", str(path)) from error


def clip_from_open_clip(weights: Mapping[str, Tensor], activation: str) -> Any:
    """A transformers CLIPModel with these weights; its sizes are read off the tensors.

    Raises:
        UserError: tensors are missing or of other shapes.
    """
    from transformers import CLIPModel

    try:
        network = CLIPModel(_config(weights, activation))
    except KeyError as error:
        raise UserError("CLIP weights", "must be in open_clip's layout", f"no {error.args[0]}") from None
    converted = {new: tensor for old, tensor in weights.items() for new, tensor in _converted(old, tensor)}
    absent = sorted(network.state_dict().keys() - converted.keys())
    if absent:
        raise UserError("CLIP weights", "must be complete", f"no {absent[0]}", "the file is damaged")
    network.load_state_dict(converted, strict=False)
    return network


def _converted(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if name in _PROJECTIONS:
        return [(_PROJECTIONS[name], tensor.T)]
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    stem, packed, kind = name.partition("in_proj_")
    if packed:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return [(f"{stem}{letter}_proj.{kind}", part) for letter, part in parts]
    return [(name, tensor)]


def _config(weights: Mapping[str, Tensor], activation: str) -> Any:
    from transformers import CLIPConfig

    words, text_width = weights["token_embedding.weight"].shape
    vision_width, _, _, patch = weights["visual.conv1.weight"].shape
    patches = len(weights["visual.positional_embedding"]) - 1
    text = {
        **_tower(weights, "transformer.", text_width, 64),
        "vocab_size": words,
        "max_position_embeddings": len(weights["positional_embedding"]),
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "hidden_act": activation,
    }
    vision = {
        **_tower(weights, "visual.transformer.", vision_width, _VISION_HEAD_WIDTHS.get(vision_width, 64)),
        "patch_size": patch,
        "image_size": round(patches**0.5) * patch,
        "hidden_act": activation,
    }
    return CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=weights["text_projection"].shape[1]
    )


def _tower(weights: Mapping[str, Tensor], prefix: str, width: int, head_width: int) -> dict[str, int]:
    blocks = f"{prefix}resblocks."
    layers = {name.removeprefix(blocks).split(".")[0] for name in weights if name.startswith(blocks)}
    return {
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // head_width,
        "intermediate_size": len(weights[f"{blocks}0.mlp.c_fc.bias"]),
    }
