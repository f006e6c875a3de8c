"""The files that a named model consists of, and whether they are all there. No weight is read here."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from mtadiffusion.errors import UserError

Kind = Literal["backbone", "branch", "style_vgg", "judge", "instances", "attributes"]

_PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}
_PICKLE_REMEDY = (
    "loading a pickle can run foreign code: where you trust the file, load it with diffusers and "
    "write it again with save_pretrained(FOLDER, safe_serialization=True)"
)
_INCOMPLETE = "the folder is incomplete: copy it again"
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""The folders of a backbone that hold weights, and their file's name without its suffix."""

NETWORKS = tuple(_WEIGHTS)
"""The networks of a backbone; only SDXL has the last one."""

UNET_ALONE = ("unet",)
"""The one that a training step runs where everything else was encoded before."""

ENCODERS = NETWORKS[1:]
"""Those that encode and decode."""

_SECOND = ("text_encoder_2", "tokenizer_2")
"""The folders that SDXL has besides."""

_FORMS = (".safetensors", ".safetensors.index.json", "-?????-of-?????.safetensors")
_HALF_FORMS = (".fp16.safetensors", ".safetensors.index.fp16.json", ".fp16-?????-of-?????.safetensors")


def hub_files(kind: Kind, networks: Collection[str] = NETWORKS, *, half: bool = False) -> list[str]:
    """Patterns of what is fetched of a hub id: no pickles, no second form of the same weights.

    Args:
        kind: what it is; a backbone or a branch.
        networks: of a backbone, those whose weights are wanted; configurations and tokenizers always are.
        half: of a backbone, the weights in half precision, for those that are published in that form alone.
    """
    if kind == "branch":
        return ["config.json", "diffusion_pytorch_model*.safetensors", "*.safetensors.index.json"]
    small = ["model_index.json", "scheduler/*.json", "tokenizer/*", "tokenizer_2/*"]
    small += [f"{part}/config.json" for part in NETWORKS]
    forms = _HALF_FORMS if half else _FORMS
    return small + [f"{part}/{_WEIGHTS[part]}{form}" for part in networks for form in forms]


def has_second_encoder(folder: Path) -> bool:
    """Whether a backbone's folder is SDXL's, with two text encoders."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool((index.get("text_encoder_2") or [None])[0])


def check_layout(kind: Kind, folder: Path, argument: str, networks: Collection[str] = NETWORKS) -> None:
    """Raise a UserError that names the first file that the folder of a model of this kind lacks.

    Of a backbone the weights of `networks` alone must be there.
    """
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
            if part in networks:
                _check_weights(folder / part, stem, argument)


def _check_file(path: Path, argument: str, remedy: str) -> None:
    if not path.is_file():
        raise UserError(argument, f"lacks {path.name}", str(path.parent), remedy)


def _check_weights(folder: Path, stem: str, argument: str) -> None:
    forms = (".safetensors", ".fp16.safetensors")
    if any(any(folder.glob(f"{stem}{form}")) for form in forms):
        return
    if indices := sorted(folder.glob(f"{stem}.safetensors.index*.json")):
        _check_pieces(indices[-1], argument)  # of two, the plain one
        return
    pickles = sorted(path for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        rule = f"must hold safetensors, not the pickle {pickles[0].name}"
        raise UserError(argument, rule, str(folder), _PICKLE_REMEDY)
    expected = "its weights" if stem == "*" else f"{stem}.safetensors"
    raise UserError(argument, f"lacks {expected}", str(folder), _INCOMPLETE)


def _check_pieces(index: Path, argument: str) -> None:
    """Weights in several files: all that their index names must lie beside it."""
    try:
        pieces = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        rule = "must list the files of its weights"
        raise UserError(argument, rule, str(index), _INCOMPLETE) from error
    strange = sorted(str(piece) for piece in pieces if Path(str(piece)).name != piece)
    if strange or not pieces:
        raise UserError(argument, "must list files beside it", f"{index}: {strange}", _INCOMPLETE)
    for piece in sorted(pieces):
        _check_file(index.parent / piece, argument, _INCOMPLETE)


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
