"""Prompts encoded as the stock pipelines encode them, with one encoder and with SDXL's two."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from mtadiffusion.models.loading import load_components
from mtadiffusion.models.text_encoders import TextEncoders

TEXTS = ["a red apple", "", "a glossy painting of a cat"]
NAMES = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "force_zeros_for_empty_prompt")


def encoders_of(folder: Path, **changes: bool) -> TextEncoders:
    parts = load_components(folder, torch.float32)
    return TextEncoders(**{**{name: parts[name] for name in NAMES if name in parts}, **changes})


@torch.no_grad()
def test_sdxls_two_encoders_give_what_the_stock_pipeline_gives(sdxl_folder: Path) -> None:
    stock = StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    expected, _, pooled, _ = stock.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
    states = encoders_of(sdxl_folder, force_zeros_for_empty_prompt=False).encode(TEXTS, "cpu")
    assert torch.equal(states.tokens, expected)
    assert states.pooled is not None
    assert torch.equal(states.pooled, pooled)
    assert states.tokens.shape == (3, 77, 16 + 24)


def test_an_empty_prompt_is_all_zeros_where_the_backbone_asks_for_it(sdxl_folder: Path) -> None:
    states = encoders_of(sdxl_folder).encode(TEXTS, "cpu")
    assert states.pooled is not None
    for values in (states.tokens, states.pooled):
        assert [bool(row.any()) for row in values] == [True, False, True]


@torch.no_grad()
def test_one_encoder_gives_what_the_stock_pipeline_gives(backbone_folder: Path) -> None:
    stock = StableDiffusionPipeline.from_pretrained(backbone_folder, safety_checker=None)
    expected, _ = stock.encode_prompt(TEXTS, "cpu", 1, False)
    states = encoders_of(backbone_folder).encode(TEXTS, "cpu")
    assert torch.equal(states.tokens, expected)
    assert states.pooled is None


def test_only_named_prompts_are_warned_about(sdxl_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoders, long = encoders_of(sdxl_folder), "cat " * 100
    with caplog.at_level(logging.WARNING):
        encoders.encode([long], "cpu")
        assert not caplog.records
        encoders.encode([long], "cpu", "prompt")
    assert [record.args[1:3] for record in caplog.records] == [(75, 25)]
