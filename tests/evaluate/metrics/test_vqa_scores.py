"""The probability of "Yes": CLIP-FlanT5 from its original layout, and any vision-language model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.vqa_score import square

from ...annotate.tiny_models import save_llava
from . import original_layouts as original
from .samples import batch, picture, sample

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "Yes",
    "No",
    "A",
    "chat",
    "USER",
    "ASSISTANT",
    "figure",
    "show",
    "red",
    "apple",
    "cat",
]
SQUARE = (32, 32)


def squares():
    return batch(*(sample(number, SQUARE) for number in range(3)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders: a T5's tokenizer, a vision tower; and the tensors of a CLIP-FlanT5."""
    folder = tmp_path_factory.mktemp("parts")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "words")
    torch.manual_seed(0)
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32,
            patch_size=8,
        )
    )  # fmt: skip
    tower.save_pretrained(folder / "tower")
    text = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(WORDS), d_model=24, d_kv=12, d_ff=32, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
        )
    ).eval()  # fmt: skip
    projector = {
        "mm_projector.0.weight": torch.randn(24, 16), "mm_projector.0.bias": torch.randn(24),
        "mm_projector.2.weight": torch.randn(24, 24), "mm_projector.2.bias": torch.randn(24),
    }  # fmt: skip
    return folder, tower.eval(), text, projector


@pytest.fixture
def checkpoint(parts, tmp_path):
    """Writes a CLIP-FlanT5's folder, with or without the vision tower in it."""
    _, tower, text, projector = parts

    def write(with_tower):
        settings = {
            **text.config.to_dict(),
            "model_type": "clip_t5",
            "mm_vision_tower": "x",
            "mm_hidden_size": 16,
        }
        (tmp_path / "config.json").write_text(json.dumps(settings))
        seen = {f"vision_tower.vision_tower.vision_model.{k}": v for k, v in tower.state_dict().items()}
        first = {**text.state_dict(), "embed_tokens.weight": text.shared.weight}
        torch.save(first, tmp_path / "pytorch_model-00001-of-00002.bin")
        torch.save(
            {**projector, **(seen if with_tower else {})}, tmp_path / "pytorch_model-00002-of-00002.bin"
        )
        return tmp_path

    return write


def ready(folder, model):
    metric = metric_named(
        "vqa_score",
        model=str(model),
        tokenizer=str(folder / "words"),
        vision=str(folder / "tower"),
        dtype="float32",
    )
    metric.setup("cpu")
    return metric


def expected_chance(parts, one):
    """One sample alone, as the authors' code embeds and scores it."""
    folder, tower, text, projector = parts
    words = PreTrainedTokenizerFast.from_pretrained(folder / "words")
    template = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions. USER: <image>\n"
        f'Does this figure show "{one.item.prompt}"? Please answer yes or no. ASSISTANT: '
    )
    before, after = (torch.tensor(words(part).input_ids) for part in template.split("<image>"))
    with torch.inference_mode():
        pixels = original.clip_pixels(torch.from_numpy(one.result))[None]
        patches = tower(pixels, output_hidden_states=True).hidden_states[2][0, 1:]
        hidden = F.linear(patches, projector["mm_projector.0.weight"], projector["mm_projector.0.bias"])
        hidden = F.linear(
            F.gelu(hidden), projector["mm_projector.2.weight"], projector["mm_projector.2.bias"]
        )
        embedded = torch.cat([text.shared(before), hidden, text.shared(after)])[None]
        logits = text(inputs_embeds=embedded, decoder_input_ids=torch.tensor([[0, 3]])).logits[0]
        return (-F.cross_entropy(logits, torch.tensor([3, 1]))).exp().item()


@pytest.mark.parametrize("with_tower", [True, False])
def test_clip_flan_t5_from_its_layout_gives_the_chance_of_yes(parts, checkpoint, with_tower):
    scored = batch(*squares().samples, sample(3, SQUARE, prompt="red red red apple cat"))
    found = ready(parts[0], checkpoint(with_tower)).score(scored)
    np.testing.assert_allclose(found, [expected_chance(parts, one) for one in scored.samples], rtol=1e-4)
    assert len(set(np.round(found, 5))) == 4


def test_the_towers_own_weights_yield_to_those_in_the_checkpoint(parts, checkpoint, tmp_path_factory):
    folder, tower, _, _ = parts
    other = tmp_path_factory.mktemp("other")
    torch.manual_seed(9)
    CLIPVisionModel(tower.config).save_pretrained(other / "tower")
    PreTrainedTokenizerFast.from_pretrained(folder / "words").save_pretrained(other / "words")
    model = checkpoint(with_tower=True)
    np.testing.assert_allclose(
        ready(other, model).score(squares()), ready(folder, model).score(squares()), rtol=1e-5
    )


def test_a_checkpoint_without_its_decoder_is_refused(parts, checkpoint):
    model = checkpoint(with_tower=False)
    shard = model / "pytorch_model-00001-of-00002.bin"
    weights = torch.load(shard, weights_only=True)
    torch.save({name: tensor for name, tensor in weights.items() if "decoder" not in name}, shard)
    with pytest.raises(UserError, match=r"vqa_score\.model must be complete"):
        ready(parts[0], model)


def test_pictures_are_padded_to_squares_with_clips_mean_colour():
    from PIL import Image

    padded = np.asarray(square(Image.fromarray(picture(0, (4, 8))), (0.48, 0.45, 0.40)))
    assert padded.shape == (8, 8, 3)
    assert padded[0, 0].tolist() == [122, 114, 102]
    assert (padded[2:6] == picture(0, (4, 8))).all()


@pytest.fixture
def llava(tmp_path):
    """A LLaVA that knows the word Yes."""
    from mtadiffusion.evaluate.metrics import vqa_score_vlm

    save_llava(tmp_path)
    return tmp_path, vqa_score_vlm


def test_any_model_gives_the_chance_that_its_answer_begins_with_yes(llava, monkeypatch):
    folder, module = llava
    monkeypatch.setattr(module, "_ANSWERS", ("cat", "dog", "unheard"))
    metric = metric_named("vqa_score_vlm", model=str(folder))
    metric.setup("cpu")
    scored = batch(*squares().samples, sample(3, SQUARE, prompt="red cat red dog red tree"))
    processor = LlavaProcessor.from_pretrained(folder)
    network = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    known = processor.tokenizer.convert_tokens_to_ids(["cat", "dog"])
    for one, found in zip(scored.samples, metric.score(scored), strict=True):
        text = (
            f'USER: <image>\nDoes this figure show "{one.item.prompt}"? Please answer yes or no. ASSISTANT:'
        )
        inputs = processor(images=[one.result], text=[text], return_tensors="pt")
        with torch.inference_mode():
            chances = network(**inputs).logits[0, -1].softmax(-1)
        assert found == pytest.approx(chances[known].sum().item(), rel=1e-4)


def test_a_model_without_a_word_for_yes_is_refused(llava):
    with pytest.raises(UserError, match='must have a word for "Yes"'):
        metric_named("vqa_score_vlm", model=str(llava[0])).setup("cpu")
