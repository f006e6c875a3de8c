"""VQAScore (Lin et al. 2024, arXiv 2404.01291) by CLIP-FlanT5: the probability of "Yes" to "Does this figure
show the prompt?". A T5 reads a question in which a CLIP's patches, projected by two linear layers, stand for
the image.

The published checkpoint is T5's own, with `mm_projector.` and, in most, `vision_tower.` beside it.
"""

from __future__ import annotations

import json
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
from mtadiffusion.models.loading import loading_errors, torch_dtype
from mtadiffusion.models.published import HubFolder

ANSWER = "Yes"
_IMAGE = "<image>"
_TEMPLATE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\n"
    'Does this figure show "{caption}"? Please answer yes or no. ASSISTANT: '
)
_LONGEST = 2048
_VISION = "vision_tower.vision_tower."
_PROJECTOR = "mm_projector."
_PROJECTOR_LAYERS = (0, 2)


class ClipT5(nn.Module):
    """T5, CLIP's vision tower up to its last layer but one, and the projector between them."""

    def __init__(self, text: Any, vision: Any, projector: nn.Sequential) -> None:
        super().__init__()
        self.text, self.vision, self.projector = text, vision, projector

    def forward(self, pixels: Tensor, questions: Sequence[tuple[Tensor, Tensor]], answer: Tensor) -> Tensor:
        """exp(-mean cross-entropy) of the answer's tokens: (B,) in [0, 1].

        Args:
            pixels: (B, 3, side, side), CLIP-normalised.
            questions: for each its tokens before and after the image.
            answer: (L,) tokens, the end of the sequence included.
        """
        seen = self.vision(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        seen = self.projector(seen)  # (B, patches, width)
        rows = [self._row(image, *parts) for image, parts in zip(seen, questions, strict=True)]
        embedded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=embedded.device)
        mask = torch.arange(embedded.shape[1], device=embedded.device) < lengths[:, None]
        labels = answer.repeat(len(rows), 1)
        logits = self.text(inputs_embeds=embedded, attention_mask=mask.long(), labels=labels).logits
        losses = nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
        return (-losses.mean(1)).exp()

    def _row(self, image: Tensor, before: Tensor, after: Tensor) -> Tensor:
        words = self.text.get_input_embeddings()
        return torch.cat([words(before), image, words(after)])


