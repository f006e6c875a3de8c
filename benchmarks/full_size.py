"""A training step and a denoising step at Stable Diffusion 1.5's size with random weights, for `training.py`.

The reference step is written the way BrushNet's training script works: each step encodes the image, the
masked image and the text. It is compared with a step on cached latents over the same networks and samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from mtadiffusion.config import LossConfig, OptimConfig
from mtadiffusion.models.conditioning import branch_input
from mtadiffusion.models.injection import BranchInjection
from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.recipes import sd15
from mtadiffusion.seeding import torch_generator
from mtadiffusion.train.losses import edge_target
from mtadiffusion.train.noise_schedule import NoiseSchedule
from mtadiffusion.train.optim import MovingAverage, build_optimizer, clip_gradients, trainable
from mtadiffusion.train.setup import new_branch
from mtadiffusion.train.step import JointObjective, LatentBatch, StepModels, draw_noise, draw_timesteps

_TOKENS = 77
_GUIDANCE = 7.5


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """The networks with random weights in float32, and one sample."""

    models: StepModels
    """Branch, UNet and style VGG; they compute in bfloat16 on a GPU."""

    parts: dict[str, Any]
    """The same and the other networks by name."""

    pixels: dict[str, Tensor]
    """See `_sample`."""

    batch: LatentBatch
    """The sample as a cache gives it."""


def full_size(device: str, side: int) -> FullSize:
    """Everything on `device`, the sample of `side` pixels."""
    with torch.device("meta"):
        parts = stock_parts()
        parts["branch"] = new_branch(sd15().branch, parts["unet"], initialise="fresh")
        parts["vgg"] = LatentVGG()
    parts = {
        name: _with_random_weights(network, device, number)
        for number, (name, network) in enumerate(parts.items())
    }
    for name in ("unet", "vae", "text"):
        parts[name].requires_grad_(False).eval()
    pixels = _sample(device, side)
    batch = _encoded(parts, pixels).to(device)
    return FullSize(models=_step_models(parts, device), parts=parts, pixels=pixels, batch=batch)


def memory_figures(device: str, side: int, log: Callable[[str], None]) -> dict[str, float]:
    """Peak memory and seconds of one denoising step and of one step of the recipe in full."""
    watch = Watch(device)
    everything = full_size(device, side)
    models, batch = everything.models, everything.batch
    watch.restart()
    seconds, _ = watch.timed(lambda: denoising_step(models, batch))
    figures = {"denoising_seconds": seconds["wall"], "denoising_peak_gb": watch.peak()}
    log(f"{figures}")
    return figures | _whole_step(models, batch, watch)


def speed_figures(device: str, side: int) -> dict[str, Any]:
    """Seconds of a step on cached latents and of one that encodes its inputs, and both losses' difference."""
    return _comparison(full_size(device, side), Watch(device))


def stock_parts() -> dict[str, Any]:
    """UNet, autoencoder and text encoder of Stable Diffusion 1.5, freshly made."""
    channels = (128, 256, 512, 512)
    return {
        "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        "vae": AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        ),
        "text": CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )
        ),
    }


@torch.no_grad()
def _with_random_weights(network: Any, device: str, seed: int) -> Any:
    """Weights of variance 1 / inputs, small enough that nothing overflows; norms start at identity."""
    network = network.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, value in network.named_parameters():
        if value.ndim > 1:
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        else:
            value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    for name, value in network.named_buffers():
        if name.endswith("position_ids"):
            value.copy_(torch.arange(value.shape[-1], device=device).expand(value.shape))
        else:
            value.fill_(1.0)
    return network


def _step_models(parts: dict[str, Any], device: str) -> StepModels:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return StepModels(
        branch=parts["branch"],
        unet=parts["unet"],
        injection=BranchInjection(parts["unet"]),
        schedule=NoiseSchedule.from_scheduler(scheduler, device),
        vgg=parts["vgg"],
        autocast=device != "cpu",
    )


