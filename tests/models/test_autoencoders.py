"""Latents and pictures, and the precision that a VAE asks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from mtadiffusion.models.autoencoders import decode_latents, encode_latents, overflows_in_half


@pytest.fixture
def vae(sdxl_folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(sdxl_folder / "vae")


@torch.no_grad()
def test_latents_are_the_scaled_mode(vae: AutoencoderKL) -> None:
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = encode_latents(vae, picture)
    torch.testing.assert_close(latents, vae.encode(picture).latent_dist.mode() * 0.13025)
    expected = vae.decode(latents / 0.13025).sample
    torch.testing.assert_close(decode_latents(vae, latents), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_vae_that_overflows_in_half_runs_in_float32_and_stays_half(vae: AutoencoderKL) -> None:
    vae.to(torch.float16)
    latents = encode_latents(vae, torch.rand(1, 3, 64, 64).half())
    assert latents.dtype == torch.float32
    assert decode_latents(vae, latents.half()).dtype == torch.float32
    assert vae.dtype == torch.float16


def test_diffusers_default_is_no_wish_of_the_vae(backbone_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone_folder / "vae", tmp_path / "vae")
    config = (folder / "config.json").read_text().replace('"force_upcast": true,', "")
    (folder / "config.json").write_text(config)
    silent = AutoencoderKL.from_pretrained(folder)
    assert silent.config.force_upcast
    assert not overflows_in_half(silent)
    assert overflows_in_half(AutoencoderKL.from_pretrained(backbone_folder / "vae"))
