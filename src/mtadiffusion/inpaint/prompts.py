"""Prompts to the text encoder's embeddings. What does not fit is named in a warning, never lost silently."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from mtadiffusion.errors import UserError

_log = logging.getLogger(__name__)
_LONGEST_EXCERPT = 60


@dataclass(frozen=True, kw_only=True)
class TextEmbeds:
    """The embeddings of N prompts and of what they are compared with."""

    prompt: torch.Tensor
    """(N, tokens, width)."""

    negative: torch.Tensor | None = None
    """(N, tokens, width); needed when guidance is on."""

    pooled: torch.Tensor | None = None
    """(N, pooled width), for backbones with SDXL's added embedding."""

    negative_pooled: torch.Tensor | None = None
    """(N, pooled width), likewise."""

    def __post_init__(self) -> None:
        for name in ("negative", "pooled", "negative_pooled"):
            other = getattr(self, name)
            if other is not None and other.shape[0] != self.prompt.shape[0]:
                rule = f"must have as many entries as prompt_embeds, {self.prompt.shape[0]}"
                raise UserError(f"{name}_prompt_embeds", rule, other.shape[0])

    def tokens(self, samples: list[int], guided: bool) -> torch.Tensor:
        """(n or 2n, tokens, width) for the named samples; when guided, the negative half comes first."""
        return _halves(self.prompt, self.negative, samples, guided, "negative_prompt_embeds")

    def pools(self, samples: list[int], guided: bool) -> torch.Tensor:
        """(n or 2n, pooled width), in halves like `tokens`."""
        if self.pooled is None:
            rule = "is needed by a backbone with SDXL's added embedding"
            raise UserError("pooled_prompt_embeds", rule, remedy="pass prompt_embeds and the pooled ones")
        return _halves(self.pooled, self.negative_pooled, samples, guided, "negative_pooled_prompt_embeds")


def _halves(
    positive: torch.Tensor, negative: torch.Tensor | None, samples: list[int], guided: bool, argument: str
) -> torch.Tensor:
    if not guided:
        return positive[samples]
    if negative is None:
        raise UserError(argument, "is needed for guidance", remedy="pass it or set guidance_scale=1")
    return torch.cat([negative[samples], positive[samples]])


@torch.no_grad()
def embed_prompts(
    prompts: list[str], tokenizer: Any, text_encoder: Any, device: torch.device, argument: str = "prompt"
) -> torch.Tensor:
    """Last hidden states (B, tokens, width) of a CLIP text encoder.

    Args:
        prompts: texts; the empty text is legal and means "no wish".
        tokenizer: the backbone's CLIP tokenizer.
        text_encoder: the backbone's CLIP text model.
        device: where the encoder runs.
        argument: the prompts' name in warnings.
    """
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    for prompt in dict.fromkeys(prompts):
        _warn_of_truncation(prompt, tokenizer, length, argument)
    tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    attention_mask = None
    if getattr(text_encoder.config, "use_attention_mask", False):
        attention_mask = tokens.attention_mask.to(device)
    return text_encoder(tokens.input_ids.to(device), attention_mask=attention_mask)[0]


def _warn_of_truncation(prompt: str, tokenizer: Any, length: int, argument: str) -> None:
    room = length - 2  # the start and end tokens
    ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    if len(ids) <= room:
        return
    dropped = tokenizer.decode(ids[room:]).strip()
    excerpt = dropped if len(dropped) <= _LONGEST_EXCERPT else dropped[:_LONGEST_EXCERPT] + "…"
    message = "%s is cut to the text encoder's %d tokens; its last %d are dropped: %r"
    _log.warning(message, argument, room, len(ids) - room, excerpt)
