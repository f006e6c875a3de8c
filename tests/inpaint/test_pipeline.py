"""What the pipeline does with its pixels, its models and its randomness, on tiny random models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

from mtadiffusion.imaging.blending import blend_pictures
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.inpaint.regions import find_region
from mtadiffusion.models.branch import InpaintBranch

STEPS = {"num_inference_steps": 2}


def StockPNDM() -> PNDMScheduler:  # noqa: N802
    """Stable Diffusion's setting, which serves any number of steps."""
    return PNDMScheduler(skip_prk_steps=True)


SCHEDULERS = [
    DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
    HeunDiscreteScheduler, LMSDiscreteScheduler, StockPNDM, UniPCMultistepScheduler,
]  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture)


@pytest.fixture
def mask(hole: np.ndarray) -> Image.Image:
    return Image.fromarray(hole)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("branch_scale", [1, 0])
def test_every_scheduler_fills_the_hole_and_nothing_else(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, scheduler: Callable, branch_scale: float
) -> None:
    pipe.scheduler = scheduler()
    for steps in (1, 3):
        result = pipe(
            "a cat", Image.fromarray(picture), Image.fromarray(hole), num_inference_steps=steps,
            branch_scale=branch_scale, generator=seeded(),
        ).images[0]  # fmt: skip
        assert result.size == (112, 96)
        assert result.mode == "RGB"
        filled = np.asarray(result)
        np.testing.assert_array_equal(filled[~hole], picture[~hole])
        assert (filled[hole] != picture[hole]).mean() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (40, 64), (64, 64), (70, 200), (257, 131)])
