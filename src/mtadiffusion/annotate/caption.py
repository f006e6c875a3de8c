"""Stage: a text about the whole image where the source has none: random masks are trained with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from mtadiffusion.annotate.describe import Describer, TextLimit, text_entry
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import SKIPPED_ENTRY, batches, kept_images, spread, views
from mtadiffusion.engines.engine import Resources

PROMPT = "Describe this image and its style in one sentence"
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("text", pa.string()),
        ("full", pa.string()),
    ]
)


@dataclass(kw_only=True)
class Caption:
    """Makes the table `captions` of the kept images whose own caption is missing or poor."""

    describer: Describer
    """The model, the same that describes objects."""

    limit: TextLimit = field(default_factory=TextLimit)
    """Of the text that training reads."""

    prompt: str = PROMPT
    """The question."""

    least_words: int = 3
    """A caption of the source that has fewer words is poor."""

    batch: int = 8
    """Images a forward pass."""

    name: ClassVar[str] = "captions"
    reads: ClassVar[tuple[str, ...]] = ("index", "filters")
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""
    _fits: Callable[[str], bool] | None = field(default=None, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The model's, the question and the rule."""
        rules = {"prompt": self.prompt, "least_words": self.least_words}
        return {"describer": self.describer.settings(), "limit": vars(self.limit)} | rules

    def setup(self, inputs: Inputs) -> None:
        """Load the model and the text encoder's tokenizer."""
        self.describer.load()
        self._fits = self.limit.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image; those with a caption of their own, and rejected ones, are skipped."""
        index = shard.rows("index", ["image_id", "caption"]).to_pylist()
        wanted = [
            keep and self._is_poor(row["caption"])
            for row, keep in zip(index, kept_images(shard), strict=True)
        ]
        entries = spread(wanted, self._entries(shard, wanted), SKIPPED_ENTRY)
        rows = [{"image_id": row["image_id"]} | entry for row, entry in zip(index, entries, strict=True)]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _is_poor(self, caption: str | None) -> bool:
        return len((caption or "").split()) < self.least_words

    def _entries(self, shard: ShardInputs, wanted: Sequence[bool]) -> Iterator[dict[str, Any]]:
        assert self._fits is not None
        for batch in batches(views(shard, wanted, self.describer.longest), self.batch):
            pictures = [view.picture for view in batch]
            for answer in self.describer.answer(pictures, [self.prompt] * len(batch)):
                yield text_entry(answer, self._fits)
