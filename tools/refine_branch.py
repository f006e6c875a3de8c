"""Refine a trained branch by its own pictures: it fills holes as at inference, and learns from readers of
latents what it should have drawn.

    python tools/refine_branch.py runs/branch/branch runs/refined runs/reader-0/reader runs/reader-1/reader

Noised training pictures still show the style of what is to be predicted; a picture that is drawn from noise
does not. So here the noisy latents come from the branch's own drawings, guided and step by step, of objects
that are asked for at random; no gradient goes through the steps. Some steps of each drawing are taken again
with a gradient, and readers of `train_hole_reader.py` say of the clean latents predicted there how far they
are from the object and colour asked for and from the scene's style (Xu et al. 2023, arXiv 2304.05977); two
readers are harder to please by mistake than one.

The joint objective on training pictures goes on beside it, so that the branch stays true to them. Held-out
combinations are never asked for. Drawings depend on the number of processes. The state is saved every two
minutes; running again goes on. On a CPU use a process a core:

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 tools/refine_branch.py runs/branch/branch ...
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from train_autoencoder import to_tensor
from train_hole_reader import UNKNOWN, HoleReader, Reading, load_reader, shares
from training_run import TrainingRun, existing, join_workers, own_share, run_recipe

from mtadiffusion.config import TrainConfig
from mtadiffusion.inpaint.guidance import guided
from mtadiffusion.models.autoencoders import encode_latents
from mtadiffusion.models.conditioning import branch_input, latent_known, masked_image
from mtadiffusion.models.injection import BranchInjection
from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.recipes import sticker
from mtadiffusion.seeding import torch_generator
from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.problems import HoleProblem, hole_problem
from mtadiffusion.stickers.sampling import BRANCH_GUIDANCE
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.batches import EncodedBatches, encoded_pictures
from mtadiffusion.train.checkpoint import publish_folder
from mtadiffusion.train.dataset import TrainingSamples, record_source
from mtadiffusion.train.encoding import LatentEncoder, PromptEncoder, build_encoders
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.noise_schedule import NoiseSchedule
from mtadiffusion.train.setup import build_branch, build_style_vgg
from mtadiffusion.train.step import StepModels, training_step

WORLD = 11
"""Seed of the scenes whose holes are filled."""

FEWEST_STEPS, MOST_STEPS = 6, 20
"""Denoising steps of a drawing: as many for one as for another teaches those timesteps and hardly others."""

TAKEN_AGAIN = 4
"""How many of a drawing's steps are taken again with a gradient."""

REWARD = 0.3
"""Weight of what the readers miss, beside the joint objective."""

STYLE, COLOUR = 2.5, 1.0
"""Weights of a missed style and colour, where a missed object weighs 1."""

READING_NOISE = 0.15
"""Standard deviation of noise on what is read, so that no pattern too fine to be seen pleases a reader."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Holes and what is wanted in them: encoded problems of the train split."""

    masked_latents: Tensor
    """(N, 4, h, w)"""

    known: Tensor
    """(N, 1, h, w), 1 = known."""

    texts: Tensor
    """States of the distinct prompts, (M, L, D)."""

    text: Tensor
    """Which of `texts` each hole has, (N,)."""

    answers: Reading
    """What should be read in the holes, (N,) each."""

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: Tensor) -> Wishes:
        return replace(
            self,
            masked_latents=self.masked_latents[index],
            known=self.known[index],
            text=self.text[index],
            answers=Reading(*(answer[index] for answer in self.answers)),
        )


@torch.no_grad()
def make_wishes(
    count: int, encoder: LatentEncoder, encode_text: PromptEncoder, rank: int = 0, workers: int = 1
) -> Wishes:
    """This worker's share of the first `count` problems of the train split, without held-out combinations."""
    masked, known, prompts, answers = [], [], [], []
    for index in tqdm(own_share(count, rank, workers), desc="wishes", unit="hole", disable=rank > 0):
        problem = hole_problem("train", index, seed=WORLD)
        if problem.held_out:
            continue
        hole = torch.from_numpy(problem.hole)[None, None].float()
        picture = masked_image(to_tensor(problem.scene.record.image[None]), hole, encoder.hole_fill)
        masked.append(encode_latents(encoder.vae, picture))
        known.append(latent_known(hole, masked[-1].shape[-2:], "any"))
        prompts.append(problem.prompt)
        answers.append(_wanted(problem))
    distinct = sorted(set(prompts))
    return Wishes(
        masked_latents=torch.cat(masked),
        known=torch.cat(known),
        texts=torch.cat([encode_text([prompt]).tokens for prompt in distinct]),
        text=torch.tensor(np.searchsorted(distinct, prompts)),
        answers=Reading(*torch.tensor(answers).T),
    )


