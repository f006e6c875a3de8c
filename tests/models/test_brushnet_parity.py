"""The residual branch and the injection compute what BrushNet's own code computed (see
tests/data/brushnet-parity): every zero convolution's output and the backbone's predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.brushnet import brushnet_config
from mtadiffusion.models.conditioning import branch_input
from mtadiffusion.models.injection import BranchInjection, check_fit

DATA = Path(__file__).parents[1] / "data" / "brushnet-parity"
FEATURES = [*(f"down_{i}" for i in range(12)), "mid", *(f"up_{i}" for i in range(15))]
TOLERANCE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return load_file(DATA / "io.safetensors")


@pytest.fixture(scope="module")
def backbone() -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_config(json.loads((DATA / "unet_config.json").read_text()))
    unet.load_state_dict(load_file(DATA / "unet.safetensors"))
    return unet.eval()


@pytest.fixture
def brushnet_folder(tmp_path: Path) -> Path:
    """The files under the names that an official checkpoint has."""
    shutil.copyfile(DATA / "brushnet_config.json", tmp_path / "config.json")
    shutil.copyfile(DATA / "brushnet.safetensors", tmp_path / "diffusion_pytorch_model.safetensors")
    return tmp_path


@pytest.fixture
def brushnet(brushnet_folder: Path) -> InpaintBranch:
    return InpaintBranch.from_brushnet(brushnet_folder).eval()


@torch.no_grad()
def features_of(branch: InpaintBranch, io: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return branch(branch_input(io["sample"], io["masked_latents"], io["known"]), io["timestep"]).features


@torch.no_grad()
def predict(unet: UNet2DConditionModel, io: dict[str, Tensor]) -> Tensor:
    return unet(io["sample"], io["timestep"], encoder_hidden_states=io["encoder_hidden_states"]).sample


def test_every_zero_convolution_gives_brushnets_output(
    brushnet: InpaintBranch, io: dict[str, Tensor]
) -> None:
    for name, feature in zip(FEATURES, features_of(brushnet, io), strict=True):
        torch.testing.assert_close(feature, io[name], **TOLERANCE, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("scale", "name"), [(1.0, "prediction"), (0.5, "prediction_scale_half")])
def test_the_backbone_with_the_features_predicts_as_brushnet(
    brushnet: InpaintBranch, backbone: UNet2DConditionModel, io: dict[str, Tensor], scale: float, name: str
) -> None:
    check_fit(brushnet, backbone)
    injection = BranchInjection(backbone)
    with injection.features(features_of(brushnet, io), scale):
        prediction = predict(backbone, io)
    injection.remove()
    torch.testing.assert_close(prediction, io[name], **TOLERANCE)


def test_the_backbone_without_features_predicts_as_before(
    backbone: UNet2DConditionModel, io: dict[str, Tensor]
) -> None:
    torch.testing.assert_close(predict(backbone, io), io["prediction_without_branch"], **TOLERANCE)


def test_an_edge_head_beside_brushnets_weights_changes_no_feature(io: dict[str, Tensor]) -> None:
    config = brushnet_config(json.loads((DATA / "brushnet_config.json").read_text()))
    branch = InpaintBranch(**{**config, "edge_head": True})
    branch.load_brushnet_state_dict(load_file(DATA / "brushnet.safetensors"))
    for name, feature in zip(FEATURES, features_of(branch, io), strict=True):
        torch.testing.assert_close(feature, io[name], **TOLERANCE)


def test_a_loaded_brushnet_survives_our_own_format(
    brushnet: InpaintBranch, io: dict[str, Tensor], tmp_path: Path
) -> None:
    brushnet.save_pretrained(tmp_path / "ours")
    again = InpaintBranch.from_pretrained(tmp_path / "ours")
    for one, other in zip(features_of(brushnet, io), features_of(again, io), strict=True):
        assert torch.equal(one, other)


def test_a_pickled_checkpoint_is_refused(brushnet_folder: Path) -> None:
    weights = brushnet_folder / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"must be a BrushNet with .*safetensors.*pickled"):
        InpaintBranch.from_brushnet(brushnet_folder)


def test_missing_weights_are_named(brushnet_folder: Path) -> None:
    file = brushnet_folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["brushnet_mid_block.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"zero_mid\.weight"):
        InpaintBranch.from_brushnet(brushnet_folder)


def test_weights_of_another_shape_are_named(brushnet_folder: Path) -> None:
    file = brushnet_folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in_condition.weight"] = weights["conv_in_condition.weight"][:, :8].contiguous()
    save_file(weights, file)
    with pytest.raises(UserError, match=r"shape \(16, 9, 3, 3\) in conv_in\.weight, got \(16, 8, 3, 3\)"):
        InpaintBranch.from_brushnet(brushnet_folder)


def test_brushnets_weights_go_into_no_attention_branch(branch: InpaintBranch) -> None:
    with pytest.raises(UserError, match="block must be 'residual'"):
        branch.load_brushnet_state_dict({})


def test_our_own_config_is_not_taken_for_a_brushnet(branch: InpaintBranch) -> None:
    with pytest.raises(UserError, match=r"must hold a BrushNet's config\.json.*from_pretrained"):
        brushnet_config(dict(branch.config))
