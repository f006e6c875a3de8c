"""The training loop of the branch: steps, log lines, validation, checkpoints, resume, export.

A run's folder holds `config.json`, `log.jsonl`, `checkpoints/`, `sheets/`, `latent_cache/` and, at the
end, `branch/`: the averaged weights by `save_pretrained`. The recipe is docs/method.md, section 5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from mtadiffusion.config import TrainConfig
from mtadiffusion.data.files import whole_file
from mtadiffusion.errors import UserError
from mtadiffusion.fields import to_dict
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.injection import BranchInjection
from mtadiffusion.train.backbone import Backbone, networks_at_hand
from mtadiffusion.train.batches import BatchSource, CachedBatches, EncodedBatches, encoded_pictures
from mtadiffusion.train.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_optimizer_tensors,
    optimizer_tensors,
    publish_folder,
    save_checkpoint,
)
from mtadiffusion.train.crops import check_divisible
from mtadiffusion.train.dataset import RecordSource, TrainingSamples, held_out_samples, record_source
from mtadiffusion.train.encoding import build_encoders
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.gradients import StepDone, StepGradients
from mtadiffusion.train.latent_cache import LatentCache, check_is_cache, filled_cache, with_cached_holes
from mtadiffusion.train.noise_schedule import NoiseSchedule
from mtadiffusion.train.optim import (
    MovingAverage,
    build_optimizer,
    clip_gradients,
    lr_factor,
    set_learning_rate,
    trainable,
)
from mtadiffusion.train.precision import autocast_dtype, loss_scaler, set_precision
from mtadiffusion.train.processes import Processes, load_whole, whole_state
from mtadiffusion.train.resume import checkpoint_to_resume, discard_later, prepared_folder
from mtadiffusion.train.run_log import Meter, RunLog, console_line
from mtadiffusion.train.setup import build_branch, build_critic, build_style_vgg, check_named
from mtadiffusion.train.step import (
    JointObjective,
    StepModels,
    autocast,
)
from mtadiffusion.train.termination import Termination
from mtadiffusion.train.throughput import DeviceLoad
from mtadiffusion.train.trackers import open_trackers
from mtadiffusion.train.validation import Validation

logger = logging.getLogger(__name__)


def train(config: TrainConfig, out: Path, *, resume: bool | Path = True) -> Path | None:
    """Train a branch on the configured record source; see `run_training`."""
    check_is_cache(config.data.cache_dir)
    config = with_cached_holes(config)
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
    resume: bool | Path = True,
) -> Path | None:
    """Train a branch on `source`, in this process or in all that a launcher started alike.

    SIGTERM, as a machine sends it that is taken away, ends the run after the present step with a checkpoint.

    Args:
        config: what to train and how.
        out_dir: the run's folder.
        source: records of the training samples.
        validation_source: records of the held-out samples; None: no validation.
        resume: whether to go on from the newest checkpoint in `out_dir`, or the folder of a checkpoint.

    Returns:
        `out_dir/branch`, which `InpaintBranch.from_pretrained` loads; None where SIGTERM ended the run.

    Raises:
        UserError: `out_dir` cannot be written, or holds a run with another configuration, or too many steps
            came to nothing.
    """
    processes = processes_of(config)
    checkpoint = checkpoint_to_resume(config, out_dir, resume, processes.count)
    with prepared_folder(out_dir):
        run = TrainingRun(config, out_dir, source, validation_source, processes)
    processes.wait()  # until all have read the folder and are ready to go
    if processes.is_main:
        discard_later(out_dir, checkpoint.step if checkpoint is not None else -1)
        with whole_file(out_dir / "config.json") as file:
            file.write(json.dumps(to_dict(config), indent=2).encode())
    if checkpoint is not None:
        run.restore(checkpoint)
        del checkpoint  # several times the size of the branch
    with Termination() as termination:
        run.fit(termination)
    branch = run.export() if run.step == config.steps else None
    processes.close()
    return branch


def processes_of(config: TrainConfig) -> Processes:
    """The processes of a run. Of a style VGG that is trained, the layers beyond its last tap are unused."""
    trains_vgg = config.loss.needs_vgg and not config.style_vgg.freeze
    return Processes(config.device, some_unused=trains_vgg)


class TrainingRun:
    """One run's networks, samples and state, as far as this process has them."""

    def __init__(
        self,
        config: TrainConfig,
        out_dir: Path,
        source: RecordSource,
        held_out: RecordSource | None,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.out_dir, self.step, self.skipped = config, out_dir, 0, 0
        self.processes = processes or processes_of(config)
        self.device = self.processes.device
        check_named(config)
        set_precision(self.device, config)
        self.backbone = Backbone(config, self.device, networks_at_hand(config))
        check_divisible(config.data, self.backbone.picture_factor)
        self.samples = TrainingSamples(source, config.data, config.seed, config.batch_size)
        self.faults = Faults(self.samples.count, config.data.max_damaged)
        self.held_out = held_out
        self.cache = self._filled(self.samples, "train") if config.data.cached else None
        self.models = self._build_models()
        objective, self.optimizer = self.processes.prepare(
            JointObjective(self.models, config.loss),
            build_optimizer(
                config.optim,
                self.models.branch,
                self.models.vgg,
                config.style_vgg.lr,
                self.models.critic,
                config.critic,
            ),
        )
        self.scaler = loss_scaler(self.device, config)
        self.gradients = StepGradients(
            config=config,
            models=self.models,
            objective=objective,
            optimizer=self.optimizer,
            scaler=self.scaler,
            processes=self.processes,
        )
        self.ema = MovingAverage(self.models.branch, config.optim.ema)
        self.load = DeviceLoad(config, self.backbone, self.device)
        self.log: RunLog | None = None

    def _build_models(self) -> StepModels:
        unet, dtype = self.backbone.unet, autocast_dtype(self.config)
        branch = build_branch(self.config, unet)
        if self.config.channels_last:
            branch.to(memory_format=torch.channels_last)
            unet.to(memory_format=torch.channels_last)
        vgg = self._build_vgg() if self.config.loss.needs_vgg else None
        wanted = vgg is not None and self.config.loss.adversarial > 0
        critic = build_critic(self.config, unet, vgg).to(self.device) if wanted else None
        return StepModels(
            branch=branch,
            unet=unet,
            injection=BranchInjection(unet),
            schedule=NoiseSchedule.from_scheduler(self.backbone.scheduler, self.device),
            vgg=vgg,
            critic=critic,
            critic_noise=self.config.critic.noise,
            autocast=dtype is not None,
            autocast_dtype=dtype or torch.bfloat16,
        )

    def _build_vgg(self) -> Any:
        count = max(1, self.config.style_vgg.calibration_images)
        if self.cache is not None:
            latents, colours = self.cache.pictures(count)
        else:
            encoder, _ = build_encoders(self.backbone, self.config, self.faults)
            latents, colours = encoded_pictures(self.samples, encoder, count)
        vgg: Any = build_style_vgg(self.config.style_vgg, self.config.seed, latents, 2 * colours - 1)
        return vgg.to(self.device)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` was written."""
        self.step, self.skipped = checkpoint.step, checkpoint.skipped
        load_whole(self.models.branch, checkpoint.tensors["branch"])
        self.ema.load(checkpoint.tensors["ema"])
        for name, network in (("vgg", self.models.vgg), ("critic", self.models.critic)):
            if network is not None:
                load_whole(network, checkpoint.tensors[name])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["optimizer"])
        if checkpoint.loss_scale:
            self.scaler.load_state_dict(checkpoint.loss_scale)

    def save(self) -> None:
        """Write a checkpoint of the present step; all processes gather it, the main one writes."""
        networks = {"branch": self.models.branch, "vgg": self.models.vgg, "critic": self.models.critic}
        tensors = {
            **{name: whole_state(network) for name, network in networks.items() if network is not None},
            "ema": self.ema.gathered(),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        checkpoint = Checkpoint(
            step=self.step,
            config=to_dict(self.config),
            tensors=tensors,
            skipped=self.skipped,
            samples_a_step=self.gradients.samples_a_step,
            loss_scale=self.scaler.state_dict(),
            branch_config=self.models.branch.to_json_string(),
        )
        folder, keep = self.out_dir / "checkpoints", self.config.keep_checkpoints
        if self.processes.is_main:
            save_checkpoint(folder, checkpoint, keep, self.config.keep_every)

    def fit(self, termination: Termination) -> None:
        """Run the remaining steps, or those before `termination` is asked for."""
        config = self.config
        batches = self._batches(self.samples)
        validation = self._validation()
        self._let_encoders_go()
        meter = Meter(config.batch_size * self.processes.count)
        with self._logging(), self._progress() as progress:
            while self.step < config.steps:
                logged = self._is_due(config.log_every, ahead=1)
                done = self.advance(batches, apart=logged)
                for losses in done.parts if done is not None else ():
                    meter.add(losses)
                progress.update()
                if logged and done is not None:
                    figures = self._figures(meter.read_out())
                    self._write(**figures, grad_norm=done.norms)
                    progress.set_postfix_str(console_line(figures))
                    meter.restart_clock()
                stopping = self.processes.any(termination.asked)
                if stopping or self._is_due(config.checkpoint_every):
                    self.save()
                if stopping:
                    return
                if validation is not None and self._is_due(config.validation.every):
                    self.validate(validation)
                    meter.restart_clock()

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Within the block the main process has a log."""
        if not self.processes.is_main:
            yield
            return
        trackers = open_trackers(self.out_dir, to_dict(self.config), self.step)
        self.log = RunLog(self.out_dir / "log.jsonl", self.step, trackers)
        try:
            yield
        finally:
            self.log.close()

    def _progress(self) -> Any:
        steps, silent = self.config.steps, not self.processes.is_main
        return tqdm(total=steps, initial=self.step, desc="training", unit="step", disable=silent)

    def _write(self, **values: Any) -> None:
        if self.log is not None:
            self.log.write(self.step, **values)

    def _figures(self, means: dict[str, float]) -> dict[str, Any]:
        """What is logged of the steps since the last time: the processes' means, rates, speed and memory."""
        speed = means.pop("samples_per_second")
        figures: dict[str, Any] = {**self.processes.mean(means), "samples_per_second": speed}
        figures |= self.load.figures(speed / self.processes.count)
        figures |= {group["rate"]: group["lr"] for group in self.optimizer.param_groups}
        return figures | self.faults.counts() | ({"skipped": self.skipped} if self.skipped else {})

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
        done = self.gradients.take(batches, self.step, apart=apart)
        trained = (self.models.branch, self.models.vgg, self.models.critic)
        networks = [trainable(network) for network in trained if network is not None]
        finite = clip_gradients([one for one in networks if one], self.config.optim.clip)
        if finite:
            set_learning_rate(self.optimizer, lr_factor(self.step, self.config.steps, self.config.optim))
            self.optimizer.step()
            self.ema.update(self.models.branch, self.step)
        scale = self.scaler.get_scale()
        self.scaler.update()
        self.optimizer.zero_grad()
        self.step += 1
        if not finite:
            self._count_skipped(scale)
        return done if finite else None

    def _count_skipped(self, scale: float) -> None:
        """Count the step, unless a loss scale that is still to be found made it overflow."""
        if scale > 1:
            return
        self.skipped += 1
        logger.warning("step %d skipped: its loss or gradient is not finite", self.step - 1)
        if self.skipped <= self.config.max_skipped:
            return
        saved = list_checkpoints(self.out_dir / "checkpoints")
        good = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written before"
        remedy = f"{self.skipped} steps came to nothing; {good}; lower the rate, or set precision=fp32"
        raise UserError("optim.lr", "must leave the loss finite", self.config.optim.lr, remedy)

    def _filled(self, samples: TrainingSamples, split: str) -> LatentCache:
        folder = Path(self.config.data.cache_dir or self.out_dir / "latent_cache")
        encoders = partial(build_encoders, self.backbone, self.config)
        with self.processes.main_first():
            return filled_cache(self.config, samples, folder / split, encoders)

    def _batches(self, samples: TrainingSamples) -> BatchSource:
        empty_prompt = self.config.data.empty_prompt
        if self.cache is not None:
            return CachedBatches(samples, self.cache, empty_prompt, self.faults)
        encoder, text = build_encoders(self.backbone, self.config, self.faults)
        return EncodedBatches(samples, encoder, text, empty_prompt, self.faults)

    def _validation(self) -> Validation | None:
        config = self.config
        if self.held_out is None or not (config.validation.every and config.validation.samples):
            return None
        cache = self._filled(held_out_samples(config, self.held_out), "validation")
        return Validation(cache, TrainingSamples(self.held_out, config.data, config.seed), config)

    def validate(self, validation: Validation) -> None:
        """Log losses of the averaged branch on held-out samples and draw the sheet, in the main process.

        All processes must call it.
        """
        branch = self.averaged_branch()
        if not self.processes.is_main:
            return
        models = dataclasses.replace(self.models, branch=branch)
        self._write(**validation.figures(models))
        if self.config.validation.images:
            path = self.out_dir / "sheets" / f"step-{self.step:08d}.png"
            with autocast(self.models, self.device):
                validation.draw(self._pipeline(branch), path)
            self._let_encoders_go()
            if self.log is not None:
                self.log.show(self.step, "sheet", path)

    def _let_encoders_go(self) -> None:
        """Where steps read a cache, VAE and text encoders are in memory only while something is drawn."""
        if self.cache is not None:
            self.backbone.let_encoders_go()

    def averaged_branch(self) -> InpaintBranch:
        """A branch that holds the averaged weights themselves, for use without gradients.

        All processes must call it.
        """
        with torch.device("meta"):
            branch = InpaintBranch.from_config(self.models.branch.config)
        branch.load_state_dict(self.ema.gathered(), assign=True)
        return branch.requires_grad_(False).eval()

    def export(self) -> Path:
        """Write `branch/` from the averaged weights."""
        self.models.injection.remove()
        final = self.out_dir / "branch"
        temporary = self.out_dir / ".branch"
        branch = self.averaged_branch()
        if self.processes.is_main:
            branch.save_pretrained(temporary)
            publish_folder(temporary, final)
        self.processes.wait()
        return final

    def _pipeline(self, branch: InpaintBranch) -> Any:
        pipeline_class = importlib.import_module("mtadiffusion.inpaint.pipeline").MTAInpaintPipeline
        frozen = {"unet": self.backbone.unet, "scheduler": self.backbone.scheduler}
        pipeline = pipeline_class(**frozen, **vars(self.backbone.encoders), branch=branch)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
