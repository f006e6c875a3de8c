"""Measure the trainer: what a cache gains, what fits into memory, what resuming and several processes change.

    python benchmarks/training.py
    python benchmarks/training.py --only sizes resume ddp     # without the full size
    python benchmarks/training.py --device cuda

`memory` and `speed` run Stable Diffusion 1.5's size with random weights and a batch of one, in up to 20 GiB.
On a processor, seconds are those that the process computed, so that what else runs counts less. The last line
on stdout is one JSON object; docs/benchmarks.md explains its figures.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from full_size import memory_figures, speed_figures, stock_parts
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mtadiffusion.config import BranchConfig
from mtadiffusion.fields import with_overrides
from mtadiffusion.recipes import recipe
from mtadiffusion.train.dataset import record_source
from mtadiffusion.train.run_log import read_log
from mtadiffusion.train.setup import new_branch
from mtadiffusion.train.throughput import sample_flops
from mtadiffusion.train.trainer import TrainingRun, train

_PLAIN_SGD = ("optim.kind=sgd", "optim.clip=0", "optim.ema=0", "optim.warmup=0", "optim.weight_decay=0")
_TRAIN = ("-m", "mtadiffusion", "train", "--recipe", "debug")
_QUIET = ("validation.every=0",)
_LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def size_figures() -> dict[str, Any]:
    """Parameters and FLOPs of both branches at full size beside the UNet's."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    figures: dict[str, Any] = {}
    for block in ("attention", "residual"):
        settings = BranchConfig(block=block)
        with torch.device("meta"):
            branch: Any = new_branch(settings, unet, initialise="fresh")
        figures[block] = {"parameters": sum(one.numel() for one in branch.parameters())}
        figures[block] |= sample_flops(settings, unet, latent_side=64)
    return {
        "branch_parameters": {block: figures[block]["parameters"] for block in figures},
        "branch_tflop": {block: figures[block]["branch"] / 1e12 for block in figures},
        "unet_tflop": figures["attention"]["unet"] / 1e12,
        "training_tflop": {block: figures[block]["training"] / 1e12 for block in figures},
        "encoding_tflop": _encoding_flops() / 1e12,
    }


@torch.no_grad()
def _encoding_flops() -> float:
    """FLOPs of what a step without a cache does first: two images and a text encoded."""
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        parts = stock_parts()
        parts["vae"].encode(torch.empty(2, 3, 512, 512))
        parts["text"](torch.zeros(1, 77, dtype=torch.long))
    return float(counter.get_total_flops())


def resume_figures(folder: Path) -> dict[str, float]:
    """A run killed by SIGKILL and gone on with, against one that nothing disturbed."""
    settings = ("steps=12", "log_every=1", "checkpoint_every=5")
    _train(folder / "whole", settings)
    killed = _started(folder / "killed", settings)
    while not _reached(folder / "killed", 7):
        if killed.poll() is not None:
            raise RuntimeError("the run ended before it could be killed")
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _train(folder / "killed", settings)
    losses = [
        [line["loss"] for line in read_log(folder / name / "log.jsonl")] for name in ("whole", "killed")
    ]
    if losses[0] != losses[1]:
        raise RuntimeError(f"the losses differ: {losses}")
    return {"resume_max_difference": _difference(folder / "whole", folder / "killed")}


def ddp_figures(folder: Path) -> dict[str, float]:
    """Two processes against one with their batches together: gradients, and weights after 20 steps.

    A step of plain SGD at rate 1 moves the weights by the gradient.
    """
    figures = {}
    for name, steps, rate in (("gradient", 1, 1.0), ("weights", 20, 1e-3)):
        settings = (f"steps={steps}", f"optim.lr={rate}", *_PLAIN_SGD)
        one, two = folder / f"{name}-one", folder / f"{name}-two"
        _train(one, (*settings, "batch_size=4"))
        _train_by_two(two, (*settings, "batch_size=2"))
        figures[f"ddp_{name}_difference"] = _difference(one, two)
    return {**figures, "ddp_max_difference": max(figures.values())}


