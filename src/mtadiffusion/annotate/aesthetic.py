"""Stage: how beautiful people would find an image, where its source does not say.

LAION's predictor of 2022: one linear layer on the unit image vector of OpenAI's CLIP ViT-L/14
(https://github.com/LAION-AI/aesthetic-predictor), a score from about 1 to 10. Its weights,
`sa_0_4_vit_l_14_linear.pth`, are published there and not shipped here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file

from mtadiffusion.annotate.stage import Inputs, Resources, ShardInputs
from mtadiffusion.annotate.verify import Scorer
from mtadiffusion.data.tables import DECODED
from mtadiffusion.errors import UserError

SCHEMA = pa.schema([("image_id", pa.string()), ("score", pa.float32())])
"""`score` is null where the source has a score, or the image cannot be decoded."""


@dataclass(kw_only=True)
class Aesthetic:
    """Makes the table `aesthetics` of the decoded images without a score of their own."""

    scorer: Scorer
    """CLIP."""

    head: str
    """File of the linear layer on CLIP's image vector: .pth, or .safetensors with the same two tensors."""

    batch: int = 16
    """Images a forward pass."""

    name: ClassVar[str] = "aesthetics"
    reads: ClassVar[tuple[str, ...]] = ("index",)
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""
    _weight: np.ndarray | None = field(default=None, init=False, repr=False)
    _bias: float = field(default=0.0, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The models'; the head by its content."""
        content = hashlib.blake2b(_read(self.head), digest_size=8).hexdigest()
        return {"scorer": self.scorer.settings(), "head": content}

    def setup(self, inputs: Inputs) -> None:
        """Load CLIP and the head."""
        self._weight, self._bias = load_head(self.head)
        self.scorer.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image of the index."""
        index = shard.rows("index")
        columns = zip(index["status"].to_pylist(), index["aesthetic"].to_pylist(), strict=True)
        wanted = [status == DECODED and score is None for status, score in columns]
        scores = self._scores(shard, index.filter(pa.array(wanted, pa.bool_())))
        found = [next(scores) if want else None for want in wanted]
        return pa.table({"image_id": index["image_id"], "score": found}, schema=SCHEMA)

    def _scores(self, shard: ShardInputs, wanted: pa.Table) -> Iterator[float]:
        images = shard.images(wanted, self.scorer.longest)
        while batch := list(islice(images, self.batch)):
            yield from (self.scorer.images(batch) @ self._weight + self._bias).tolist()


def load_head(path: str) -> tuple[np.ndarray, float]:
    """(weight (D,), bias) of a linear layer with one output.

    Raises:
        UserError: no such file, or no such layer in it.
    """
    content = _read(path)
    try:
        if path.endswith(".safetensors"):
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        weight, bias = tensors["weight"].float(), tensors["bias"].float()
        return weight.reshape(-1).numpy(), float(bias.reshape(()))
    except Exception as error:  # whatever the loaders make of a file that is something else
        found = f"{path}, {len(content)} bytes"
        raise UserError("aesthetic.head", "must hold `weight` and `bias` of a linear layer", found) from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        remedy = "take sa_0_4_vit_l_14_linear.pth of LAION's aesthetic-predictor"
        raise UserError("aesthetic.head", f"cannot be read ({error.strerror})", path, remedy) from error
