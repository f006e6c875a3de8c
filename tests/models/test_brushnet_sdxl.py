"""An SDXL BrushNet as its description says, computed here plainly from diffusers' own blocks, against the
branch that its checkpoint is loaded into: every feature, and the backbone's prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import DownBlock2D, UNetMidBlock2D, UpBlock2D
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.brushnet import config_of_weights
from mtadiffusion.models.conditioning import branch_input
from mtadiffusion.models.injection import BranchInjection, check_fit
from mtadiffusion.models.loading import load_branch
from mtadiffusion.models.registry import resolve_branch

EPSILON = 1e-5
TOLERANCE = {"atol": 1e-5, "rtol": 0}
WIDTHS, TEXT, POOLED, SIZE_CHANNELS = (32, 64, 64), 24, 12, 256
PROJECTION = POOLED + 6 * SIZE_CHANNELS


class PlainBrushNet(nn.Module):
    """BrushNetModel of SDXL with its parameters' names: a UNet without attention and what comes out of it."""

    def __init__(self, widths: tuple[int, int, int] = WIDTHS, projection: int = PROJECTION) -> None:
        super().__init__()
        small, middle, large = widths
        temb = 4 * small
        self.conv_in_condition = nn.Conv2d(9, small, 3, padding=1)
        self.time_proj = Timesteps(small, True, 0)
        self.time_embedding = TimestepEmbedding(small, temb)
        self.add_time_proj = Timesteps(SIZE_CHANNELS, True, 0)
        self.add_embedding = TimestepEmbedding(projection, temb)
        ways = enumerate([(small, small), (small, middle), (middle, large)])
        self.down_blocks = nn.ModuleList(
            DownBlock2D(*channels, temb, num_layers=2, resnet_eps=EPSILON, add_downsample=level < 2)
            for level, channels in ways
        )
        self.mid_block = UNetMidBlock2D(large, temb, resnet_eps=EPSILON, add_attention=False)
        ways = enumerate([(middle, large, large), (small, large, middle), (small, middle, small)])
        self.up_blocks = nn.ModuleList(
            UpBlock2D(*channels, temb, num_layers=3, resnet_eps=EPSILON, add_upsample=level < 2)
            for level, channels in ways
        )
        down = (small, small, small, small, middle, middle, middle, large, large)
        up = (large,) * 4 + (middle,) * 4 + (small,) * 3
        self.brushnet_down_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in down)
        self.brushnet_mid_block = nn.Conv2d(large, large, 1)
        self.brushnet_up_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in up)

    def forward(self, seen: Tensor, timestep: Tensor, added: dict[str, Tensor]) -> list[Tensor]:
        emb = self.time_embedding(self.time_proj(timestep)) + embedded(self, added)
        hidden = self.conv_in_condition(seen)
        skips = [hidden]
        for block in self.down_blocks:
            for module in [*block.resnets, *(block.downsamplers or [])]:
                hidden = module(hidden, emb) if module in list(block.resnets) else module(hidden)
                skips.append(hidden)
        features = [conv(skip) for conv, skip in zip(self.brushnet_down_blocks, skips, strict=True)]
        for resnet in self.mid_block.resnets:
            hidden = resnet(hidden, emb)
        features.append(self.brushnet_mid_block(hidden))
        risen = []
        for block in self.up_blocks:
            for resnet in block.resnets:
                hidden = resnet(torch.cat([hidden, skips.pop()], dim=1), emb)
                risen.append(hidden)
            for upsampler in block.upsamplers or []:
                hidden = upsampler(hidden)
                risen.append(hidden)
        return features + [conv(one) for conv, one in zip(self.brushnet_up_blocks, risen, strict=True)]


def embedded(model: Any, added: dict[str, Tensor]) -> Tensor:
    sizes = model.add_time_proj(added["time_ids"].flatten()).reshape(len(added["time_ids"]), -1)
    return model.add_embedding(torch.cat([added["text_embeds"], sizes], dim=-1))


def plain_prediction(unet: Any, io: dict[str, Any], features: list[Tensor]) -> Tensor:
    """BrushNet's UNet: the features added in the main path and, but for the first, in the skips."""
    queue = list(features)
    emb = unet.time_embedding(unet.time_proj(io["timestep"])) + embedded(unet, io["added"])

    def layers(block: Any, hidden: Tensor, index: int) -> Tensor:
        hidden = block.resnets[index](hidden, emb)
        attentions = getattr(block, "attentions", None)
        if attentions is None:
            return hidden
        return attentions[index](hidden, encoder_hidden_states=io["text"], return_dict=False)[0]

    hidden = unet.conv_in(io["sample"])
    skips = [hidden]
    hidden = hidden + queue.pop(0)
    for block in unet.down_blocks:
        for index in range(len(block.resnets)):
            hidden = layers(block, hidden, index) + queue.pop(0)
            skips.append(hidden)
        for downsampler in block.downsamplers or []:
            hidden = downsampler(hidden) + queue.pop(0)
            skips.append(hidden)
    hidden = unet.mid_block(hidden, emb, encoder_hidden_states=io["text"]) + queue.pop(0)
    for block in unet.up_blocks:
        for index in range(len(block.resnets)):
            hidden = layers(block, torch.cat([hidden, skips.pop()], dim=1), index) + queue.pop(0)
        for upsampler in block.upsamplers or []:
            hidden = upsampler(hidden) + queue.pop(0)
    assert not queue
    return unet.conv_out(nn.functional.silu(unet.conv_norm_out(hidden)))


