"""Train the embedded annotators on sticker scenes: the network of instances and the classifier of attributes.

    python tools/train_annotators.py runs/annotators --minutes 40

Scenes of the training split are rendered as they are needed; the truth is in the losses only. Every object's
centre is learned by a focal loss (Zhou et al. 2019), its mask by Dice and cross-entropy from the cell of the
centre and a cell beside it, its style and colour from its crop, of which the mask is a little wrong, as that
of a segmenter will be. The state is saved every two minutes; running again goes on. On a CPU use a process a
core:

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 tools/train_annotators.py runs/annotators

`OUT/instances` and `OUT/attributes` are written at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from train_autoencoder import to_tensor
from training_run import TrainingRun, join_workers, run_recipe

from mtadiffusion.annotate.describe import object_crop
from mtadiffusion.imaging.runs import Runs
from mtadiffusion.records import ImageRecord, ObjectRecord
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.attributes import AttributeNet, crop_pixels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.instances import STRIDE, InstanceNet
from mtadiffusion.stickers.scenes import SceneWorld

SEED = 3
"""Of the world that the annotators learn from; no other recipe uses it."""

CROP_MARGIN = 0.1
"""As `annotate.describe.Describe` crops."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A batch of B scenes with their N objects."""

    pixels: Tensor
    """(B, 3, side, side) in [-1, 1]."""

    centres: Tensor
    """(B, labels, h, w) in [0, 1], 1 at the cell of an object's centre, falling off around it."""

    pictures: Tensor
    """int (M,), which picture each cell that learns a mask is of; M is twice N."""

    cells: Tensor
    """int (M, 2), row and column of these cells."""

    masks: Tensor
    """float (M, side, side) in {0, 1}, what is to be drawn from these cells."""

    crops: Tensor
    """(N, 3, s, s) in [-1, 1]."""

    styles: Tensor
    """int (N,)."""

    colours: Tensor
    """int (N,); one past the last colour for none."""


class Annotators(nn.Module):
    """Both networks, so that one run trains them."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.instances = InstanceNet(labels=labels(), side=side)
        self.attributes = AttributeNet(styles=STYLES, colours=tuple(COLOURS))


def lesson(records: Sequence[ImageRecord], rng: np.random.Generator, crop_side: int) -> Lesson:
    """What a batch of records teaches."""
    side = records[0].image.shape[0]
    centres = np.zeros((len(records), len(labels()), side // STRIDE, side // STRIDE), np.float32)
    pictures, cells, masks, crops, styles, colours = [], [], [], [], [], []
    for number, record in enumerate(records):
        for thing in record.objects:
            x0, y0, x1, y1 = thing.box_xyxy
            middle = np.array([(y0 + y1) / 2, (x0 + x1) / 2]) / STRIDE - 0.5  # in cells
            peak = np.clip(np.rint(middle), 0, side // STRIDE - 1).astype(int)
            _draw(centres[number, labels().index(thing.label)], peak, (y1 - y0, x1 - x0))
            beside = np.clip(peak + rng.integers(-1, 2, 2), 0, side // STRIDE - 1)
            pictures += [number, number]
            cells += [peak, beside]
            masks += [thing.mask, thing.mask]
            crops.append(crop_pixels(_crop(record.image, thing, rng), crop_side))
            styles.append(STYLES.index(thing.attributes["style"]))
            words = [*COLOURS, None]
            colours.append(words.index(thing.attributes.get("colour")))
    return Lesson(
        pixels=to_tensor(np.stack([record.image for record in records])),
        centres=torch.from_numpy(centres),
        pictures=torch.tensor(pictures),
        cells=torch.from_numpy(np.stack(cells)),
        masks=torch.from_numpy(np.stack(masks)).float(),
        crops=torch.stack(crops),
        styles=torch.tensor(styles),
        colours=torch.tensor(colours),
    )


def _draw(plane: np.ndarray, peak: np.ndarray, size: tuple[int, int]) -> None:
    """A bell about the peak, as wide as a sixth of the object, over what the plane holds."""
    spread = [max(0.5, length / STRIDE / 6) for length in size]
    lines = [np.exp(-(((np.arange(len(plane)) - p) / s) ** 2) / 2) for p, s in zip(peak, spread, strict=True)]
    np.maximum(plane, np.outer(*lines), out=plane)


def _crop(image: np.ndarray, thing: ObjectRecord, rng: np.random.Generator) -> Image.Image:
    """The object's crop with a mask that is up to a pixel too small or too large."""
    change = int(rng.integers(-1, 2))
    mask = thing.mask
    if change:
        worked = ndimage.binary_dilation(mask) if change > 0 else ndimage.binary_erosion(mask)
        mask = worked if worked.any() else mask
    return object_crop(Image.fromarray(image), Runs.of(mask), margin=CROP_MARGIN, masked=True)


def loss(model: Annotators, batch: Lesson) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of all losses, and each of them."""
    maps = model.instances(batch.pixels.contiguous(memory_format=torch.channels_last))
    drawn = model.instances.masks(maps, batch.pictures, batch.cells)
    answers = model.attributes(batch.crops.contiguous(memory_format=torch.channels_last))
    shown = {
        "centres": _focal(maps.centres, batch.centres) / len(batch.styles),
        "dice": _dice(drawn.sigmoid(), batch.masks),
        "pixels": F.binary_cross_entropy_with_logits(drawn, batch.masks),
        "style": F.cross_entropy(answers.style, batch.styles),
        "colour": F.cross_entropy(answers.colour, batch.colours),
    }
    weights = {"pixels": 5.0}
    total = sum((weights.get(name, 1.0) * value for name, value in shown.items()), torch.zeros(()))
    return total, {"loss": total} | shown


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """CenterNet's focal loss, summed: cells near a centre count little as negatives."""
    chance = logits.sigmoid()
    centre = wanted == 1
    hit = F.logsigmoid(logits) * (1 - chance) ** 2
    miss = F.logsigmoid(-logits) * chance**2 * (1 - wanted) ** 4
    return -torch.where(centre, hit, miss).sum()


def _dice(chances: Tensor, masks: Tensor) -> Tensor:
    shared = 2 * (chances * masks).sum((1, 2))
    return (1 - (shared + 1) / (chances.sum((1, 2)) + masks.sum((1, 2)) + 1)).mean()


def inner_convolutions(model: nn.Module) -> list[nn.Parameter]:
    """What Muon is meant for: the weights between hidden layers."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return [one.weight for one in convolutions if one.kernel_size == (3, 3) and one.in_channels > 3]


def main() -> None:
    """Parse, train, write both networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    rank, workers = join_workers()
    world = SceneWorld(split="train", seed=SEED, size=arguments.size)
    model = Annotators(arguments.size).to(memory_format=torch.channels_last)
    inner = inner_convolutions(model)
    run = TrainingRun(arguments, model, rate=arguments.rate, inner=inner)
    share = arguments.batch // workers
    for step in run.steps():
        first = (step * workers + rank) * share
        records = [world.record(index) for index in range(first, first + share)]
        rng = numpy_generator(0, f"annotators/{rank}", step)
        run.update(*loss(model, lesson(records, rng, model.attributes.config.side)))
    if rank == 0:
        run.averaged().instances.save_pretrained(arguments.out / "instances")
        run.averaged().attributes.save_pretrained(arguments.out / "attributes")


if __name__ == "__main__":
    run_recipe(main)
