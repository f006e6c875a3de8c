"""Stage: what each object looks like, content and style, in the words of a vision-language model.

The model sees the masked region's crop, the rest of it grey, and the object's label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import ObjectWalk, batches
from mtadiffusion.annotate.wording import describe
from mtadiffusion.data.tables import KEPT, REJECTED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.runs import Runs
from mtadiffusion.models.registry import embedded_backbone

PROMPT = "Describe the {label} and its style in details"
"""The paper's prompt."""

GREY = (127, 127, 127)
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        (
            "objects",
            pa.list_(
                pa.struct(
                    [
                        ("status", pa.string()),
                        ("reason", pa.string()),
                        ("text", pa.string()),
                        ("full", pa.string()),
                    ]
                )
            ),
        ),
    ]
)
"""`objects` goes with the list of the same name in `masks`."""


class Describer(Protocol):
    """A vision-language model."""

    longest: int
    """The longest side that it makes use of, in pixels."""

    def settings(self) -> Mapping[str, Any]:
        """All that its answers depend on."""

    def load(self) -> None:
        """Load the weights, or make the connection."""

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One answer a picture."""


@dataclass(kw_only=True)
class TextLimit:
    """How much a text encoder reads."""

    tokenizer: str = "openai/clip-vit-large-patch14"
    """Hub id or folder of its tokenizer, or the name of an embedded backbone."""

    tokens: int = 77
    """Tokens, those of start and end included."""

    def load(self) -> Callable[[str], bool]:
        """Whether a text fits."""
        from transformers import AutoTokenizer

        folder = embedded_backbone(self.tokenizer)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer" if folder else self.tokenizer)
        return lambda text: len(tokenizer(text).input_ids) <= self.tokens


@dataclass(kw_only=True)
class Describe:
    """Makes the table `descriptions` of the objects that have masks."""

    describer: Describer
    """The model."""

    limit: TextLimit = field(default_factory=TextLimit)
    """Of the text that training reads."""

    prompt: str = PROMPT
    """The question; `{label}` becomes the object's."""

    margin: float = 0.1
    """What the crop shows around the object's box, as a share of the box's longer side."""

    masked: bool = True
    """Whether everything but the object is grey."""

    batch: int = 8
    """Objects a forward pass."""

    name: ClassVar[str] = "descriptions"
    reads: ClassVar[tuple[str, ...]] = ("index", "detections", "masks")
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""
    _fits: Callable[[str], bool] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if "{label}" not in self.prompt:
            raise UserError("prompt", "must contain {label}", self.prompt)

    def settings(self) -> Mapping[str, Any]:
        """The model's, the question and the rules'."""
        rules = {name: getattr(self, name) for name in ("prompt", "margin", "masked")}
        return {"describer": self.describer.settings(), "limit": vars(self.limit)} | rules

    def setup(self, inputs: Inputs) -> None:
        """Load the model and the text encoder's tokenizer."""
        self.describer.load()
        self._fits = self.limit.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `masks`."""
        walk = ObjectWalk(shard, "detections", "masks")
        return walk.table(self._entries(self._questions(walk)), SCHEMA)

    def _questions(self, walk: ObjectWalk) -> Iterator[tuple[Image.Image, str]]:
        """(crop, prompt) of every object that has a mask, in order."""
        for view, objects in walk.seen(self.describer.longest):
            for seen, mask in objects:
                runs = Runs.of_coco({"size": view.size[::-1], "counts": mask["counts"]})
                crop = object_crop(view.picture, runs, margin=self.margin, masked=self.masked)
                yield crop, self.prompt.replace("{label}", seen["label"])

    def _entries(self, questions: Iterator[tuple[Image.Image, str]]) -> Iterator[dict[str, Any]]:
        assert self._fits is not None
        for batch in batches(questions, self.batch):
            crops, prompts = zip(*batch, strict=True)
            for answer in self.describer.answer(crops, prompts):
                yield text_entry(answer, self._fits)


def text_entry(answer: str, fits: Callable[[str], bool]) -> dict[str, Any]:
    """A model's answer, cleaned, as the tables of texts have it."""
    found = describe(answer, fits)
    status = KEPT if found.reason is None else REJECTED
    return {"status": status, "reason": found.reason, "text": found.text, "full": found.full}


def object_crop(image: Image.Image, mask: Runs, *, margin: float, masked: bool) -> Image.Image:
    """The part of an RGB image around a mask.

    Args:
        image: the picture, perhaps smaller than the mask.
        mask: of the object, not empty.
        margin: added on each side, as a share of the box's longer side, as far as there is picture.
        masked: paint everything but the object grey.
    """
    across, down = image.width / mask.size[1], image.height / mask.size[0]
    x0, y0, x1, y1 = mask.box
    around = margin * max(x1 - x0, y1 - y0)
    left, top = max(0, int((x0 - around) * across)), max(0, int((y0 - around) * down))
    right = min(image.width, max(left + 1, int(np.ceil((x1 + around) * across))))
    bottom = min(image.height, max(top + 1, int(np.ceil((y1 + around) * down))))
    crop = image.crop((left, top, right, bottom))
    if masked:
        rows = ((np.arange(top, bottom) + 0.5) / down).astype(int)
        columns = ((np.arange(left, right) + 0.5) / across).astype(int)
        crop.paste(GREY, None, Image.fromarray(~mask.sampled(rows, columns)))
    return crop
