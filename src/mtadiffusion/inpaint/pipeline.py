"""The inpainting pipeline: a stock Stable Diffusion backbone, a branch, a picture and its hole.

Conditioning, branch and injection follow docs/method.md, sections 1 and 2. Where in the picture the
model works is `regions`, how pixels are put back is `imaging.blending`, what callers may pass is `inputs`.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.models.autoencoders import AutoencoderKL, AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.blending import BLENDS, Blend
from mtadiffusion.inpaint import inputs
from mtadiffusion.inpaint.guidance import guided
from mtadiffusion.inpaint.inputs import SampleSettings
from mtadiffusion.inpaint.jobs import Job, State, alike, put_back
from mtadiffusion.inpaint.outputs import OUTPUT_TYPES, InpaintOutput, as_output, as_pil, check_finite
from mtadiffusion.inpaint.prompts import TextEmbeds
from mtadiffusion.inpaint.regions import find_region, to_model
from mtadiffusion.models.autoencoders import decode_latents, encode_latents
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.conditioning import branch_input, latent_known, masked_image
from mtadiffusion.models.injection import BranchInjection, check_fit
from mtadiffusion.models.registry import load_branch, load_components, resolve_branch
from mtadiffusion.models.text_encoders import TextEncoders

WIDEST_FEATHER = 2.0
"""The widest fade inside the hole's edge, in pixels of the model."""

SIZES = 6
"""Original height and width, top and left of the crop, target height and width: SDXL's added sizes."""

Generators = torch.Generator | list[torch.Generator] | None


