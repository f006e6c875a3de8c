"""Prompts to what a backbone's UNet takes of them: the one CLIP text encoder of Stable Diffusion 1.x and 2.x,
or the two of SDXL. Training and inference encode here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger(__name__)
_LONGEST_EXCERPT = 60


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """N prompts, encoded."""

    tokens: Tensor
    """(N, L, D), the states that the cross-attention reads; SDXL's two encoders' side by side along D."""

    pooled: Tensor | None = None
    """(N, P), SDXL's projected summary of each prompt; None with one encoder."""

    def to(self, *args: Any) -> TextStates:
        """As `Tensor.to`, for both."""
        pooled = None if self.pooled is None else self.pooled.to(*args)
        return TextStates(tokens=self.tokens.to(*args), pooled=pooled)


def joined(parts: Sequence[TextStates]) -> TextStates:
    """The prompts of all parts, in order."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    tokens = torch.cat([part.tokens for part in parts])
    return TextStates(tokens=tokens, pooled=torch.cat(pooled) if pooled else None)


@dataclass(frozen=True, kw_only=True)
class TextEncoders:
    """A backbone's text encoders, under the names that they have in its folder."""

    tokenizer: Any
    """CLIP tokenizer."""

    text_encoder: Any
    """CLIPTextModel."""

    tokenizer_2: Any = None
    """SDXL's second tokenizer."""

    text_encoder_2: Any = None
    """SDXL's CLIPTextModelWithProjection."""

    force_zeros_for_empty_prompt: bool = False
    """Whether the empty prompt is all zeros instead of its encoding, as SDXL was trained."""

    @property
    def length(self) -> int:
        """The most tokens of a text that all encoders read, start and end included."""
        pairs = ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2))
        return min(_length(*pair) for pair in pairs if pair[0] is not None)

    @torch.no_grad()
    def encode(
        self, prompts: Sequence[str], device: torch.device | str, argument: str | None = None
    ) -> TextStates:
        """The states of N texts; the empty text is legal and means "no wish".

        Args:
            prompts: the texts.
            device: where the encoders run.
            argument: the prompts' name in warnings about what does not fit; None: no warnings.
        """
        if self.text_encoder_2 is None:
            outcome = _run(self.tokenizer, self.text_encoder, prompts, device, argument)
            return TextStates(tokens=outcome[0])
        first = _run(self.tokenizer, self.text_encoder, prompts, device, argument)
        second = _run(self.tokenizer_2, self.text_encoder_2, prompts, device, None)
        # SDXL reads the last but one layer of both, without the final normalisation.
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2].to(first[0].dtype)], dim=-1)
        return self._without_empty(TextStates(tokens=tokens, pooled=second.text_embeds), prompts)

    def _without_empty(self, states: TextStates, prompts: Sequence[str]) -> TextStates:
        empty = [index for index, prompt in enumerate(prompts) if not prompt]
        if self.force_zeros_for_empty_prompt and empty:
            assert states.pooled is not None
            states.tokens[empty], states.pooled[empty] = 0.0, 0.0
        return states


def _run(
    tokenizer: Any,
    text_encoder: Any,
    prompts: Sequence[str],
    device: torch.device | str,
    argument: str | None,
) -> Any:
    """A CLIP text model's output, with the hidden states of all layers."""
    length = _length(tokenizer, text_encoder)
    for prompt in dict.fromkeys(prompts) if argument is not None else ():
        _warn_of_truncation(prompt, tokenizer, length, argument)
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    attention_mask = None
    if getattr(text_encoder.config, "use_attention_mask", False):
        attention_mask = tokens.attention_mask.to(device)
    ids = tokens.input_ids.to(device)
    return text_encoder(ids, attention_mask=attention_mask, output_hidden_states=True)


def _length(tokenizer: Any, text_encoder: Any) -> int:
    return min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)


def _warn_of_truncation(prompt: str, tokenizer: Any, length: int, argument: str | None) -> None:
    room = length - 2  # the start and end tokens
    ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    if len(ids) <= room:
        return
    dropped = tokenizer.decode(ids[room:]).strip()
    excerpt = dropped if len(dropped) <= _LONGEST_EXCERPT else dropped[:_LONGEST_EXCERPT] + "…"
    message = "%s is cut to the text encoder's %d tokens; its last %d are dropped: %r"
    _log.warning(message, argument, room, len(ids) - room, excerpt)
