"""Pictures to latents and back, for training and for inference alike.

z = (mode of the VAE's posterior - shift) * scaling factor (`docs/method.md`, notation).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def encode_latents(vae: Any, pictures: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, C, h, w), in the dtype that the VAE ran in."""
    return encode_posterior(vae, pictures)[0]


def encode_posterior(vae: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [-1, 1] -> mode and deviation of the posterior of z, (B, C, h, w) each.

    The deviation is 0 where the autoencoder gives a point.
    """
    with _safe_dtype(vae):
        encoded = vae.encode(pictures.to(vae.dtype))
    factor = vae.config.scaling_factor
    if hasattr(encoded, "latents"):
        return (encoded.latents - _shift(vae)) * factor, torch.zeros_like(encoded.latents)
    posterior = encoded.latent_dist
    return (posterior.mode() - _shift(vae)) * factor, posterior.std * factor


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 3, H, W) in [-1, 1], in the dtype that the VAE ran in; not clamped."""
    with _safe_dtype(vae):
        unscaled = latents.to(vae.dtype) / vae.config.scaling_factor + _shift(vae)
        return vae.decode(unscaled, return_dict=False)[0]


def overflows_in_half(vae: Any) -> bool:
    """Whether the VAE's own config.json says that float16 is too narrow for it (`force_upcast`; SDXL's).

    Where it says nothing diffusers fills in true, for every Stable Diffusion 1.5 too; that does not count.
    """
    unsaid = vae.config.get("_use_default_values", ())
    return bool(vae.config.get("force_upcast", False)) and "force_upcast" not in unsaid


@contextlib.contextmanager
def _safe_dtype(vae: Any) -> Iterator[None]:
    """Within the block the VAE is in float32 if it overflows in the float16 that it is held in."""
    if vae.dtype != torch.float16 or not overflows_in_half(vae):
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(torch.float16)


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0
