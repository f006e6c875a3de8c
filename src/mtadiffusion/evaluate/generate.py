"""Drawing: every item's hole filled by a method, each picture written whole, what fails noted."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mtadiffusion.data.files import DiskFullError, whole_file
from mtadiffusion.engines.engine import Engine, Resources
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Benchmark, Item, Settings
from mtadiffusion.evaluate.folder import MethodFolder
from mtadiffusion.evaluate.journal import Row
from mtadiffusion.evaluate.methods.method import Drawn, Method, Request, draw, draws_together
from mtadiffusion.seeding import stream_seed

_WHITE = 2**16 - 1


@dataclass(frozen=True, kw_only=True)
class Place:
    """What models are run on."""

    device: str = "cpu"
    """A torch device."""

    dtype: str = "float32"
    """A torch dtype's name."""

    threads: int = 0
    """Of torch on the CPU, in each worker; 0: as many as torch likes."""

    @property
    def kind(self) -> str:
        """`cpu`, `cuda`: what decides a picture's last bits."""
        return self.device.partition(":")[0]

    @property
    def resources(self) -> Resources:
        """Of one worker."""
        return Resources(gpus=0 if self.kind == "cpu" else 1)

    def take(self) -> None:
        """Use no more threads than this."""
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)


@dataclass(kw_only=True)
class Drawer:
    """A worker that draws handfuls of items with one method."""

    benchmark: Benchmark
    method: Method
    settings: Settings
    place: Place
    folder: MethodFolder
    parts: Sequence[Sequence[Item]]
    """Items that are drawn together."""

    done: frozenset[str] = frozenset()
    """Items whose pictures are there: drawn along, where they belong to a part, and not written again."""

    ready: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def resources(self) -> Resources:
        """The place's."""
        return self.place.resources

    def make(self, part: int) -> list[Row]:
        """Draw and write one part: a line for the journal for each picture that was not there.

        Raises:
            UserError: the method cannot be set up, or the disk is full.
        """
        if not self.ready:
            self._set_up()
        begun = time.perf_counter()
        asked = [self._asked(item) for item in self.parts[part]]
        drawn = self._drawn([one for one in asked if isinstance(one, Asked)])
        seconds = (time.perf_counter() - begun) / len(asked)
        outcomes = [drawn[one.item.item_id] if isinstance(one, Asked) else one for one in asked]
        pairs = zip(self.parts[part], asked, outcomes, strict=True)
        return [self._line(*pair, seconds) for pair in pairs if pair[0].item_id not in self.done]

    def give_up(self, part: int, reason: str, attempts: int) -> list[Row]:
        """Lines for items that cost their workers their lives."""
        absent = [item for item in self.parts[part] if item.item_id not in self.done]
        return [{"item": item.item_id, "error": reason} for item in absent]

    def _set_up(self) -> None:
        self.place.take()
        try:
            self.method.setup(self.settings, self.place.device, self.place.dtype)
        except UserError:
            raise
        except Exception as error:  # weights that do not load, in whatever way
            raise UserError("--method", f"cannot be set up ({one_line(error)})", self.name) from error
        self.ready = True

    def _asked(self, item: Item) -> Asked | str:
        """What the method gets for an item; or why it gets nothing."""
        try:
            picture, hole = self.benchmark.picture(item), self.benchmark.hole(item)
        except Exception as error:
            return f"the benchmark's files: {one_line(error)}"
        request = Request(
            image=np.where(hole[..., None], 0, picture).astype(np.uint8),
            hole=hole,
            prompt=item.prompt,
            seed=seed_of(self.settings, item),
        )
        return Asked(item=item, request=request, digest=digest_of(item, picture, hole))

    def _drawn(self, asked: Sequence[Asked]) -> dict[str, Drawn | str]:
        """Item -> its picture, or why there is none. What fails as a batch is tried one by one."""
        if len(asked) > 1:
            try:
                made = draw(self.method, [one.request for one in asked])
                pairs = zip(asked, made, strict=True)
                return {one.item.item_id: _checked(found, one.request) for one, found in pairs}
            except Exception:
                pass
        return {one.item.item_id: self._drawn_alone(one.request) for one in asked}

    def _drawn_alone(self, request: Request) -> Drawn | str:
        try:
            (made,) = draw(self.method, [request])
        except DiskFullError:
            raise
        except Exception as error:
            return one_line(error)
        return _checked(made, request)

    def _line(self, item: Item, asked: Asked | str, outcome: Drawn | str, seconds: float) -> Row:
        known = {"item": item.item_id, "asked": asked.digest if isinstance(asked, Asked) else None}
        if isinstance(outcome, str):
            return {**known, "error": outcome}
        if outcome.edges is not None:
            known["edges"] = _written(self.folder.edges(item.item_id), edges_png(outcome.edges))
        digest = _written(self.folder.picture(item.item_id), png(outcome.picture))
        return {**known, "sha256": digest, "seconds": round(seconds, 4)}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An item as a method gets it."""

    item: Item
    request: Request
    digest: str
    """Of prompt, picture and hole: two runs asked the same where this is the same."""


def generate(drawer: Drawer, engine: Engine, items: Sequence[Item], batch: int) -> None:
    """Draw what is not there; the drawer's parts and what is done are set here.

    Items are drawn in the same handfuls whatever is there already, so that a run that was resumed draws what
    an undisturbed one draws, to the last bit.
    """
    drawer.done = frozenset(drawer.folder.whole_pictures(items))
    handful = batch if draws_together(drawer.method) else 1
    parts = [items[start : start + handful] for start in range(0, len(items), handful)]
    drawer.parts = [part for part in parts if any(item.item_id not in drawer.done for item in part)]
    with tqdm(total=len(items), initial=len(drawer.done), desc=drawer.name, unit="image") as bar:
        for lines in engine.make(drawer, range(len(drawer.parts))) if drawer.parts else ():
            drawer.folder.pictures.append(lines)
            bar.update(len(lines))


def seed_of(settings: Settings, item: Item) -> int:
    """The protocol's seed for an item."""
    if settings.seed_per_item:
        return stream_seed(settings.seed, f"evaluate/{item.item_id}")
    return settings.seed


