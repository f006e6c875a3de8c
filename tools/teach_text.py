"""Teach a fresh text encoder the words of the sticker world before it conditions anything.

From a description's states at and after its end token, linear classifiers name object, colour and style. An
encoder that starts from nothing hands a UNet nearly the same states for every prompt, and the UNet learns
not to listen; a minute of this makes the words differ.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers import wording
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.colours import COLOURS

BATCH = 128
RATE = 1e-3
ANSWERS = (len(labels()), len(COLOURS) + 1, len(STYLES) + 1)
"""Objects; colours and none; styles and unnamed."""


def teach(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, steps: int) -> dict[str, float]:
    """Train `encoder` in place and return the last steps' accuracies by name."""
    head = nn.Linear(encoder.config.hidden_size, sum(ANSWERS))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=RATE)
    names, recent = ("object", "colour", "style"), []
    for step in trange(steps, desc="text encoder", unit="step"):
        prompts, answers = _lesson(numpy_generator(0, "text lesson", step))
        tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        logits = head(_closing_states(encoder, tokens, tokenizer.eos_token_id)).split(ANSWERS, dim=1)
        loss = sum(F.cross_entropy(logit, answer) for logit, answer in zip(logits, answers.T, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = [(logit.argmax(1) == a).float().mean() for logit, a in zip(logits, answers.T, strict=True)]
        recent.append([float(share) for share in right])
    return dict(zip(names, np.mean(recent[-10:], axis=0).round(4).tolist(), strict=True))


def _closing_states(encoder: CLIPTextModel, tokens: Tensor, end: int) -> Tensor:
    """The mean state (B, width) from the first end token on: all that has read the whole prompt."""
    states = encoder(tokens).last_hidden_state
    closing = ((tokens == end).cumsum(1) > 0).to(states.dtype)[..., None]
    return (states * closing).sum(1) / closing.sum(1)


def _lesson(rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """Descriptions and their answers (B, 3); a style that the words do not name counts as unnamed."""
    prompts, answers = [], []
    for _ in range(BATCH):
        label, colour, style = (int(rng.integers(n)) for n in (len(labels()), ANSWERS[1], len(STYLES)))
        named = [*COLOURS, None][colour]
        text = wording.describe(rng, labels()[label], named, STYLES[style])
        spoken = any(word in text for word in _style_words(STYLES[style]))
        prompts.append(text)
        answers.append((label, colour, style if spoken else len(STYLES)))
    return prompts, torch.tensor(answers)


def _style_words(style: str) -> tuple[str, ...]:
    return (*wording.STYLE_ADJECTIVES[style], wording.STYLE_NOUNS[style])