def _wanted(problem: HoleProblem) -> tuple[int, int, int]:
    colour = UNKNOWN if problem.colour is None else list(COLOURS).index(problem.colour)
    return labels().index(problem.label), STYLES.index(problem.style), colour


@dataclass(frozen=True, kw_only=True)
class Painter:
    """The networks as they work together at inference."""

    models: StepModels
    scheduler: Any
    """A diffusers scheduler, which the steps are drawn with."""

    negative: Tensor
    """State of the empty prompt, (1, L, D)."""

    guidance: float = BRANCH_GUIDANCE
    """Guidance scale."""

    def predict(self, noisy: Tensor, timesteps: Tensor, wishes: Wishes) -> Tensor:
        """The guided prediction (B, 4, h, w) at noisy latents (B, 4, h, w) and timesteps (B,)."""
        seen = branch_input(noisy, wishes.masked_latents, wishes.known)
        texts = torch.cat([self.negative.expand(len(noisy), -1, -1), wishes.texts[wishes.text]])
        with self.models.injection.features(self.models.branch(seen, timesteps).features):
            prediction = self.models.unet(
                noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), encoder_hidden_states=texts
            ).sample
        return guided(prediction, self.guidance)

    @torch.no_grad()
    def draw(self, wishes: Wishes, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The noisy latents (S, B, 4, h, w) that a drawing's S steps start at, and their timesteps (S,)."""
        self.scheduler.set_timesteps(steps)
        sample = torch.randn(wishes.masked_latents.shape, generator=generator)
        sample = sample * self.scheduler.init_noise_sigma
        states = []
        for timestep in self.scheduler.timesteps:
            states.append(self.scheduler.scale_model_input(sample, timestep))
            prediction = self.predict(states[-1], timestep.long().expand(len(sample)), wishes)
            sample = self.scheduler.step(prediction, timestep, sample, generator=generator).prev_sample
        return torch.stack(states), self.scheduler.timesteps.long()


def missed(read: Reading, wanted: Reading) -> Tensor:
    """How far what is read is from what is wanted: a weighted sum of cross-entropies, the mean over holes."""
    errors = [
        F.cross_entropy(logits, answer, ignore_index=UNKNOWN, reduction="sum") / len(answer)
        for logits, answer in zip(read, wanted, strict=True)
    ]
    return errors[0] + STYLE * errors[1] + COLOUR * errors[2]


def taken_again(painter: Painter, wishes: Wishes, generator: torch.Generator) -> tuple[Tensor, Wishes]:
    """Clean latents (N, 4, h, w), predicted on the way of drawings, with a gradient, and the wish that each
    belongs to."""
    length = int(torch.randint(FEWEST_STEPS, MOST_STEPS + 1, (), generator=generator))
    states, timesteps = painter.draw(wishes, length, generator)
    order = torch.rand(len(wishes), length, generator=generator).argsort(dim=1)
    steps = order[:, :TAKEN_AGAIN].T.reshape(-1)
    holes = torch.arange(len(wishes)).repeat(TAKEN_AGAIN)
    noisy, again, at = states[steps, holes], wishes[holes], timesteps[steps]
    spread = painter.models.schedule.factors(at)[1]
    prediction = gradient_scaled(painter.predict(noisy, at, again), spread**-0.5)
    return painter.models.schedule.split_prediction(noisy, prediction, at)[0], again


def gradient_scaled(values: Tensor, factors: Tensor) -> Tensor:
    """The same values; their gradient is multiplied by factors that broadcast to them."""
    return torch.lerp(values.detach(), values, factors)


def reward_loss(
    readers: Sequence[HoleReader], clean: Tensor, wishes: Wishes, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """What readers miss in clean latents (N, 4, h, w), and their shares of right categories and styles; means
    over the readers."""
    errors, right = [], []
    for reader in readers:
        noise = torch.randn(clean.shape, generator=generator)
        read = reader(clean + READING_NOISE * noise, 1 - wishes.known)
        errors.append(missed(read, wishes.answers))
        right.append(shares(read, wishes.answers))
    shown = ("category", "style")  # not all wishes ask for a colour
    means = {f"right_{name}": torch.stack([one[name] for one in right]).mean() for name in shown}
    return torch.stack(errors).mean(), means


def configuration(branch: str, batch: int) -> TrainConfig:
    """The branch's own recipe; the critic, who would have to start anew, is left out."""
    recipe = sticker()
    return replace(
        recipe,
        device="cpu",
        batch_size=batch,
        branch=replace(recipe.branch, start_from=branch),
        loss=replace(recipe.loss, adversarial=0.0),
    )


def build_painter(
    config: TrainConfig,
    backbone: Backbone,
    encode_text: PromptEncoder,
    vgg: LatentVGG,
    guidance: float = BRANCH_GUIDANCE,
) -> Painter:
    """The painter of a configuration's branch, which learns, and its backbone."""
    unet = backbone.unet.to(memory_format=torch.channels_last)
    models = StepModels(
        branch=build_branch(config, unet).to(memory_format=torch.channels_last),
        unet=unet,
        injection=BranchInjection(unet),
        schedule=NoiseSchedule.from_scheduler(backbone.scheduler),
        vgg=vgg,
    )
    negative = encode_text([""]).tokens
    scheduler = copy.deepcopy(backbone.scheduler)
    return Painter(models=models, scheduler=scheduler, negative=negative, guidance=guidance)


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """What a step needs beside its number."""

    painter: Painter
    readers: Sequence[HoleReader]
    wishes: Wishes
    batches: EncodedBatches
    config: TrainConfig
    drawings: int
    """A step and process."""

    rank: int
    workers: int

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this process's share of a step, and its terms (docs/method.md, "learning from own
        drawings")."""
        models, batch_size = self.painter.models, self.config.batch_size
        first = (step * self.workers + self.rank) * batch_size
        numbers = range(first, first + batch_size)
        own = [torch_generator(0, "refine/noise", number) for number in numbers]
        joint = training_step(models, self.batches.batch(numbers), self.config.loss, own)
        generator = torch_generator(0, f"refine/{self.rank}", step)
        chosen = torch.randint(len(self.wishes), (self.drawings,), generator=generator)
        clean, wanted = taken_again(self.painter, self.wishes[chosen], generator)
        error, right = reward_loss(self.readers, clean, wanted, generator)
        terms = {**joint.terms, "missed": error, **right}
        return joint.total + REWARD * error, {name: value.detach() for name, value in terms.items()}


def prepare(arguments: argparse.Namespace, rank: int, workers: int) -> Refinement:
    """Load and encode what the arguments name."""
    readers = [load_reader(folder).to(memory_format=torch.channels_last) for folder in arguments.readers]
    config = configuration(arguments.branch, arguments.batch // workers)
    backbone, faults = Backbone(config, "cpu"), Faults(config.data.records, config.data.max_damaged)
    source = record_source(config.data.source, "train", config.data.source_seed, config.data.size)
    samples = TrainingSamples(source, config.data, config.seed)
    encoder, encode_text = build_encoders(backbone, config, faults)
    latents, colours = encoded_pictures(samples, encoder, config.style_vgg.calibration_images)
    vgg = build_style_vgg(config.style_vgg, config.seed, latents, 2 * colours - 1).requires_grad_(False)
    return Refinement(
        painter=build_painter(config, backbone, encode_text, vgg, arguments.guidance),
        readers=readers,
        wishes=make_wishes(arguments.holes, encoder, encode_text, rank, workers),
        batches=EncodedBatches(samples, encoder, encode_text, config.data.empty_prompt, faults),
        config=config,
        drawings=arguments.drawings // workers,
        rank=rank,
        workers=workers,
    )


def main() -> None:
    """Parse, refine, export `OUT/branch`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("branch", help="a folder, or `sticker` for the embedded one")
    parser.add_argument("out", type=Path)
    parser.add_argument("readers", type=existing, nargs="+", metavar="reader")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--holes", type=int, default=12_000, help="problems to draw wishes from")
    parser.add_argument("--drawings", type=int, default=8, help="a step")
    parser.add_argument("--batch", type=int, default=16, help="training pictures a step")
    parser.add_argument("--guidance", type=float, default=BRANCH_GUIDANCE, help="as at inference")
    parser.add_argument("--rate", type=float, default=3e-4)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    rank, workers = join_workers()
    if arguments.drawings % workers or arguments.batch % workers:
        parser.error(f"--drawings and --batch must be multiples of the {workers} processes")
    refinement = prepare(arguments, rank, workers)
    branch = refinement.painter.models.branch
    run = TrainingRun(arguments, branch, rate=arguments.rate, average=0.99)
    for step in run.steps():
        run.update(*refinement.loss(step))
    if rank == 0:
        fresh = arguments.out / ".branch"
        run.averaged().save_pretrained(fresh)
        publish_folder(fresh, arguments.out / "branch")


if __name__ == "__main__":
    run_recipe(main)
