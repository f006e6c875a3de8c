"""Describers: the paper's LLaVA and its kin through transformers, or servers that speak OpenAI's protocol."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.models.conversation import question


@dataclass(kw_only=True)
class LocalVisionLanguage:
    """A model that transformers loads as image-text-to-text."""

    model: str = "llava-hf/llava-1.5-7b-hf"
    """Hub id or folder."""

    device: str = "cpu"
    """Where it runs."""

    dtype: str = "auto"
    """Of its weights: auto (as they are stored), float32, float16 or bfloat16."""

    max_new_tokens: int = 128
    """The longest answer."""

    longest: int = 672
    """The longest side of a picture that is decoded."""

    _processor: Any = field(default=None, init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The model and the length of its answers; greedy, so nothing is drawn."""
        return {"kind": "transformers", "model": self.model, "max_new_tokens": self.max_new_tokens}

    def load(self) -> None:
        """Load processor and network."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(self.model)
        self._processor.tokenizer.padding_side = "left"  # answers begin where the prompts end
        network: Any = AutoModelForImageTextToText.from_pretrained(self.model, dtype=self.dtype)
        self._network = network.to(self.device).eval()

    @torch.inference_mode()
    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One answer a picture, greedily decoded."""
        texts = [question(self._processor, prompt) for prompt in prompts]
        inputs = self._processor(images=list(images), text=texts, padding=True, return_tensors="pt")
        inputs = inputs.to(self.device, self._network.dtype)
        tokens = self._network.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self._processor.batch_decode(new, skip_special_tokens=True)]


@dataclass(kw_only=True)
class HttpVisionLanguage:
    """A model behind an OpenAI-compatible endpoint: vLLM, SGLang, or a hosted one.

    Time-outs, 429 and 5xx are tried again with growing pauses, garbled replies at once. What fails for good
    raises, so that the shard is tried again and in the end quarantined. An empty reply is an empty answer.
    """

    url: str
    """Base URL, e.g. http://localhost:8000/v1."""

    model: str
    """The model's name at the server."""

    key: str = "none"
    """API key; local servers ask for none."""

    concurrency: int = 16
    """Requests at once."""

    timeout: float = 60.0
    """Seconds that one request may take."""

    retries: int = 4
    """Further tries of a request."""

    max_new_tokens: int = 128
    """The longest answer."""

    longest: int = 672
    """The longest side of a picture that is sent."""

    _client: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UserError("url", "must begin with http:// or https://", self.url)

    def settings(self) -> Mapping[str, Any]:
        """The model and the length of its answers; where it is served does not matter."""
        return {"kind": "openai", "model": self.model, "max_new_tokens": self.max_new_tokens}

    def load(self) -> None:
        """Make the client; nothing is sent yet."""
        from openai import OpenAI

        self._client = OpenAI(
            base_url=self.url, api_key=self.key, timeout=self.timeout, max_retries=self.retries
        )

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One answer a picture, as many at once as `concurrency` allows."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(self._ask, images, prompts))

    def _ask(self, image: Image.Image, prompt: str) -> str:
        for attempt in range(self.retries + 1):
            try:
                return self._reply(image, prompt)
            except (ValueError, AttributeError, TypeError) as error:  # no JSON, or not of the protocol's form
                if attempt == self.retries:
                    raise ConnectionError(f"{self.url} replies with something else than a chat") from error
        raise AssertionError("the last attempt returns or raises")

    def _reply(self, image: Image.Image, prompt: str) -> str:
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
            {"type": "text", "text": prompt},
        ]
        reply = self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": content}],
            max_tokens=self.max_new_tokens,
            temperature=0,
        )
        return (reply.choices[0].message.content or "").strip() if reply.choices else ""


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
