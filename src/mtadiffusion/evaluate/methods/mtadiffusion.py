"""The rows that MTAInpaintPipeline draws: this project's, a backbone alone, BrushNet, blended latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.canvas import Canvas, prepare
from mtadiffusion.evaluate.methods.method import Drawn, Request
from mtadiffusion.evaluate.methods.template import BACKBONE_PARTS, DiffusionMethod, check_span, generator_of
from mtadiffusion.models.registry import (
    NO_BRANCH,
    default_branch,
    load_pipeline,
    resolve_backbone,
    resolve_branch,
)

if TYPE_CHECKING:
    import torch

_MOST_BRANCH_SCALE = 10.0


@dataclass(kw_only=True)
class BackboneAlone(DiffusionMethod):
    """Text to image, its result laid into the hole: what the branch has to be better than."""

    kind: ClassVar[str] = "backbone"

    model: str = "sticker"
    """A backbone: a name, a folder or a hub id."""

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """The backbone."""
        return {"model": (resolve_backbone(self.model, f"{self.kind}:model"), BACKBONE_PARTS)}

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """The pipeline without a branch."""
        return load_pipeline(self.model, NO_BRANCH, dtype, str(place))

    def inputs(self, canvas: Canvas) -> dict[str, Any]:
        """The picture and its hole; the result is not blended by the pipeline."""
        return {
            "image": canvas.picture,
            "mask_image": canvas.work_hole[None].float(),
            "resolution": self.settings.size,
            "blend": "none",
            "latent_blending": False,
        }

    def generate_batch(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """What `generate` gives for each request, to rounding."""
        if not all(one.hole.any() for one in requests):
            return [self.generate(one.image, one.hole, one.prompt, one.seed) for one in requests]
        canvases = self._canvases(requests)
        drawn = self._pipe(**self._together(requests, canvases)).images
        return self._finished(canvases, drawn)

    def _canvases(self, requests: Sequence[Request]) -> list[Canvas]:
        return [prepare(one.image, one.hole, self.settings.size) for one in requests]

    def _together(self, requests: Sequence[Request], canvases: Sequence[Canvas]) -> dict[str, Any]:
        """The pipeline's arguments for several requests."""
        return {
            **self.inputs(canvases[0]),
            "prompt": [self.wording(one.prompt) for one in requests],
            "image": [canvas.picture for canvas in canvases],
            "mask_image": [canvas.work_hole[None].float() for canvas in canvases],
            "generator": [generator_of(one.seed) for one in requests],
            **self.sampling(),
        }

    def _finished(self, canvases: Sequence[Canvas], drawn: Sequence[torch.Tensor]) -> list[np.ndarray]:
        return [canvas.finish(one, self.settings.blend) for canvas, one in zip(canvases, drawn, strict=True)]


@dataclass(kw_only=True)
class MTADiffusion(BackboneAlone):
    """The backbone with a branch."""

    kind: ClassVar[str] = "mtadiffusion"
    models: ClassVar[tuple[str, ...]] = ("model", "branch")

    branch: str | None = None
    """A name, a folder or a hub id; the one that goes with the backbone by default."""

    branch_scale: float = 1.0
    """Weight of the branch's features."""

    latent_known: ClassVar[str] = "any"
    """How the hole reaches latent size, see MTAInpaintPipeline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_span(self.branch_scale, _MOST_BRANCH_SCALE, f"{self.kind}:branch_scale")
        if self.branch == NO_BRANCH:
            remedy = "name the method backbone or blended-latent"
            raise UserError(f"{self.kind}:branch", "must be a branch", self.branch, remedy)

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """The backbone and the branch."""
        branch = resolve_branch(self._branch_name(), f"{self.kind}:branch")
        return {**super().sources(), "branch": (branch, (".",))}

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """The pipeline with the branch."""
        return load_pipeline(self.model, self._branch_name(), dtype, str(place))

    def inputs(self, canvas: Canvas) -> dict[str, Any]:
        """As of the backbone alone, and how the branch sees the hole."""
        own = {"branch_scale": self.branch_scale, "latent_known": self.latent_known}
        return {**super().inputs(canvas), **own}

    def generate_with_edges(self, requests: Sequence[Request]) -> list[Drawn]:
        """As `generate_batch`, with the edges that the branch predicts at the last step, if it has the head.

        There are none of a picture that is not square, of which the pipeline may see a part only.
        """
        if not (self._predicts_edges and all(one.hole.any() for one in requests)):
            return [Drawn(picture=picture) for picture in self.generate_batch(requests)]
        canvases = self._canvases(requests)
        made = self._pipe(**self._together(requests, canvases), output_edges=True)
        results = zip(canvases, self._finished(canvases, made.images), made.edges, strict=True)
        return [Drawn(picture=one, edges=self._over_whole(canvas, edges)) for canvas, one, edges in results]

    @property
    def _predicts_edges(self) -> bool:
        return bool(self.branch_scale and self._pipe.branch.config.edge_head)

    def _over_whole(self, canvas: Canvas, edges: torch.Tensor | None) -> np.ndarray | None:
        """The predicted edges where they are of the whole canvas."""
        cells = tuple(side // self._pipe.vae_scale_factor for side in canvas.size)
        return None if edges is None or edges.shape != cells else edges.numpy()

    def _branch_name(self) -> str:
        return default_branch(self.model) if self.branch is None else self.branch


@dataclass(kw_only=True)
class BrushNet(MTADiffusion):
    """An official BrushNet checkpoint, read into this project's residual branch."""

    kind: ClassVar[str] = "brushnet"
    latent_known: ClassVar[str] = "nearest"

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    """A backbone: a name, a folder or a hub id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branch is None:
            remedy = (
                "pass branch=FOLDER, BrushNet's segmentation_mask_brushnet_ckpt or random_mask_brushnet_ckpt"
            )
            raise UserError(f"{self.kind}:branch", "is needed", None, remedy)


@dataclass(kw_only=True)
class BlendedLatent(BackboneAlone):
    """Blended Latent Diffusion (Avrahami et al. 2023), without its decoder's optimisation for each image."""

    kind: ClassVar[str] = "blended-latent"

    strength: float = 0.75
    """Share of the steps that are run, from the noised picture with its hole filled by a continuation of its
    surroundings; 1 starts from noise alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength <= 1:
            rule = "must be above 0 and at most 1"
            raise UserError(f"{self.kind}:strength", rule, self.strength, "the paper's code has 0.75")

    def load(self, place: torch.device, dtype: torch.dtype) -> Any:
        """The pipeline without a branch, made to start late."""
        from mtadiffusion.evaluate.methods.late_start import LateStartPipeline

        return LateStartPipeline.taking_over(super().load(place, dtype), self.strength)

    def inputs(self, canvas: Canvas) -> dict[str, Any]:
        """As of the backbone alone, with the known latents put back after each step."""
        return {**super().inputs(canvas), "latent_blending": True}
