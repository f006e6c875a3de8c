"""VQAScore by any vision-language model of transformers: the probability that it begins with "Yes"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.clip import pictures
from mtadiffusion.evaluate.metrics.metric import Batch, Definition
from mtadiffusion.models.conversation import question
from mtadiffusion.models.loading import loading_errors, torch_dtype
from mtadiffusion.models.published import HubFolder

_PROMPT = 'Does this figure show "{caption}"? Please answer yes or no.'
_ANSWERS = ("Yes", "yes", "YES")


@dataclass(kw_only=True)
class VlmScore:
    """The probability of "Yes" as the first token, by any image-text-to-text model of transformers."""

    model: str = "llava-hf/llava-1.5-7b-hf"
    """Hub id or folder."""

    dtype: str = "auto"
    """Of the weights: auto (float16 on a GPU), float32, float16 or bfloat16."""

    definition: Definition = field(
        default=Definition(
            name="vqa_score_vlm",
            title="VQAScore (VLM)",
            better="higher",
            bounds=(0, 1),
            region="image",
            resize="the model's own",
            scale=100,
            source='P("Yes") of the first token by llava-hf/llava-1.5-7b-hf or another model;'
            " not to be compared with VQAScore",
        ),
        init=False,
        repr=False,
    )
    _network: Any = field(default=None, init=False, repr=False)
    _processor: Any = field(default=None, init=False, repr=False)
    _answers: list[int] = field(default_factory=list, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The model and its dtype."""
        return {"model": self.model, "weights": self._folder().digest(), "dtype": self.dtype}

    def setup(self, device: str) -> None:
        """Load the model. Raises UserError where it cannot be had, or has no word for "Yes"."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = self._folder().fetched()
        dtype = torch_dtype(self.dtype, torch.device(device), "vqa_score_vlm.dtype")
        with loading_errors("vqa_score_vlm.model", folder):
            self._processor = AutoProcessor.from_pretrained(folder)
            network: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
        self._processor.tokenizer.padding_side = "left"  # the answer begins where the prompts end
        self._network = network.to(device).eval()
        self._answers = self._first_tokens()

    def score(self, batch: Batch) -> list[float | None]:
        """In [0, 1]."""
        return list(self._chances(pictures(batch), [sample.item.prompt for sample in batch.samples]))

    @torch.inference_mode()
    def _chances(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        texts = [question(self._processor, _PROMPT.format(caption=prompt)) for prompt in prompts]
        inputs = self._processor(images=list(images), text=texts, padding=True, return_tensors="pt")
        inputs = inputs.to(self._network.device, self._network.dtype)
        logits = self._network(**inputs, logits_to_keep=1).logits[:, -1]  # (B, words)
        return logits.float().softmax(-1)[:, self._answers].sum(1).tolist()

    def _first_tokens(self) -> list[int]:
        words = self._processor.tokenizer
        found = {words(answer, add_special_tokens=False).input_ids[0] for answer in _ANSWERS}
        found.discard(words.unk_token_id)
        if not found:
            raise UserError("vqa_score_vlm.model", 'must have a word for "Yes"', self.model)
        return sorted(found)

    def _folder(self) -> HubFolder:
        files = ("*.json", "*.safetensors")
        also = ("*.jinja", "*.txt", "*.model")
        return HubFolder(name=self.model, files=files, argument="vqa_score_vlm.model", also=also)
