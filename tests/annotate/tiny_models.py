"""The real annotators' classes and processors with a few random weights each, saved to folders."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2Processor,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamHQConfig,
    SamHQMaskDecoderConfig,
    SamHQModel,
    SamHQProcessor,
    SamHQPromptEncoderConfig,
    SamHQVisionConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "red", "cat", "dog", "car", "##s", "tree")
"""The tokenizer's vocabulary; BERT's own numbers of its special tokens need not hold."""


def save_grounding_dino(folder: Path, queries: int = 12, text_length: int = 64) -> Path:
    """A GroundingDINO with two levels and three layers."""
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=2,
            out_indices=[2, 3],
        ),
        text_config=BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        ),
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=4, decoder_attention_heads=4, num_queries=queries, num_feature_levels=2,
        max_text_len=text_length,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


_SAM_SEES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
    "output_channels": 16, "global_attn_indexes": [1], "window_size": 4, "num_pos_feats": 8,
    "initializer_range": 0.1,
}  # fmt: skip
_SAM_IS_ASKED = {"hidden_size": 16, "image_size": 64, "patch_size": 8}
_SAM_DECODES = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def save_sam(folder: Path) -> Path:
    """A SAM that works at 64 pixels."""
    torch.manual_seed(0)
    config = SamConfig(
        vision_config=SamVisionConfig(**_SAM_SEES),
        prompt_encoder_config=SamPromptEncoderConfig(**_SAM_IS_ASKED),
        mask_decoder_config=SamMaskDecoderConfig(**_SAM_DECODES),
    )
    SamModel(config).save_pretrained(folder)
    SamProcessor(_sam_pictures()).save_pretrained(folder)
    return folder


def save_sam_hq(folder: Path) -> Path:
    """A SAM-HQ that works at 64 pixels."""
    torch.manual_seed(0)
    config = SamHQConfig(
        vision_config=SamHQVisionConfig(**_SAM_SEES),
        prompt_encoder_config=SamHQPromptEncoderConfig(**_SAM_IS_ASKED),
        mask_decoder_config=SamHQMaskDecoderConfig(**_SAM_DECODES, vit_dim=16),
    )
    SamHQModel(config).save_pretrained(folder)
    SamHQProcessor(_sam_pictures()).save_pretrained(folder)
    return folder


def save_sam2(folder: Path) -> Path:
    """A SAM 2 that works at 64 pixels. Its processor needs torchvision."""
    from transformers import Sam2ImageProcessor

    torch.manual_seed(0)
    backbone = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 2, 2],
        window_size_per_stage=[4, 4, 4, 4], window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[3],
    )  # fmt: skip
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=16,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16),
        mask_decoder_config=Sam2MaskDecoderConfig(**_SAM_DECODES),
    )  # fmt: skip
    Sam2Model(config).save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": 64, "width": 64})).save_pretrained(folder)
    return folder


def _sam_pictures() -> SamImageProcessorPil:
    return SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip


SPOKEN = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", "ASSISTANT", ":", *WORDS[5:], "Describe", "the")


def save_llava(folder: Path) -> Path:
    """A LLaVA 1.5 whose pictures are 32 pixels and whose language has a few words."""
    torch.manual_seed(1)
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(SPOKEN)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(SPOKEN), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=SPOKEN.index("<image>"), image_seq_length=16,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


SIGNS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TURNS = (
    "{% for message in messages %}{{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %} assistant"
)


def save_qwen_vl(folder: Path) -> Path:
    """A Qwen2.5-VL whose language has a few words. Its processor needs torchvision."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    torch.manual_seed(1)
    said = ("<pad>", "</s>", "<unk>", *SIGNS, *WORDS[5:], "Describe", "the", "user", "assistant")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(said)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=list(SIGNS),
    )  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(said), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 1, "rope_parameters": rope,
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "out_hidden_size": 16, "window_size": 32, "fullatt_block_indexes": [1],
        },
        vision_start_token_id=said.index(SIGNS[0]), vision_end_token_id=said.index(SIGNS[1]),
        image_token_id=said.index(SIGNS[2]), video_token_id=said.index(SIGNS[3]),
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    pictures = {"patch_size": 8, "merge_size": 2, "min_pixels": 32 * 32, "max_pixels": 64 * 64}
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorPil(**pictures),
        tokenizer,
        Qwen2VLVideoProcessor(**pictures),
        chat_template=TURNS,
    ).save_pretrained(folder)
    return folder


def save_clip(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A CLIP whose pictures are 32 pixels, with a given CLIP tokenizer."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    config = CLIPConfig(
        text_config=text, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
