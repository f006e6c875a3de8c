"""The pipeline's way to hand out the edges that the branch predicts; without asking nothing changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline
from mtadiffusion.models.branch import InpaintBranch

CALL = {"prompt": ["a cat", "a dog"], "num_inference_steps": 3, "output_type": "pt"}


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


@pytest.fixture
def put_out(pipe: MTAInpaintPipeline) -> Iterator[list[torch.Tensor]]:
    """The edge maps of each call of the branch."""
    seen: list[torch.Tensor] = []
    handle = pipe.branch.register_forward_hook(lambda _module, _args, made: seen.append(made.edge))
    yield seen
    handle.remove()


def test_a_result_comes_with_what_the_branch_predicted_at_the_last_step(pipe, put_out, picture, hole):
    made = pipe(image=picture, mask_image=hole, generator=generators(), output_edges=True, **CALL)
    assert len(put_out) == CALL["num_inference_steps"]
    assert [one.dtype for one in made.edges] == [torch.float32] * 2
    assert torch.equal(torch.stack(made.edges), put_out[-1][:, 0])
    assert not torch.equal(put_out[0], put_out[-1])


def test_asking_for_edges_changes_no_picture_and_not_asking_no_output(pipe, picture, hole):
    arguments = {"image": picture, "mask_image": hole, **CALL}
    plain = pipe(generator=generators(), **arguments)
    asked = pipe(generator=generators(), output_edges=True, **arguments)
    assert torch.equal(plain.images, asked.images)
    assert plain.edges is None
    assert isinstance(plain, StableDiffusionPipelineOutput)
    assert len(plain.to_tuple()) == 1
    assert len(pipe(generator=generators(), return_dict=False, **arguments)) == 2
    images, flags, edges = pipe(
        generator=generators(), return_dict=False, output_edges=True, output_type="pil",
        **{name: value for name, value in arguments.items() if name != "output_type"},
    )  # fmt: skip
    assert len(images) == len(edges) == 2
    assert flags is None


def test_regions_of_different_shapes_have_edges_of_their_own_cells(pipe, picture, hole):
    wide = np.concatenate([picture, picture], axis=1)
    wide_hole = np.zeros(wide.shape[:2], hole.dtype)
    wide_hole[4:-4, 4:-4] = True
    pictures, holes = [wide, picture], [wide_hole, hole]
    made = pipe(image=pictures, mask_image=holes, generator=generators(), output_edges=True, **CALL)
    cells = [one.shape for one in made.edges]
    assert cells[0] != cells[1]
    alone = pipe(
        "a dog", picture, hole, generator=generators()[1], num_inference_steps=3, output_type="pt",
        output_edges=True,
    )  # fmt: skip
    assert torch.allclose(made.edges[1], alone.edges[0], atol=1e-5)


@pytest.mark.parametrize("without", ["branch", "scale", "head"])
def test_asking_a_branch_that_predicts_none_is_a_users_mistake(pipe, make_unet, picture, hole, without):
    scale = 0 if without == "scale" else 1
    if without == "branch":
        pipe.branch = None
    if without == "head":
        pipe.branch = InpaintBranch.from_unet(make_unet(), edge_head=False)
    with pytest.raises(UserError, match=r"^output_edges needs a branch with an edge head"):
        pipe(image=picture, mask_image=hole, output_edges=True, branch_scale=scale, **CALL)
