"""Stage: a text about the whole image where the source has none: random masks are trained with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import pyarrow as pa

from mtadiffusion.annotate.describe import Describer, TextLimit
from mtadiffusion.annotate.detect import kept_rows
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.wording import describe
from mtadiffusion.data.tables import KEPT, REJECTED, SKIPPED
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
        index, _ = kept_rows(shard)
        poor = [self._is_poor(caption) for caption in index["caption"].to_pylist()]
        wanted = index.filter(pa.array(poor, pa.bool_()))
        answers = dict(zip(wanted["image_id"].to_pylist(), self._answers(shard, wanted), strict=True))
        rows = [
            {"image_id": image_id} | (self._entry(answers[image_id]) if image_id in answers else _SKIPPED)
            for image_id in shard.rows("index", ["image_id"])["image_id"].to_pylist()
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _is_poor(self, caption: str | None) -> bool:
        return len((caption or "").split()) < self.least_words

    def _answers(self, shard: ShardInputs, wanted: pa.Table) -> list[str]:
        images = shard.images(wanted, self.describer.longest)
        answers: list[str] = []
        while batch := list(islice(images, self.batch)):
            answers += self.describer.answer(batch, [self.prompt] * len(batch))
        return answers

    def _entry(self, answer: str) -> dict[str, Any]:
        assert self._fits is not None
        found = describe(answer, self._fits)
        status = KEPT if found.reason is None else REJECTED
        return {"status": status, "reason": found.reason, "text": found.text, "full": found.full}


_SKIPPED = {"status": SKIPPED}
