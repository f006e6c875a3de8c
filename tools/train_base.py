"""Train the embedded base model: tokenizer, CLIP text encoder and UNet, in the Stable Diffusion layout.

    python tools/train_base.py runs/corpus runs/autoencoder/vae runs/base --minutes 60

The text encoder first learns by itself to name what a description names (`teach_text`). Then it and the UNet
are trained together with the v-prediction loss; a tenth of the prompts is empty, so that guidance works. With
`--vgg FOLDER` a perceptual loss joins (Lin and Yang 2023, arXiv 2401.00110), the distance of the predicted
clean latents to the true ones in the features of that latent VGG; with `--critic` an adversarial one too, of
a critic that sees them through that VGG.
`OUT/pipeline` is a folder that the stock `StableDiffusionPipeline` loads. The state is saved every two
minutes; running again goes on. On a CPU use a process a core, which share each batch and the corpus:

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 tools/train_base.py runs/corpus ...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from muon import inner_matrices
from safetensors.torch import load_file
from sticker_corpus import Corpus, load_corpus
from teach_text import teach
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from train_autoencoder import to_tensor
from training_run import TrainingRun, existing, in_turn, join_workers, run_recipe
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mtadiffusion.models.critic import LatentCritic
from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.seeding import numpy_generator, torch_generator
from mtadiffusion.train.losses import adversarial_losses, perceptual_loss
from mtadiffusion.train.noise_schedule import NoiseSchedule

PROMPT_TOKENS = 32
TEXT_WIDTH = 128
MERGES = 700
EMPTY_PROMPT = 0.1
LATE_TIMESTEPS = 0.6
"""Timesteps are a uniform number to this power: below 1, more of them are late ones, where what is drawn, and
in which style, is decided."""
SINGLE = 0.85
"""The share of samples with a single object: what a word looks like is learned sooner from them."""
PERCEPTUAL = 1.0
"""Weight of the perceptual loss."""
ADVERSARIAL = 0.4
"""The adversarial loss's gradient on the prediction, as a share of that of the other losses."""
HEAVIEST_ADVERSARIAL = 1.0
"""The most that the adversarial loss's weight may be."""
CRITIC_NOISE = 0.3
"""Standard deviation, at most, of noise on what the critic sees."""


def build_tokenizer(prompts: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer with byte-pair merges learned from the prompts; every byte stays expressible."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = {word for prompt in prompts for word in prompt.lower().replace(",", " ,").split()}
    trainer = trainers.BpeTrainer(vocab_size=512 + MERGES, end_of_word_suffix="</w>", show_progress=False)
    learned.train_from_iterator(sorted(words), trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=PROMPT_TOKENS)


def the_tokenizer(out: Path, start: Path | None, corpus: Corpus) -> CLIPTokenizer:
    """The tokenizer of the pipeline to start from, or of this run; a new one is kept for the run.

    Byte-pair merges that are equally frequent come out in any order, so a tokenizer is made once.
    """
    kept = out / "tokenizer" if start is None else start / "tokenizer"
    if not kept.exists():
        build_tokenizer(text for wordings in corpus.prompts for text in wordings).save_pretrained(kept)
    return CLIPTokenizer.from_pretrained(kept)


class TextToImage(nn.Module):
    """What is trained: text encoder and UNet, and the critic where there is one."""

    def __init__(
        self, vocabulary: int, end_token: int, latent_side: int, critic: LatentCritic | None = None
    ) -> None:
        super().__init__()
        self.critic = critic
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                projection_dim=TEXT_WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=PROMPT_TOKENS,
                eos_token_id=end_token,
                bos_token_id=end_token - 1,
                pad_token_id=end_token,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=latent_side,
            block_out_channels=(64, 96, 128),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=(2, 3, 4),
            norm_num_groups=16,
            # The pooled text also joins the timestep embedding: a small text encoder that starts from nothing
            # is heard sooner that way, and at the finest level too.
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The predicted v, (B, 4, h, w), and the states of the texts, (B, PROMPT_TOKENS, TEXT_WIDTH)."""
        states = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, states).sample, states


def noise_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def sampler() -> EulerAncestralDiscreteScheduler:
    """What the pipeline draws with, on the same schedule: fresh noise at each step can undo what earlier
    steps got wrong."""
    return EulerAncestralDiscreteScheduler.from_config(noise_scheduler().config, timestep_spacing="trailing")


class Samples:
    """Latents (encoded when first asked for, then kept in fp16) and tokens of this worker's scenes."""

    def __init__(
        self, corpus: Corpus, vae: AutoencoderKL, tokenizer: CLIPTokenizer, rank: int = 0, workers: int = 1
    ) -> None:
        self.corpus, self.vae, self.tokenizer = corpus, vae.to(memory_format=torch.channels_last), tokenizer
        self.side = corpus.images.shape[1] // 2 ** (len(vae.config.block_out_channels) - 1)
        self._latents = torch.zeros(len(corpus.images), 4, self.side, self.side, dtype=torch.float16)
        self._known = np.zeros(len(corpus.images), dtype=bool)
        single = np.array([" and " not in wordings[0] for wordings in corpus.prompts])
        self._weights = np.where(single, SINGLE / single.mean(), (1 - SINGLE) / (1 - single.mean()))
        self._weights *= np.arange(len(single)) % workers == rank
        self._weights /= self._weights.sum()

    def batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, 4, h, w), unit variance, and tokens (B, PROMPT_TOKENS)."""
        indices = np.sort(rng.choice(len(self._known), size, p=self._weights))
        prompts = [self.corpus.prompts[i][rng.integers(len(self.corpus.prompts[i]))] for i in indices]
        prompts = ["" if rng.random() < EMPTY_PROMPT else prompt for prompt in prompts]
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self._encoded(indices), tokens

    @torch.no_grad()
    def _encoded(self, indices: np.ndarray) -> torch.Tensor:
        missing = indices[~self._known[indices]]
        if len(missing):
            means = self.vae.encode(to_tensor(self.corpus.images[missing])).latent_dist.mean
            self._latents[missing] = (means * self.vae.config.scaling_factor).half()
            self._known[missing] = True
        return self._latents[indices].float()


def loss(
    model: TextToImage,
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    generator: torch.Generator,
    vgg: LatentVGG | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean squared error of the v-prediction (Salimans & Ho 2022); with a VGG, the perceptual loss; with a
    critic, the adversarial loss and the critic's own."""
    noise = torch.randn(latents.shape, generator=generator)
    place = torch.rand(len(latents), generator=generator) ** LATE_TIMESTEPS
    timesteps = (place * scheduler.config.num_train_timesteps).long()
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction, states = model(noisy, timesteps, tokens)
    error = F.mse_loss(prediction, scheduler.get_velocity(latents, noise, timesteps))
    if vgg is None:
        return error, {"loss": error}
    clean, _ = NoiseSchedule.from_scheduler(scheduler).split_prediction(noisy, prediction, timesteps)
    everywhere = torch.ones_like(latents[:, :1])
    distance = perceptual_loss(vgg, clean, latents, everywhere)
    others, shown = error + PERCEPTUAL * distance, {"loss": error, "perceptual": distance}
    if model.critic is None:
        return others, shown
    strength = CRITIC_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
    blur = strength * torch.randn(latents.shape, generator=generator)
    missed, own = adversarial_losses(
        model.critic, vgg, clean + blur, latents + blur, everywhere, states.detach()
    )
    weight = balance(missed, others, prediction)
    return others + weight * missed + own, {**shown, "adversarial": missed, "critic": own, "weight": weight}