def sticker_figures(folder: Path, steps: int = 6) -> dict[str, float]:
    """Processor seconds of a step of the recipe `sticker` on its cache, and with all made at each visit.

    Steps of both take turns; the first of each is left out.
    """
    runs = {name: _sticker_run(folder / name, cached=name == "cached") for name in ("cached", "fresh")}
    batches = {name: run._batches(run.samples) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    losses: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + steps):
        for name, run in runs.items():
            start = time.process_time()
            done = run.advance(batches[name], apart=False)
            seconds[name].append(time.process_time() - start)
            losses[name].append(done.parts[0].total.item() if done is not None else math.nan)
    cached, fresh = (sum(seconds[name][1:]) / steps for name in ("cached", "fresh"))
    return {
        "sticker_step_seconds": cached,
        "sticker_fresh_step_seconds": fresh,
        "sticker_cached_speedup": fresh / cached,
        "sticker_loss_difference": abs(losses["cached"][0] / losses["fresh"][0] - 1),
    }


def _sticker_run(out: Path, *, cached: bool) -> TrainingRun:
    changes = ("data.records=64", "data.cache_dtype=float32", f"data.cache={str(cached).lower()}")
    config = with_overrides(recipe("sticker"), changes)
    data = config.data
    return TrainingRun(config, out, record_source(data.source, "train", data.source_seed, data.size), None)


def _train(out: Path, settings: Sequence[str]) -> None:
    """In this process, on one thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(with_overrides(recipe("debug"), [*_QUIET, *settings]), out)
    torch.set_num_threads(threads)


def _train_by_two(out: Path, settings: Sequence[str]) -> None:
    run = _started(out, settings, _LAUNCH)
    _, errors = run.communicate()
    if run.returncode:
        raise RuntimeError(f"training ended with {run.returncode}: {errors.decode()[-2000:]}")


def _started(out: Path, settings: Sequence[str], launcher: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    changes = [word for setting in (*_QUIET, *settings) for word in ("--set", setting)]
    command = [sys.executable, *launcher, *_TRAIN, "--out", str(out), *changes]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _reached(out: Path, step: int) -> bool:
    return any(line["step"] >= step for line in read_log(out / "log.jsonl"))


def _difference(first: Path, second: Path) -> float:
    """The greatest difference between two runs' exported weights."""
    name = "branch/diffusion_pytorch_model.safetensors"
    one, other = load_file(first / name), load_file(second / name)
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def loader_figures() -> dict[str, Any]:
    """`loader_speedup` and `loader_samples_per_second` of benchmarks/training_loader.py."""
    if importlib.util.find_spec("training_loader") is None:
        return {}
    return dict(importlib.import_module("training_loader").loader_figures())


def main() -> None:
    """Run the parts asked for, and print their figures together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("sizes", "resume", "ddp", "sticker", "loader", "memory", "speed")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="parts to run")
    parser.add_argument("--device", default="cpu", help="torch device of memory and speed")
    parser.add_argument("--side", type=int, default=512, help="pixels of memory's and speed's sample")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "sizes": size_figures,
            "resume": lambda: resume_figures(Path(scratch)),
            "ddp": lambda: ddp_figures(Path(scratch)),
            "sticker": lambda: sticker_figures(Path(scratch) / "sticker"),
            "loader": loader_figures,
            "memory": lambda: memory_figures(arguments.device, arguments.side, _log),
            "speed": lambda: speed_figures(arguments.device, arguments.side),
        }
        figures: dict[str, Any] = {}
        for name in arguments.only:
            _log(name)
            figures |= parts[name]()
    place = {"device": _device_name(arguments.device), "threads": torch.get_num_threads()}
    print(json.dumps({**figures, "side": arguments.side, **place}))


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _device_name(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)


if __name__ == "__main__":
    main()
