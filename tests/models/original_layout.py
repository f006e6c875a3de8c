"""A tiny pipeline's weights under the names of the original checkpoints, the inverse of what diffusers'
single-file loading does. The names are those of the published SD1.5 and SDXL files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def save_as_one_file(
    parts: dict[str, Any], path: Path, extra: tuple[str, ...] = (), *, sd2: bool = False
) -> None:
    """Write the networks of `load_components` as one file.

    `extra` names empty marking tensors; with `sd2` a single text encoder is written as 2.x has it.
    """
    weights = _prefixed("model.diffusion_model.", unet_weights(parts["unet"]))
    weights |= _prefixed("first_stage_model.", vae_weights(parts["vae"]))
    two = "text_encoder_2" in parts
    prefix = "conditioner.embedders.0.transformer." if two else "cond_stage_model.transformer."
    if sd2:
        weights |= _prefixed("cond_stage_model.model.", open_clip_weights(parts["text_encoder"]))
    else:
        first = parts["text_encoder"].state_dict()
        first = {name.removeprefix("text_model."): value for name, value in first.items()}
        weights |= _prefixed(f"{prefix}text_model.", first)
    if two:
        second = open_clip_weights(parts["text_encoder_2"])
        weights |= _prefixed("conditioner.embedders.1.model.", second)
    weights |= {name: torch.empty(0) for name in extra}
    save_file({name: value.contiguous() for name, value in weights.items()}, path)


def unet_weights(unet: Any) -> dict[str, Tensor]:
    places = {**UNET_ENDS, **_resnets("mid_block.resnets.0", "middle_block.0")}
    places |= {
        "mid_block.attentions.0": "middle_block.1",
        **_resnets("mid_block.resnets.1", "middle_block.2"),
    }
    number = 0
    for level, block in enumerate(unet.down_blocks):
        for layer in range(len(block.resnets)):
            number += 1
            places |= _resnets(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0")
            places[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
        if block.downsamplers:
            number += 1
            places[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
    number = 0
    for level, block in enumerate(unet.up_blocks):
        for layer in range(len(block.resnets)):
            places |= _resnets(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0")
            places[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        third = 2 if getattr(block, "attentions", None) else 1
        places[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{third}.conv"
    return _renamed(unet.state_dict(), places)


def vae_weights(vae: Any) -> dict[str, Tensor]:
    renamed = {}
    last = len(vae.decoder.up_blocks) - 1
    for name, value in vae.state_dict().items():
        attention = ".attentions.0." in name
        name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{last - int(match[1])}", name)
        for pattern, replacement in (
            (r"down_blocks\.", "down."),
            (r"mid_block\.resnets\.0", "mid.block_1"),
            (r"mid_block\.resnets\.1", "mid.block_2"),
            (r"mid_block\.attentions\.0", "mid.attn_1"),
            (r"resnets\.", "block."),
            (r"(down|up)samplers\.0", r"\1sample"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
            ("group_norm", "norm"),
            (r"to_out\.0", "proj_out"),
            (r"to_([qkv])\b", r"\1"),
        ):
            name = re.sub(pattern, replacement, name)
        renamed[name] = value[..., None, None] if attention and value.ndim == 2 else value
    return renamed


def open_clip_weights(encoder: Any) -> dict[str, Tensor]:
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    renamed = {
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    if "text_projection.weight" in state:
        renamed["text_projection"] = state["text_projection.weight"].T
    for name, value in state.items():
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            layer, module, kind = match.groups()
            if module in OPEN_CLIP:
                renamed[f"transformer.resblocks.{layer}.{OPEN_CLIP[module]}.{kind}"] = value
            elif module == "self_attn.q_proj":
                parts = [state[name.replace("q_proj", letter)] for letter in ("q_proj", "k_proj", "v_proj")]
                renamed[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    return renamed


def _prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def _resnets(place: str, original: str) -> dict[str, str]:
    return {f"{place}.{name}": f"{original}.{other}" for name, other in RESNET.items()}


def _renamed(state: dict[str, Tensor], places: dict[str, str]) -> dict[str, Tensor]:
    result = {}
    for name, value in state.items():
        place = next(place for place in places if name.startswith(f"{place}."))
        result[places[place] + name.removeprefix(place)] = value
    return result