class MTAInpaintPipeline(DiffusionPipeline):
    """Text-guided inpainting with a frozen backbone and an `InpaintBranch`.

    Without a branch (or at `branch_scale=0`) it is the backbone alone with latent blending, the baseline.
    Loads stock Stable Diffusion and SDXL folders: `from_backbone(folder, branch_folder)`.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"  # type: ignore[assignment]
    _optional_components = [  # noqa: RUF012
        *("branch", "text_encoder_2", "tokenizer_2", "safety_checker", "feature_extractor")
    ]
    _exclude_from_cpu_offload = ["safety_checker"]  # noqa: RUF012
    _callback_tensor_inputs = [*inputs.CALLBACK_TENSORS]  # noqa: RUF012

    vae: Any
    text_encoder: Any
    tokenizer: Any
    text_encoder_2: Any
    tokenizer_2: Any
    unet: Any
    scheduler: Any
    branch: Any
    safety_checker: Any
    feature_extractor: Any

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        branch: InpaintBranch | None = None,
        safety_checker: torch.nn.Module | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        force_zeros_for_empty_prompt: bool = False,
    ) -> None:
        super().__init__()
        _check_backbone(vae, unet, text_encoder_2)
        if branch is not None:
            check_fit(branch, unet)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            unet=unet,
            scheduler=scheduler,
            branch=branch,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        self.vae_scale_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike[str],
        branch: str | os.PathLike[str] | InpaintBranch | None = None,
        **kwargs: Any,
    ) -> MTAInpaintPipeline:
        """A pipeline from any Stable Diffusion or SDXL folder, hub id or file, and a branch.

        Args:
            backbone: a folder or hub id in the diffusers layout, or a safetensors file in the original one.
            branch: a model; a name, folder or hub id; or an official BrushNet's folder or file.
            kwargs: of a folder or hub id, for diffusers' `from_pretrained`; of a file, `torch_dtype` alone.
        """
        kwargs.setdefault("use_safetensors", True)
        dtype = kwargs.get("torch_dtype") or torch.float32
        if isinstance(branch, str | os.PathLike):
            branch = load_branch(resolve_branch(os.fspath(branch), "branch"), dtype, "branch")
        if os.path.isfile(backbone):
            components = load_components(Path(backbone), dtype, "backbone")
            return cls(branch=branch, **components)
        if branch is not None:
            kwargs["branch"] = branch
        return cls.from_pretrained(backbone, **kwargs)

    @property
    def resolution(self) -> int:
        """Side of the model's square picture in pixels."""
        size = self.unet.config.sample_size
        return (size if isinstance(size, int) else min(size)) * self.vae_scale_factor

    @property
    def text_encoders(self) -> TextEncoders:
        """What the prompts are encoded with."""
        return TextEncoders(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            tokenizer_2=self.tokenizer_2,
            text_encoder_2=self.text_encoder_2,
            force_zeros_for_empty_prompt=self.config["force_zeros_for_empty_prompt"],
        )

    @property
    def guidance_scale(self) -> float:
        """The running call's; diffusers' callbacks change `_guidance_scale` on the way."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the running call compares the prompt with the negative one."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """The running call's number of model evaluations."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """A callback sets `_interrupt` to skip the remaining steps."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        *,
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        generator: Generators = None,
        num_images_per_prompt: int = 1,
        branch_scale: float = 1.0,
        latent_blending: bool | None = None,
        latent_known: str = "any",
        blend: Blend = "paste",
        feather: float = WIDEST_FEATHER,
        resolution: int | None = None,
        eta: float = 0.0,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        output_edges: bool = False,
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> InpaintOutput | tuple[Any, ...]:
        """Fill the hole of each picture as its prompt asks.

        A single prompt, image or mask serves a list of the others. Results come in the order of the
        prompts, each `num_images_per_prompt` times. Regions of different shapes are sampled one shape
        after the other; the callback's steps then start again.

        Args:
            prompt: what to draw in the hole.
            image: PIL image, uint8 or float array (H, W, 3), tensor (3, H, W), a batch or a list of them;
                any size; floats in [0, 1].
            mask_image: as `image`, of its size, one channel: white = hole, grey from half white on.
            negative_prompt: what to avoid; empty by default.
            num_inference_steps: 1 to 1000.
            guidance_scale: weight of the prompt; up to 1 the negative prompt is not used.
            guidance_rescale: see `guidance.guided`; about 0.7 for fine-tunes with zero terminal
                signal-to-noise ratio.
            generator: one for all results, one a result in a list (a result then does not depend on its
                batch), or None for the global one. CPU generators, so that noise is the same everywhere.
            num_images_per_prompt: results for each prompt.
            branch_scale: weight of the branch's features; at 0 the branch is not run.
            latent_blending: put the noised known latents back after each step. None: only where no branch
                is run.
            latent_known: how the hole reaches latent size: `any` of its pixels makes a cell a hole, so that
                thin holes do not vanish; `nearest` samples one pixel a cell, as in training.
            blend: `paste` leaves every pixel outside the hole as it is, bit for bit; `brushnet` is
                BrushNet's soft edge; `none` is what the model drew in the whole region around the hole.
            feather: for `paste`, over how many of the model's pixels (0 to 2) generated content fades in,
                inside the hole.
            resolution: side of the model's picture in pixels; its own by default.
            eta: DDIM's; other schedulers ignore it.
            prompt_embeds: (B, tokens, width) in place of `prompt`. Guidance then needs
                `negative_prompt_embeds`, and a backbone with SDXL's added embedding the pooled ones.
            output_type: `pil`; `np` (B, H, W, 3) or `pt` (B, 3, H, W) in [0, 1] on the CPU, a list where
                sizes differ; `latent`, the latents of the regions.
            output_edges: also give the edges that the branch predicts (`InpaintOutput.edges`).
            return_dict: an `InpaintOutput` instead of a tuple of its fields; without `output_edges` it is
                diffusers' pair of images and flags.
            callback_on_step_end: as in diffusers: (pipeline, step, timestep, tensors) -> tensors.
            callback_on_step_end_tensor_inputs: any of latents, prompt_embeds, masked_latents, known.

        Raises:
            UserError: an argument is out of range or does not fit the others; a result holds NaN.
        """
        self.check_inputs(num_images_per_prompt, blend, feather, resolution, output_type)
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        no_branch = self.branch is None or branch_scale == 0
        if output_edges and (no_branch or not self.branch.config.edge_head):
            remedy = "leave it out, or train with branch.edge_head=true"
            raise UserError("output_edges", "needs a branch with an edge head", remedy=remedy)
        settings = SampleSettings(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            branch_scale=0.0 if no_branch else branch_scale,
            latent_blending=no_branch if latent_blending is None else latent_blending,
            latent_known=latent_known,
            eta=eta,
            callback=callback_on_step_end,
            callback_tensors=callback_on_step_end_tensor_inputs,
        )
        given = None
        if prompt_embeds is not None:
            if prompt is not None:
                raise UserError("prompt", "must not be given together with prompt_embeds", prompt)
            given = TextEmbeds(
                prompt=prompt_embeds,
                negative=negative_prompt_embeds,
                pooled=pooled_prompt_embeds,
                negative_pooled=negative_pooled_prompt_embeds,
            )
        prompts = inputs.as_prompts(prompt, "prompt") if given is None else list(given.prompt)
        jobs = self._plan(prompts, image, mask_image, resolution or self.resolution, num_images_per_prompt)
        inputs.check_generators(generator, len(jobs))
        embeds = given or self.encode_prompt(prompts, negative_prompt, guided=guidance_scale > 1)

        results: list[Any] = [None] * len(jobs)
        unsafe = [False] * len(jobs)
        edges: list[torch.Tensor | None] = [None] * len(jobs)
        for members in alike(jobs):
            group = [jobs[member] for member in members]
            own = [generator[member] for member in members] if isinstance(generator, list) else generator
            self._guidance_scale, self._interrupt = guidance_scale, False
            state = self._sample(group, embeds, settings, own)
            if output_type == "latent":
                made, flags = list(state.latents), [False] * len(group)
            else:
                drawn, flags = self._screen(self._decode(state.latents))
                made = [put_back(*pair, blend, feather) for pair in zip(group, drawn, strict=True)]
            for member, one, flag, edge in zip(members, made, flags, state.edges(), strict=True):
                results[member], unsafe[member], edges[member] = one, flag, edge
        self.maybe_free_model_hooks()
        images = as_output(results, output_type)
        flagged = unsafe if self.safety_checker is not None else None
        if not return_dict:
            return (images, flagged, edges) if output_edges else (images, flagged)
        kept = edges if output_edges else None
        return InpaintOutput(images=images, nsfw_content_detected=flagged, edges=kept)

    def check_inputs(
        self, num_images_per_prompt: int, blend: str, feather: float, resolution: int | None, output_type: str
    ) -> None:
        """Raise a UserError if one of these is out of range."""
        inputs.check_number("num_images_per_prompt", num_images_per_prompt, 1, whole=True)
        inputs.check_choice("blend", blend, BLENDS)
        inputs.check_number("feather", feather, 0, WIDEST_FEATHER)
        inputs.check_choice("output_type", output_type, OUTPUT_TYPES)
        multiple = self._multiple
        if resolution is not None:
            inputs.check_number("resolution", resolution, multiple, whole=True)
            if resolution % multiple:
                raise UserError("resolution", f"must be a multiple of {multiple}", resolution)

    def encode_prompt(
        self, prompts: list[str], negative_prompt: str | list[str] | None, *, guided: bool
    ) -> TextEmbeds:
        """The embeddings of the prompts and, when guided, of as many negative prompts."""
        device, encoders = self._execution_device, self.text_encoders
        states = encoders.encode(prompts, device, "prompt")
        if not guided:
            return TextEmbeds.of(states, None)
        wanted = inputs.as_prompts("" if negative_prompt is None else negative_prompt, "negative_prompt")
        (negatives,) = inputs.broadcast(len(prompts), negative_prompt=wanted)
        return TextEmbeds.of(states, encoders.encode(negatives, device, "negative_prompt"))

    @property
    def _multiple(self) -> int:
        """What the sides of the model's picture are a multiple of, so that every level halves evenly."""
        return self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def _plan(
        self, prompts: list[Any], image: Any, mask_image: Any, resolution: int, copies: int
    ) -> list[Job]:
        pictures, holes = inputs.as_pictures(image), inputs.as_holes(mask_image)
        indices = list(range(len(prompts)))
        count = max(len(prompts), len(pictures), len(holes))
        indices, pictures, holes = inputs.broadcast(count, prompt=indices, image=pictures, mask_image=holes)
        jobs = []
        for index, picture, hole in zip(indices, pictures, holes, strict=True):
            inputs.check_same_size(picture, hole)
            region = find_region(hole, resolution, self._multiple)
            jobs += [Job(picture=picture, hole=hole, region=region, prompt=index)] * copies
        return jobs

    def _sample(
        self, jobs: list[Job], embeds: TextEmbeds, settings: SampleSettings, generators: Generators
    ) -> State:
        """What was drawn for jobs whose regions have one shape."""
        self._schedule(settings.num_inference_steps)
        state = self._start(jobs, embeds, settings, generators)
        injection = BranchInjection(self.unet)
        try:
            self._denoise(state, injection, settings, self._step_arguments(generators, settings.eta))
        finally:
            injection.remove()
        check_finite(state.latents, self.unet.dtype)
        return state

    def _schedule(self, steps: int) -> None:
        try:
            self.scheduler.set_timesteps(steps, device=self._execution_device)
        except (ValueError, IndexError) as error:  # some need a least number, or allow as many as trained
            rule = f"cannot be served by {type(self.scheduler).__name__} ({error})"
            remedy = "use another number of steps or another scheduler"
            raise UserError("num_inference_steps", rule, steps, remedy) from error

    def _denoise(
        self, state: State, injection: BranchInjection, settings: SampleSettings, extra: dict[str, Any]
    ) -> None:
        """The sampling loop: from noise to the latents of the result, in `state.latents`."""
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        warm_up = len(timesteps) - settings.num_inference_steps * self.scheduler.order
        with self.progress_bar(total=settings.num_inference_steps) as progress:
            for step, timestep in enumerate(timesteps):
                if self.interrupt:
                    continue
                prediction = self._predict(state, timestep, injection, settings)
                state.latents = self.scheduler.step(
                    prediction, timestep, state.latents, **extra, return_dict=False
                )[0]
                if state.known_latents is not None:
                    known = self._renoised(state.known_latents, state.noise, timesteps[step + 1 : step + 2])
                    state.latents = torch.where(state.known > 0.5, known, state.latents)
                if settings.callback is not None:
                    handed = {name: getattr(state, name) for name in settings.callback_tensors}
                    state.replace(settings.callback(self, step, timestep, handed))
                last = step == len(timesteps) - 1
                if last or (step + 1 > warm_up and (step + 1) % self.scheduler.order == 0):
                    progress.update()

    def _predict(
        self, state: State, timestep: torch.Tensor, injection: BranchInjection, settings: SampleSettings
    ) -> torch.Tensor:
        """The backbone's prediction (n, C, h, w) with the branch's features and guidance.

        The branch has no text input, so that it runs once for both halves of the guidance batch, unless
        it takes SDXL's added embedding (docs/method.md, section 2).
        """
        twofold = self.do_classifier_free_guidance
        scaled = self.scheduler.scale_model_input(state.latents, timestep)
        twice = torch.cat([scaled] * 2) if twofold else scaled
        features: tuple[torch.Tensor, ...] = ()
        if state.masked_latents is not None:
            seen = branch_input(scaled, state.masked_latents, state.known).to(self.branch.dtype)
            added = None
            if self.branch.config.addition_embed_type is not None:
                added = state.added
                seen = torch.cat([seen] * 2) if twofold else seen
            put_out = self.branch(seen, timestep, added_cond_kwargs=added)
            features = put_out.features
            if put_out.edge is not None:
                state.edge = put_out.edge[-len(scaled) :]  # of twice as many, those of the prompts
        scale = settings.branch_scale
        with injection.features(features, scale=scale) if features else contextlib.nullcontext():
            prediction = self.unet(
                twice,
                timestep,
                encoder_hidden_states=state.prompt_embeds,
                added_cond_kwargs=state.added,
                return_dict=False,
            )[0]
        if not twofold:
            return prediction
        return guided(prediction, self._guidance_scale, settings.guidance_rescale)

    def _start(
        self, jobs: list[Job], embeds: TextEmbeds, settings: SampleSettings, generators: Generators
    ) -> State:
        device, dtype = self._execution_device, self.unet.dtype
        views = [to_model(job.picture, job.hole, job.region) for job in jobs]
        pictures = torch.stack([picture for picture, _ in views]) * 2 - 1  # (n, 3, h*f, w*f)
        holes = torch.stack([hole for _, hole in views])[:, None].float()  # (n, 1, h*f, w*f)
        height, width = jobs[0].region.work_size
        size = height // self.vae_scale_factor, width // self.vae_scale_factor
        shape = (len(jobs), self.unet.config.in_channels, *size)
        # On the CPU in float32, so that a seed means the same noise on every device and in every dtype.
        noise = randn_tensor(shape, generator=generators, device=torch.device("cpu"), dtype=torch.float32)
        noise = noise.to(device, dtype)
        masked_latents = None
        if settings.branch_scale:
            masked_latents = self._encode(masked_image(pictures, holes, self.branch.config.hole_fill))
        samples, guided = [job.prompt for job in jobs], self.do_classifier_free_guidance
        return State(
            latents=noise * self.scheduler.init_noise_sigma,
            noise=noise,
            prompt_embeds=embeds.tokens(samples, guided).to(device, dtype),
            added=self._added(embeds, samples, (height, width)),
            known=latent_known(holes, size, settings.latent_known).to(device, dtype),
            masked_latents=masked_latents,
            known_latents=self._encode(pictures) if settings.latent_blending else None,
        )

    def _added(
        self, embeds: TextEmbeds, samples: list[int], size: tuple[int, int]
    ) -> dict[str, torch.Tensor] | None:
        """SDXL's added embedding: pooled text, and original size, crop's corner and target size."""
        if self.unet.config.addition_embed_type != "text_time":
            return None
        pooled = embeds.pools(samples, self.do_classifier_free_guidance)
        sizes = torch.tensor([[*size, 0, 0, *size]] * len(pooled))
        device, dtype = self._execution_device, self.unet.dtype
        return {"text_embeds": pooled.to(device, dtype), "time_ids": sizes.to(device, dtype)}

    def _renoised(self, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Clean latents noised to a timestep (1,); clean where no timestep is left (0,)."""
        return self.scheduler.add_noise(clean, noise, timestep) if len(timestep) else clean

    def _step_arguments(self, generators: Generators, eta: float) -> dict[str, Any]:
        """What of eta and the generators this scheduler's step takes."""
        taken = inspect.signature(self.scheduler.step).parameters
        return {name: value for name, value in (("generator", generators), ("eta", eta)) if name in taken}

    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, H, W) in [-1, 1] to scaled latents (n, C, h, w): the mode, not a sample."""
        return encode_latents(self.vae, pictures.to(self._execution_device)).to(self.unet.dtype)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (n, C, h, w) to pictures (n, 3, H, W) float32 in [0, 1] on the CPU."""
        pictures = decode_latents(self.vae, latents).float().cpu()
        check_finite(pictures, self.vae.dtype)
        return (pictures / 2 + 0.5).clamp(0, 1)

    def _screen(self, pictures: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        """Pictures (n, 3, H, W) with what a registered safety checker flags in black; the flags."""
        if self.safety_checker is None or self.feature_extractor is None:
            return pictures, [False] * len(pictures)
        images = [as_pil(picture) for picture in pictures]
        seen = self.feature_extractor(images, return_tensors="pt").pixel_values
        arrays = pictures.permute(0, 2, 3, 1).numpy()
        device, dtype = self._execution_device, self.unet.dtype
        checked, flags = self.safety_checker(images=arrays, clip_input=seen.to(device, dtype))
        return torch.as_tensor(np.asarray(checked)).permute(0, 3, 1, 2), [bool(flag) for flag in flags]


def _check_backbone(vae: Any, unet: Any, text_encoder_2: Any) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        rule = f"must take the VAE's {vae.config.latent_channels} latent channels"
        remedy = "use a text-to-image backbone, not an inpainting one"
        raise UserError("unet", rule, unet.config.in_channels, remedy)
    if text_encoder_2 is not None and unet.config.addition_embed_type == "text_time":
        room = unet.config.projection_class_embeddings_input_dim - SIZES * unet.config.addition_time_embed_dim
        pooled = text_encoder_2.config.projection_dim
        if room != pooled:
            remedy = "use an SDXL base model, not a refiner"
            raise UserError("unet", f"must take the {pooled} pooled channels and {SIZES} sizes", room, remedy)
