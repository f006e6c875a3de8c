"""The training loop of the branch: steps, log lines, validation, checkpoints, resume, export.

A run's folder holds `config.json`, `log.jsonl`, `checkpoints/`, `sheets/`, `latent_cache.safetensors` and, at
the end, `branch/`: the averaged weights by `save_pretrained`. The recipe is docs/method.md, section 5.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from mtadiffusion.config import DataConfig, TrainConfig, to_dict
from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.injection import BranchInjection
from mtadiffusion.seeding import torch_generator
from mtadiffusion.train.checkpoint import (
    Checkpoint,
    discard_folder,
    list_checkpoints,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    publish_folder,
    save_checkpoint,
)
from mtadiffusion.train.dataset import RecordSource, TrainingSamples, images_to_tensor, record_source
from mtadiffusion.train.latent_cache import (
    BatchSource,
    CachedBatches,
    EncodedBatches,
    LatentEncoder,
    PromptEncoder,
    fill_cache,
    filled_cache,
)
from mtadiffusion.train.noise_schedule import NoiseSchedule
from mtadiffusion.train.optim import (
    MovingAverage,
    build_optimizer,
    clip_gradients,
    lr_factor,
    set_learning_rate,
    trainable,
)
from mtadiffusion.train.run_log import Meter, RunLog
from mtadiffusion.train.setup import build_branch, build_style_vgg, load_backbone
from mtadiffusion.train.step import StepLosses, StepModels, backward_apart, training_step
from mtadiffusion.train.validation import draw_sheet, held_out_holes, validation_losses

logger = logging.getLogger(__name__)

_MAY_CHANGE = frozenset(
    (
        *("steps", "device", "log_every", "checkpoint_every", "keep_checkpoints", "keep_every"),
        *("max_skipped", "validation"),
        *("data.cache_file", "data.workers", "data.encode_batch", "data.text_cache_mb"),
    )
)
"""Fields that a resumed run may have other values of."""


def train(config: TrainConfig, out: Path, *, resume: bool = True) -> Path | None:
    """Train a branch on the configured record source; see `run_training`."""
    data = config.data
    source = record_source(data.source, "train", data.source_seed, data.size)
    held_out = record_source(data.source, "validation", data.source_seed, data.size)
    return run_training(config, out, source, validation_source=held_out, resume=resume)


def run_training(
    config: TrainConfig,
    out_dir: Path,
    source: RecordSource,
    *,
    validation_source: RecordSource | None = None,
    resume: bool = True,
) -> Path | None:
    """Train a branch on `source`, going on from the newest checkpoint in `out_dir` if `resume`.

    SIGTERM, as a machine sends it that is taken away, ends the run after the present step with a checkpoint.

    Returns:
        `out_dir/branch`, which `InpaintBranch.from_pretrained` loads; None where SIGTERM ended the run.

    Raises:
        UserError: `out_dir` cannot be written, or holds a run with another configuration, or too many steps
            came to nothing.
    """
    _prepare_folder(out_dir)
    checkpoint = _checkpoint_to_resume(config, out_dir, resume)
    (out_dir / "config.json").write_text(json.dumps(to_dict(config), indent=2), encoding="utf-8")
    run = TrainingRun(config, out_dir, source, validation_source)
    if checkpoint is not None:
        run.restore(checkpoint)
    with Termination() as termination:
        run.fit(termination)
    return run.export() if run.step == config.steps else None


class Termination:
    """Takes note of SIGTERM instead of dying of it; a context, of use in the main thread only."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepDone:
    """What a step that was not skipped leaves to be looked at."""

    parts: tuple[StepLosses, ...]
    """Of each forward pass, before the step."""

    norms: dict[str, float]
    """Each weighted loss's gradient norm in the last forward pass, where it was measured, and their sum's."""


