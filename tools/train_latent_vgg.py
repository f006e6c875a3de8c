"""Train the latent VGG of the style loss: a narrow classifier of sticker latents (object and art style).

    python tools/train_latent_vgg.py runs/base/pipeline/vae runs/latent_vgg --minutes 3

The first logits are the objects, the last ones the styles. The state is saved; running again goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from train_autoencoder import to_tensor
from training_run import TrainingRun

from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.seeding import torch_generator
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.scenes import SceneWorld

VALIDATION_SCENES = 512


def build() -> LatentVGG:
    """The untrained VGG: shallow and narrow, for latents of 16 x 16."""
    widths = ((24,), (48,), (96, 96))
    return LatentVGG(
        in_channels=4,
        widths=widths,
        pools=(True, True),
        taps=(0, 0, 0),
        num_classes=len(labels()) + len(STYLES),
    )


@torch.no_grad()
def encoded_scenes(vae: AutoencoderKL, world: SceneWorld, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (count, 4, h, w), object indices (count,), style indices (count,) of single-object scenes."""
    latents, objects, styles = [], [], []
    for start in tqdm(range(0, count, 64), desc="encoding", unit="batch"):
        records = [world.record(i) for i in range(start, min(start + 64, count))]
        pixels = torch.cat([to_tensor(r.image[None]) for r in records])
        latents.append(vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor)
        objects += [labels().index(r.objects[0].label) for r in records]
        styles += [STYLES.index(r.attributes["style"]) for r in records]
    return torch.cat(latents), torch.tensor(objects), torch.tensor(styles)


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
    parser.add_argument("vae", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(arguments.vae).eval()
    world = SceneWorld(split="train", seed=2, size=arguments.size, objects=(1, 1))
    latents, objects, styles = encoded_scenes(vae, world, arguments.scenes)
    run = TrainingRun(arguments.out, build(), minutes=arguments.minutes, rate=2e-3)
    for step in run.steps():
        chosen = torch.randint(0, len(latents), (64,), generator=torch_generator(0, "latent-vgg", step))
        run.update(*loss(run.model.classify(latents[chosen]), objects[chosen], styles[chosen]))

    vgg = run.averaged()
    vgg.calibrate(latents[:1024])
    validation = SceneWorld(split="validation", seed=2, size=arguments.size, objects=(1, 1))
    held = encoded_scenes(vae, validation, VALIDATION_SCENES)
    with torch.no_grad():
        _, accuracy = loss(vgg.classify(held[0]), held[1], held[2])
    vgg.save_pretrained(arguments.out / "latent_vgg")
    print({name: round(float(value), 4) for name, value in accuracy.items()})


if __name__ == "__main__":
    main()
