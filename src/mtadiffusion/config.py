"""What a training run can be told: keyword-only frozen dataclasses, one docstring a field, range checks.

The named presets are functions in `recipes`; `fields` reads and writes what is set here. Each field that
decides a point on which the paper is silent cites the section of docs/method.md where the choice is
explained. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from mtadiffusion.errors import UserError, nearest_name


def _check_range(argument: str, value: float, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not (math.isfinite(value) and low <= value <= high):
        rule = f"must be at least {low}" if high == math.inf else f"must be between {low} and {high}"
        raise UserError(argument, rule, value)


def _check_choice(argument: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise UserError(argument, "is unknown", value, nearest_name(str(value), choices))


def _check_span(argument: str, span: tuple[float, float], high: float = 1.0) -> None:
    if len(span) != 2 or not 0.0 <= span[0] <= span[1] <= high:
        raise UserError(argument, f"must be a pair (low, high) within 0 and {high}", span)


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """The branch that is trained (docs/method.md, sections 1-3)."""

    block: str = "attention"
    """`attention` (MTADiffusion) or `residual` (BrushNet)."""

    position: str = "dwconv"
    """How attention blocks learn where a token lies: `none`, `sincos` or `dwconv`."""

    time_conditioning: str = "scale_shift"
    """How attention blocks hear the timestep: `scale_shift` of their normalised input, or `none`."""

    feed_forward: bool = True
    """Whether attention blocks have a feed-forward part after the attention."""

    initialise: str = "backbone"
    """Where the weights start: `backbone` copies what its UNet has of them, `fresh` draws all of them."""

    edge_head: bool = True
    """Whether the last block also predicts an edge map; the structure loss needs it."""

    hole_fill: str = "black"
    """What the VAE sees in the hole: `black` (-1) or `grey` (0)."""

    latent_known: str = "nearest"
    """How the hole reaches latent size in training: `nearest`, or `any` hole pixel makes a hole cell."""

    start_from: str = ""
    """Name, folder or hub id of a branch, or a BrushNet's file, to go on from; empty: a new one, started as
    `initialise` says."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""

    def __post_init__(self) -> None:
        _check_choice("branch.block", self.block, ("attention", "residual"))
        _check_choice("branch.position", self.position, ("none", "sincos", "dwconv"))
        _check_choice("branch.time_conditioning", self.time_conditioning, ("scale_shift", "none"))
        _check_choice("branch.initialise", self.initialise, ("backbone", "fresh"))
        _check_choice("branch.hole_fill", self.hole_fill, ("black", "grey"))
        _check_choice("branch.latent_known", self.latent_known, ("nearest", "any"))


OBJECT_HOLES = ("exact", "dilated", "boxed", "roughened", "foreign")
"""The shapes of object holes, each a weight of `HoleConfig`."""


