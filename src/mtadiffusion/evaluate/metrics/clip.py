"""CLIP for metrics: the network is loaded once a process, each vector computed once a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from mtadiffusion.evaluate.metrics.metric import Batch
from mtadiffusion.models.clip_scorer import ClipScorer
from mtadiffusion.models.loading import loading_errors
from mtadiffusion.models.published import HubFolder

OPENAI_L14 = "openai/clip-vit-large-patch14"
_FILES = ("config.json", "*processor_config.json", "tokenizer*.json", "model*.safetensors")

_LOADED: WeakValueDictionary[tuple[str, str], ClipFeatures] = WeakValueDictionary()
"""By folder and device, as long as a metric uses them."""


@dataclass(eq=False, kw_only=True)
class ClipFeatures:
    """Unit vectors of the results and prompts of batches."""

    scorer: ClipScorer
    """The loaded network."""

    key: str
    """What tells its vectors from another network's."""

    def images(self, batch: Batch) -> np.ndarray:
        """float32 (N, D) of the whole results."""
        return batch.once(("clip images", self.key), lambda: self.scorer.images(pictures(batch)))

    def prompts(self, batch: Batch) -> np.ndarray:
        """float32 (N, D) of the prompts, cut at 77 tokens."""
        return batch.once(("clip prompts", self.key), lambda: self._prompts(batch))

    def cosines(self, batch: Batch) -> np.ndarray:
        """float32 (N,) in [-1, 1] between each result and its prompt."""
        return (self.images(batch) * self.prompts(batch)).sum(1)

    def _prompts(self, batch: Batch) -> np.ndarray:
        texts = [sample.item.prompt for sample in batch.samples]
        different = list(dict.fromkeys(texts))
        vectors = self.scorer.texts(different)
        return vectors[[different.index(text) for text in texts]]


def pictures(batch: Batch) -> list[Image.Image]:
    """The results as RGB images, made once a batch."""
    return batch.once("pictures", lambda: [Image.fromarray(sample.result) for sample in batch.samples])


def clip_folder(model: str, argument: str) -> HubFolder:
    """Where a CLIP of transformers' layout lies."""
    return HubFolder(name=model, files=_FILES, argument=argument, also=("vocab.json", "merges.txt"))


def clip_identity(model: str) -> Mapping[str, Any]:
    """The model and the hash of its files."""
    return {"clip": model, "weights": clip_folder(model, "model").digest()}


def load_clip(model: str, device: str, argument: str) -> ClipFeatures:
    """A CLIP of transformers' layout, from the hub or a folder.

    Raises:
        UserError: it cannot be had, or the folder is damaged.
    """
    folder = clip_folder(model, argument).fetched()
    return shared_clip(str(folder), device, lambda: ClipScorer(model=str(folder), device=device), argument)


def shared_clip(source: str, device: str, make: Callable[[], ClipScorer], argument: str) -> ClipFeatures:
    """The network of a folder or file, which is loaded unless another metric holds it."""
    features = _LOADED.get((source, device))
    if features is None:
        scorer = make()
        with loading_errors(argument, Path(source)):
            scorer.load()
        features = _LOADED[source, device] = ClipFeatures(scorer=scorer, key=source)
    return features
