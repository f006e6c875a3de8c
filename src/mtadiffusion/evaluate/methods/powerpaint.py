"""PowerPaint, version 1 (Zhuang et al. 2024, arXiv 2312.03594): SD-Inpainting with learned task tokens.

Its release is two files over the inpainting backbone: the UNet, and a text encoder whose table of tokens is
wrapped beside three learned tokens of ten vectors each. Here the vectors become rows of the table and the
tokens entries of the tokenizer, which computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.stable_diffusion import SDInpainting
from mtadiffusion.evaluate.methods.weights import check_files, find_folder

if TYPE_CHECKING:
    import torch

UNET_FILE = "unet/unet.safetensors"
TEXT_FILE = "text_encoder/text_encoder.safetensors"
TASKS = ("P_ctxt", "P_shape", "P_obj")
"""The learned tokens; P_obj asks for an object that the prompt describes."""

PARTS = 10
"""Vectors, and so tokenizer entries, of each of them."""

_TABLE = "embeddings.token_embedding."
_PREFIX = "text_model."
_POSITIONS = "embeddings.position_ids"


@dataclass(kw_only=True)
class PowerPaint(SDInpainting):
    """SD-Inpainting with PowerPaint's UNet and text encoder."""

    kind: ClassVar[str] = "powerpaint"
    models: ClassVar[tuple[str, ...]] = ("model", "weights")

    weights: str = "JunhaoZhuang/PowerPaint-v1"
    """A folder or hub id in the layout of the release."""

    def sources(self) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
        """The backbone and the release."""
        return {**super().sources(), "weights": (self._folder(), ("unet", "text_encoder"))}

    def components(self, dtype: torch.dtype) -> dict[str, Any]:
        """The backbone's parts with the release's weights and the task tokens."""
        from safetensors.torch import load_file

        folder = self._folder()
        parts = super().components(dtype)
        add_task_tokens(parts["tokenizer"], parts["text_encoder"])
        try:
            parts["unet"].load_state_dict(load_file(folder / UNET_FILE))
            parts["text_encoder"].load_state_dict(flat_text_weights(load_file(folder / TEXT_FILE)))
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            remedy = f"it must be the release's folder, with {UNET_FILE} and {TEXT_FILE}"
            raise UserError(
                f"{self.kind}:weights", f"does not fit ({reason})", str(folder), remedy
            ) from error
        return parts

    def wording(self, prompt: str) -> str:
        """The object token's parts, then the prompt: what is too long is lost at its end, not the task."""
        return " ".join([*task_words("P_obj"), prompt])

    def _folder(self) -> Path:
        argument = f"{self.kind}:weights"
        folder = find_folder(self.weights, argument, (UNET_FILE, TEXT_FILE))
        check_files(folder, (UNET_FILE, TEXT_FILE), argument)
        return folder


def task_words(task: str) -> list[str]:
    """The tokenizer entries that a task token stands for."""
    return [f"{task}_{part}" for part in range(PARTS)]


def add_task_tokens(tokenizer: Any, text_encoder: Any) -> None:
    """Make the task tokens' parts the last entries of a CLIP tokenizer and of its text encoder's table."""
    from transformers import AddedToken

    words = [word for task in TASKS for word in task_words(task)]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def flat_text_weights(released: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The release's text encoder by transformers' names, its task tokens as the last rows of the table."""
    import torch

    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in released.items()}
    weights.pop(_POSITIONS, None)  # older versions of transformers saved them
    learned = [weights.pop(f"{_TABLE}trainable_embeddings.{task}") for task in TASKS]
    weights[f"{_TABLE}weight"] = torch.cat([weights.pop(f"{_TABLE}wrapped.weight"), *learned])
    return weights