@dataclass(frozen=True, kw_only=True)
class HoleConfig:
    """The holes of training samples (docs/method.md, section 5). Lengths are shares of the short side."""

    brush_probability: float = 0.5
    """Share of random-brush holes, which go with the whole-image caption; the rest are object holes."""

    exact: float = 1.0
    """Weight of object holes that are exactly the object's mask."""

    dilated: float = 1.0
    """Weight of object holes that are the dilated mask."""

    boxed: float = 1.0
    """Weight of object holes that are the object's box, grown by a margin."""

    roughened: float = 1.0
    """Weight of object holes whose outline is made of coarse cells."""

    foreign: float = 0.0
    """Weight of object holes with another object's silhouette stretched over the object's loosened box."""

    dilation: tuple[float, float] = (0.02, 0.10)
    """Range of the dilation's radius; a `foreign` hole takes the lower end."""

    box_margin: tuple[float, float] = (0.0, 0.10)
    """Range of the margin at each side of a box, `boxed` or `foreign`."""

    rough_cell: tuple[float, float] = (0.04, 0.14)
    """Range of the cell's side of a roughened hole."""

    brush_strokes: int = 4
    """Most strokes of a brush hole."""

    brush_vertices: int = 8
    """Most segments of one stroke."""

    brush_width: float = 0.25
    """Greatest width of a stroke."""

    min_visible: float = 0.5
    """An object that a crop shows less than this share of is not asked for."""

    def __post_init__(self) -> None:
        _check_range("holes.brush_probability", self.brush_probability, 0, 1)
        for name in OBJECT_HOLES:
            _check_range(f"holes.{name}", getattr(self, name), 0)
        if not any(getattr(self, name) for name in OBJECT_HOLES):
            raise UserError("holes", f"needs a weight above 0 among {', '.join(OBJECT_HOLES)}")
        for name in ("dilation", "box_margin", "rough_cell"):
            _check_span(f"holes.{name}", getattr(self, name))
        _check_range("holes.brush_strokes", self.brush_strokes, 1)
        _check_range("holes.brush_vertices", self.brush_vertices, 1)
        _check_range("holes.brush_width", self.brush_width, 0, 1)
        _check_range("holes.min_visible", self.min_visible, 0, 1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where records come from and how they become samples."""

    source: str = "sticker"
    """Name of a registered record source, or the folder of an annotated dataset."""

    source_seed: int = 0
    """Seed of the source, apart from the run's seed so that runs can share their pictures."""

    size: int = 64
    """Side of the square training image in pixels."""

    max_aspect: float = 1.0
    """Longer over shorter side of the most elongated training image: above 1, pictures go into buckets near
    their own shape, of at most `size` x `size` pixels; 1: all are cropped square."""

    bucket_step: int = 64
    """Sides of images that are not square are multiples of this."""

    records: int = 0
    """Use the first so many records of the source; 0: all of them."""

    holes_per_image: int = 2
    """Variants (hole and prompt) kept of each record; 0: a fresh one at every visit (uncached only)."""

    holes_per_object: int = 0
    """Variants kept of every object, the first its exact mask; `holes_per_image` then counts the brush holes.
    0: objects are drawn for `holes_per_image`."""

    empty_prompt: float = 0.1
    """Probability of an empty prompt, so that guidance works (docs/method.md, section 5)."""

    plain_texts: float = 0.0
    """Share of object holes whose text is what users type, "a red apple", and not the detailed description:
    what style it has must then come from around the hole."""

    posterior: str = "mean"
    """Latents that the step sees: the `mean` of the VAE's posterior, or a `sample` of it at every visit."""

    cache: bool = True
    """Encode every record once, and read the latents from disk while training."""

    cache_dtype: str = "float16"
    """How cached latents and text embeddings are stored: `float16` or `float32`."""

    cache_dir: str = ""
    """Folder of the latent cache that `mta train cache` made, which is then used; empty: `latent_cache` in
    the run's folder, if `cache` says so."""

    shard_records: int = 256
    """Records a file of a new cache."""

    workers: int = 0
    """Processes that make samples ahead, or render records while the cache is filled; 0: in-process."""

    encode_batch: int = 64
    """Images a VAE call while the cache is filled."""

    max_damaged: float = 0.25
    """Records that cannot be read are skipped and counted; a greater share of them ends the run."""

    holes: HoleConfig = field(default_factory=HoleConfig)
    """The holes of the samples."""

    def __post_init__(self) -> None:
        _check_range("data.size", self.size, 16)
        _check_range("data.records", self.records, 0)
        _check_range("data.max_aspect", self.max_aspect, 1, 4)
        _check_range("data.bucket_step", self.bucket_step, 1)
        _check_range("data.holes_per_image", self.holes_per_image, 0, 64)
        _check_range("data.holes_per_object", self.holes_per_object, 0, 64)
        _check_range("data.empty_prompt", self.empty_prompt, 0, 1)
        _check_range("data.plain_texts", self.plain_texts, 0, 1)
        _check_choice("data.posterior", self.posterior, ("mean", "sample"))
        _check_choice("data.cache_dtype", self.cache_dtype, ("float16", "float32"))
        _check_range("data.workers", self.workers, 0, 256)
        _check_range("data.encode_batch", self.encode_batch, 1)
        _check_range("data.shard_records", self.shard_records, 1)
        _check_range("data.max_damaged", self.max_damaged, 0, 1)
        if self.holes_per_object and self.holes_per_image == 0:
            rule, remedy = "needs data.holes_per_image of at least 1", "they are the brush holes"
            raise UserError("data.holes_per_object", rule, self.holes_per_object, remedy)
        if self.cache and not self.cache_dir and self.holes_per_image == 0:
            raise UserError(
                "data.holes_per_image", "must be at least 1 with data.cache", 0, "or set data.cache=false"
            )

    @property
    def cached(self) -> bool:
        """Whether training reads a latent cache."""
        return self.cache or bool(self.cache_dir)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The joint objective gamma*L_noise + delta*L_style + eta*L_structure (docs/method.md, sections 3-5), and
    a perceptual and an adversarial loss that the paper has not."""

    gamma: float = 1.0
    """Weight of the noise loss."""

    delta: float = 100.0
    """Weight of the style loss; 0 leaves it and its VGG out."""

    eta: float = 0.1
    """Weight of the structure loss; 0 leaves it out."""

    perceptual: float = 0.0
    """Weight of the distance, in the hole, between the style VGG's features of the predicted clean latents
    and of the true ones (Johnson et al. 2016; Lin and Yang 2023, arXiv 2401.00110); 0 leaves it out."""

    adversarial: float = 0.0
    """Weight of what a critic, which is trained along, misses of true latents in the predicted clean ones;
    0 leaves it out. `critic` has its settings."""

    min_snr: float = 0.0
    """Most that a sample's signal-to-noise ratio counts for in the noise loss (Hang et al. 2023, arXiv
    2303.09556; they take 5); 0: all timesteps count alike, as in the paper."""

    hole_weight: float = 1.0
    """How much an error of the noise loss in the hole counts beside one outside it."""

    timestep_power: float = 1.0
    """Timesteps are a uniform number to this power: at 1 all are alike, as in the paper; below 1 more of
    them are late, where layout and style are decided."""

    noise_offset: float = 0.0
    """Strength of noise that is one value a channel, added to the noise, so that very dark and very bright
    pictures are learnt (Guttenberg 2023; 0.1 is usual); 0: none."""

    edge_target: str = "sobel"
    """Name of the structure target."""

    edge_downsampling: str = "area"
    """What a latent cell takes of its pixels' edges: their mean (`area`) or their `max`."""

    edge_reduction: str = "sum"
    """`sum` over the h*w entries as the paper writes it, or their `mean`."""

    edge_region: str = "whole"
    """Where edges are compared: `whole` map or `hole` only."""

    style_step: int | str = 1
    """Training timesteps of the DDIM step before styles are compared (1: the paper), or `x0`."""

    style_noise: str = "same"
    """Noise of the latents compared with: the `same` as in the noisy latents, or `fresh`."""

    style_region: str = "whole"
    """Where styles are compared: `whole` latents or `hole` only (known cells taken from the reference)."""

    gram_normalisation: str = "chw"
    """What Gram matrices are divided by: the features' `chw` or `hw` sizes, or `none` of them."""

    def __post_init__(self) -> None:
        for name in ("gamma", "delta", "eta", "perceptual", "adversarial", "min_snr", "noise_offset"):
            _check_range(f"loss.{name}", getattr(self, name), 0)
        for name in ("hole_weight", "timestep_power"):
            _check_range(f"loss.{name}", getattr(self, name), 0.01, 100)
        _check_choice("loss.edge_downsampling", self.edge_downsampling, ("area", "max"))
        _check_choice("loss.edge_reduction", self.edge_reduction, ("sum", "mean"))
        _check_choice("loss.edge_region", self.edge_region, ("whole", "hole"))
        _check_choice("loss.style_noise", self.style_noise, ("same", "fresh"))
        _check_choice("loss.style_region", self.style_region, ("whole", "hole"))
        _check_choice("loss.gram_normalisation", self.gram_normalisation, ("chw", "hw", "none"))
        if isinstance(self.style_step, str):
            _check_choice("loss.style_step", self.style_step, ("x0",))
        else:
            _check_range("loss.style_step", self.style_step, 1)

    @property
    def needs_vgg(self) -> bool:
        """Whether a loss is switched on that reads the style VGG's features."""
        return self.delta > 0 or self.perceptual > 0 or self.adversarial > 0


