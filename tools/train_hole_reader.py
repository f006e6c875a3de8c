"""Train the reader: says from latents what lies in a hole, in which art style and of which colour.

    python tools/train_hole_reader.py runs/decoder/vae runs/reader-0 --minutes 12

The branch is refined by what it reads (`refine_branch.py`). The judge that measures is another network, which
sees pixels and never meets a generator. Most objects here lie on a background of another style, so that the
style is read off the object. The state is saved every two minutes; running again goes on. On a CPU use a
process a core:

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 tools/train_hole_reader.py runs/decoder/vae ...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from train_autoencoder import to_tensor
from training_run import TrainingRun, existing, join_workers, own_share, run_recipe

from mtadiffusion.errors import UserError
from mtadiffusion.models.autoencoders import encode_latents
from mtadiffusion.models.conditioning import latent_known
from mtadiffusion.seeding import numpy_generator, torch_generator
from mtadiffusion.stickers.assets import STYLES, Sprite, labels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.controls import paste_object
from mtadiffusion.stickers.problems import KINDS, background_filled, hole_around
from mtadiffusion.stickers.scenes import SceneWorld, choose_sprite

UNKNOWN = -1
"""A target that no loss is taken on."""

WORLD = 3
"""Seed of the scenes that the reader learns from."""

LEFT, EMPTIED = 0.1, 0.1
"""The shares of holes with the scene's own object and without any; the others get one of any style."""

NOISE, SOFTNESS = 0.6, 0.7
"""How noisy and how blurred, at most, the latents are: predicted ones are not clean either."""

SMOOTHING = 0.05
BATCH = 96
VALIDATION_HOLES = 1000


class Reading(NamedTuple):
    """Logits or, as int64 (B,), the true answers; the last category and the last colour are `none`."""

    category: Tensor
    """(B, labels + 1)"""

    style: Tensor
    """(B, styles)"""

    colour: Tensor
    """(B, colours + 1)"""


class HoleReader(nn.Module):
    """Convolutions over the latents of a hole, their mean, three linear heads."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 5
        for width, stride in ((64, 1), (64, 1), (96, 2), (96, 1), (128, 2), (192, 1)):
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.GroupNorm(8, width), nn.SiLU()]
            channels = width
        self.body = nn.Sequential(*layers)
        counts = len(labels()) + 1, len(STYLES), len(COLOURS) + 1
        self.heads = nn.ModuleList(nn.Linear(channels, count) for count in counts)

    def forward(self, latents: Tensor, hole: Tensor) -> Reading:
        """What lies in the hole (B, 1, h, w), 1 = hole, of scaled latents (B, 4, h, w)."""
        seen = self.body(torch.cat([latents * hole, hole], dim=1)).mean(dim=(2, 3))
        return Reading(*(head(seen) for head in self.heads))


@dataclass(frozen=True, kw_only=True)
class ReadableHoles:
    """Encoded pictures, a hole in each, and what lies in it."""

    latents: Tensor
    """(N, 4, h, w), scaled."""

    holes: Tensor
    """(N, 1, h, w), 1 = hole."""

    answers: Reading

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, Reading]:
        return self.latents[index], self.holes[index], Reading(*(answer[index] for answer in self.answers))


def readable_hole(index: int) -> tuple[np.ndarray, np.ndarray, Sprite | None]:
    """A picture uint8 (64, 64, 3), its hole bool (64, 64), and the object in it, if any."""
    scene = SceneWorld(split="train", seed=WORLD).scene(index)
    rng = numpy_generator(WORLD, "hole-reader", index)
    hole, chance = hole_around(scene, KINDS[index % 2]), rng.random()
    picture, thing = scene.record.image, scene.placements[0].sprite
    if chance >= LEFT:
        picture, thing = background_filled(scene, hole, rng), None
    if chance >= LEFT + EMPTIED:
        label, style = (names[int(rng.integers(len(names)))] for names in (labels(), STYLES))
        thing = choose_sprite(rng, label, style, held_out=False)
        picture = paste_object(picture, hole, thing)
    if rng.random() < 0.5:
        picture, hole = picture[:, ::-1], hole[:, ::-1]
    return picture, hole, thing


def right_reading(thing: Sprite | None) -> tuple[int, int, int]:
    """The numbers of a right reading: category, style and colour."""
    if thing is None:
        return len(labels()), UNKNOWN, UNKNOWN
    colour = len(COLOURS) if thing.colour is None else list(COLOURS).index(thing.colour)
    return labels().index(thing.label), STYLES.index(thing.style), colour


@torch.no_grad()
def encoded_holes(vae: AutoencoderKL, numbers: Sequence[int], silent: bool = False) -> ReadableHoles:
    """The readable holes of these numbers."""
    latents, holes, answers = [], [], []
    for start in tqdm(range(0, len(numbers), 64), desc="encoding", unit="batch", disable=silent):
        pictures, cut, things = zip(*map(readable_hole, numbers[start : start + 64]), strict=True)
        encoded = encode_latents(vae, to_tensor(np.stack(pictures)))
        latents.append(encoded)
        cells = torch.from_numpy(np.stack(cut))[:, None].float()
        holes.append(1 - latent_known(cells, encoded.shape[-2:], "any"))
        answers += [right_reading(thing) for thing in things]
    return ReadableHoles(
        latents=torch.cat(latents), holes=torch.cat(holes), answers=Reading(*torch.tensor(answers).T)
    )


def disturbed(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (B, 4, h, w), a part of them blurred, a part of them with noise."""

    def strength(most: float) -> Tensor:
        return most * (1.4 * torch.rand(len(latents), 1, 1, 1, generator=generator) - 0.4).clamp(min=0)

    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(latents.shape[1], 1, 3, 3)
    soft = F.conv2d(F.pad(latents, (1, 1, 1, 1), mode="replicate"), kernel, groups=latents.shape[1])
    noise = torch.randn(latents.shape, generator=generator)
    return torch.lerp(latents, soft, strength(SOFTNESS)) + strength(NOISE) * noise


