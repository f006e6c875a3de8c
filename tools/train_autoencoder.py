"""Train the embedded autoencoder: a small AutoencoderKL, f = 4, four latent channels.

    python tools/train_autoencoder.py runs/corpus runs/autoencoder --minutes 16

Small batches: steps count for more than pictures. A quarter of the pictures has a black box, because the
branch encodes pictures with black holes.
Loss: L1 + 2 MSE, the same between halved latents' reconstruction and the halved picture, and a slight KL; the
latents' scaling factor is measured at the end. The state is saved every two minutes; running again goes on.
`--minutes` is the whole budget, over which the learning rate falls. On a CPU use a process a core:

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 tools/train_autoencoder.py runs/corpus ...

    python tools/train_autoencoder.py runs/corpus runs/decoder --decoder-of runs/autoencoder/vae --minutes 20

improves the decoder alone: latents stay as they are, so that models trained on them stay good. Half of the
latents get noise, which the decoder learns to overlook, because a diffusion model's latents are not exact.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from sticker_corpus import load_corpus
from torch.nn import functional as F
from training_run import TrainingRun, existing, join_workers, run_recipe

from mtadiffusion.seeding import numpy_generator

KL_WEIGHT = 3e-6
EQUIVARIANCE_WEIGHT = 0.5
"""Of the halved pictures' reconstruction. The latents' coarse part then is the picture's coarse part, and a
diffusion model learns them sooner (Skorokhodov et al. 2025, arXiv 2502.14831; Kouzelis et al. 2025, arXiv
2502.09509)."""

NOISE = 0.4
"""The most noise that the decoder alone is given, as a share of the latents' standard deviation (Zheng et al.
2025, arXiv 2510.11690)."""

HOLED = 0.25
HELD_PICTURES = 512
"""The corpus's last pictures, which the printed PSNR and the scaling factor are taken from."""


def build(channels: tuple[int, ...] = (16, 32, 64)) -> AutoencoderKL:
    """The untrained autoencoder; downsamples by 2 ** (len(channels) - 1)."""
    levels = len(channels)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=64,
    )


def trained(folder: Path, *, decoder_alone: bool) -> AutoencoderKL:
    """A trained autoencoder that goes on learning, all of it or its decoder alone."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    vae.encoder.requires_grad_(not decoder_alone)
    return vae


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def batch(images: np.ndarray, rng: np.random.Generator, size: int, crop: int) -> torch.Tensor:
    """Random square crops, some mirrored, some with a black box; (B, 3, crop, crop) in [-1, 1]."""
    pictures = images[np.sort(rng.choice(len(images), size, replace=False))]
    corners = rng.integers(0, images.shape[1] - crop + 1, (size, 2))
    crops = [p[y : y + crop, x : x + crop] for p, (y, x) in zip(pictures, corners, strict=True)]
    batch = to_tensor(np.stack(crops))
    for picture in batch:
        if rng.random() < HOLED:
            (x0, y0), (w, h) = rng.integers(0, crop // 2, 2), rng.integers(crop // 8, crop // 2, 2)
            picture[:, y0 : y0 + h, x0 : x0 + w] = -1
    return batch.flip(-1) if rng.random() < 0.5 else batch


def loss(vae: AutoencoderKL, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of encoder and decoder, and what the log shows."""
    posterior = vae.encode(x).latent_dist
    latents = posterior.sample()
    whole, mse = _distance(vae.decode(latents).sample, x)
    halved, halved_mse = _distance(vae.decode(F.avg_pool2d(latents, 2)).sample, F.avg_pool2d(x, 2))
    total = whole + EQUIVARIANCE_WEIGHT * halved + KL_WEIGHT * posterior.kl().mean()
    return total, {"loss": total, "psnr": _psnr(mse), "psnr_halved": _psnr(halved_mse)}


def decoder_loss(vae: AutoencoderKL, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of the decoder alone, and what the log shows."""
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mode()
    total, mse = _distance(vae.decode(noised(latents)).sample, x)
    return total, {"loss": total, "psnr": _psnr(mse)}


def noised(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w), half of them with noise of a random strength up to `NOISE`."""
    strength = NOISE * (2 * torch.rand(len(latents), 1, 1, 1) - 1).clamp(min=0)
    return latents + strength * latents.std() * torch.randn_like(latents)


def _distance(made: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mse = F.mse_loss(made, wanted)
    return F.l1_loss(made, wanted) + 2 * mse, mse


def _psnr(mse: torch.Tensor) -> torch.Tensor:
    return -10 * torch.log10(mse / 4)


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, images: np.ndarray) -> float:
    """One over the latents' standard deviation."""
    return float(1 / vae.encode(to_tensor(images)).latent_dist.mean.std())


@torch.no_grad()
def validation_psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """PSNR in dB of the mean squared error over all pictures, 8-bit range."""
    x = to_tensor(images)
    decoded = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    return float(_psnr(F.mse_loss(decoded, x)))


def main() -> None:
    """Parse, train, export a diffusers folder `OUT/vae`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=existing)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64, help="side of the crops in pixels")
    parser.add_argument("--rate", type=float, default=2e-3)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--start-from", type=existing, help="folder of an autoencoder to go on from")
    source.add_argument("--decoder-of", type=existing, help="folder of an autoencoder whose encoder stays")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    rank, workers = join_workers()
    images = load_corpus(arguments.corpus).images
    learned = images[:-HELD_PICTURES]
    start = arguments.start_from or arguments.decoder_of
    vae = trained(start, decoder_alone=arguments.decoder_of is not None) if start else build()
    objective = decoder_loss if arguments.decoder_of else loss
    run = TrainingRun(arguments, vae, rate=arguments.rate)
    for step in run.steps():
        rng = numpy_generator(0, f"autoencoder/{rank}", step)
        run.update(*objective(vae, batch(learned, rng, arguments.batch // workers, arguments.crop)))
    if rank:
        return
    held = np.asarray(images[-HELD_PICTURES:])
    vae = run.averaged()
    if not arguments.decoder_of:
        vae.register_to_config(scaling_factor=round(scaling_factor(vae, held), 5))
    vae.save_pretrained(arguments.out / "vae")
    print(f"PSNR {validation_psnr(vae, held):.2f} dB, scaling factor {vae.config.scaling_factor}")


if __name__ == "__main__":
    run_recipe(main)