def _sample(device: str, side: int) -> dict[str, Tensor]:
    """One image in [-1, 1], its hole (1 = to be generated) and its tokens."""
    generator = torch.Generator().manual_seed(0)
    hole = torch.zeros(1, 1, side, side)
    hole[:, :, side // 4 : side // 2, side // 4 : side // 2] = 1
    tokens = torch.randint(1000, (1, _TOKENS), generator=generator)
    image = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
    return {name: value.to(device) for name, value in (("image", image), ("hole", hole), ("tokens", tokens))}


@torch.no_grad()
def _encoded(parts: dict[str, Any], pixels: dict[str, Tensor]) -> LatentBatch:
    image, hole = pixels["image"], pixels["hole"]
    latents = _latents(parts["vae"], image)
    size = (latents.shape[-2], latents.shape[-1])
    return LatentBatch(
        latents=latents,
        masked_latents=_latents(parts["vae"], image * (1 - hole) - hole),
        known=F.interpolate(1 - hole, size=size, mode="nearest"),
        edge=edge_target(image, size),
        text=parts["text"](pixels["tokens"])[0],
    )


def _latents(vae: Any, image: Tensor) -> Tensor:
    return vae.encode(image).latent_dist.mode() * vae.config.scaling_factor


@torch.no_grad()
def denoising_step(models: StepModels, batch: LatentBatch) -> Tensor:
    """One step of sampling with guidance: the branch once, the UNet with and without the text."""
    timesteps = torch.full((1,), 500, device=batch.latents.device)
    with torch.autocast(batch.latents.device.type, torch.bfloat16, enabled=models.autocast):
        outcome = models.branch(branch_input(batch.latents, batch.masked_latents, batch.known), timesteps)
        with models.injection.features(outcome.features):
            text = torch.cat([torch.zeros_like(batch.text), batch.text])
            latents = batch.latents.expand(2, -1, -1, -1)
            empty, told = models.unet(latents, timesteps, encoder_hidden_states=text).sample.chunk(2)
    return empty + _GUIDANCE * (told - empty)


def _whole_step(models: StepModels, batch: LatentBatch, watch: Watch) -> dict[str, float]:
    """All losses, checkpointing, AdamW and the moving average."""
    config = sd15()
    for network in (models.branch, models.unet):
        network.enable_gradient_checkpointing()
    optimizer = build_optimizer(config.optim, models.branch, models.vgg, config.style_vgg.lr)
    ema = MovingAverage(models.branch, config.optim.ema)
    objective = JointObjective(models, config.loss)

    def step() -> None:
        terms, _ = objective(batch, [torch_generator(0, "noise", 0)])
        losses = config.loss.gamma * terms["noise"] + config.loss.delta * terms["style"]
        (losses + config.loss.eta * terms["structure"]).backward()
        assert clip_gradients([trainable(models.branch), trainable(models.vgg)], config.optim.clip)
        optimizer.step()
        ema.update(models.branch, 0)
        optimizer.zero_grad()

    watch.restart()
    seconds, _ = watch.timed(step)
    return {"step_seconds": seconds["wall"], "full_size_peak_gb": watch.peak()}


def _comparison(everything: FullSize, watch: Watch) -> dict[str, Any]:
    """The noise loss alone and plain SGD on both sides; the cached step before and after the other."""
    models, batch = everything.models, everything.batch
    optimizer = build_optimizer(OptimConfig(kind="sgd", lr=0.0), models.branch)
    objective = JointObjective(models, LossConfig(delta=0.0, eta=0.0))

    def update(loss: Tensor) -> float:
        loss.backward()
        clip_gradients([trainable(models.branch)], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def cached() -> float:
        return update(objective(batch, [torch_generator(0, "noise", 0)])[0]["noise"])

    def reference() -> float:
        return update(_reference_loss(everything, [torch_generator(0, "noise", 0)]))

    watch.restart()
    cached()  # what comes first takes memory from the system for all that come after
    before, loss = watch.timed(cached)
    plain, wanted = watch.timed(reference)
    after, _ = watch.timed(cached)
    ours = {kind: (before[kind] + after[kind]) / 2 for kind in plain}
    return {
        "cached_speedup": plain["busy"] / ours["busy"],
        "cached_seconds": ours,
        "reference_seconds": plain,
        "loss_difference": abs(loss - wanted) / wanted,
        "without_checkpointing_peak_gb": watch.peak(),
    }


def _reference_loss(everything: FullSize, generators: list[torch.Generator]) -> Tensor:
    """The noise loss of a step that encodes all of its inputs."""
    models, parts, pixels = everything.models, everything.parts, everything.pixels
    image, hole = pixels["image"], pixels["hole"]
    with torch.no_grad():
        latents = _latents(parts["vae"], image)
        masked = _latents(parts["vae"], image * (1 - hole) - hole)
        states = parts["text"](pixels["tokens"])[0]
    known = F.interpolate(1 - hole, size=latents.shape[-2:], mode="nearest")
    noise = draw_noise(latents, generators)
    timesteps = draw_timesteps(len(models.schedule), generators, latents.device)
    level = models.schedule.alphas_cumprod[timesteps][:, None, None, None]
    noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=models.autocast):
        features = models.branch(torch.cat([noisy, masked, known], dim=1), timesteps).features
        with models.injection.features(features):
            prediction = models.unet(noisy, timesteps, encoder_hidden_states=states).sample
    return F.mse_loss(prediction.float(), noise)


class Watch:
    """Seconds and peak memory of what runs on a device."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device != "cpu"
        self.restart()

    def restart(self) -> None:
        """Forget the peak so far."""
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> float:
        """Most memory since the last restart in 10^9 bytes: tensors on a GPU, else the resident process."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated() / 1e9
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9

    def timed(self, job: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        """What `job` returns, and its seconds: `wall`, and `busy` without what else the processor did."""
        wall, busy = time.perf_counter(), time.process_time()
        outcome = job()
        if self._on_gpu:
            torch.cuda.synchronize()
        seconds = {"wall": time.perf_counter() - wall, "busy": time.process_time() - busy}
        if self._on_gpu:
            seconds["busy"] = seconds["wall"]
        return seconds, outcome