def loss(read: Reading, right: Reading) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the answers that there are; the colour, which is often debatable, counts half."""
    missed = [
        F.cross_entropy(logits, answer, ignore_index=UNKNOWN, label_smoothing=SMOOTHING)
        for logits, answer in zip(read, right, strict=True)
    ]
    total = missed[0] + missed[1] + 0.5 * missed[2]
    return total, {"loss": total, **shares(read, right)}


def shares(read: Reading, right: Reading) -> dict[str, Tensor]:
    """Shares of right answers among those that are known."""
    return {
        name: (logits.argmax(1) == answer)[answer != UNKNOWN].float().mean()
        for name, logits, answer in zip(Reading._fields, read, right, strict=True)
    }


def load_reader(folder: Path) -> HoleReader:
    """A trained reader that is ready to read.

    Raises:
        UserError: the folder holds none.
    """
    if not (folder / "model.safetensors").is_file():
        raise UserError("reader", "must hold model.safetensors", str(folder), "name OUT/reader of a training")
    reader = HoleReader()
    reader.load_state_dict(load_file(folder / "model.safetensors"))
    return reader.eval().requires_grad_(False)


def save_reader(reader: HoleReader, folder: Path) -> None:
    """Write `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / ".model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in reader.state_dict().items()}, fresh)
    fresh.replace(folder / "model.safetensors")


def main() -> None:
    """Parse, train, write `OUT/reader`, print the shares of right answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("vae", type=existing)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--holes", type=int, default=48_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    rank, workers = join_workers()
    vae = AutoencoderKL.from_pretrained(arguments.vae, torch_dtype=torch.float32).eval()
    vae = vae.to(memory_format=torch.channels_last)
    learned = arguments.holes - min(VALIDATION_HOLES, arguments.holes // 2)
    material = encoded_holes(vae, own_share(learned, rank, workers), silent=rank > 0)
    reader = HoleReader().to(memory_format=torch.channels_last)
    run = TrainingRun(arguments, reader, rate=2e-3)
    for step in run.steps():
        generator = torch_generator(arguments.seed, f"hole-reader/{rank}", step)
        chosen = torch.randint(len(material), (BATCH // workers,), generator=generator)
        latents, hole, right = material[chosen]
        run.update(*loss(reader(disturbed(latents, generator), hole), right))
    if rank:
        return
    trained = run.averaged()
    save_reader(trained, arguments.out / "reader")
    unseen = encoded_holes(vae, range(learned, arguments.holes))
    latents, hole, right = unseen[torch.arange(len(unseen))]
    with torch.no_grad():
        print({name: round(share.item(), 4) for name, share in shares(trained(latents, hole), right).items()})


if __name__ == "__main__":
    run_recipe(main)
