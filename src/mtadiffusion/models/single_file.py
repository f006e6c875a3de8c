"""Backbones in one safetensors file of the original layout, as fine-tunes are shared.

The weights come from the file; what it does not say, from a folder of configurations: one beside the file, or
the one shipped in `layouts` for its kind, which the tensors' names tell (none for 2.x, whose files do not say
enough). diffusers renames the weights.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtadiffusion.errors import UserError
from mtadiffusion.models.model_files import NETWORKS

if TYPE_CHECKING:
    import torch

_UNET = "model.diffusion_model.input_blocks.0.0.weight"
_NEEDED = {"UNet": _UNET, "VAE": "first_stage_model.decoder.conv_in.weight"}
_LATENT_CHANNELS = 4
_TEXT = {
    "sd15": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    "sd2": "cond_stage_model.model.ln_final.weight",
    "sdxl": "conditioner.embedders.1.model.ln_final.weight",
}
"""A tensor that tells the kind: of its last text encoder."""

_V_PREDICTION, _ZERO_TERMINAL_SNR = "v_pred", "ztsnr"
"""Empty tensors of these names mark fine-tunes that predict v, and that were trained down to pure noise."""

_PADDING = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What a checkpoint's header says."""

    path: Path
    """The file."""

    kind: str
    """`sd15`, `sd2` or `sdxl`."""

    predicts_v: bool
    """Whether it is marked as predicting v."""

    zero_terminal_snr: bool
    """Whether it is marked as trained down to pure noise."""

    @property
    def layout(self) -> Path:
        """The folder of its configurations: of its own name beside it, else the one shipped for its kind."""
        beside = self.path.with_suffix("")
        return beside if (beside / "model_index.json").is_file() else shipped_layout(self.kind)

    @property
    def remedy(self) -> str:
        """What to do where no shipped configurations fit."""
        return f"put the model's diffusers configurations beside it, in a folder {self.path.stem}"


def read_header(path: Path, argument: str) -> SingleFile:
    """What kind of backbone the file holds; no weight is read.

    Raises:
        UserError: no safetensors, none of a text-to-image Stable Diffusion, or no configurations for it.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        remedy = "a pickle can run foreign code: where you trust it, write it again as safetensors"
        raise UserError(argument, "must be a folder or a .safetensors file", str(path), remedy)
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            channels = file.get_slice(_UNET).get_shape()[1] if _UNET in names else 0
    except (OSError, SafetensorError) as error:
        raise UserError(argument, f"cannot be read ({error})", str(path), "copy it again") from error
    if lacking := [part for part, name in _NEEDED.items() if name not in names]:
        remedy = "a LoRA, a single part or another family is no backbone"
        rule = f"must hold a whole Stable Diffusion, this has no {lacking[0]}"
        raise UserError(argument, rule, str(path), remedy)
    kind = next((kind for kind, name in _TEXT.items() if name in names), None)
    if kind is None:
        rule, remedy = "must have a Stable Diffusion's text encoders", "an SDXL refiner is no backbone either"
        raise UserError(argument, rule, str(path), remedy)
    if channels != _LATENT_CHANNELS:
        remedy = "use a text-to-image checkpoint, not an inpainting one"
        raise UserError(argument, f"must take {_LATENT_CHANNELS} latent channels", channels, remedy)
    header = SingleFile(
        path=path,
        kind=kind,
        predicts_v=_V_PREDICTION in names,
        zero_terminal_snr=_ZERO_TERMINAL_SNR in names,
    )
    if not header.layout.is_dir():
        rule = "is a Stable Diffusion 2.x, of which a file does not tell size and kind of prediction"
        raise UserError(argument, rule, str(path), header.remedy)
    return header


def load_single_file(
    path: Path, dtype: torch.dtype, argument: str, networks: Collection[str] = NETWORKS
) -> dict[str, Any]:
    """The parts of a backbone, under the names of a pipeline's arguments; see `loading.load_components`."""
    import diffusers

    file = read_header(path, argument)
    name = "StableDiffusionXLPipeline" if file.kind == "sdxl" else "StableDiffusionPipeline"
    own = NETWORKS if file.kind == "sdxl" else NETWORKS[:-1]
    tokenizers = {
        part: _tokenizer(file.layout / part, padding)
        for part, padding in _PADDING.items()
        if part == "tokenizer" or file.kind == "sdxl"
    }
    left_out = dict.fromkeys(part for part in own if part not in networks)
    with _loading(file, argument):
        pipeline = getattr(diffusers, name).from_single_file(
            str(path), config=str(file.layout), local_files_only=True, **tokenizers, **left_out
        )
    parts = {part: getattr(pipeline, part) for part in own if part in networks}
    for part, network in parts.items():
        _check_whole(part, network, file, argument)
        network.to(dtype).eval()
    return {**parts, **tokenizers, "scheduler": _scheduler(pipeline.scheduler, file)}


def clip_tokenizer(padding: str) -> Any:
    """CLIP's tokenizer from its merges: 256 bytes, the same at a word's end, the merges, two marks."""
    from transformers import CLIPTokenizer

    packed = shipped_layout("clip_merges.txt.gz").read_bytes()
    merges: list[Any] = [tuple(line.split()) for line in gzip.decompress(packed).decode("utf-8").splitlines()]
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=padding)


def _byte_letters() -> list[str]:
    """GPT-2's visible letter of each byte, in the order of CLIP's vocabulary: bytes that print stand for
    themselves and come first."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printing))
    return [*map(chr, printing), *(chr(256 + index) for index in range(len(others)))]


def _tokenizer(folder: Path, padding: str) -> Any:
    from transformers import CLIPTokenizer

    if any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        return CLIPTokenizer.from_pretrained(folder)
    return clip_tokenizer(padding)


def _scheduler(scheduler: Any, file: SingleFile) -> Any:
    """The layout's, or for a checkpoint that is marked as predicting v one that samples it rightly."""
    if not file.predicts_v:
        return scheduler
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(
        scheduler.config,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=file.zero_terminal_snr,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def _check_whole(part: str, network: Any, file: SingleFile, argument: str) -> None:
    absent = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    if absent:
        rule = f"lacks {len(absent)} tensors of its {part}, first {absent[0]}"
        raise UserError(argument, rule, str(file.path), "the file is incomplete: copy it again")


@contextlib.contextmanager
def _loading(file: SingleFile, argument: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # converters of strange files raise nearly anything
        if "meta tensor" in str(error):  # what diffusers says of a tensor that it found nowhere
            rule, remedy = "lacks some of its tensors", "the file is incomplete: copy it again"
            raise UserError(argument, rule, str(file.path), remedy) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = f"the file is damaged, or not of {file.kind}'s size: then {file.remedy}"
        raise UserError(argument, f"cannot be loaded ({reason})", str(file.path), remedy) from error


def shipped_layout(name: str) -> Path:
    """The configurations shipped for `sd15` or `sdxl`, or another file beside them."""
    return Path(str(files("mtadiffusion"))) / "models" / "layouts" / name
