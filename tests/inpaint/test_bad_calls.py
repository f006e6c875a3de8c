"""Each mistake that a caller of the pipeline can make, and the one line that answers it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, SchedulerMixin
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline

STEPS_RULE = "num_inference_steps must be a whole number between 1 and 1000"
WRONG_VALUES = [
    ({"num_inference_steps": 0}, f"{STEPS_RULE}, got 0"),
    ({"num_inference_steps": 1001}, f"{STEPS_RULE}, got 1001"),
    ({"num_inference_steps": 2.5}, f"{STEPS_RULE}, got 2.5"),
    ({"num_inference_steps": "9"}, f"{STEPS_RULE}, got '9'"),
    ({"guidance_scale": math.nan}, "guidance_scale must be a number of at least 0, got nan"),
    ({"guidance_scale": -1}, "guidance_scale must be a number of at least 0, got -1"),
    ({"guidance_scale": math.inf}, "guidance_scale must be a number of at least 0, got inf"),
    ({"guidance_scale": None}, "guidance_scale must be a number of at least 0"),
    ({"num_images_per_prompt": 0}, "num_images_per_prompt must be a whole number of at least 1, got 0"),
    ({"branch_scale": math.nan}, "branch_scale must be a number, got nan"),
    ({"latent_known": "all"}, "latent_known must be one of nearest, any, got 'all'"),
    ({"eta": 2}, "eta must be a number between 0 and 1, got 2"),
    ({"blend": "poisson"}, "blend must be one of paste, brushnet, none, got 'poisson'"),
    ({"feather": 3}, "feather must be a number between 0 and 2, got 3"),
    ({"output_type": "jpeg"}, "output_type must be one of pil, np, pt, latent, got 'jpeg'"),
    ({"resolution": 4}, "resolution must be a whole number of at least 8, got 4"),
    ({"resolution": 65}, "resolution must be a multiple of 8, got 65"),
    ({"prompt": None}, "prompt must be text or a list of texts"),
    ({"prompt": 7}, "prompt must be text or a list of texts, got 7"),
    ({"prompt": ["a", 7]}, "prompt must be text or a list of texts, got 7"),
    ({"prompt": []}, "prompt must not be an empty list"),
    ({"negative_prompt": 7}, "negative_prompt must be text or a list of texts, got 7"),
    ({"negative_prompt": ["a", "b"]}, "negative_prompt must have 1 entry or 1, got 2"),
    ({"image": None}, "image must be a PIL image, array, tensor or a list of them, got 'NoneType'"),
    ({"image": Image.new("RGB", (0, 0))}, "image must not be zero-sized, got '0x0'"),
    ({"mask_image": None}, "mask_image must be an image or a numeric array, got 'NoneType'"),
    ({"mask_image": Image.new("L", (112, 96))}, "mask_image has no hole; paint the part that is to be"),
    ({"mask_image": Image.new("L", (112, 96), 127)}, "mask_image has no hole"),
    (
        {"mask_image": Image.new("L", (96, 112), 255)},
        "mask_image must have the size of image, 112x96, got '96x112'; resize the mask",
    ),
    ({"prompt": ["a"] * 3, "image": [Image.new("1", (112, 96))] * 2}, "image must have 1 entry or 3, got 2"),
    ({"generator": 5}, "generator must be a torch.Generator or a list of them, got 5"),
    ({"generator": [torch.Generator()] * 3}, "generator must have one entry for each of the 1 results, got"),
    (
        {"callback_on_step_end_tensor_inputs": ["image"]},
        "callback_on_step_end_tensor_inputs must be one of latents, prompt_embeds, masked_latents, known",
    ),
    (
        {"prompt": None, "prompt_embeds": torch.zeros(1, 77, 16)},
        "negative_prompt_embeds is needed for guidance; pass it or set guidance_scale=1",
    ),
    (
        {"prompt": "x", "prompt_embeds": torch.zeros(1, 77, 16)},
        "prompt must not be given together with prompt_embeds, got 'x'",
    ),
    (
        {
            "prompt": None,
            "prompt_embeds": torch.zeros(2, 77, 16),
            "negative_prompt_embeds": torch.zeros(1, 77, 16),
        },
        "negative_prompt_embeds must have as many entries as prompt_embeds, 2, got 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), WRONG_VALUES)
def test_a_wrong_argument_is_named(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, wrong: dict, message: str
) -> None:
    call = {"prompt": "x", "image": picture, "mask_image": hole, "num_inference_steps": 1, **wrong}
    with pytest.raises(UserError) as error:
        pipe(**call)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("scheduler", "steps"), [(PNDMScheduler(), 2), (DDIMScheduler(num_train_timesteps=50), 60)]
)
def test_steps_that_the_scheduler_cannot_serve_are_named(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, scheduler: SchedulerMixin, steps: int
) -> None:
    pipe.scheduler = scheduler
    with pytest.raises(UserError) as error:
        pipe("x", picture, hole, num_inference_steps=steps)
    name = type(scheduler).__name__
    assert str(error.value).startswith(f"num_inference_steps cannot be served by {name} (")
    assert str(error.value).endswith(f"got {steps}; use another number of steps or another scheduler")


def test_nothing_is_drawn_before_the_arguments_are_checked(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    with pytest.raises(UserError, match="guidance_scale"):
        pipe("x", picture, hole, guidance_scale=-1, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_a_backbone_with_added_embeddings_asks_for_them(
    parts: dict, picture: np.ndarray, hole: np.ndarray, make_unet: Callable
) -> None:
    unet = make_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=8 + 6 * 4,
    )
    pipe = MTAInpaintPipeline(**{**parts, "unet": unet, "branch": None})
    with pytest.raises(UserError, match="pooled_prompt_embeds is needed by a backbone with SDXL's added"):
        pipe("x", picture, hole, num_inference_steps=1)


def test_nan_is_reported_with_the_dtype_remedy_and_the_hooks_are_gone(
    parts: dict, picture: np.ndarray, hole: np.ndarray, make_unet: Callable
) -> None:
    unet = make_unet()
    with torch.no_grad():
        unet.conv_out.bias.fill_(math.nan)
    pipe = MTAInpaintPipeline(**{**parts, "unet": unet})
    with pytest.raises(UserError) as error:
        pipe("x", picture, hole, num_inference_steps=1)
    assert "the result must not hold NaN or infinity, got 'NaN in torch.float32'" in str(error.value)
    assert "load the model with torch_dtype=torch.float32 or torch.bfloat16" in str(error.value)
    assert not any(module._forward_hooks for module in unet.modules())


def test_nan_of_the_decoder_is_reported(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pipe.vae), "decode", lambda *_, **__: (torch.full((1, 3, 64, 64), math.nan),))
    with pytest.raises(UserError, match="the result must not hold NaN or infinity"):
        pipe("x", picture, hole, num_inference_steps=1)


@pytest.mark.parametrize("argument", ["prompt", "negative_prompt"])
def test_a_prompt_that_is_too_long_is_cut_and_what_is_lost_is_named(
    pipe: MTAInpaintPipeline,
    picture: np.ndarray,
    hole: np.ndarray,
    argument: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # one letter is one token of the tiny tokenizer
    text = "a " * 75 + "z " * 4
    call = {"prompt": "x", argument: text}
    with caplog.at_level(logging.WARNING):
        pipe(image=picture, mask_image=hole, num_inference_steps=1, **call)
    assert (
        f"{argument} is cut to the text encoder's 75 tokens; its last 4 are dropped: 'z z z z'" in caplog.text
    )


def test_a_prompt_of_ten_thousand_characters_is_cut_to_the_same_result(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    results = [
        pipe(prompt, picture, hole, num_inference_steps=1, generator=torch.Generator().manual_seed(0)).images[
            0
        ]
        for prompt in ("ab " * 37 + "c", "ab " * 37 + "c " + "d " * 5000)
    ]
    np.testing.assert_array_equal(np.asarray(results[0]), np.asarray(results[1]))
    assert "its last 5000 are dropped: 'd d d d" in caplog.text
    assert len(caplog.records[-1].getMessage()) < 200


def test_an_empty_prompt_is_legal(pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray) -> None:
    assert pipe("", picture, hole, num_inference_steps=1).images[0].size == (112, 96)
