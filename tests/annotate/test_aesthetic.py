"""Scores for images that came without one: the real CLIP's class at a tiny size with a linear head."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mtadiffusion.annotate import presets
from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.errors import UserError
from mtadiffusion.models.aesthetic_head import load_head
from mtadiffusion.models.clip_scorer import ClipScorer

from .conftest import encoded
from .test_filters import source_of


@pytest.fixture
def head(tmp_path):
    """The layer that LAION publishes, for CLIP's vectors of 16 numbers."""
    torch.manual_seed(0)
    path = tmp_path / "head.pth"
    torch.save(torch.nn.Linear(16, 1).state_dict(), path)
    return path


def scored(tmp_path, clip, head, **filters):
    """The dataset of three pictures, the second with a score of its own, and one that is none."""
    images = [*(encoded(i) for i in range(3)), b"nothing"]
    source = source_of(tmp_path / "s.parquet", images, aesthetic=[None, 7.5, None, None])
    changes = {"aesthetic": {"head": str(head), "model": str(clip), "batch": 2}, "filters": filters}
    settings = presets.changed({"index": {}, "filters": {}}, changes)
    annotate(str(source), tmp_path / "ds", presets.build_stages(settings))
    return Dataset.open(tmp_path / "ds")


def test_images_without_a_score_get_the_linear_layer_of_their_unit_vector(tmp_path, clip, head):
    scores = scored(tmp_path, clip, head).table("aesthetics").read(0)["score"].to_pylist()
    assert scores[1] is None
    assert scores[3] is None
    scorer = ClipScorer(model=str(clip))
    scorer.load()
    inputs = scorer._processor(
        images=[Image.open(io.BytesIO(encoded(i))) for i in (0, 2)], return_tensors="pt"
    )
    state = torch.load(head, weights_only=True)
    with torch.inference_mode():
        vectors = scorer._network.get_image_features(**inputs)
        vectors = getattr(vectors, "pooler_output", vectors)
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        expected = torch.nn.functional.linear(unit, state["weight"], state["bias"])[:, 0]
    np.testing.assert_allclose([scores[0], scores[2]], expected, atol=1e-5)


def test_filters_go_by_the_sources_score_first_and_by_the_predicted_one_else(tmp_path, clip, head):
    dataset = scored(tmp_path, clip, head, min_aesthetic=5.8)
    reasons = dataset.table("filters").read(0)["reason"].to_pylist()
    assert reasons == ["aesthetic", None, "aesthetic", "unreadable"]


def test_a_head_in_safetensors_is_the_same(tmp_path, head):
    save_file(torch.load(head, weights_only=True), tmp_path / "head.safetensors")
    weight, bias = load_head(str(tmp_path / "head.safetensors"))
    expected, expected_bias = load_head(str(head))
    assert (weight == expected).all()
    assert bias == expected_bias


def test_no_head_a_wrong_one_and_a_pickle_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"aesthetic\.head must name the file"):
        presets.build_stages({"index": {}, "aesthetic": {}})
    with pytest.raises(UserError, match="cannot be read"):
        load_head(str(tmp_path / "absent.pth"))
    (tmp_path / "odd.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="must hold `weight` and `bias`"):
        load_head(str(tmp_path / "odd.pth"))
