"""ImageReward-v1.0 (Xu et al. 2023, arXiv 2304.05977): BLIP's text encoder looks at the picture, a
stack of linear layers turns its first state into a reward. Here on transformers' BLIP, with the published
checkpoint renamed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.clip import pictures
from mtadiffusion.evaluate.metrics.metric import Batch, Definition
from mtadiffusion.models.loading import loading_errors
from mtadiffusion.models.published import HubFolder

_FILE = "ImageReward.pt"
_MEAN, _SPREAD = 0.16717362830052426, 1.0333394966054072
"""Of the last layer's output over the authors' validation set."""

_TOKENS = 35
_HEAD_WIDTH = 64
_LINEAR_LAYERS = (0, 2, 4, 6, 7)
"""Places in the checkpoint's `mlp.layers`; dropouts lie between them."""

_VISION_RULES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)


class RewardNetwork(nn.Module):
    """BLIP's two encoders and the linear layers, with sizes read off a published state dict.

    Args:
        weights: names as in ImageReward.pt.

    Raises:
        KeyError, RuntimeError: another checkpoint.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        from transformers import BlipTextModel, BlipVisionModel

        super().__init__()
        vision, text = _under("blip.visual_encoder.", weights), _under("blip.text_encoder.", weights)
        self.vision: Any = BlipVisionModel(_vision_config(vision))
        self.text: Any = BlipTextModel(_text_config(text), add_pooling_layer=False)
        layers = [_under(f"mlp.layers.{place}.", weights) for place in _LINEAR_LAYERS]
        self.head = nn.Sequential(*(nn.Linear(*layer["weight"].shape[::-1]) for layer in layers))
        self.vision.load_state_dict({_renamed(name): tensor for name, tensor in vision.items()})
        text.pop("embeddings.position_ids", None)  # a buffer that counts from 0
        self.text.load_state_dict(text)
        for mine, theirs in zip(self.head, layers, strict=True):
            mine.load_state_dict(theirs)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Rewards (B,) of pixels (B, 3, side, side), CLIP-normalised, and tokens (B, L) with their mask."""
        seen = self.vision(pixels).last_hidden_state  # (B, patches + 1, width)
        read = self.text(input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen)
        return (self.head(read.last_hidden_state[:, 0])[:, 0] - _MEAN) / _SPREAD


@dataclass(kw_only=True)
class ImageReward:
    """The reward of a result for its prompt, about -2.5 to 2."""

    weights: str = "zai-org/ImageReward"
    """Hub id or folder that holds ImageReward.pt."""

    tokenizer: str = "google-bert/bert-base-uncased"
    """Hub id or folder of BERT's tokenizer."""

    definition: Definition = field(
        default=Definition(
            name="image_reward",
            title="ImageReward",
            better="higher",
            bounds=(-math.inf, math.inf),
            region="image",
            resize="224, bicubic, short side, centre crop",
            scale=10,
            source="ImageReward-v1.0 (arXiv 2304.05977); prompts are cut at 35 tokens",
        ),
        init=False,
        repr=False,
    )
    _device: str = field(default="cpu", init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)
    _words: Any = field(default=None, init=False, repr=False)
    _prepare: Any = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The checkpoint and the tokenizer."""
        return {"weights": self._checkpoint().digest(), "tokenizer": self._vocabulary().digest()}

    def setup(self, device: str) -> None:
        """Convert the checkpoint. Raises UserError where it or the tokenizer cannot be had."""
        from transformers import BertTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        file = self._checkpoint().fetched() / _FILE
        words = self._vocabulary().fetched()
        with loading_errors("image_reward.tokenizer", words):
            self._words = BertTokenizer.from_pretrained(words)
        self._network = load_reward(file).to(device).eval()
        side = self._network.vision.config.image_size
        self._prepare = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        self._device = device

    def score(self, batch: Batch) -> list[float | None]:
        """Unbounded; its mean over the authors' pictures is 0, its spread 1."""
        prompts = [sample.item.prompt for sample in batch.samples]
        return list(self._rewards(pictures(batch), prompts))

    @torch.inference_mode()
    def _rewards(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        pixels = self._prepare(images, return_tensors="pt")["pixel_values"].to(self._device)
        words = self._words(
            list(prompts), padding="max_length", truncation=True, max_length=_TOKENS, return_tensors="pt"
        ).to(self._device)
        return self._network(pixels, words.input_ids, words.attention_mask).tolist()

    def _checkpoint(self) -> HubFolder:
        return HubFolder(name=self.weights, files=(_FILE,), argument="image_reward.weights")

    def _vocabulary(self) -> HubFolder:
        return HubFolder(name=self.tokenizer, files=("tokenizer*.json",), argument="image_reward.tokenizer")


def load_reward(file: Path) -> RewardNetwork:
    """The network of ImageReward.pt. Raises UserError where the file holds something else."""
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return RewardNetwork({name: tensor.float() for name, tensor in weights.items()})
    except Exception as error:  # whatever the loader makes of a file that is something else
        raise UserError("image_reward.weights", "must be ImageReward-v1.0's checkpoint", str(file)) from error


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}


def _renamed(name: str) -> str:
    for pattern, replacement in _VISION_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _vision_config(weights: Mapping[str, Tensor]) -> Any:
    from transformers import BlipVisionConfig

    width, _, _, patch = weights["patch_embed.proj.weight"].shape
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(weights["blocks.0.mlp.fc1.bias"]),
        num_hidden_layers=_count(weights, "blocks."),
        num_attention_heads=width // _HEAD_WIDTH,
        image_size=round((weights["pos_embed"].shape[1] - 1) ** 0.5) * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )


def _text_config(weights: Mapping[str, Tensor]) -> Any:
    from transformers import BlipTextConfig

    words, width = weights["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=len(weights["encoder.layer.0.intermediate.dense.bias"]),
        num_hidden_layers=_count(weights, "encoder.layer."),
        num_attention_heads=width // _HEAD_WIDTH,
        max_position_embeddings=len(weights["embeddings.position_embeddings.weight"]),
    )


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