@dataclass(frozen=True, kw_only=True)
class StyleVGGConfig:
    """The VGG of the style loss (docs/method.md, section 4)."""

    initialise: str = "trained"
    """`trained` (a LatentVGG folder), `mean` or `folded` (from an RGB VGG-16), or `random`."""

    weights: str = ""
    """LatentVGG folder or registered name for `trained`; safetensors file of an RGB VGG-16 otherwise."""

    widths: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    """Widths of the convolutions of each stage, the 16-layer VGG's; `trained` brings its own shape."""

    pools: tuple[bool, ...] = (False, False, False, True)
    """Whether a max-pool follows each stage but the last; not for `trained`."""

    taps: tuple[int | None, ...] = ()
    """Which ReLU of each stage is compared, from 0 (None: none); empty: the first; not for `trained`."""

    freeze: bool = False
    """Keep the VGG as it is instead of training it at `lr`."""

    lr: float = 1e-7
    """Learning rate of the VGG."""

    calibration_images: int = 64
    """Latents over which features are rescaled to unit RMS; 0 keeps the stored scales."""

    @classmethod
    def narrow(cls, calibration_images: int = 64) -> StyleVGGConfig:
        """A shallow, narrow VGG with random weights, for 16x16 latents."""
        return cls(
            initialise="random",
            widths=((16,), (32,), (64,)),
            pools=(False, True),
            calibration_images=calibration_images,
        )

    def __post_init__(self) -> None:
        _check_choice("style_vgg.initialise", self.initialise, ("trained", "mean", "folded", "random"))
        if not self.widths or len(self.pools) != len(self.widths) - 1:
            raise UserError(
                "style_vgg.pools", f"must be {len(self.widths) - 1}, one between stages", self.pools
            )
        if self.taps and len(self.taps) != len(self.widths):
            raise UserError("style_vgg.taps", f"must be {len(self.widths)}, one a stage", self.taps)
        _check_range("style_vgg.lr", self.lr, 0, 1)
        _check_range("style_vgg.calibration_images", self.calibration_images, 0)
        if self.initialise != "random" and not self.weights:
            raise UserError("style_vgg.weights", f"is needed for style_vgg.initialise={self.initialise!r}")


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The critic of the adversarial loss (docs/method.md, "Beyond the paper")."""

    width: int = 96
    """Channels of its layers."""

    lr: float = 3e-4
    """Peak learning rate."""

    betas: tuple[float, float] = (0.0, 0.99)
    """AdamW's averaging factors; what a critic sees changes with what it has taught, so that it forgets
    sooner than others."""

    noise: float = 0.3
    """Standard deviation, at most, of noise on what it sees, true and predicted alike."""

    def __post_init__(self) -> None:
        _check_range("critic.width", self.width, 1)
        _check_range("critic.lr", self.lr, 0, 1)
        _check_range("critic.noise", self.noise, 0)
        for beta in self.betas:
            _check_range("critic.betas", beta, 0, 0.99999)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, its schedule, clipping and the moving average (docs/method.md, section 5)."""

    lr: float = 1e-5
    """Peak learning rate of the branch."""

    kind: str = "adamw"
    """`adamw`; `adamw8bit` keeps its moments in a quarter of the memory (bitsandbytes, on a GPU); `sgd` has
    none and serves comparisons, because AdamW makes much of gradients that differ in rounding alone."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging factors."""

    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""

    clip: float = 1.0
    """Greatest gradient norm; 0 switches clipping off."""

    warmup: int = 500
    """Steps over which the rate rises linearly from 0."""

    schedule: str = "constant"
    """After the warm-up: `constant` or `cosine`."""

    decay_share: float = 0.0
    """Last share of the run over which a constant rate falls linearly to `final` of itself."""

    final: float = 0.0
    """What is left of the rate at the end of `cosine` or of the decay, as a factor."""

    ema: float = 0.999
    """Decay of the moving average of the branch's weights; 0 exports the last weights."""

    def __post_init__(self) -> None:
        _check_choice("optim.kind", self.kind, ("adamw", "adamw8bit", "sgd"))
        _check_range("optim.lr", self.lr, 0, 1)
        for beta in self.betas:
            _check_range("optim.betas", beta, 0, 0.9999999)
        _check_range("optim.weight_decay", self.weight_decay, 0)
        _check_range("optim.clip", self.clip, 0)
        _check_range("optim.warmup", self.warmup, 0)
        _check_choice("optim.schedule", self.schedule, ("constant", "cosine"))
        _check_range("optim.decay_share", self.decay_share, 0, 1)
        _check_range("optim.final", self.final, 0, 1)
        _check_range("optim.ema", self.ema, 0, 0.9999999)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What is looked at while training goes on."""

    every: int = 1000
    """Steps between validations; 0 switches them off."""

    samples: int = 64
    """Held-out samples whose losses are measured, with noise that is the same every time; 0: none."""

    images: int = 6
    """Held-out scenes drawn as a contact sheet; 0: none."""

    timesteps: tuple[int, ...] = (50, 250, 500, 750, 950)
    """Timesteps at which the held-out samples' noise loss is taken, by kind of hole; empty: at none."""

    steps: int = 20
    """Denoising steps of the sheet's pictures."""

    guidance_scale: float = 5.0
    """Guidance of the sheet's pictures."""

    def __post_init__(self) -> None:
        _check_range("validation.every", self.every, 0)
        _check_range("validation.samples", self.samples, 0)
        _check_range("validation.images", self.images, 0, 64)
        for timestep in self.timesteps:
            _check_range("validation.timesteps", timestep, 0, 999)
        _check_range("validation.steps", self.steps, 1, 1000)
        _check_range("validation.guidance_scale", self.guidance_scale, 0, 100)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of a branch."""

    backbone: str = "sticker"
    """Registered name, folder, hub id or safetensors file of a Stable Diffusion 1.x, 2.x or XL backbone."""

    seed: int = 0
    """Names every random stream of the run together with a purpose and a sample's number."""

    steps: int = 1000
    """Optimiser steps."""

    batch_size: int = 16
    """Samples a forward pass of each process."""

    accumulate: int = 1
    """Forward passes a step, whose gradients are averaged: more samples a step in the same memory."""

    device: str = "cpu"
    """Torch device."""

    precision: str = "fp32"
    """`fp32`, or `bf16` or `fp16` for autocast in the branch and the UNet; trained weights stay fp32, and
    `fp16` scales the loss."""

    frozen_dtype: str = "float32"
    """How the frozen UNet and text encoder are held: `float32`, or with autocast `bfloat16` or `float16`."""

    compile: bool = False
    """Compile the frozen UNet's transformer blocks: minutes at the start, quicker steps on a GPU."""

    tf32: bool = True
    """Let a GPU round the factors of fp32 products to 10 bits of mantissa, which is several times faster."""

    channels_last: bool = False
    """Memory layout of convolutions; quicker on some machines."""

    log_every: int = 50
    """Steps between log lines; gradient norms a loss are taken on these steps only."""

    checkpoint_every: int = 500
    """Steps between checkpoints; 0: only at the end."""

    keep_checkpoints: int = 2
    """Newest checkpoints that stay on disk."""

    keep_every: int = 0
    """Checkpoints of steps that are multiples of this stay on disk for good; 0: none."""

    max_skipped: int = 20
    """Steps whose loss or gradient is not finite are skipped; more than so many in a run end it."""

    branch: BranchConfig = field(default_factory=BranchConfig)
    """The branch."""

    data: DataConfig = field(default_factory=DataConfig)
    """Records, holes and the latent cache."""

    loss: LossConfig = field(default_factory=LossConfig)
    """The objective."""

    style_vgg: StyleVGGConfig = field(default_factory=StyleVGGConfig.narrow)
    """The VGG of the style loss."""

    critic: CriticConfig = field(default_factory=CriticConfig)
    """The critic of the adversarial loss."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""

    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation while training."""

    def __post_init__(self) -> None:
        _check_range("seed", self.seed, 0, 2**63 - 1)
        _check_range("steps", self.steps, 1)
        _check_range("batch_size", self.batch_size, 1)
        _check_range("accumulate", self.accumulate, 1)
        _check_choice("precision", self.precision, ("fp32", "bf16", "fp16"))
        _check_choice("frozen_dtype", self.frozen_dtype, ("float32", "bfloat16", "float16"))
        if self.frozen_dtype != "float32" and self.precision == "fp32":
            raise UserError("frozen_dtype", "needs autocast", self.frozen_dtype, "set precision=bf16")
        _check_range("log_every", self.log_every, 1)
        _check_range("checkpoint_every", self.checkpoint_every, 0)
        _check_range("keep_checkpoints", self.keep_checkpoints, 1)
        _check_range("keep_every", self.keep_every, 0)
        _check_range("max_skipped", self.max_skipped, 0)
        if self.loss.eta > 0 and not self.branch.edge_head:
            raise UserError("loss.eta", "needs branch.edge_head", self.loss.eta, "set loss.eta=0")

    @property
    def samples_a_step(self) -> int:
        """Samples of each process that one optimiser step averages over."""
        return self.batch_size * self.accumulate
