"""Train the judge of holes and write its weights.

    python tools/train_judge.py --out src/mtadiffusion/stickers/weights/judge

About twenty-five minutes on one core. A run that was stopped goes on where it was when started again; its
state is in the folder that `--state` names.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from judge_examples import UNKNOWN, Examples, batch, gather
from torch import Tensor

from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.colours import COLOURS
from mtadiffusion.stickers.controls import judge_report
from mtadiffusion.stickers.judge import WEIGHTS, Judge, JudgeConfig, save_judge
from mtadiffusion.stickers.problems import hole_problem
from mtadiffusion.train.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from mtadiffusion.train.run_log import RunLog

LOG = "training.jsonl"
WEIGHT_DECAY = 1e-4
WARMUP_SHARE = 0.2
CHECKED_HOLES = 400


def objective(judge: Judge, examples: Examples) -> dict[str, Tensor]:
    """Cross-entropy of each head over the examples whose answer is known."""
    logits = judge(examples.views.contiguous(memory_format=torch.channels_last))
    targets = {"category": examples.category, "style": examples.style, "colour": examples.colour}
    return {
        name: F.cross_entropy(getattr(logits, name), target, ignore_index=UNKNOWN)
        for name, target in targets.items()
    }


def learning_rate(step: int, steps: int, top: float) -> float:
    """One cycle: up by a cosine over the first part, down to zero by a cosine over the rest."""
    up = WARMUP_SHARE * steps
    phase = step / up - 1 if step < up else (step - up) / (steps - up)
    return top * (1 + math.cos(math.pi * phase)) / 2


def train(judge: Judge, arguments: argparse.Namespace) -> None:
    """Train `judge` in place, from the newest checkpoint of the state folder if there is one."""
    optimizer = torch.optim.AdamW(judge.parameters(), lr=arguments.lr, weight_decay=WEIGHT_DECAY)
    done = _resume(judge, optimizer, arguments)
    log = RunLog(arguments.state / LOG, done)
    material = gather(
        seed=arguments.seed, scenes=arguments.scenes, backdrops=arguments.backdrops, side=judge.config.side
    )
    judge.train()
    start = time.monotonic()
    for step in range(done, arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.lr)
        examples = batch(material, seed=arguments.seed, step=step, size=arguments.batch)
        losses = objective(judge, examples)
        total = losses["category"] + 0.5 * losses["style"] + 0.5 * losses["colour"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        if (step + 1) % arguments.log_every == 0 or step + 1 == arguments.steps:
            values = {name: round(loss.item(), 4) for name, loss in losses.items()}
            log.write(step + 1, **values, seconds=round(time.monotonic() - start, 1))
            print(step + 1, values, flush=True)
        if (step + 1) % arguments.save_every == 0 or step + 1 == arguments.steps:
            tensors = {"judge": judge.state_dict(), "optimizer": optimizer_tensors(optimizer)}
            checkpoint = Checkpoint(step=step + 1, config={"steps": arguments.steps}, tensors=tensors)
            save_checkpoint(arguments.state, checkpoint, keep=2)


def _resume(judge: Judge, optimizer: torch.optim.Optimizer, arguments: argparse.Namespace) -> int:
    arguments.state.mkdir(parents=True, exist_ok=True)
    found = list_checkpoints(arguments.state)
    if not found:
        return 0
    checkpoint = load_checkpoint(found[-1])
    judge.load_state_dict(checkpoint.tensors["judge"])
    load_optimizer_tensors(optimizer, checkpoint.tensors["optimizer"])
    return checkpoint.step


def main() -> None:
    """Parse, train, write, print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--state", type=Path, default=Path("runs/judge"), help="checkpoints and the log of this run"
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--scenes", type=int, default=20_000, help="rendered scenes to cut holes in")
    parser.add_argument("--backdrops", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--check", type=int, default=CHECKED_HOLES, help="validation holes at the end")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(labels=labels(), styles=STYLES, colours=tuple(COLOURS)))
    judge.to(memory_format=torch.channels_last)
    train(judge, arguments)
    judge.eval()
    save_judge(judge, arguments.out)
    shutil.copyfile(arguments.state / LOG, arguments.out / LOG)
    problems = [hole_problem("validation", index) for index in range(arguments.check)]
    print(json.dumps(judge_report(judge, problems, split="validation"), indent=1))


if __name__ == "__main__":
    main()