@dataclass(kw_only=True)
class VqaScore:
    """The probability of "Yes", by CLIP-FlanT5."""

    model: str = "zhiqiulin/clip-flant5-xxl"
    """Hub id or folder of a CLIP-FlanT5."""

    tokenizer: str = "google/flan-t5-xxl"
    """Hub id or folder of T5's tokenizer."""

    vision: str = "openai/clip-vit-large-patch14-336"
    """Hub id or folder of the vision tower: its sizes, and its weights where the checkpoint has none."""

    dtype: str = "bfloat16"
    """Of the weights; bfloat16 is what the authors score with."""

    definition: Definition = field(
        default=Definition(
            name="vqa_score",
            title="VQAScore",
            better="higher",
            bounds=(0, 1),
            region="image",
            resize="336, bicubic, padded to a square with CLIP's mean colour",
            scale=100,
            source='P("Yes") by zhiqiulin/clip-flant5-xxl (arXiv 2404.01291)',
        ),
        init=False,
        repr=False,
    )
    _device: str = field(default="cpu", init=False, repr=False)
    _network: ClipT5 | None = field(default=None, init=False, repr=False)
    _words: Any = field(default=None, init=False, repr=False)
    _prepare: Any = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The checkpoint, the tower, the tokenizer and the dtype."""
        return {
            "model": self.model,
            "weights": self._folder().digest(),
            "vision": self._tower().digest(),
            "tokenizer": self._vocabulary().digest(),
            "dtype": self.dtype,
        }

    def setup(self, device: str) -> None:
        """Assemble the network. Raises UserError where a part cannot be had."""
        from transformers import AutoTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        folder, tower = self._folder().fetched(), self._tower().fetched()
        words = self._vocabulary().fetched()
        with loading_errors("vqa_score.tokenizer", words):
            self._words = AutoTokenizer.from_pretrained(words)
        dtype = torch_dtype(self.dtype, torch.device(device), "vqa_score.dtype")
        with loading_errors("vqa_score.model", folder):
            network = load_clip_t5(folder, tower, dtype)
        side = network.vision.config.image_size
        self._prepare = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        self._network, self._device = network.to(device).eval(), device

    def score(self, batch: Batch) -> list[float | None]:
        """In [0, 1]."""
        return list(self._chances(pictures(batch), [sample.item.prompt for sample in batch.samples]))

    @torch.inference_mode()
    def _chances(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        assert self._network is not None, "setup comes first"
        squares = [square(image, self._prepare.image_mean) for image in images]
        pixels = self._prepare(squares, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self._device, next(self._network.parameters()).dtype)
        questions = [self._question(prompt) for prompt in prompts]
        return self._network(pixels, questions, self._tokens(ANSWER)).tolist()

    def _question(self, prompt: str) -> tuple[Tensor, Tensor]:
        """The tokens before and after the image; each part with an end of its own, as in training."""
        before, after = _TEMPLATE.split(_IMAGE)
        return self._tokens(before), self._tokens(after.format(caption=prompt))

    def _tokens(self, text: str) -> Tensor:
        return torch.tensor(self._words(text).input_ids[:_LONGEST], device=self._device)

    def _folder(self) -> HubFolder:
        return HubFolder(name=self.model, files=("config.json", "*model*"), argument="vqa_score.model")

    def _vocabulary(self) -> HubFolder:
        return HubFolder(name=self.tokenizer, files=("tokenizer*.json",), argument="vqa_score.tokenizer")

    def _tower(self) -> HubFolder:
        files = ("config.json", "*model.[bs]*")
        return HubFolder(name=self.vision, files=files, argument="vqa_score.vision")


def square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """A picture in the middle of a square of CLIP's mean colour (three values in [0, 1])."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    padded = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def load_clip_t5(folder: Path, tower: Path, dtype: torch.dtype) -> ClipT5:
    """The network of a CLIP-FlanT5's folder; the tower's folder gives the vision part's sizes.

    Raises:
        UserError: tensors are missing.
    """
    from transformers import CLIPVisionModel, T5Config, T5ForConditionalGeneration

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = _state(folder, dtype)
    config = T5Config(**{key: value for key, value in settings.items() if not key.startswith("mm_")})
    with torch.device("meta"):
        text: Any = T5ForConditionalGeneration(config)
    _assign(text, {name: t for name, t in weights.items() if not name.startswith((_VISION, _PROJECTOR))})
    vision: Any = CLIPVisionModel.from_pretrained(tower, dtype=dtype)
    own = {
        name.removeprefix(_VISION).removeprefix("vision_model."): tensor
        for name, tensor in weights.items()
        if name.startswith(_VISION)
    }
    if own:
        _assign(vision, own)
    return ClipT5(text, vision, _projector(weights))


def _projector(weights: Mapping[str, Tensor]) -> nn.Sequential:
    layers = []
    for place in _PROJECTOR_LAYERS:
        weight, bias = (weights[f"{_PROJECTOR}{place}.{kind}"] for kind in ("weight", "bias"))
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        layers.append(layer)
    return nn.Sequential(layers[0], nn.GELU(), layers[1])


def _assign(network: Any, weights: Mapping[str, Tensor]) -> None:
    """Give a network of transformers its tensors without a copy; all must be there, more may be."""
    network.load_state_dict(weights, strict=False, assign=True)
    network.tie_weights()
    absent = [name for name, tensor in network.named_parameters() if tensor.is_meta]
    if absent:
        raise UserError("vqa_score.model", "must be complete", f"no {absent[0]}", "copy the folder again")


def _state(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of a folder's shards."""
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*model*")):
        if path.suffix == ".safetensors":
            weights |= load_file(path)
        elif path.suffix == ".bin":
            weights |= torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}
