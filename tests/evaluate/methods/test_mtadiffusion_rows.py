"""The rows that MTAInpaintPipeline draws, against direct calls of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.canvas import prepare
from mtadiffusion.evaluate.methods.late_start import LateStartPipeline
from mtadiffusion.evaluate.methods.method import Request
from mtadiffusion.evaluate.methods.registry import method
from mtadiffusion.models.registry import load_pipeline

Ready = Callable[..., Any]


def direct(pipe: Any, image: np.ndarray, hole: np.ndarray, **options: Any) -> np.ndarray:
    """What the pipeline gives by itself, at the pictures' own size, with the settings of `ready`."""
    from diffusers import UniPCMultistepScheduler

    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    canvas = prepare(image, hole, 64)
    drawn = pipe(
        "a cat", canvas.picture, canvas.work_hole[None].float(), num_inference_steps=2, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3), resolution=64, blend="none", output_type="pt", **options,
    ).images[0]  # fmt: skip
    return canvas.finish(drawn, "paste")


@pytest.fixture
def image(image: np.ndarray) -> np.ndarray:
    return image[:64, :64].copy()


@pytest.fixture
def hole(hole: np.ndarray) -> np.ndarray:
    return hole[:64, :64].copy()


def test_our_row_is_the_pipeline_with_its_branch(
    ready: Ready,
    specs: dict[str, str],
    backbone_folder: Path,
    branch_folder: Path,
    image: np.ndarray,
    hole: np.ndarray,
) -> None:
    expected = direct(load_pipeline(str(backbone_folder), str(branch_folder), "float32", "cpu"), image, hole)
    assert np.array_equal(ready(specs["mtadiffusion"]).generate(image, hole, "a cat", 3), expected)


