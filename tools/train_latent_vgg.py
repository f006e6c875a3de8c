"""Train the latent VGG of the style and perceptual losses: a narrow classifier of sticker latents (object and
art style).

    python tools/train_latent_vgg.py runs/autoencoder/vae runs/latent_vgg --minutes 5

It sees each object on another scene's background, so that it reads the style off the object, and some noise.
The first logits are the objects, the last ones the styles. The state is saved; running again goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from train_autoencoder import to_tensor
from training_run import TrainingRun, existing, run_recipe

from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.seeding import torch_generator
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.scenes import SceneWorld

VALIDATION_SCENES = 512
BATCH = 128
NOISE = 0.4
"""Standard deviation, at most, of the noise on latents: predicted ones are not clean either."""


@dataclass(frozen=True, kw_only=True)
class ObjectLatents:
    """Encoded scenes of a single object each."""

    latents: Tensor
    """(N, 4, h, w)"""

    places: Tensor
    """bool (N, 1, h, w), the cells that the object's latents reach into."""

    objects: Tensor
    """Indices of labels (N,)."""

    styles: Tensor
    """Indices of styles (N,)."""

    def on_other_backgrounds(self, chosen: Tensor) -> Tensor:
        """The latents (B, 4, h, w) of these scenes (B,), each object on the scene chosen before it."""
        latents = self.latents[chosen]
        return torch.where(self.places[chosen], latents, latents.roll(1, 0))


def build() -> LatentVGG:
    """The untrained VGG: shallow and narrow, for latents of 16 x 16."""
    widths = ((32, 32), (64, 64), (128, 128))
    return LatentVGG(
        in_channels=4,
        widths=widths,
        pools=(True, True),
        taps=(1, 1, 1),
        num_classes=len(labels()) + len(STYLES),
    )


@torch.no_grad()
def encoded_scenes(vae: AutoencoderKL, world: SceneWorld, count: int) -> ObjectLatents:
    """The first `count` scenes of a world of single objects."""
    latents, masks, objects, styles = [], [], [], []
    for start in tqdm(range(0, count, 64), desc="encoding", unit="batch"):
        records = [world.record(i) for i in range(start, min(start + 64, count))]
        pixels = torch.cat([to_tensor(r.image[None]) for r in records])
        latents.append(vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor)
        masks.append(torch.from_numpy(np.stack([r.objects[0].mask for r in records]))[:, None].float())
        objects += [labels().index(r.objects[0].label) for r in records]
        styles += [STYLES.index(r.attributes["style"]) for r in records]
    side = latents[0].shape[-1]
    places = F.max_pool2d(F.adaptive_max_pool2d(torch.cat(masks), side), 3, stride=1, padding=1)
    return ObjectLatents(
        latents=torch.cat(latents),
        places=places > 0,
        objects=torch.tensor(objects),
        styles=torch.tensor(styles),
    )


def loss(logits: Tensor, objects: Tensor, styles: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of both answers."""
    of_object, of_style = logits.split([len(labels()), len(STYLES)], dim=1)
    total = F.cross_entropy(of_object, objects) + F.cross_entropy(of_style, styles)
    shown = {
        "loss": total,
        "object": (of_object.argmax(1) == objects).float().mean(),
        "style": (of_style.argmax(1) == styles).float().mean(),
    }
    return total, shown


def main() -> None:
    """Parse, train, export a LatentVGG folder `OUT/latent_vgg`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("vae", type=existing)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--scenes", type=int, default=24_000)
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(arguments.vae).eval().to(memory_format=torch.channels_last)
    world = SceneWorld(split="train", seed=2, size=arguments.size, objects=(1, 1))
    scenes = encoded_scenes(vae, world, arguments.scenes)
    model = build().to(memory_format=torch.channels_last)
    run = TrainingRun(arguments, model, rate=3e-3)
    for step in run.steps():
        generator = torch_generator(0, "latent-vgg", step)
        chosen = torch.randint(0, len(scenes.latents), (BATCH,), generator=generator)
        latents = scenes.on_other_backgrounds(chosen)
        strength = NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
        latents = latents + strength * torch.randn(latents.shape, generator=generator)
        run.update(*loss(run.model.classify(latents), scenes.objects[chosen], scenes.styles[chosen]))

    vgg = run.averaged()
    vgg.calibrate(scenes.latents[:1024])
    validation = SceneWorld(split="validation", seed=2, size=arguments.size, objects=(1, 1))
    held = encoded_scenes(vae, validation, VALIDATION_SCENES)
    everything = torch.arange(len(held.latents))
    with torch.no_grad():
        answers = vgg.classify(held.on_other_backgrounds(everything))
    _, accuracy = loss(answers, held.objects, held.styles)
    vgg.save_pretrained(arguments.out / "latent_vgg")
    print({name: round(float(value), 4) for name, value in accuracy.items()})


if __name__ == "__main__":
    run_recipe(main)
