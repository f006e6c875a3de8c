"""The embeddings of the prompts of one call, and of what they are compared with under guidance.

How a text is encoded is `models.text_encoders`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtadiffusion.errors import UserError
from mtadiffusion.models.text_encoders import TextStates


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

    @classmethod
    def of(cls, prompts: TextStates, negatives: TextStates | None) -> TextEmbeds:
        """Those of encoded texts."""
        if negatives is None:
            return cls(prompt=prompts.tokens, pooled=prompts.pooled)
        return cls(
            prompt=prompts.tokens,
            negative=negatives.tokens,
            pooled=prompts.pooled,
            negative_pooled=negatives.pooled,
        )

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
