"""Text-guided object inpainting: an open implementation of MTADiffusion (CVPR 2025).

The public names are imported lazily, so that `import mtadiffusion` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "MTAInpaintPipeline": "mtadiffusion.inpaint.pipeline",
    "InpaintBranch": "mtadiffusion.models.branch",
    "LatentVGG": "mtadiffusion.models.latent_vgg",
    "ImageRecord": "mtadiffusion.records",
    "ObjectRecord": "mtadiffusion.records",
    "UserError": "mtadiffusion.errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