class TrainingRun:
    """One run's networks, samples and state."""

    def __init__(
        self, config: TrainConfig, out_dir: Path, source: RecordSource, held_out: RecordSource | None
    ) -> None:
        self.config, self.out_dir, self.step, self.skipped = config, out_dir, 0, 0
        self.backbone = load_backbone(config.backbone, config.device)
        self.encoder = LatentEncoder(
            vae=self.backbone.vae,
            hole_fill=config.branch.hole_fill,
            known_mode=config.branch.latent_known,
            edge_target=config.loss.edge_target,
            edge_downsampling=config.loss.edge_downsampling,
        )
        self.samples = TrainingSamples(source, config.data, config.seed)
        self.held_out = TrainingSamples(held_out, config.data, config.seed) if held_out else None
        self.models = self._build_models()
        self.optimizer = build_optimizer(
            config.optim, self.models.branch, self.models.vgg, config.style_vgg.lr
        )
        self.ema = MovingAverage(self.models.branch, config.optim.ema)

    def _build_models(self) -> StepModels:
        unet = self.backbone.unet
        branch = build_branch(self.config, unet)
        if self.config.channels_last:
            branch.to(memory_format=torch.channels_last)
            unet.to(memory_format=torch.channels_last)
        return StepModels(
            branch=branch,
            unet=unet,
            injection=BranchInjection(unet),
            schedule=NoiseSchedule.from_scheduler(self.backbone.scheduler, self.config.device),
            vgg=self._build_vgg() if self.config.loss.delta > 0 else None,
            autocast=self.config.precision == "bf16",
        )

    def _build_vgg(self) -> Any:
        count = min(max(1, self.config.style_vgg.calibration_images), self.samples.count)
        pictures = [self.samples.record_samples(record, (0,)).image for record in range(count)]
        images = torch.cat([images_to_tensor(picture[None]) for picture in pictures])
        latents, _ = self.encoder.image(images)
        vgg: Any = build_style_vgg(self.config.style_vgg, self.config.seed, latents, images)
        return vgg.to(self.config.device)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` was written."""
        self.step, self.skipped = checkpoint.step, checkpoint.skipped
        self.models.branch.load_state_dict(checkpoint.tensors["branch"])
        self.ema.load(checkpoint.tensors["ema"])
        if self.models.vgg is not None:
            self.models.vgg.load_state_dict(checkpoint.tensors["vgg"])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["optimizer"])

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        tensors = {
            "branch": self.models.branch.state_dict(),
            "ema": self.ema.weights,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.models.vgg is not None:
            tensors["vgg"] = self.models.vgg.state_dict()
        config = self.config
        checkpoint = Checkpoint(step=self.step, config=to_dict(config), tensors=tensors, skipped=self.skipped)
        folder = self.out_dir / "checkpoints"
        save_checkpoint(folder, checkpoint, config.keep_checkpoints, config.keep_every)

    def fit(self, termination: Termination) -> None:
        """Run the remaining steps, or those before `termination` is asked for."""
        config, log = self.config, RunLog(self.out_dir / "log.jsonl", self.step)
        batches = self._batches(self.samples)
        held_out = self._held_out_batches()
        meter = Meter(config.batch_size)
        with tqdm(total=config.steps, initial=self.step, desc="training", unit="step") as progress:
            while self.step < config.steps:
                logged = self._is_due(config.log_every, ahead=1)
                done = self.advance(batches, apart=logged)
                for losses in done.parts if done is not None else ():
                    meter.add(losses)
                progress.update()
                if logged and done is not None:
                    values = meter.read_out()
                    skipped = {"skipped": self.skipped} if self.skipped else {}
                    log.write(self.step, **values, grad_norm=done.norms, lr=self._learning_rate(), **skipped)
                    progress.set_postfix({name: f"{values[name]:.4g}" for name in ("loss", "noise")})
                if termination.asked or self._is_due(config.checkpoint_every):
                    self.save()
                if termination.asked:
                    return
                if held_out is not None and self._is_due(config.validation.every):
                    log.write(self.step, validation=self.validate(held_out))
                    meter.restart_clock()

    def _is_due(self, every: int, ahead: int = 0) -> bool:
        """Whether something done `every` steps, and at the end, is due `ahead` steps from now."""
        step = self.step + ahead
        return step == self.config.steps or (every > 0 and step % every == 0)

    def advance(self, batches: BatchSource, *, apart: bool) -> StepDone | None:
        """One optimiser step; `apart` takes each loss's gradient by itself to measure its norm.

        Returns:
            None where loss or gradient was not finite: the step is counted and changes nothing.

        Raises:
            UserError: there were more such steps than the configuration allows.
        """
        config, models = self.config, self.models
        branch, vgg = trainable(models.branch), trainable(models.vgg) if models.vgg is not None else []
        parts, norms = [], {}
        for part in range(config.accumulate):
            losses = self._forward(batches, part)
            parts.append(losses)
            if apart and part == config.accumulate - 1:
                norms = backward_apart(losses, branch, vgg, share=1 / config.accumulate)
            else:
                (losses.total / config.accumulate).backward()
        finite = clip_gradients([branch, vgg] if vgg else [branch], config.optim.clip)
        if finite:
            set_learning_rate(self.optimizer, lr_factor(self.step, config.steps, config.optim))
            self.optimizer.step()
            self.ema.update(models.branch, self.step)
        self.optimizer.zero_grad()
        self.step += 1
        if not finite:
            self._count_skipped()
        return StepDone(parts=tuple(parts), norms=norms) if finite else None

    def _count_skipped(self) -> None:
        self.skipped += 1
        logger.warning("step %d skipped: its loss or gradient is not finite", self.step - 1)
        if self.skipped <= self.config.max_skipped:
            return
        saved = list_checkpoints(self.out_dir / "checkpoints")
        good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written before"
        remedy = f"{self.skipped} steps came to nothing; {good}; lower the rate, or set precision=fp32"
        raise UserError("optim.lr", "must leave the loss finite", self.config.optim.lr, remedy)

    def _forward(self, batches: BatchSource, part: int) -> StepLosses:
        """The losses of a part of the present step's samples, numbered step * samples_a_step, ..."""
        config = self.config
        first = self.step * config.samples_a_step + part * config.batch_size
        numbers = range(first, first + config.batch_size)
        generators = [torch_generator(config.seed, "noise", number) for number in numbers]
        batch = batches.batch(numbers).to(config.device)
        return training_step(self.models, batch, config.loss, generators)

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _batches(self, samples: TrainingSamples) -> BatchSource:
        data, text = self.config.data, self._prompt_encoder()
        if not data.cache:
            return EncodedBatches(samples, self.encoder, text, data.empty_prompt)
        path = Path(data.cache_file or self.out_dir / "latent_cache.safetensors")
        cache = filled_cache(self.config, samples, self.encoder, path)
        text.remember(cache.unique_prompts())
        return CachedBatches(samples, cache, text, data.empty_prompt)

    def _held_out_batches(self) -> BatchSource | None:
        count = self.config.validation.samples if self.config.validation.every else 0
        if self.held_out is None or count == 0:
            return None
        samples = TrainingSamples(self.held_out.source, self._held_out_data(count), self.config.seed)
        cache = fill_cache(samples, self.encoder)
        return CachedBatches(samples, cache, self._prompt_encoder(), empty_prompt=0.0)

    def _held_out_data(self, count: int) -> DataConfig:
        data = self.config.data
        return dataclasses.replace(data, records=count, holes_per_image=max(2, data.holes_per_image))

    def _prompt_encoder(self) -> PromptEncoder:
        data, backbone = self.config.data, self.backbone
        dtype = getattr(torch, data.cache_dtype)
        return PromptEncoder(backbone.text_encoder, backbone.tokenizer, data.text_cache_mb, dtype)

    def validate(self, held_out: BatchSource) -> dict[str, float]:
        """Losses of the averaged branch on held-out samples; draws the sheet beside them."""
        config, branch = self.config, self.averaged_branch()
        models = dataclasses.replace(self.models, branch=branch)
        losses = validation_losses(models, held_out, config)
        if config.validation.images:
            self._draw_sheet(branch)
        return losses

    def averaged_branch(self) -> InpaintBranch:
        """A copy of the branch with the averaged weights, for use without gradients."""
        branch = copy.deepcopy(self.models.branch)
        self.ema.copy_to(branch)
        return branch.requires_grad_(False).eval()

    def export(self) -> Path:
        """Write `branch/` from the averaged weights."""
        self.models.injection.remove()
        final = self.out_dir / "branch"
        temporary = self.out_dir / ".branch"
        self.averaged_branch().save_pretrained(temporary)
        publish_folder(temporary, final)
        return final

    def _draw_sheet(self, branch: InpaintBranch) -> None:
        assert self.held_out is not None
        pipeline_class = importlib.import_module("mtadiffusion.inpaint.pipeline").MTAInpaintPipeline
        parts = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
        pipeline = pipeline_class(**{name: getattr(self.backbone, name) for name in parts}, branch=branch)
        pipeline.set_progress_bar_config(disable=True)
        path = self.out_dir / "sheets" / f"step-{self.step:08d}.png"
        config = self.config.validation
        draw_sheet(pipeline, held_out_holes(self.held_out, config.images), config, self.config.seed, path)


def _prepare_folder(out_dir: Path) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("--out", "must be a folder that can be made", str(out_dir), error.strerror) from error
    if not os.access(out_dir, os.W_OK):
        raise UserError("--out", "must be writable", str(out_dir), "choose another folder")


def _checkpoint_to_resume(config: TrainConfig, out_dir: Path, resume: bool) -> Checkpoint | None:
    """The newest checkpoint, if it is to be gone on from and its run was configured alike."""
    present = list_checkpoints(out_dir / "checkpoints")
    if not resume:
        for path in present:
            discard_folder(path)
        return None
    if not present:
        return None
    checkpoint = load_checkpoint(present[-1])
    differing = _differing_fields(json.loads(json.dumps(to_dict(config))), checkpoint.config)
    if differing:
        remedy = "choose another folder, start afresh without resuming, or restore the fields"
        raise UserError("--out", "holds a run with another configuration", ", ".join(differing), remedy)
    return checkpoint


def _differing_fields(present: dict[str, Any], before: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name in sorted(present.keys() | before.keys()):
        new, old, path = present.get(name), before.get(name), f"{prefix}{name}"
        if path in _MAY_CHANGE or new == old:
            continue
        if isinstance(new, dict) and isinstance(old, dict):
            names += _differing_fields(new, old, f"{path}.")
        else:
            names.append(path)
    return names
