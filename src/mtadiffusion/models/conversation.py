"""How a vision-language model of transformers is asked about one picture."""

from __future__ import annotations

from typing import Any


def question(processor: Any, prompt: str) -> str:
    """A prompt about one picture in the model's own template, or in LLaVA 1.5's where it has none."""
    if processor.chat_template is None:
        return f"USER: {processor.image_token}\n{prompt} ASSISTANT:"
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
