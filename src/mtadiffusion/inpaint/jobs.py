"""What the pipeline works on: the results to be made, and what the sampling loop carries for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtadiffusion.imaging.blending import Blend
from mtadiffusion.inpaint import inputs
from mtadiffusion.inpaint.regions import Region, stitch


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to be made."""

    picture: torch.Tensor
    """(3, H, W) float in [0, 1], the input."""

    hole: torch.Tensor
    """(H, W) bool, True = to be generated."""

    region: Region
    """Where the model works."""

    prompt: int
    """Index into the text embeddings."""


@dataclass(kw_only=True)
class State:
    """What the sampling loop carries for n results; a callback may replace its tensors."""

    latents: torch.Tensor
    """(n, C, h, w)."""

    noise: torch.Tensor
    """(n, C, h, w), what the latents started from, at unit variance."""

    prompt_embeds: torch.Tensor
    """(n or 2n, tokens, width); when guided, the negative half is first."""

    added: dict[str, torch.Tensor] | None
    """SDXL's pooled text and sizes, in halves like prompt_embeds."""

    known: torch.Tensor
    """(n, 1, h, w), 1 = known."""

    masked_latents: torch.Tensor | None
    """(n, C, h, w); None: the branch is not run."""

    known_latents: torch.Tensor | None
    """(n, C, h, w), clean; None: no latent blending."""

    edge: torch.Tensor | None = None
    """(n, 1, h, w), the edges that the branch predicted last; None: it has no edge head, or has not run."""

    def edges(self) -> list[torch.Tensor | None]:
        """The predicted edges as n maps, float32 (h, w) on the CPU."""
        if self.edge is None:
            return [None] * len(self.latents)
        return [*self.edge[:, 0].float().cpu()]

    def replace(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what a callback returned."""
        for name in inputs.CALLBACK_TENSORS:
            setattr(self, name, tensors.get(name, getattr(self, name)))


def alike(jobs: list[Job]) -> list[list[int]]:
    """Indices of the jobs, grouped by the shape that the model works at."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(job.region.work_size, []).append(index)
    return list(groups.values())


def put_back(job: Job, drawn: torch.Tensor, blend: Blend, feather: float) -> torch.Tensor:
    """The job's picture (3, H, W) with what was drawn, (3, h, w) in [0, 1], in its hole."""
    return stitch(job.picture, job.hole, drawn, job.region, blend=blend, feather=feather)
