"""The published checkpoints' layouts with a few random weights, and their arithmetic in plain torch.

Written as formulas, independently of the adapters: a state dict goes in, a score comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def _random(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        scale = 0.2 if len(shape) > 1 else 0.1
        weights[name] = scale * torch.randn(shape, generator=generator)
        if "norm" in name.lower() or ".ln_" in name or name.startswith("ln_"):
            weights[name] += name.endswith("weight")
    return weights


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of (B, N, C) after its projections; mask is added to (B, 1, N, M)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores if mask is None else scores + mask
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _dense(name: str, inner: int, outer: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def open_clip_weights(words: int, seed: int = 0) -> Weights:
    """A CLIP with pictures of 32 pixels: vision 128 wide, text 64, two layers each."""
    vision, text, side, patch = 128, 64, 32, 8
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, text), "text_projection": (text, 48), "logit_scale": (),
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": ((side // patch) ** 2 + 1, vision),
        "visual.proj": (vision, 48), "visual.conv1.weight": (vision, 3, patch, patch),
        "token_embedding.weight": (words, text), **_norm("visual.ln_pre", vision),
        **_norm("visual.ln_post", vision), **_norm("ln_final", text),
    }  # fmt: skip
    for tower, width in (("visual.transformer", vision), ("transformer", text)):
        for layer in range(2):
            block = f"{tower}.resblocks.{layer}"
            shapes |= {
                **_norm(f"{block}.ln_1", width), **_norm(f"{block}.ln_2", width),
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.in_proj_bias": (3 * width,),
                **_dense(f"{block}.attn.out_proj", width, width), **_dense(f"{block}.mlp.c_fc", width, 96),
                **_dense(f"{block}.mlp.c_proj", 96, width),
            }  # fmt: skip
    return _random(shapes, seed)


def open_clip_blocks(weights: Weights, tower: str, x: Tensor, mask: Tensor | None) -> Tensor:
    for layer in range(2):
        block = f"{tower}.resblocks.{layer}"
        hidden = norm(weights, f"{block}.ln_1", x, 1e-5)
        packed = F.linear(
            hidden, weights[f"{block}.attn.in_proj_weight"], weights[f"{block}.attn.in_proj_bias"]
        )
        attended = attention(*packed.chunk(3, -1), heads=x.shape[-1] // 64, mask=mask)
        x = x + linear(weights, f"{block}.attn.out_proj", attended)
        hidden = F.gelu(linear(weights, f"{block}.mlp.c_fc", norm(weights, f"{block}.ln_2", x, 1e-5)))
        x = x + linear(weights, f"{block}.mlp.c_proj", hidden)
    return x


def open_clip_cosines(weights: Weights, pixels: Tensor, tokens: Tensor) -> Tensor:
    """(B,) cosines of pixels (B, 3, 32, 32) and tokens (B, 77), padded with zeros after the end."""
    patches = F.conv2d(pixels, weights["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    first = weights["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches], 1) + weights["visual.positional_embedding"]
    x = open_clip_blocks(weights, "visual.transformer", norm(weights, "visual.ln_pre", x, 1e-5), None)
    image = norm(weights, "visual.ln_post", x[:, 0], 1e-5) @ weights["visual.proj"]

    x = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    causal = torch.full((77, 77), -math.inf).triu(1)
    x = norm(weights, "ln_final", open_clip_blocks(weights, "transformer", x, causal), 1e-5)
    text = x[torch.arange(len(x)), tokens.argmax(1)] @ weights["text_projection"]
    return F.cosine_similarity(image, text)


def image_reward_weights(words: int, seed: int = 0) -> Weights:
    """ImageReward with pictures of 32 pixels: vision and text 128 wide, two layers each."""
    width, side, patch, inner = 128, 32, 8, 96
    eye, reader = "blip.visual_encoder", "blip.text_encoder"
    shapes: dict[str, tuple[int, ...]] = {
        f"{eye}.cls_token": (1, 1, width), f"{eye}.pos_embed": (1, (side // patch) ** 2 + 1, width),
        f"{eye}.patch_embed.proj.weight": (width, 3, patch, patch), f"{eye}.patch_embed.proj.bias": (width,),
        **_norm(f"{eye}.norm", width),
        f"{reader}.embeddings.word_embeddings.weight": (words, width),
        f"{reader}.embeddings.position_embeddings.weight": (40, width),
        **_norm(f"{reader}.embeddings.LayerNorm", width),
    }  # fmt: skip
    for layer in range(2):
        block, deep = f"{eye}.blocks.{layer}", f"{reader}.encoder.layer.{layer}"
        shapes |= {
            **_norm(f"{block}.norm1", width), **_norm(f"{block}.norm2", width),
            **_dense(f"{block}.attn.qkv", width, 3 * width), **_dense(f"{block}.attn.proj", width, width),
            **_dense(f"{block}.mlp.fc1", width, inner), **_dense(f"{block}.mlp.fc2", inner, width),
            **_dense(f"{deep}.intermediate.dense", width, inner),
            **_dense(f"{deep}.output.dense", inner, width),
            **_norm(f"{deep}.output.LayerNorm", width),
        }  # fmt: skip
        for kind in ("attention", "crossattention"):
            for part in ("query", "key", "value"):
                shapes |= _dense(f"{deep}.{kind}.self.{part}", width, width)
            shapes |= _dense(f"{deep}.{kind}.output.dense", width, width)
            shapes |= _norm(f"{deep}.{kind}.output.LayerNorm", width)
    sizes = (width, 24, 16, 12, 8, 1)
    for place, (a, b) in zip((0, 2, 4, 6, 7), pairwise(sizes), strict=True):
        shapes |= _dense(f"mlp.layers.{place}", a, b)
    weights = _random(shapes, seed)
    return {**weights, f"{reader}.embeddings.position_ids": torch.arange(40)[None]}


def image_rewards(weights: Weights, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """(B,) rewards; tokens (B, 35), mask 1 = word."""
    seen = _blip_vision(weights, pixels)
    hidden = _blip_text(weights, tokens, mask, seen)[:, 0]
    for place in (0, 2, 4, 6, 7):
        hidden = linear(weights, f"mlp.layers.{place}", hidden)
    return (hidden[:, 0] - 0.16717362830052426) / 1.0333394966054072


def _blip_vision(weights: Weights, pixels: Tensor) -> Tensor:
    eye = "blip.visual_encoder"
    kernel, bias = (weights[f"{eye}.patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    patches = F.conv2d(pixels, kernel, bias, stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([weights[f"{eye}.cls_token"].expand(len(pixels), -1, -1), patches], 1)
    x = x + weights[f"{eye}.pos_embed"]
    for layer in range(2):
        block = f"{eye}.blocks.{layer}"
        packed = linear(weights, f"{block}.attn.qkv", norm(weights, f"{block}.norm1", x, 1e-6))
        x = x + linear(weights, f"{block}.attn.proj", attention(*packed.chunk(3, -1), heads=2))
        hidden = F.gelu(linear(weights, f"{block}.mlp.fc1", norm(weights, f"{block}.norm2", x, 1e-6)))
        x = x + linear(weights, f"{block}.mlp.fc2", hidden)
    return norm(weights, f"{eye}.norm", x, 1e-6)


def _blip_text(weights: Weights, tokens: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
    reader = "blip.text_encoder"
    x = weights[f"{reader}.embeddings.word_embeddings.weight"][tokens]
    x = x + weights[f"{reader}.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(weights, f"{reader}.embeddings.LayerNorm", x, 1e-12)
    hidden_words = (1.0 - mask[:, None, None].float()) * -1e9
    for layer in range(2):
        deep = f"{reader}.encoder.layer.{layer}"
        for kind, source, added in (("attention", None, hidden_words), ("crossattention", seen, None)):
            other = x if source is None else source
            q = linear(weights, f"{deep}.{kind}.self.query", x)
            k, v = (linear(weights, f"{deep}.{kind}.self.{part}", other) for part in ("key", "value"))
            out = linear(weights, f"{deep}.{kind}.output.dense", attention(q, k, v, heads=2, mask=added))
            x = norm(weights, f"{deep}.{kind}.output.LayerNorm", x + out, 1e-12)
        inner = F.gelu(linear(weights, f"{deep}.intermediate.dense", x))
        out = linear(weights, f"{deep}.output.dense", inner)
        x = norm(weights, f"{deep}.output.LayerNorm", x + out, 1e-12)
    return x


SQUEEZENET = (
    ("conv", 3, 64), None,
    "pool", (64, 16, 64), (128, 16, 64),
    "pool", (128, 32, 128), (256, 32, 128),
    "pool", (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256),
)  # fmt: skip
LPIPS_WIDTHS = (64, 128, 256, 384, 384, 512, 512)
LPIPS_PLACES = (1, 4, 7, 9, 10, 11, 12)


def squeezenet_weights(seed: int = 0) -> Weights:
    """torchvision's SqueezeNet 1.1, classifier included."""
    shapes: dict[str, tuple[int, ...]] = {
        "features.0.weight": (64, 3, 3, 3), "features.0.bias": (64,),
        "classifier.1.weight": (10, 512, 1, 1), "classifier.1.bias": (10,),
    }  # fmt: skip
    for place, layer in enumerate(SQUEEZENET):
        if isinstance(layer, tuple) and layer[0] != "conv":
            inner, squeezed, outer = layer
            for part, a, b, k in (
                ("squeeze", inner, squeezed, 1), ("expand1x1", squeezed, outer, 1),
                ("expand3x3", squeezed, outer, 3),
            ):  # fmt: skip
                shapes[f"features.{place}.{part}.weight"] = (b, a, k, k)
                shapes[f"features.{place}.{part}.bias"] = (b,)
    return _random(shapes, seed)