def digest_of(item: Item, picture: np.ndarray, hole: np.ndarray) -> str:
    """Sixteen hexadecimal digits of an item's prompt, picture and hole."""
    digest = hashlib.blake2b(f"{item.prompt}\0{picture.shape}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(picture).tobytes())
    digest.update(np.packbits(hole).tobytes())
    return digest.hexdigest()


def png(picture: np.ndarray) -> bytes:
    """A uint8 (H, W, 3) RGB picture, or a uint16 (H, W) grey one, as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def edges_png(edges: np.ndarray) -> bytes:
    """Edges (h, w) in [0, 1] as the bytes of a grey PNG of 16 bits; `read_edges` is the inverse."""
    return png(np.rint(np.clip(edges, 0, 1) * _WHITE).astype(np.uint16))


def read_edges(path: Path) -> np.ndarray:
    """float32 (h, w) in [0, 1] of a file that `edges_png` made."""
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=np.float32) / _WHITE


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says; a user's mistake speaks for itself."""
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _checked(made: Drawn, request: Request) -> Drawn | str:
    picture = np.asarray(made.picture)
    if picture.dtype != np.uint8 or picture.shape != request.image.shape:
        wanted = f"uint8 {request.image.shape}"
        return f"the method must return {wanted}, got {picture.dtype} {picture.shape}"
    if made.edges is None:
        return Drawn(picture=picture)
    edges = np.asarray(made.edges)
    if edges.ndim != 2 or not edges.size or not np.isfinite(edges).all():
        return f"the method must hand over finite edges (h, w), got {edges.dtype} {edges.shape}"
    return Drawn(picture=picture, edges=edges)


def _written(path: Path, content: bytes) -> str:
    """Write a file whole; the SHA-256 of its content in hexadecimal digits."""
    with whole_file(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()