def test_our_row_hands_over_the_edges_that_its_branch_predicts(
    ready: Ready, specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    made = ready(specs["mtadiffusion"])
    asked = [Request(image=image, hole=hole, prompt="a cat", seed=seed) for seed in (3, 4)]
    drawn = made.generate_with_edges(asked)
    for one, picture in zip(drawn, made.generate_batch(asked), strict=True):
        assert np.array_equal(one.picture, picture)
    cells = 64 // made._pipe.vae_scale_factor
    assert drawn[0].edges.shape == (cells, cells)
    assert not np.array_equal(drawn[0].edges, drawn[1].edges)
    (alone,) = made.generate_with_edges(asked[:1])
    assert np.array_equal(alone.picture, made.generate(image, hole, "a cat", 3))


def test_where_a_branch_predicts_no_edges_there_are_none(
    ready: Ready, specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    one = Request(image=image, hole=hole, prompt="a cat", seed=3)
    nothing = Request(image=image, hole=np.zeros_like(hole), prompt="a cat", seed=3)
    wide = Request(image=image[30:46], hole=hole[30:46], prompt="a cat", seed=3)
    for spec, request in (
        (specs["brushnet"], one),
        (f"{specs['mtadiffusion']},branch_scale=0", one),
        (specs["mtadiffusion"], nothing),
        (specs["mtadiffusion"], wide),
    ):
        (drawn,) = ready(spec).generate_with_edges([request])
        assert drawn.edges is None
        assert drawn.picture.shape == request.image.shape


def test_a_brushnet_sees_the_hole_as_its_authors_code_shrinks_it(
    ready: Ready,
    specs: dict[str, str],
    backbone_folder: Path,
    brushnet_folder: Path,
    image: np.ndarray,
    hole: np.ndarray,
) -> None:
    pipe = load_pipeline(str(backbone_folder), str(brushnet_folder), "float32", "cpu")
    expected = direct(pipe, image, hole, latent_known="nearest")
    result = ready(specs["brushnet"]).generate(image, hole, "a cat", 3)
    assert np.array_equal(result, expected)
    assert not np.array_equal(result, direct(pipe, image, hole))


def test_the_backbone_alone_is_text_to_image_laid_into_the_hole(
    ready: Ready, specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    made = ready(specs["backbone"])
    other = np.where(hole[..., None], image, 255 - image)
    one, two = (made.generate(picture, hole, "a cat", 3) for picture in (image, other))
    deep = binary_erosion(hole, np.ones((3, 3)), iterations=3, border_value=1)  # where nothing fades in
    assert deep.any()
    assert np.array_equal(one[deep], two[deep])


def test_several_pictures_at_once_are_what_they_are_alone(
    ready: Ready, specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    made = ready(specs["mtadiffusion"])
    second = {"image": image[::-1].copy(), "hole": hole.T.copy(), "prompt": "a glossy apple", "seed": 8}
    asked = [{"image": image, "hole": hole, "prompt": "a cat", "seed": 3}, second]
    together = made.generate_batch([SimpleNamespace(**one) for one in asked])
    for one, result in zip(asked, together, strict=True):
        np.testing.assert_allclose(result.astype(int), made.generate(**one).astype(int), atol=1)


def test_a_whole_start_blends_latents_as_the_pipeline_does_without_a_branch(
    ready: Ready, specs: dict[str, str], backbone_folder: Path, image: np.ndarray, hole: np.ndarray
) -> None:
    expected = direct(load_pipeline(str(backbone_folder), "none", "float32", "cpu"), image, hole)
    made = ready(f"{specs['blended-latent']},strength=1")
    assert np.array_equal(made.generate(image, hole, "a cat", 3), expected)


@pytest.mark.parametrize(
    "scheduler",
    [
        "DDIMScheduler",
        "UniPCMultistepScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "PNDMScheduler",
    ],
)
def test_a_late_start_begins_at_the_picture_noised_to_its_first_timestep(
    scheduler: str, stock: Any, image: np.ndarray, hole: np.ndarray
) -> None:
    import diffusers

    parts = {name: stock.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet")}
    made = getattr(diffusers, scheduler).from_config(stock.scheduler.config)
    pipe = LateStartPipeline(**parts, scheduler=made)
    pipe.set_progress_bar_config(disable=True)
    pipe.strength = 0.5
    seen: list[tuple[float, torch.Tensor]] = []
    handle = pipe.unet.register_forward_pre_hook(
        lambda _unet, arguments: seen.append((float(arguments[1]), arguments[0].clone()))
    )
    canvas = prepare(image, hole, 64)
    pipe(
        "a cat", canvas.picture, canvas.work_hole[None].float(), num_inference_steps=6, guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3), blend="none", latent_blending=True, output_type="pt",
    )  # fmt: skip
    handle.remove()
    made.set_timesteps(6)
    timesteps = made.timesteps[3 * made.order :]
    assert [time for time, _ in seen] == timesteps.tolist()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    clean = (
        stock.vae.encode(canvas.picture[None] * 2 - 1).latent_dist.mode() * stock.vae.config.scaling_factor
    )
    alpha = torch.as_tensor(stock.scheduler.alphas_cumprod)[int(timesteps[0])]
    expected = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(seen[0][1], expected, atol=2e-3, rtol=0)


def test_an_unknown_scheduler_is_named(ready: Ready, specs: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"backbone:scheduler must be .*'UniPCMultistep'.*did you mean"):
        ready(specs["backbone"], scheduler="UniPCMultistep")


def test_the_specifications_sampler_comes_before_the_benchmarks(ready: Ready, specs: dict[str, str]) -> None:
    made = ready(f"{specs['backbone']},steps=5,guidance=1.5,scheduler=DDIMScheduler")
    assert type(made._pipe.scheduler).__name__ == "DDIMScheduler"
    assert (made.sampling()["num_inference_steps"], made.sampling()["guidance_scale"]) == (5, 1.5)


def test_a_backbone_without_a_branch_of_its_own_needs_one(backbone_folder: Path) -> None:
    with pytest.raises(UserError, match="branch is needed"):
        method(f"mtadiffusion:model={backbone_folder}").identity()
