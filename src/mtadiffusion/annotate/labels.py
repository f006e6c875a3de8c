"""Stage: what to look for in each image: a vocabulary, nouns of the caption, or what a model sees in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, groupby, repeat
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from mtadiffusion.annotate.describe import Describer
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import batches, kept_images, spread, views
from mtadiffusion.engines.engine import Resources
from mtadiffusion.errors import UserError

SCHEMA = pa.schema([("image_id", pa.string()), ("labels", pa.list_(pa.string()))])

PROMPT = "List the objects that can be seen in this image, separated by commas, without adjectives."
MOST_LABELS = 20
"""The most labels of one image that come from its caption or from a model."""

_LONGEST_LABEL = 4
"""Words; more are a sentence and no label."""

_ABOUT_PICTURES = frozenset(
    """art artwork background bottom closeup drawing foreground front hd illustration image middle oil
    painting photo photograph photography pic picture portrait poster print render side sketch stock
    top vector view wallpaper""".split()  # noqa: SIM905 (a list of sixty quotes reads worse)
)
"""Nouns that say what kind of picture it is, or where in it something lies."""


class LabelSource(Protocol):
    """Where an image's labels come from."""

    def settings(self) -> Mapping[str, Any]:
        """All that the labels depend on."""

    def load(self) -> None:
        """Load a model, where there is one."""

    def labels(self, shard: ShardInputs, wanted: Sequence[bool]) -> Iterator[list[str]]:
        """The labels of those images of a shard that are wanted, in order."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The same labels for every image."""

    names: tuple[str, ...]
    """What to look for."""

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("labels", "must name what to look for")

    def settings(self) -> Mapping[str, Any]:
        """The names."""
        return {"kind": "vocabulary", "names": list(self.names)}

    def load(self) -> None:
        """Nothing to load."""

    def labels(self, shard: ShardInputs, wanted: Sequence[bool]) -> Iterator[list[str]]:
        """The names, for every image."""
        return repeat(list(self.names), sum(wanted))


@dataclass(frozen=True)
class CaptionNouns:
    """The nouns of the source's caption; an image without a caption gets none."""

    def settings(self) -> Mapping[str, Any]:
        """Nothing to choose."""
        return {"kind": "caption"}

    def load(self) -> None:
        """Nothing to load."""

    def labels(self, shard: ShardInputs, wanted: Sequence[bool]) -> Iterator[list[str]]:
        """The nouns of every image's caption."""
        captions = shard.rows("index", ["caption"])["caption"].to_pylist()
        return (nouns(caption or "") for caption in compress(captions, wanted))


@dataclass(kw_only=True)
class ModelLabels:
    """What a vision-language model lists when it is asked."""

    describer: Describer
    """The model."""

    prompt: str = PROMPT
    """The question."""

    batch: int = 8
    """Images a forward pass."""

    def settings(self) -> Mapping[str, Any]:
        """The model's and the question."""
        return {"kind": "model", "describer": self.describer.settings(), "prompt": self.prompt}

    def load(self) -> None:
        """Load the model."""
        self.describer.load()

    def labels(self, shard: ShardInputs, wanted: Sequence[bool]) -> Iterator[list[str]]:
        """The model's list for every picture."""
        for batch in batches(views(shard, wanted, self.describer.longest), self.batch):
            pictures = [view.picture for view in batch]
            for answer in self.describer.answer(pictures, [self.prompt] * len(batch)):
                yield listed(answer)


@dataclass(kw_only=True)
class Labels:
    """Makes the table `labels` of the images that the filters kept."""

    source: LabelSource
    """Where they come from."""

    name: ClassVar[str] = "labels"
    reads: ClassVar[tuple[str, ...]] = ("index", "filters")
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""

    def settings(self) -> Mapping[str, Any]:
        """The source's."""
        return self.source.settings()

    def setup(self, inputs: Inputs) -> None:
        """Load the source's model."""
        self.source.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image; images that were not kept have no labels."""
        kept = kept_images(shard)
        labels = spread(kept, self.source.labels(shard, kept), [])
        image_ids = shard.rows("index", ["image_id"])["image_id"]
        return pa.table({"image_id": image_ids, "labels": labels}, schema=SCHEMA)


def nouns(caption: str) -> list[str]:
    """The nouns of a caption, compounds whole ("beer mug"), lower case, each once, in their order.

    Words that say what kind of picture it is ("photo", "background") are left out.
    """
    from textblob.en import parse

    tagged = [token[:2] for sentence in parse(caption).split() for token in sentence]
    runs = groupby(tagged, key=lambda pair: pair[1].startswith("NN") and pair[0].isalpha())
    found = [" ".join(word.lower() for word, _ in run) for is_noun, run in runs if is_noun]
    return _few(label for label in found if not _ABOUT_PICTURES.issuperset(label.split()))


def listed(answer: str) -> list[str]:
    """The labels of a model's answer: a list with commas, lines, numbers or dashes."""
    parts = re.split(r"[,;\n]|\band\b", answer.lower())
    cleaned = (re.sub(r"^[\s\d.)*•-]+|[\s.!:]+$", "", part) for part in parts)
    names = (re.sub(r"^(a|an|the|some)\s+", "", part) for part in cleaned)
    return _few(name for name in names if name)


def _few(labels: Iterable[str]) -> list[str]:
    short = [label for label in labels if len(label.split()) <= _LONGEST_LABEL]
    return list(dict.fromkeys(short))[:MOST_LABELS]