@pytest.fixture(scope="module")
def plain() -> PlainBrushNet:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return PlainBrushNet().eval()


@pytest.fixture(scope="module")
def unet(sdxl_unet_factory: Callable[..., UNet2DConditionModel]) -> UNet2DConditionModel:
    return sdxl_unet_factory(
        block_out_channels=WIDTHS,
        norm_num_groups=32,
        cross_attention_dim=TEXT,
        addition_time_embed_dim=SIZE_CHANNELS,
        projection_class_embeddings_input_dim=PROJECTION,
    )


@pytest.fixture(scope="module")
def io() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    known = torch.ones(2, 1, 16, 16)
    known[:, :, 4:11, 3:9] = 0
    sizes = torch.tensor([[1024.0, 768, 0, 17, 64, 64], [64, 64, 0, 0, 64, 64]])
    return {
        "sample": torch.randn(2, 4, 16, 16, generator=generator),
        "masked": torch.randn(2, 4, 16, 16, generator=generator),
        "known": known,
        "timestep": torch.tensor([17, 801]),
        "text": torch.randn(2, 77, TEXT, generator=generator),
        "added": {"text_embeds": torch.randn(2, POOLED, generator=generator), "time_ids": sizes},
    }


@pytest.fixture
def folder(plain: PlainBrushNet, tmp_path: Path) -> Path:
    """The checkpoint as it is published."""
    config = {
        "_class_name": "BrushNetModel",
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_CHANNELS,
        "block_out_channels": WIDTHS,
        "class_embed_type": None,
        "conditioning_channels": 5,
        "down_block_types": ["DownBlock2D"] * 3,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "mid_block_type": "MidBlock2D",
        "norm_eps": EPSILON,
        "norm_num_groups": 32,
        "projection_class_embeddings_input_dim": PROJECTION,
        "resnet_time_scale_shift": "default",
        "up_block_types": ["UpBlock2D"] * 3,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(plain.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    return tmp_path


@pytest.mark.parametrize("form", ["folder", "file", "file without config"])
@torch.no_grad()
def test_a_checkpoint_gives_what_its_description_says(
    plain: PlainBrushNet, unet: UNet2DConditionModel, io: dict[str, Any], folder: Path, form: str
) -> None:
    named = folder if form == "folder" else folder / "diffusion_pytorch_model.safetensors"
    if form == "file without config":
        (folder / "config.json").unlink()
    branch = load_branch(resolve_branch(str(named)), torch.float32)
    check_fit(branch, unet)
    seen = branch_input(io["sample"], io["masked"], io["known"])
    expected = plain(seen, io["timestep"], io["added"])
    features = branch(seen, io["timestep"], added_cond_kwargs=io["added"]).features
    assert len(features) == len(expected) == 9 + 1 + 11
    for feature, value in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, value, **TOLERANCE)
    injection = BranchInjection(unet)
    with injection.features(features):
        prediction = unet(
            io["sample"], io["timestep"], encoder_hidden_states=io["text"], added_cond_kwargs=io["added"]
        ).sample
    injection.remove()
    torch.testing.assert_close(prediction, plain_prediction(unet, io, expected), **TOLERANCE)


def test_the_real_ones_layers_are_read_off_their_shapes() -> None:
    with torch.device("meta"):
        plain = PlainBrushNet((320, 640, 1280), projection=2816)
        branch = InpaintBranch(**config_of_weights(plain.state_dict()))
    assert branch.config.addition_embed_type == "text_time"
    sizes = [sum(value.numel() for value in net.state_dict().values()) for net in (plain, branch)]
    assert sizes[0] == sizes[1] == pytest.approx(373.3e6, abs=0.05e6)


def test_a_file_of_another_kind_is_told_apart(folder: Path, branch_folder: Path) -> None:
    ours = branch_folder / "diffusion_pytorch_model.safetensors"
    assert resolve_branch(str(ours)) == branch_folder
    save_file({"weight": torch.zeros(1)}, folder / "other.safetensors")
    with pytest.raises(UserError, match="--branch must hold a BrushNet or a branch of ours"):
        resolve_branch(str(folder / "other.safetensors"))
    (folder / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(UserError, match="--branch cannot be read"):
        resolve_branch(str(folder / "broken.safetensors"))


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("down_blocks.0.attentions.0.norm.weight", (32,), "must be a BrushNet without attention"),
        ("down_blocks.0.resnets.0.conv1.weight", (24, 32, 3, 3), "config.json beside its weights"),
        ("time_embedding.linear_1.weight", None, "must hold BrushNet's time_embedding"),
    ],
)
def test_without_a_config_strange_weights_are_named(
    folder: Path, key: str, shape: tuple[int, ...] | None, message: str
) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    (folder / "config.json").unlink()
    weights = load_file(file)
    weights.pop(key, None)
    save_file(weights if shape is None else {**weights, key: torch.zeros(shape)}, file)
    with pytest.raises(UserError, match=message):
        InpaintBranch.from_brushnet(file)
