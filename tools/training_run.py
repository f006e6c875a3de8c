"""What the small recipes of this folder share: a time-budgeted loop with averaging, a log and saved state;
how a user's mistake is told.

The learning rate warms up and then falls to zero over the budget of minutes, so that a run ends well on a
fast and on a slow machine. Saved state is safetensors and JSON, written under a temporary name and renamed.

Under `torchrun` the processes average their gradients: on a CPU one process a core, each with one thread,
spares small layers the meetings of threads.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from muon import Muon
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from mtadiffusion.errors import UserError
from mtadiffusion.train.checkpoint import load_optimizer_tensors, optimizer_tensors
from mtadiffusion.train.run_log import RunLog

Model = TypeVar("Model", bound=nn.Module)
Made = TypeVar("Made")

WARM_UP_STEPS = 200
SAVE_EVERY_SECONDS = 120
LOG_EVERY = 50


def run_recipe(main: Callable[[], None]) -> None:
    """Call a recipe's `main`; a user's mistake is one line on stderr and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def existing(path: str) -> Path:
    """The path of a file or folder, for argparse."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"must exist, got '{path}'")
    return Path(path)


def join_workers() -> tuple[int, int]:
    """This process's rank and the number of processes that `torchrun` started; (0, 1) without it."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def own_share(count: int, rank: int, workers: int) -> range:
    """This process's part of `count` numbers: neighbours, so that what alternates is in every part."""
    return range(rank * count // workers, (rank + 1) * count // workers)


def in_turn(make: Callable[[], Made]) -> Made:
    """What `make` returns, called in the first process before the others: they may read what it wrote."""
    if not dist.is_initialized():
        return make()
    if dist.get_rank() == 0:
        made = make()
        dist.barrier()
        return made
    dist.barrier()
    return make()


class TrainingRun(Generic[Model]):
    """AdamW, or Muon and AdamW, with warm-up, cosine decay over minutes, clipping, and a moving average.

    Args:
        arguments: the recipe's. `out` is the folder of the log (`training.jsonl`) and of the resumable state
            (`state/`), `minutes` the whole budget, time of earlier interrupted runs included; with the others
            a state that lies in `out` must agree.
        model: what is trained, all parameters that require a gradient.
        rate: the highest learning rate.
        average: the moving average's decay (it starts lower and rises to this).
        inner: the parameters of `model` that Muon updates; AdamW has the others.

    Raises:
        UserError: the state in `out` was made with other arguments.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        model: Model,
        *,
        rate: float,
        average: float = 0.999,
        inner: Sequence[nn.Parameter] = (),
    ) -> None:
        self.out, self.budget = arguments.out, arguments.minutes * 60
        self.model, self.rate, self.average = model, rate, average
        self._arguments = _plain(arguments)
        self.optimizers = _optimizers(model, inner, rate)
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.step, self.spent = 0, 0.0
        self._meters: dict[str, torch.Tensor] = {}
        self._metered = 0
        self._together = dist.is_initialized()
        self._writes = not self._together or dist.get_rank() == 0
        self.out.mkdir(parents=True, exist_ok=True)
        saved = [folder for folder in (self.out / "state", self.out / "state.old") if folder.exists()]
        if saved:
            self._load(saved[0])
        self._run_log = RunLog(self.out / "training.jsonl", self.step) if self._writes else None
        self._share(dist.broadcast, *(p.data for p in [*model.parameters(), *self.ema.parameters()]))

    def steps(self) -> Iterator[int]:
        """The step numbers until the budget is spent; the caller calls `update` once for each."""
        saved = before = time.monotonic()
        with tqdm(
            total=round(self.budget),
            initial=round(self.spent),
            unit="s",
            desc=self.out.name,
            disable=not self._writes,
        ) as bar:
            while self.spent < self.budget:
                self._set_rate()
                yield self.step
                self.step += 1
                now = time.monotonic()
                self.spent = self._first_workers(self.spent + now - before)
                bar.update(round(self.spent) - bar.n)
                before = now
                if now - saved > SAVE_EVERY_SECONDS:
                    self._save()
                    saved = now
        self._save()

    def update(self, loss: torch.Tensor, shown: dict[str, torch.Tensor]) -> None:
        """One optimizer step on `loss`; `shown` goes to the log, averaged."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self._share(_average_of_all, *(p.grad for p in self.model.parameters() if p.grad is not None))
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self._average()
        self._log(shown)

    def averaged(self) -> Model:
        """The moving average of the weights, in evaluation mode."""
        return self.ema.eval()

    def _share(self, exchange: Callable[[torch.Tensor, int], object], *tensors: torch.Tensor) -> None:
        """Exchange tensors with the other processes, in place and in one message."""
        if not self._together:
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        exchange(message, 0)
        parts = message.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def _first_workers(self, seconds: float) -> float:
        """The first process's value: all stop after the same step."""
        value = torch.tensor([seconds], dtype=torch.float64)
        if self._together:
            dist.broadcast(value, 0)
        return value.item()

    def _set_rate(self) -> None:
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        cold = 0.5 * (1 + math.cos(math.pi * min(1.0, self.spent / self.budget)))
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.rate * warm * cold

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.average, (1 + self.step) / (10 + self.step))
        ours, theirs = list(self.ema.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, other in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            mine.copy_(other)

    def _log(self, shown: dict[str, torch.Tensor]) -> None:
        """Every `LOG_EVERY` steps a row of means over the steps since the last one and the processes."""
        for name, value in shown.items():
            self._meters[name] = self._meters.get(name, torch.zeros(())) + value.detach()
        self._metered += 1
        if (self.step + 1) % LOG_EVERY:
            return
        means = torch.stack(list(self._meters.values())) / self._metered
        self._share(_average_of_all, means)
        values = {name: round(value, 5) for name, value in zip(self._meters, means.tolist(), strict=True)}
        self._meters.clear()
        self._metered = 0
        if self._run_log is not None:
            self._run_log.write(self.step + 1, minutes=round(self.spent / 60, 2), **values)

    def _save(self) -> None:
        if not self._writes:
            return
        fresh = self.out / f"state.{os.getpid()}"
        fresh.mkdir(exist_ok=True)
        save_file(_tensors(self.model), fresh / "model.safetensors")
        save_file(_tensors(self.ema), fresh / "ema.safetensors")
        for number, optimizer in enumerate(self.optimizers):
            save_file(optimizer_tensors(optimizer), fresh / f"optimizer-{number}.safetensors")
        progress = {"step": self.step, "spent": self.spent, "arguments": self._arguments}
        (fresh / "progress.json").write_text(json.dumps(progress))
        final, old = self.out / "state", self.out / "state.old"
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def _load(self, state: Path) -> None:
        progress = json.loads((state / "progress.json").read_text())
        self._check_arguments(progress["arguments"])
        self.model.load_state_dict(load_file(state / "model.safetensors"))
        self.ema.load_state_dict(load_file(state / "ema.safetensors"))
        for number, optimizer in enumerate(self.optimizers):
            load_optimizer_tensors(optimizer, load_file(state / f"optimizer-{number}.safetensors"))
        self.step, self.spent = progress["step"], progress["spent"]

    def _check_arguments(self, saved: dict[str, object]) -> None:
        for name, value in self._arguments.items():
            if saved.get(name) != value:
                rule = f"must be {saved.get(name)!r}, as in the run that {self.out} holds"
                raise UserError(name, rule, value, "name another folder to begin anew")


def _plain(arguments: argparse.Namespace) -> dict[str, object]:
    """What a saved state must agree with, as JSON gives it back."""
    named = {name: value for name, value in vars(arguments).items() if name not in ("out", "minutes")}
    plain: dict[str, object] = json.loads(json.dumps(named, default=str))
    return plain


def _optimizers(model: nn.Module, inner: Sequence[nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    chosen = {id(parameter) for parameter in inner}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    return [adam, Muon(inner, lr=rate)] if inner else [adam]


def _average_of_all(message: torch.Tensor, _rank: int) -> None:
    dist.all_reduce(message)
    message /= dist.get_world_size()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous().clone() for name, value in module.state_dict().items()}
