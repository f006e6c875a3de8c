"""How the embedded model's pictures are drawn where nobody says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 20
BRANCH_GUIDANCE = 2.0
BACKBONE_GUIDANCE = 2.0
TEXT_GUIDANCE = 2.0
"""Guidance scales, alike for all; `measure --tune-guidance` compares others on the validation split."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the pictures of one measurement are drawn."""

    steps: int = STEPS
    """Denoising steps."""

    branch_guidance: float = BRANCH_GUIDANCE
    """Guidance scale of the branch."""

    backbone_guidance: float = BACKBONE_GUIDANCE
    """Guidance scale of the backbone alone."""

    text_guidance: float = TEXT_GUIDANCE
    """Guidance scale of text to image."""

    seed: int = 0
    """Of the initial noise; each picture has a stream of its own."""
