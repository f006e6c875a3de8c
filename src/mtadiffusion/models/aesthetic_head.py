"""LAION's aesthetic predictor of 2022: one linear layer on the unit image vector of OpenAI's CLIP ViT-L/14
(https://github.com/LAION-AI/aesthetic-predictor), a score from about 1 to 10. Its weights,
`sa_0_4_vit_l_14_linear.pth`, are published there and not shipped here.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from mtadiffusion.errors import UserError


def load_head(path: str) -> tuple[np.ndarray, float]:
    """(weight (D,), bias) of a linear layer with one output.

    Raises:
        UserError: no such file, or no such layer in it.
    """
    content = _read(path)
    stream = io.BytesIO(content)
    try:
        if path.endswith(".safetensors"):
            tensors = load(content)
        else:
            tensors = torch.load(stream, map_location="cpu", weights_only=True)
        weight, bias = tensors["weight"].float(), tensors["bias"].float()
        return weight.reshape(-1).numpy(), float(bias.reshape(()))
    except Exception as error:  # whatever the loaders make of a file that is something else
        found = f"{path}, {len(content)} bytes"
        raise UserError("aesthetic.head", "must hold `weight` and `bias` of a linear layer", found) from error


def head_digest(path: str) -> str:
    """Sixteen hex digits of the file's content. Raises UserError where there is no such file."""
    return hashlib.blake2b(_read(path), digest_size=8).hexdigest()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        remedy = "take sa_0_4_vit_l_14_linear.pth of LAION's aesthetic-predictor"
        raise UserError("aesthetic.head", f"cannot be read ({error.strerror})", path, remedy) from error