def lpips_weights(seed: int = 1) -> Weights:
    """LPIPS v0.1's linear layers: not negative, as trained."""
    shapes = {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(LPIPS_WIDTHS)}
    return {name: weight.abs() for name, weight in _random(shapes, seed).items()}


def lpips_distance(features: Weights, linear_layers: Weights, one: Tensor, other: Tensor) -> Tensor:
    """(B,) LPIPS of pictures (B, 3, H, W) in [-1, 1]."""
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    pair = [_squeezenet(features, (x - shift) / scale) for x in (one, other)]
    total = torch.zeros(len(one))
    for i, (a, b) in enumerate(zip(*pair, strict=True)):
        a, b = (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
        total = total + F.conv2d((a - b) ** 2, linear_layers[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    return total


def _squeezenet(weights: Weights, x: Tensor) -> list[Tensor]:
    found = []
    for place, layer in enumerate(SQUEEZENET):
        here = f"features.{place}"
        if layer == "pool":
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        elif layer is None:
            x = F.relu(x)
        elif layer[0] == "conv":
            x = F.conv2d(x, weights[f"{here}.weight"], weights[f"{here}.bias"], stride=2)
        else:
            s = F.relu(F.conv2d(x, weights[f"{here}.squeeze.weight"], weights[f"{here}.squeeze.bias"]))
            sides = []
            for k in (1, 3):
                kernel, bias = (weights[f"{here}.expand{k}x{k}.{kind}"] for kind in ("weight", "bias"))
                sides.append(F.conv2d(s, kernel, bias, padding=k // 2))
            x = F.relu(torch.cat(sides, 1))
        if place in LPIPS_PLACES:
            found.append(x)
    return found


def clip_pixels(picture: Tensor, side: int = 32) -> Tensor:
    """CLIP's preparation of a square picture (H, W, 3) that has its size already: (3, side, side)."""
    assert picture.shape[:2] == (side, side)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    spread = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return ((picture.float() / 255 - mean) / spread).permute(2, 0, 1)
