"""SD-Inpainting, ControlNet and PowerPaint on tiny random checkpoints in their releases' layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UniPCMultistepScheduler
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.canvas import prepare
from mtadiffusion.evaluate.methods.powerpaint import PARTS, TASKS, TEXT_FILE, UNET_FILE, task_words
from mtadiffusion.evaluate.methods.registry import method
from mtadiffusion.evaluate.methods.stable_diffusion import load_controlnet
from mtadiffusion.models.loading import load_components

Ready = Callable[..., Any]


def test_sd_inpainting_is_diffusers_pipeline(
    ready: Ready, specs: dict[str, str], inpainting_folder: Path, image: np.ndarray, hole: np.ndarray
) -> None:
    pipe = StableDiffusionInpaintPipeline.from_pretrained(inpainting_folder, safety_checker=None)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    image, hole = image[:64, :64].copy(), hole[:64, :64].copy()
    canvas = prepare(image, hole, 64)
    drawn = pipe(
        "a cat", canvas.picture[None], canvas.work_hole[None, None].float(), num_inference_steps=2,
        guidance_scale=3.0, generator=torch.Generator().manual_seed(3), output_type="pt",
    ).images[0]  # fmt: skip
    made = ready(specs["sd-inpainting"], blend="brushnet")
    assert np.array_equal(made.generate(image, hole, "a cat", 3), canvas.finish(drawn, "brushnet"))


def test_a_text_to_image_backbone_is_no_inpainting_model(ready: Ready, backbone_folder: Path) -> None:
    with pytest.raises(UserError, match=r"sd-inpainting:model must have a UNet of 9 channels.*got '4 in"):
        ready(f"sd-inpainting:model={backbone_folder}")


def test_a_backbone_with_other_parts_is_refused(
    ready: Ready, specs: dict[str, str], inpainting_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_sdxl(*arguments: Any) -> dict[str, Any]:
        return {**load_components(*arguments), "text_encoder_2": None}

    monkeypatch.setattr("mtadiffusion.evaluate.methods.stable_diffusion.load_components", load_sdxl)
    with pytest.raises(UserError, match=r"sd-inpainting:model must be a Stable Diffusion 1\.x or 2\.x"):
        method(specs["sd-inpainting"]).setup(ready("harmonic").settings, "cpu", "float32")


def test_the_control_image_has_minus_one_in_the_hole_and_steers(
    ready: Ready, specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    made = ready(specs["controlnet-inpaint"])
    seen: list[torch.Tensor] = []
    handle = made._pipe.controlnet.register_forward_pre_hook(
        lambda _net, _arguments, named: seen.append(named["controlnet_cond"]), with_kwargs=True
    )
    steered = made.generate(image, hole, "a cat", 3)
    handle.remove()
    canvas = prepare(image, hole, 64)
    assert (seen[0][0][:, canvas.work_hole] == -1).all()
    assert torch.equal(seen[0][0][:, ~canvas.work_hole], canvas.picture[:, ~canvas.work_hole])
    free = ready(f"{specs['controlnet-inpaint']},control_scale=0").generate(image, hole, "a cat", 3)
    assert not np.array_equal(steered, free)


def test_a_folder_that_is_no_controlnet_is_named(backbone_folder: Path) -> None:
    made = method(f"controlnet-inpaint:model={backbone_folder},controlnet={backbone_folder}")
    with pytest.raises(UserError, match=r"controlnet-inpaint:controlnet lacks config\.json"):
        made.identity()


def test_a_controlnet_that_lacks_weights_is_refused(controlnet_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "controlnet"
    shutil.copytree(controlnet_folder, folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["controlnet_mid_block.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"x lacks weights, first controlnet_mid_block\.weight"):
        load_controlnet(folder, torch.float32, "x")
    file.write_bytes(b"no safetensors")
    with pytest.raises(UserError, match="x cannot be loaded"):
        load_controlnet(folder, torch.float32, "x")


def test_powerpaints_task_tokens_are_its_learned_vectors(
    ready: Ready, specs: dict[str, str], powerpaint_folder: Path
) -> None:
    made = ready(specs["powerpaint"])
    tokenizer, encoder = made._pipe.tokenizer, made._pipe.text_encoder
    ids = tokenizer(made.wording("a red apple")).input_ids
    assert ids[1 : 1 + PARTS] == tokenizer.convert_tokens_to_ids(task_words("P_obj"))
    released = load_file(powerpaint_folder / TEXT_FILE)
    stem = "text_model.embeddings.token_embedding."
    for task in TASKS:
        rows = encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(task_words(task))]
        assert torch.equal(rows, released[f"{stem}trainable_embeddings.{task}"])
    words = tokenizer("a red apple", add_special_tokens=False).input_ids
    table = encoder.get_input_embeddings().weight
    assert torch.equal(table[words], released[f"{stem}wrapped.weight"][words])


@torch.no_grad()
def test_powerpaints_text_encoder_computes_what_the_release_computes(
    ready: Ready, specs: dict[str, str], inpainting_folder: Path, powerpaint_folder: Path
) -> None:
    """The release puts learned vectors in the place of placeholders once its table has been looked up."""
    made = ready(specs["powerpaint"])
    ours = made._pipe.tokenizer(made.wording("a red apple"), return_tensors="pt").input_ids
    released = {name[11:]: value for name, value in load_file(powerpaint_folder / TEXT_FILE).items()}
    stem = "embeddings.token_embedding."
    learned = released[f"{stem}trainable_embeddings.P_obj"]
    plain = CLIPTextModel.from_pretrained(inpainting_folder / "text_encoder").eval()
    names = {name: value for name, value in released.items() if not name.startswith(stem)}
    names[f"{stem}weight"] = released[f"{stem}wrapped.weight"]
    plain.load_state_dict({name: value for name, value in names.items() if "position_ids" not in name})
    tokenizer = CLIPTokenizer.from_pretrained(inpainting_folder / "tokenizer")
    word = tokenizer("a", add_special_tokens=False).input_ids[0]
    placed = torch.tensor([[int(one) if one < len(tokenizer) else word for one in ours[0]]])

    def place(_table: Any, _ids: Any, vectors: torch.Tensor) -> torch.Tensor:
        return torch.cat([vectors[:, :1], learned[None], vectors[:, 1 + PARTS :]], dim=1)

    plain.get_input_embeddings().register_forward_hook(place)
    expected = plain(placed).last_hidden_state
    torch.testing.assert_close(made._pipe.text_encoder(ours).last_hidden_state, expected)


def test_powerpaints_unet_is_the_releases(
    ready: Ready, specs: dict[str, str], powerpaint_folder: Path
) -> None:
    weights = ready(specs["powerpaint"])._pipe.unet.state_dict()
    for name, tensor in load_file(powerpaint_folder / UNET_FILE).items():
        assert torch.equal(weights[name], tensor)


@pytest.mark.parametrize(("file", "name"), [(UNET_FILE, "conv_in.weight"), (TEXT_FILE, "P_obj")])
def test_a_release_that_does_not_fit_is_named(
    file: str, name: str, ready: Ready, inpainting_folder: Path, powerpaint_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    shutil.copytree(powerpaint_folder, folder)
    weights = {key: one for key, one in load_file(folder / file).items() if not key.endswith(name)}
    save_file(weights, folder / file)
    with pytest.raises(UserError, match=f"powerpaint:weights does not fit .*{name}"):
        ready(f"powerpaint:model={inpainting_folder},weights={folder}")
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"lacks {file}"):
        method(f"powerpaint:model={inpainting_folder},weights={folder}").identity()