def test_the_result_has_the_inputs_size(pipe: MTAInpaintPipeline, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    hole = np.zeros(size, dtype=bool)
    hole[size[0] // 3 : size[0] // 2 + 1, size[1] // 3 : size[1] // 2 + 1] = True
    result = np.asarray(pipe("x", Image.fromarray(pixels), hole, **STEPS).images[0])
    assert result.shape == pixels.shape
    np.testing.assert_array_equal(result[~hole], pixels[~hole])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_known_floats_come_back_bit_for_bit(
    pipe: MTAInpaintPipeline, hole: np.ndarray, dtype: torch.dtype
) -> None:
    picture = torch.rand(3, *hole.shape, generator=seeded()).to(dtype)
    result = pipe("x", picture, torch.from_numpy(hole), output_type="pt", **STEPS).images
    assert result.dtype == dtype
    assert torch.equal(result[0][:, ~hole], picture[:, ~hole])


def test_numpy_results_hold_the_known_bytes_exactly(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    result = pipe("x", picture, hole, output_type="np", **STEPS).images
    assert result.shape == (1, 96, 112, 3)
    np.testing.assert_array_equal(result[0][~hole], picture[~hole].astype(np.float32) / 255)


def test_a_full_hole_is_legal(pipe: MTAInpaintPipeline, picture: np.ndarray) -> None:
    full = np.ones(picture.shape[:2], dtype=bool)
    result = np.asarray(pipe("x", picture, full, **STEPS).images[0])
    assert (result != picture).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("settings", [{}, {"branch_scale": 0}, {"blend": "brushnet"}, {"blend": "none"}])
def test_what_was_in_the_hole_has_no_influence(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, settings: dict
) -> None:
    other = np.where(hole[..., None], 255 - picture, picture)
    results = [
        pipe("x", one, hole, generator=seeded(), output_type="np", **STEPS, **settings).images[0]
        for one in (picture, other)
    ]
    inside = hole if settings.get("blend") == "brushnet" else np.ones_like(hole)
    np.testing.assert_array_equal(results[0][inside], results[1][inside])


def test_what_the_model_paints_lands_on_its_pixel(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region is at the model's size here, so that a painted pattern must come back unscaled."""
    region = find_region(torch.from_numpy(hole), 64, 8)
    assert region.size == region.work_size == (64, 64)
    painted = torch.rand(1, 3, 64, 64, generator=seeded())
    monkeypatch.setattr(MTAInpaintPipeline, "_decode", lambda _self, _latents: painted)
    result = pipe("x", picture, hole, feather=0, output_type="pt", **STEPS).images[0]
    left, top, right, bottom = region.box_xyxy
    expected = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    expected[:, hole] = torch.nn.functional.pad(
        painted[0], (left, 112 - right, top, 96 - bottom)
    )[:, hole]  # fmt: skip
    assert torch.equal(result, expected)


def test_the_brushnet_blend_is_its_formula_on_the_raw_result(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    raw, soft = (
        pipe("x", picture, hole, blend=blend, generator=seeded(), output_type="pt", **STEPS).images[0]
        for blend in ("none", "brushnet")
    )
    original = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(soft, blend_pictures(original, raw, torch.from_numpy(hole), "brushnet"))
    assert (soft != original).any(dim=0).numpy()[~hole].any()


def test_a_batch_equals_its_members(pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray) -> None:
    prompts, holes = ["a red cat", "b", ""], [hole, np.roll(hole, 20, axis=1), np.roll(hole, 30, axis=0)]
    pictures = [picture, np.ascontiguousarray(picture[:, ::-1]), 255 - picture]
    pipe.scheduler = EulerAncestralDiscreteScheduler()
    settings = {"output_type": "pt", "negative_prompt": "dog", **STEPS}
    seeds = [seeded(seed) for seed in range(3)]
    batch = pipe(prompts, pictures, holes, generator=seeds, **settings).images
    for index, member in enumerate(batch):
        one = pipe(prompts[index], pictures[index], holes[index], generator=seeded(index), **settings).images[
            0
        ]
        torch.testing.assert_close(member, one, atol=1e-4, rtol=0)


def test_pictures_of_different_sizes_and_shapes_share_a_call(pipe: MTAInpaintPipeline) -> None:
    sizes = [(40, 64), (96, 112), (40, 64), (30, 90)]
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    holes = [np.zeros(size, dtype=bool) for size in sizes]
    for hole in holes:
        hole[10:25, 20:40] = True
    seeds = [seeded(seed) for seed in range(4)]
    batch = pipe("x", pictures, holes, generator=seeds, output_type="np", **STEPS).images
    for index, member in enumerate(batch):
        assert member.shape == pictures[index].shape
        one = pipe(
            "x", pictures[index], holes[index], generator=seeded(index), output_type="np", **STEPS
        ).images[0]
        np.testing.assert_allclose(member, one, atol=1e-4)


def test_results_come_in_the_order_of_the_prompts_each_several_times(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    seeds = [seeded(seed) for seed in (5, 6, 5, 6)]
    results = pipe(
        ["a", "b"], picture, hole, num_images_per_prompt=2, generator=seeds, output_type="pt", **STEPS
    ).images
    assert len(results) == 4
    alone = pipe("b", picture, hole, generator=seeded(5), output_type="pt", **STEPS).images[0]
    torch.testing.assert_close(results[2], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(results[2], results[3])


def test_a_seed_repeats_a_result(pipe: MTAInpaintPipeline, image: Image.Image, mask: Image.Image) -> None:
    results = [np.asarray(pipe("x", image, mask, generator=seeded(s), **STEPS).images[0]) for s in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


class Spy:
    """Records the first tensor argument of every call of a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.seen: list[torch.Tensor] = []
        self.handle = module.register_forward_pre_hook(lambda _module, args: self.seen.append(args[0]))

    def __enter__(self) -> list[torch.Tensor]:
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def test_the_branch_runs_once_for_both_halves_of_the_guidance(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    pipe.scheduler = EulerDiscreteScheduler()
    with Spy(pipe.branch) as branch, Spy(pipe.unet) as unet:
        pipe(["a", "b"], picture, hole, num_inference_steps=3)
    assert [tuple(sample.shape) for sample in branch] == [(2, 9, 16, 16)] * 3
    assert [tuple(sample.shape) for sample in unet] == [(4, 4, 16, 16)] * 3
    for seen, twice in zip(branch, unet, strict=True):
        assert torch.equal(seen[:, :4], twice[:2])


def test_without_guidance_the_backbone_runs_on_the_prompt_alone(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    with Spy(pipe.unet) as unet:
        pipe("a", picture, hole, guidance_scale=1, negative_prompt="b", **STEPS)
    assert [sample.shape[0] for sample in unet] == [1, 1]


def test_the_branch_sees_every_touched_cell_as_hole_and_a_black_picture_there(
    pipe: MTAInpaintPipeline, picture: np.ndarray
) -> None:
    hole = np.zeros((96, 112), dtype=bool)
    hole[50, 60] = True
    region = find_region(torch.from_numpy(hole), 64, 8)
    left, top, _, _ = region.box_xyxy
    with Spy(pipe.branch) as branch:
        pipe("a", picture, hole, **STEPS)
    known = branch[0][0, 8]
    assert (known == 0).nonzero().tolist() == [[(50 - top) // 4, (60 - left) // 4]]
    pixels = torch.from_numpy(np.where(hole[..., None], 0, picture)).permute(2, 0, 1).float() / 127.5 - 1
    masked = pipe.vae.encode(region.cut(pixels)[None]).latent_dist.mode() * pipe.vae.config.scaling_factor
    torch.testing.assert_close(branch[0][:, 4:8], masked, atol=1e-5, rtol=1e-4)


def test_the_known_map_can_be_sampled_as_in_training(pipe: MTAInpaintPipeline, picture: np.ndarray) -> None:
    hole = np.zeros((96, 112), dtype=bool)
    hole[40:52, 60] = True
    left, top, _, _ = find_region(torch.from_numpy(hole), 64, 8).box_xyxy
    sampled = hole[top : top + 64 : 4, left : left + 64 : 4]
    with Spy(pipe.branch) as branch:
        pipe("a", picture, hole, latent_known="nearest", **STEPS)
    assert (branch[0][0, 8].numpy() == ~sampled).all()


def test_the_branch_has_a_say_by_its_scale(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    settings = {"latent_blending": False, "output_type": "latent", **STEPS}
    runs = [
        pipe("x", picture, hole, generator=seeded(), branch_scale=scale, **settings).images
        for scale in (0, 1e-6, 0.5, 1)
    ]
    torch.testing.assert_close(runs[0], runs[1], atol=1e-3, rtol=0)
    assert not torch.allclose(runs[0], runs[2], atol=1e-2)
    assert not torch.allclose(runs[2], runs[3], atol=1e-2)


def test_an_untrained_branch_changes_nothing_bit_for_bit(
    parts: dict, picture: np.ndarray, hole: np.ndarray
) -> None:
    settings = {"latent_blending": False, "output_type": "latent", **STEPS}
    untrained = InpaintBranch.from_unet(parts["unet"])
    runs = [
        MTAInpaintPipeline(**{**parts, "branch": branch})("x", picture, hole, generator=seeded(), **settings)
        for branch in (untrained, None)
    ]
    assert torch.equal(runs[0].images, runs[1].images)


def test_without_a_branch_the_backbone_blends_latents(
    pipe: MTAInpaintPipeline, parts: dict, picture: np.ndarray, hole: np.ndarray
) -> None:
    alone = MTAInpaintPipeline(**{**parts, "branch": None})
    runs = [
        alone("x", picture, hole, generator=seeded(), **STEPS),
        pipe("x", picture, hole, generator=seeded(), branch_scale=0, **STEPS),
        pipe("x", picture, hole, generator=seeded(), branch_scale=0, latent_blending=True, **STEPS),
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(np.asarray(run.images[0]), np.asarray(runs[0].images[0]))


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler])
def test_blended_latents_carry_the_starting_noise_and_end_clean(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray, scheduler: type
) -> None:
    pipe.scheduler = scheduler()
    noise = torch.randn(1, 4, 16, 16, generator=seeded())
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(_pipe: object, _step: int, _timestep: torch.Tensor, tensors: dict) -> dict:
        steps.append((tensors["latents"], tensors["known"]))
        return tensors

    latents = pipe(
        "x", picture, hole, latent_blending=True, num_inference_steps=3, generator=seeded(),
        output_type="latent", callback_on_step_end=record,
        callback_on_step_end_tensor_inputs=["latents", "known"],
    ).images  # fmt: skip
    reference = scheduler()
    reference.set_timesteps(3)
    known = steps[0][1].expand_as(latents) > 0.5
    clean = torch.where(known, latents, 0)
    for (noisy, _), timestep in zip(steps[:-1], pipe.scheduler.timesteps[1:], strict=True):
        expected = reference.add_noise(clean, noise, timestep[None])
        torch.testing.assert_close(noisy[known], expected[known], atol=2e-2, rtol=1e-2)
    assert torch.equal(steps[-1][0], latents)


def test_the_callback_hands_out_and_takes_back_tensors(
    pipe: MTAInpaintPipeline, image: Image.Image, mask: Image.Image
) -> None:
    calls: list[tuple[int, int]] = []

    def erase(caller: MTAInpaintPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        assert caller is pipe
        calls.append((step, int(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = pipe(
        "x", image, mask, num_inference_steps=4, output_type="latent", callback_on_step_end=erase
    ).images
    assert [step for step, _ in calls] == [0, 1, 2, 3]
    assert [timestep for _, timestep in calls] == pipe.scheduler.timesteps.tolist()
    assert (latents == 0).all()
    assert pipe.num_timesteps == 4


def test_a_callback_can_stop_the_run_and_the_next_run_is_whole(
    pipe: MTAInpaintPipeline, image: Image.Image, mask: Image.Image
) -> None:
    def stop(caller: MTAInpaintPipeline, *_: object) -> dict:
        caller._interrupt = True
        return {}

    with Spy(pipe.unet) as unet:
        pipe("x", image, mask, num_inference_steps=4, callback_on_step_end=stop)
        pipe("x", image, mask, num_inference_steps=4)
    assert len(unet) == 1 + 4


def test_diffusers_own_callback_turns_guidance_off(
    pipe: MTAInpaintPipeline, image: Image.Image, mask: Image.Image
) -> None:
    from diffusers.callbacks import SDCFGCutoffCallback

    with Spy(pipe.unet) as unet:
        pipe(
            "x", image, mask, num_inference_steps=4,
            callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5),
        )  # fmt: skip
    assert [sample.shape[0] for sample in unet] == [2, 2, 2, 1]


def test_progress_is_shown_on_stderr(
    parts: dict, image: Image.Image, mask: Image.Image, capsys: pytest.CaptureFixture
) -> None:
    MTAInpaintPipeline(**parts)("x", image, mask, num_inference_steps=3)
    streams = capsys.readouterr()
    assert "3/3" in streams.err
    assert streams.out == ""


def test_prompt_embeds_stand_in_for_the_prompt(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    embeds = pipe.encode_prompt(["a cat"], None, guided=True)
    settings = {"output_type": "pt", **STEPS}
    given = pipe(
        image=picture, mask_image=hole, prompt_embeds=embeds.prompt, negative_prompt_embeds=embeds.negative,
        generator=seeded(), **settings,
    ).images  # fmt: skip
    assert torch.equal(given, pipe("a cat", picture, hole, generator=seeded(), **settings).images)


def test_a_tuple_on_request(pipe: MTAInpaintPipeline, image: Image.Image, mask: Image.Image) -> None:
    images, flags = pipe("x", image, mask, return_dict=False, **STEPS)
    assert len(images) == 1
    assert flags is None


def test_what_a_safety_checker_flags_is_black_in_the_hole_alone(
    pipe: MTAInpaintPipeline, picture: np.ndarray, hole: np.ndarray
) -> None:
    class Checker(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, images: np.ndarray, clip_input: torch.Tensor) -> tuple[np.ndarray, list[bool]]:
            assert len(images) == len(clip_input) == 2
            images = images.copy()
            images[1] = 0
            return images, [False, True]

    from transformers import CLIPImageProcessor

    pipe.register_modules(
        safety_checker=Checker(), feature_extractor=CLIPImageProcessor(size=32, crop_size=32)
    )
    result = pipe(["a", "b"], picture, hole, feather=0, **STEPS)
    assert result.nsfw_content_detected == [False, True]
    flagged = np.asarray(result.images[1])
    assert (flagged[hole] == 0).all()
    np.testing.assert_array_equal(flagged[~hole], picture[~hole])
    assert np.asarray(result.images[0])[hole].any()


def test_with_sdxls_added_embedding_the_branch_runs_for_both_halves(
    parts: dict, picture: np.ndarray, hole: np.ndarray, make_unet: Callable, make_branch: Callable
) -> None:
    unet = make_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=8 + 6 * 4,
    )
    pipe = MTAInpaintPipeline(**{**parts, "unet": unet, "branch": make_branch(unet)})
    embeds = [torch.randn(1, 77, 16, generator=seeded(seed)) for seed in range(2)]
    pooled = [torch.randn(1, 8, generator=seeded(seed)) for seed in range(2)]
    with Spy(pipe.branch) as branch:
        pipe(
            image=picture, mask_image=hole, prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1],
            pooled_prompt_embeds=pooled[0], negative_pooled_prompt_embeds=pooled[1], **STEPS,
        )  # fmt: skip
    assert [sample.shape[0] for sample in branch] == [2, 2]


def test_half_precision_models_give_results(
    parts: dict, picture: np.ndarray, hole: np.ndarray, make_unet: Callable, make_branch: Callable
) -> None:
    unet = make_unet()
    half = {"unet": unet.to(torch.bfloat16), "branch": make_branch(unet).to(torch.bfloat16)}
    pipe = MTAInpaintPipeline(**{**parts, **half})
    result = np.asarray(pipe("x", picture, hole, generator=seeded(), **STEPS).images[0])
    np.testing.assert_array_equal(result[~hole], picture[~hole])
