"""A benchmark, methods and metrics that are small enough to be looked through, told how to fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Item, Settings
from mtadiffusion.evaluate.methods.method import Drawn, Request
from mtadiffusion.evaluate.metrics.metric import Batch, Definition

SIDE = 24


@dataclass(frozen=True, kw_only=True)
class Squares:
    """Noise with a square hole; items of two groups in turn."""

    count: int = 6
    version: str = "1"
    name: str = "squares"
    title: str = "Squares"
    settings: Settings = field(
        default=Settings(size=SIDE, steps=3, guidance_scale=2.0, scheduler="None", seed=7, seed_per_item=True)
    )

    def items(self) -> Sequence[Item]:
        return [
            Item(item_id=f"item-{n}", prompt=f"a <b>thing</b> {n}", group=("inside", "outside")[n % 2])
            for n in range(self.count)
        ]

    def picture(self, item: Item) -> np.ndarray:
        return np.random.default_rng(_number(item)).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def hole(self, item: Item) -> np.ndarray:
        hole = np.zeros((SIDE, SIDE), dtype=bool)
        hole[4 : 8 + _number(item), 4:16] = True
        return hole

    def fingerprint(self) -> str:
        return f"squares-{self.version}-{self.count}"


@dataclass(kw_only=True)
class Noise:
    """Fills holes with noise of a brightness."""

    name: str = "noise"
    level: int = 100
    spread: int = 20
    fails_on: str = ""
    """A prompt that it raises at."""

    broken: str = ""
    """Why it cannot be set up."""

    kills_at: int | None = None
    """The call at which it kills its process, once."""

    killed: Path | None = None
    """Is there once it has killed its process."""

    calls: int = 0

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "noise", "level": self.level}

    def setup(self, settings: Settings, device: str, dtype: str) -> None:
        if self.broken:
            raise UserError("--method", self.broken)
        self.steps = settings.steps

    def generate(self, image: np.ndarray, hole: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        assert not image[hole].any(), "a method never sees what lies in the hole"
        self.calls += 1
        if self.calls == self.kills_at and self.killed and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if prompt == self.fails_on:
            raise RuntimeError("cannot draw this\nand a long story")
        noise = np.random.default_rng(seed).integers(0, self.spread, image.shape, dtype=np.uint8)
        return np.where(hole[..., None], noise + np.uint8(self.level), image)


@dataclass(kw_only=True)
class Together(Noise):
    """Draws several at once, each of them brighter by their number: what was drawn together shows."""

    name: str = "together"

    def generate_batch(self, requests: Sequence[Request]) -> list[np.ndarray]:
        drawn = [self.generate(one.image, one.hole, one.prompt, one.seed) for one in requests]
        return [picture + np.uint8(len(requests)) for picture in drawn]


@dataclass(kw_only=True)
class Foreseeing(Noise):
    """Expects edges in the upper half of every picture but that of `silent_on`."""

    name: str = "foreseeing"
    strength: float = 0.5
    silent_on: str = ""

    def generate_with_edges(self, requests: Sequence[Request]) -> list[Drawn]:
        drawn = [self.generate(one.image, one.hole, one.prompt, one.seed) for one in requests]
        edges = np.zeros((6, 8), np.float32)
        edges[:3] = self.strength
        return [
            Drawn(picture=picture, edges=None if one.prompt == self.silent_on else edges)
            for picture, one in zip(drawn, requests, strict=True)
        ]


@dataclass(kw_only=True)
class EdgesSeen:
    """The greatest edge that the method expected."""

    definition: Definition = field(
        default=Definition(
            name="edges_seen", title="Edges", better="higher", bounds=(0, 1), region="hole", resize="none"
        )
    )

    def identity(self) -> Mapping[str, Any]:
        return {}

    def setup(self, device: str) -> None:
        pass

    def score(self, batch: Batch) -> list[float | None]:
        return [None if one.edges is None else float(one.edges.max()) for one in batch.samples]


@dataclass(kw_only=True)
class Brightness:
    """The hole's mean value."""

    name: str = "brightness"
    version: str = "1"
    broken: str = ""
    """Why it cannot be set up."""

    fails_on: str = ""
    """A prompt that it raises at."""

    skips: str = ""
    """A prompt that it does not apply to."""

    fetches: bool = False
    """Its weights come only with the setup: before that it cannot say which they are."""

    @property
    def definition(self) -> Definition:
        return Definition(
            name=self.name,
            title="Bright|ness",
            better="higher",
            bounds=(0, 255),
            region="hole",
            resize="none",
            scale=10.0,
        )

    def identity(self) -> Mapping[str, Any]:
        return {"version": None if self.fetches else self.version}

    def setup(self, device: str) -> None:
        if self.broken:
            raise UserError("brightness", self.broken)
        self.fetches = False

    def score(self, batch: Batch) -> list[float | None]:
        if any(sample.item.prompt == self.fails_on for sample in batch.samples):
            raise ValueError("cannot look at this")
        return [
            None if sample.item.prompt == self.skips else float(sample.result[sample.hole].mean())
            for sample in batch.samples
        ]


@dataclass(kw_only=True)
class Change:
    """The mean difference from the original."""

    definition: Definition = field(
        default=Definition(
            name="change",
            title="Change",
            better="lower",
            bounds=(0, float("inf")),
            region="image",
            resize="none",
        )
    )

    def identity(self) -> Mapping[str, Any]:
        return {}

    def setup(self, device: str) -> None:
        pass

    def score(self, batch: Batch) -> list[float | None]:
        return [float(np.abs(one.result.astype(float) - one.original).mean()) for one in batch.samples]


def _number(item: Item) -> int:
    return int(item.item_id.removeprefix("item-"))
