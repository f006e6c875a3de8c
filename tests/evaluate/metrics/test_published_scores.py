"""Adapters of published scores, from random checkpoints in the original layouts, against plain arithmetic."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, CLIPModel

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.clip import _LOADED

from . import original_layouts as original
from .samples import batch, sample

SQUARE = (32, 32)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "a", "cat"]


def squares():
    return batch(*(sample(number, SQUARE) for number in range(3)))


def ready(name, **options):
    made = pickle.loads(pickle.dumps(metric_named(name, **options)))  # as it reaches a worker process
    made.setup("cpu")
    return made


def pixels(scored):
    return torch.stack([original.clip_pixels(torch.from_numpy(one.result)) for one in scored.samples])


@pytest.fixture
def head(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "sa_0_4_vit_l_14_linear.pth"
    torch.save(torch.nn.Linear(16, 1).state_dict(), path)
    return path


@pytest.fixture
def hps_folder(tmp_path, tokenizer):
    weights = original.open_clip_weights(len(tokenizer))
    torch.save({"state_dict": weights}, tmp_path / "HPS_v2.1_compressed.pt")
    return tmp_path


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture
def reward_folder(tmp_path):
    torch.save(original.image_reward_weights(len(WORDS)), tmp_path / "ImageReward.pt")
    return tmp_path


@pytest.fixture(scope="module")
def lpips_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(original.squeezenet_weights(), folder / "squeezenet.pth")
    torch.save(original.lpips_weights(), folder / "linear.pth")
    return {"features": str(folder / "squeezenet.pth"), "linear": str(folder / "linear.pth")}


def test_clip_similarity_is_a_hundred_cosines_or_zero(clip_folder, tokenizer):
    scored, model = squares(), CLIPModel.from_pretrained(clip_folder).eval()
    words = tokenizer([one.item.prompt for one in scored.samples], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(pixel_values=pixels(scored), **words).logits_per_image.diagonal()
    cosines = logits.numpy() / model.logit_scale.exp().item()
    metric = ready("clip_similarity", model=str(clip_folder))
    np.testing.assert_allclose(metric._clip.cosines(scored), cosines, atol=1e-6)
    np.testing.assert_allclose(metric.score(scored), np.maximum(100 * cosines, 0), atol=1e-4)


def test_a_prompt_longer_than_77_tokens_is_cut(clip_folder):
    long = ready("clip_similarity", model=str(clip_folder))
    cut = [long.score(batch(sample(0, SQUARE, prompt="red " * n)))[0] for n in (75, 500)]
    assert cut[0] == pytest.approx(cut[1])


def test_aesthetic_is_the_linear_layer_of_the_unit_vector(clip_folder, head):
    scored, model = squares(), CLIPModel.from_pretrained(clip_folder).eval()
    with torch.inference_mode():
        vectors = model.visual_projection(model.vision_model(pixels(scored)).pooler_output)
        layer = torch.load(head, weights_only=True)
        expected = torch.nn.functional.normalize(vectors) @ layer["weight"][0] + layer["bias"]
    found = ready("aesthetic", model=str(clip_folder), head=str(head)).score(scored)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_head_for_another_clip_is_refused(clip_folder, tmp_path):
    torch.save(torch.nn.Linear(9, 1).state_dict(), tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"aesthetic\.head must be a layer for the 16 numbers"):
        ready("aesthetic", model=str(clip_folder), head=str(tmp_path / "odd.pth"))


def test_hps_from_open_clips_layout_is_open_clips_cosine(hps_folder, words_folder, tokenizer):
    scored = squares()
    ids = [tokenizer(one.item.prompt).input_ids for one in scored.samples]
    tokens = torch.tensor([row + [0] * (77 - len(row)) for row in ids])
    weights = original.open_clip_weights(len(tokenizer))
    expected = original.open_clip_cosines(weights, pixels(scored), tokens)
    found = ready("hps", weights=str(hps_folder), tokenizer=str(words_folder)).score(scored)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_image_reward_from_its_checkpoint_is_its_own_arithmetic(reward_folder, bert_folder):
    scored = squares()
    tokens = torch.zeros(3, 35, dtype=torch.long)
    for row, one in zip(tokens, scored.samples, strict=True):
        words = [2, *(WORDS.index(word) for word in one.item.prompt.split()), 3]
        row[: len(words)] = torch.tensor(words)
    weights = original.image_reward_weights(len(WORDS))
    expected = original.image_rewards(weights, pixels(scored), tokens, (tokens > 0).long())
    found = ready("image_reward", weights=str(reward_folder), tokenizer=str(bert_folder)).score(scored)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 1e-2


def test_image_reward_reads_35_tokens(reward_folder, bert_folder):
    reward = ready("image_reward", weights=str(reward_folder), tokenizer=str(bert_folder))
    cut = [reward.score(batch(sample(0, SQUARE, prompt="red " * n)))[0] for n in (33, 100)]
    assert cut[0] == pytest.approx(cut[1])


def as_lpips_sees(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_lpips_from_the_published_layouts_is_its_own_arithmetic(lpips_files):
    scored = batch()
    pair = [as_lpips_sees([getattr(one, name) for one in scored.samples]) for name in ("result", "original")]
    expected = original.lpips_distance(original.squeezenet_weights(), original.lpips_weights(), *pair)
    np.testing.assert_allclose(ready("lpips", **lpips_files).score(scored), expected, rtol=1e-4)
    assert min(expected) > 0


def test_brushnets_lpips_is_that_of_pictures_with_a_black_hole(lpips_files):
    one = sample(result=sample(5).original)
    black = [np.where(one.hole[..., None], np.uint8(0), picture) for picture in (one.result, one.original)]
    pair = [as_lpips_sees([picture]) for picture in black]
    expected = original.lpips_distance(original.squeezenet_weights(), original.lpips_weights(), *pair)
    metric = ready("lpips_brushnet", **lpips_files)
    np.testing.assert_allclose(metric.score(batch(one)), expected, rtol=1e-4)
    assert metric.score(batch(sample())) == [0]
    assert metric.score(batch(sample(hole=np.ones((48, 64), bool)))) == [None]


def test_pictures_of_several_sizes_are_scored_in_one_batch(lpips_files, clip_folder):
    both = [sample(0, (48, 64)), sample(1, (64, 40)), sample(2, (48, 64))]
    for metric in (ready("lpips", **lpips_files), ready("clip_similarity", model=str(clip_folder))):
        alone = [metric.score(batch(one))[0] for one in both]
        np.testing.assert_allclose(metric.score(batch(*both)), alone, rtol=1e-4, atol=1e-5)


def test_one_clip_is_loaded_once_and_sees_each_picture_once(clip_folder, head, monkeypatch):
    first = ready("clip_similarity", model=str(clip_folder))
    second = ready("aesthetic", model=str(clip_folder), head=str(head))
    assert first._clip is second._clip
    seen = []
    images = first._clip.scorer.images
    monkeypatch.setattr(
        first._clip.scorer, "images", lambda pictures: seen.append(len(pictures)) or images(pictures)
    )
    scored = squares()
    first.score(scored)
    second.score(scored)
    assert seen == [3]


def test_a_clip_that_no_metric_holds_is_let_go(clip_folder):
    metric = ready("clip_similarity", model=str(clip_folder))
    held = len(_LOADED)
    del metric
    assert len(_LOADED) == held - 1


OFFLINE = {
    "clip_similarity": "hf download openai/clip-vit-large-patch14",
    "hps": "hf download xswu/HPSv2 --include 'HPS_v2.1_compressed.pt'",
    "aesthetic": "download https://github.com/LAION-AI",
    "image_reward": "hf download zai-org/ImageReward --include 'ImageReward.pt'",
    "lpips": "download https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    "lpips_brushnet": "then pass its path as lpips_brushnet.features",
    "vqa_score": "hf download zhiqiulin/clip-flant5-xxl",
    "vqa_score_vlm": "hf download llava-hf/llava-1.5-7b-hf",
    "style_gram": "hf download timm/vgg16.tv_in1k",
    "hit": "hf download IDEA-Research/grounding-dino-base",
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", OFFLINE)
def test_without_a_network_the_error_says_what_to_fetch(name):
    metric = metric_named(name)
    assert None in metric.identity().values()
    with pytest.raises(UserError, match="is not on this machine") as error:
        metric.setup("cpu")
    assert OFFLINE[name] in str(error.value)
    assert str(error.value).startswith(f"{name}.")


@pytest.mark.parametrize(
    ("name", "file"), [("hps", "HPS_v2.1_compressed.pt"), ("image_reward", "ImageReward.pt")]
)
def test_a_checkpoint_of_something_else_is_refused(name, file, tmp_path, words_folder):
    torch.save({"weight": torch.zeros(3)}, tmp_path / file)
    with pytest.raises(UserError, match="must be"):
        metric_named(name, weights=str(tmp_path), tokenizer=str(words_folder)).setup("cpu")


def test_the_identity_changes_with_the_weights(hps_folder, words_folder):
    metric = metric_named("hps", weights=str(hps_folder), tokenizer=str(words_folder))
    before = metric.identity()["weights"]
    torch.save({"state_dict": {}}, hps_folder / "HPS_v2.1_compressed.pt")
    assert metric.identity()["weights"] != before


@pytest.mark.parametrize("name", ["hps", "image_reward", "vqa_score"])
def test_the_identity_changes_with_the_tokenizer(name, tmp_path):
    metric = metric_named(name, tokenizer=str(tmp_path))
    before = metric.identity()["tokenizer"]
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert metric.identity()["tokenizer"] != before
