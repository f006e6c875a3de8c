"""The files that a named model consists of, and whether they are all there. No weight is read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from mtadiffusion.errors import UserError

Kind = Literal["backbone", "branch", "style_vgg", "judge", "instances", "attributes"]

_PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}
_PICKLE_REMEDY = (
    "loading a pickle can run foreign code: where you trust the file, load it with diffusers and "
    "write it again with save_pretrained(FOLDER, safe_serialization=True)"
)
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""The folders of a backbone that hold weights, and their file's name without its suffix."""

_SECOND = ("text_encoder_2", "tokenizer_2")
"""The folders that SDXL has besides."""

_FORMS = (".safetensors", ".safetensors.index.json", "-?????-of-?????.safetensors")
HUB_FILES: dict[Kind, list[str]] = {
    "backbone": [
        "model_index.json",
        "scheduler/*.json",
        "tokenizer/*",
        "tokenizer_2/*",
        *(f"{part}/config.json" for part in _WEIGHTS),
        *(f"{part}/{stem}{form}" for part, stem in _WEIGHTS.items() for form in _FORMS),
    ],
    "branch": ["config.json", "diffusion_pytorch_model*.safetensors", "*.safetensors.index.json"],
}
"""What is fetched of a hub id: no pickles, no second form of the same weights."""

HALF_HUB_FILES = [f"{part}/{stem}.fp16.safetensors" for part, stem in _WEIGHTS.items()]
"""What is fetched besides of a backbone that is published in half precision alone."""


def has_second_encoder(folder: Path) -> bool:
    """Whether a backbone's folder is SDXL's, with two text encoders."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool((index.get("text_encoder_2") or [None])[0])


def check_layout(kind: Kind, folder: Path, argument: str) -> None:
    """Raise a UserError that names the first file that the folder of a model of this kind lacks."""
    if kind != "backbone":
        _check_file(
            folder / "config.json", argument, f"a {kind} is a folder with config.json and safetensors"
        )
        _check_weights(folder, "*", argument)
        return
    remedy = "pass a folder in the diffusers layout, with unet, vae, text_encoder, tokenizer and scheduler"
    _check_file(folder / "model_index.json", argument, remedy)
    _check_file(folder / "scheduler" / "scheduler_config.json", argument, remedy)
    two = has_second_encoder(folder)
    for part in ("tokenizer", "tokenizer_2")[: 1 + two]:
        if not any((folder / part / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise UserError(argument, "lacks its tokenizer", str(folder / part), remedy)
    for part, stem in _WEIGHTS.items():
        if two or part not in _SECOND:
            _check_file(folder / part / "config.json", argument, remedy)
            _check_weights(folder / part, stem, argument)


def _check_file(path: Path, argument: str, remedy: str) -> None:
    if not path.is_file():
        raise UserError(argument, f"lacks {path.name}", str(path.parent), remedy)


def _check_weights(folder: Path, stem: str, argument: str) -> None:
    forms = (".safetensors", ".safetensors.index.json", ".fp16.safetensors")
    if any(any(folder.glob(f"{stem}{form}")) for form in forms):
        return
    pickles = sorted(path for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        rule = f"must hold safetensors, not the pickle {pickles[0].name}"
        raise UserError(argument, rule, str(folder), _PICKLE_REMEDY)
    remedy = "the folder is incomplete: copy it again"
    expected = "its weights" if stem == "*" else f"{stem}.safetensors"
    raise UserError(argument, f"lacks {expected}", str(folder), remedy)


def branch_of_file(path: Path, argument: str) -> Path:
    """The file itself if it is a BrushNet's, the folder around it if it is one of our branches'."""
    from safetensors import SafetensorError, safe_open

    from mtadiffusion.models.brushnet import is_brushnet

    if path.suffix != ".safetensors":
        raise UserError(argument, "must be a folder or a .safetensors file", str(path), _PICKLE_REMEDY)
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(argument, f"cannot be read ({error})", str(path), "copy it again") from error
    if is_brushnet(names):
        return path
    if "zero_mid.weight" in names:
        check_layout("branch", path.parent, argument)
        return path.parent
    rule, remedy = "must hold a BrushNet or a branch of ours", "see docs/models.md for what can be named"
    raise UserError(argument, rule, str(path), remedy)