def balance(loss: torch.Tensor, others: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """The weight at which the loss pulls `ADVERSARIAL` times as hard on the prediction as the others do.

    Esser et al. 2021, arXiv 2012.09841, equation 7.
    """
    pulls = [torch.autograd.grad(one, prediction, retain_graph=True)[0].norm() for one in (others, loss)]
    return (ADVERSARIAL * pulls[0] / pulls[1].clamp(min=1e-8)).clamp(max=HEAVIEST_ADVERSARIAL)


def start_from(model: TextToImage, pipeline: Path) -> None:
    """Take over the weights of an exported pipeline of the same layers."""
    for name, module in (("text_encoder", model.text_encoder), ("unet", model.unet)):
        (path,) = (pipeline / name).glob("*.safetensors")
        module.load_state_dict(load_file(path))


def export(model: TextToImage, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the folder that stock diffusers loads, weights in fp32 safetensors."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def main() -> None:
    """Parse, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=existing)
    parser.add_argument("vae", type=existing)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--lessons", type=int, default=400, help="steps of the text encoder's own training")
    parser.add_argument("--start-from", type=existing, help="exported pipeline folder to go on from")
    parser.add_argument("--vgg", type=existing, help="latent VGG folder of the perceptual loss")
    parser.add_argument("--critic", action="store_true", help="an adversarial loss as well; needs --vgg")
    arguments = parser.parse_args()
    if arguments.critic and not arguments.vgg:
        parser.error("--critic needs --vgg, through which the critic sees")

    torch.manual_seed(0)
    vgg = LatentVGG.from_pretrained(arguments.vgg).requires_grad_(False) if arguments.vgg else None
    rank, workers = join_workers()
    corpus = load_corpus(arguments.corpus)
    vae = AutoencoderKL.from_pretrained(arguments.vae).eval()
    tokenizer = in_turn(lambda: the_tokenizer(arguments.out, arguments.start_from, corpus))
    samples, scheduler = Samples(corpus, vae, tokenizer, rank, workers), noise_scheduler()
    critic = LatentCritic(4, vgg.feature_channels, TEXT_WIDTH) if arguments.critic else None
    model = TextToImage(len(tokenizer), tokenizer.eos_token_id, samples.side, critic)
    if arguments.start_from:
        start_from(model, arguments.start_from)
    elif not (arguments.out / "state").exists():
        print("text encoder:", teach(model.text_encoder, tokenizer, arguments.lessons))
    model.unet.to(memory_format=torch.channels_last)
    inner = inner_matrices(model.unet)
    run = TrainingRun(arguments, model, rate=arguments.rate, inner=inner)
    for step in run.steps():
        stream = f"base/{rank}"
        drawn = samples.batch(numpy_generator(0, stream, step), arguments.batch // workers)
        run.update(*loss(model, scheduler, *drawn, torch_generator(0, stream, step), vgg))
    if rank == 0:
        export(run.averaged(), vae, tokenizer, arguments.out / "pipeline")


if __name__ == "__main__":
    run_recipe(main)
