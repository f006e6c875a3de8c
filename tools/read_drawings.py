"""What readers make out on the way of a branch's drawings: shares of right categories and styles in the clean
latents predicted at each timestep.

    python tools/read_drawings.py sticker runs/reader-0/reader runs/reader-1/reader --steps 20

Shows which timesteps a branch has learned: at those that it has not, the style falls behind the neighbours'.
The holes are of the train split, as those of `refine_branch.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from refine_branch import Painter, Wishes, build_painter, configuration, make_wishes
from torch import Tensor
from tqdm import tqdm
from train_hole_reader import HoleReader, load_reader, shares
from training_run import existing, run_recipe

from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.models.registry import resolve_style_vgg
from mtadiffusion.seeding import torch_generator
from mtadiffusion.stickers.sampling import BRANCH_GUIDANCE
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.encoding import LatentEncoder, PromptEncoder, build_encoders
from mtadiffusion.train.faults import Faults

BATCH = 16
SHOWN = ("category", "style")


def load_painter(
    branch: str, guidance: float = BRANCH_GUIDANCE
) -> tuple[LatentEncoder, PromptEncoder, Painter]:
    """Encoders of pictures and of texts, and the painter, of a branch (a folder, or `sticker`)."""
    config = configuration(branch, BATCH)
    backbone = Backbone(config, "cpu")
    encoder, encode_text = build_encoders(backbone, config, Faults(1, 0.0))
    vgg = LatentVGG.from_pretrained(resolve_style_vgg("sticker"), torch_dtype=torch.float32)
    vgg.eval().requires_grad_(False)
    return encoder, encode_text, build_painter(config, backbone, encode_text, vgg, guidance)


def clean_on_the_way(
    painter: Painter, wishes: Wishes, steps: int, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """The timestep of each step of a drawing, and the clean latents (B, 4, h, w) predicted there."""
    states, timesteps = painter.draw(wishes, steps, generator)
    for noisy, timestep in zip(states, timesteps, strict=True):
        at = timestep.expand(len(noisy))
        prediction = painter.predict(noisy, at, wishes)
        yield int(timestep), painter.models.schedule.split_prediction(noisy, prediction, at)[0]


@torch.no_grad()
def read_drawings(
    painter: Painter, readers: Sequence[HoleReader], wishes: Wishes, steps: int
) -> dict[int, dict[str, float]]:
    """By timestep, the means over readers of their shares of right answers."""
    right: dict[int, list[Tensor]] = {}
    for start in tqdm(range(0, len(wishes), BATCH), desc="drawing", unit="batch"):
        part = wishes[torch.arange(start, min(start + BATCH, len(wishes)))]
        generator = torch_generator(0, "read-drawings", start)
        for timestep, clean in clean_on_the_way(painter, part, steps, generator):
            read = [shares(reader(clean, 1 - part.known), part.answers) for reader in readers]
            means = torch.tensor([[one[name] for name in SHOWN] for one in read]).mean(0)
            right.setdefault(timestep, []).append(means * len(part))
    return {
        timestep: dict(zip(SHOWN, (torch.stack(sums).sum(0) / len(wishes)).tolist(), strict=True))
        for timestep, sums in right.items()
    }


def main() -> None:
    """Parse, draw, print a line a timestep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("branch", help="a folder, or `sticker` for the embedded one")
    parser.add_argument("readers", type=existing, nargs="+", metavar="reader")
    parser.add_argument("--steps", type=int, default=20, help="of a drawing")
    parser.add_argument("--holes", type=int, default=256, help="problems to draw wishes from")
    parser.add_argument("--guidance", type=float, default=BRANCH_GUIDANCE, help="of the drawings")
    arguments = parser.parse_args()

    encoder, encode_text, painter = load_painter(arguments.branch, arguments.guidance)
    wishes = make_wishes(arguments.holes, encoder, encode_text)
    readers = [load_reader(folder) for folder in arguments.readers]
    print("timestep  " + "  ".join(SHOWN))
    for timestep, right in read_drawings(painter, readers, wishes, arguments.steps).items():
        print(f"{timestep:8}  " + "  ".join(f"{right[name]:{len(name)}.3f}" for name in SHOWN))


if __name__ == "__main__":
    run_recipe(main)
