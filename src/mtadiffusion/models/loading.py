"""Folders and files to models: the parts of a backbone and a branch, from safetensors, every tensor accounted
for. What they are called is `registry`'s business. Whatever is wrong with one is the user's mistake.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtadiffusion.errors import UserError
from mtadiffusion.models.hub import is_variant
from mtadiffusion.models.model_files import NETWORKS, has_second_encoder
from mtadiffusion.models.single_file import load_single_file, read_header

if TYPE_CHECKING:
    import torch

    from mtadiffusion.models.branch import InpaintBranch

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
"""The diffusers classes that a backbone's VAE may be of."""

DTYPES = ("auto", "float32", "float16", "bfloat16")
_FEW = 3


def load_components(
    path: Path, dtype: torch.dtype, argument: str = "--model", networks: Collection[str] = NETWORKS
) -> dict[str, Any]:
    """The parts of a backbone under the names of a pipeline's arguments: vae, text_encoder, tokenizer, unet,
    scheduler; of an SDXL text_encoder_2, tokenizer_2 and force_zeros_for_empty_prompt besides.

    Args:
        path: a folder in the diffusers layout, or one safetensors file in the original one.
        dtype: of the weights.
        argument: the name of `path` in messages.
        networks: those wanted; of others nothing is read.
    """
    if path.is_file():
        parts = load_single_file(path, dtype, argument, networks)
    else:
        parts = _load_folder(path, dtype, argument, networks)
    if "tokenizer_2" in parts:
        parts["force_zeros_for_empty_prompt"] = zeros_for_empty_prompt(path, argument)
    return parts


def _load_folder(path: Path, dtype: torch.dtype, argument: str, networks: Collection[str]) -> dict[str, Any]:
    import diffusers
    from transformers import CLIPTokenizer

    parts = {
        name: _load_weights(model_class, path / name, dtype=dtype, argument=argument)
        for name, model_class in _network_classes(path, argument).items()
        if name in networks
    }
    for name in ("tokenizer", "tokenizer_2")[: 1 + has_second_encoder(path)]:
        with loading_errors(argument, path / name):
            parts[name] = CLIPTokenizer.from_pretrained(path / name)
    schedulers = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    scheduler_class = _class_named(path / "scheduler", "scheduler_config.json", schedulers, argument)
    with loading_errors(argument, path / "scheduler"):
        parts["scheduler"] = scheduler_class.from_pretrained(path / "scheduler")
    return parts


def empty_components(
    path: Path, argument: str = "--model", networks: Collection[str] = NETWORKS
) -> dict[str, Any]:
    """The networks of a backbone on the meta device, from their configurations alone."""
    import torch

    folder = layout_of(path, argument)
    with torch.device("meta"):
        return {
            name: _from_config(model_class, folder / name, argument)
            for name, model_class in _network_classes(folder, argument).items()
            if name in networks
        }


def layout_of(path: Path, argument: str) -> Path:
    """The folder of a backbone's configurations: itself, or the one that goes with a single file."""
    return read_header(path, argument).layout if path.is_file() else path


def zeros_for_empty_prompt(path: Path, argument: str = "--model") -> bool:
    """Whether a backbone takes the empty prompt as all zeros instead of encoding it, as SDXL does."""
    folder = layout_of(path, argument)
    if not has_second_encoder(folder):
        return False
    return bool(_read_json(folder / "model_index.json", argument).get("force_zeros_for_empty_prompt", True))


def load_branch(path: Path, dtype: torch.dtype, argument: str = "--branch") -> InpaintBranch:
    """A branch from its folder; an official BrushNet's folder or file gives a residual branch."""
    from mtadiffusion.models.branch import InpaintBranch

    config = {} if path.is_file() else _read_json(path / "config.json", argument)
    name = config.get("_class_name")
    if path.is_file() or name == "BrushNetModel":
        with loading_errors(argument, path):
            return InpaintBranch.from_brushnet(path).to(dtype).eval()
    if name != InpaintBranch.__name__:
        rule, remedy = "must be the folder of an InpaintBranch or a BrushNetModel", "see mta models"
        raise UserError(argument, rule, name, remedy)
    return _load_weights(InpaintBranch, path, dtype=dtype, argument=argument)


def torch_device(name: str, argument: str = "--device") -> torch.device:
    """The device called `name`, if this machine has it."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        remedy = "use auto or cpu; cuda and cuda:1 need a GPU and a torch built for it"
        raise UserError(argument, "is not available on this machine", name, remedy) from None
    return device


def torch_dtype(name: str | torch.dtype, device: torch.device, argument: str = "--dtype") -> torch.dtype:
    """The dtype called `name`."""
    import torch

    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise UserError(argument, f"must be one of {', '.join(DTYPES)}", name)
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def _read_json(path: Path, argument: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(argument, f"cannot be loaded ({error})", str(path), "the file is damaged") from error
    if not isinstance(values, dict):
        raise UserError(argument, "must hold a JSON object", str(path), "the file is damaged")
    return values


def _network_classes(folder: Path, argument: str) -> dict[str, Any]:
    """The class of each network of a backbone's folder."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    classes: dict[str, Any] = {
        "unet": _class_named(folder / "unet", "config.json", ("UNet2DConditionModel",), argument),
        "vae": _class_named(folder / "vae", "config.json", AUTOENCODERS, argument),
        "text_encoder": CLIPTextModel,
    }
    return (
        {**classes, "text_encoder_2": CLIPTextModelWithProjection} if has_second_encoder(folder) else classes
    )


def _from_config(model_class: Any, folder: Path, argument: str) -> Any:
    with loading_errors(argument, folder):
        if hasattr(model_class, "load_config"):  # diffusers', not transformers'
            return model_class.from_config(model_class.load_config(folder))
        return model_class(model_class.config_class.from_pretrained(folder))


def _class_named(folder: Path, file: str, allowed: Collection[str], argument: str) -> Any:
    """The diffusers class that a component's configuration names, if it is one of those allowed."""
    import diffusers

    name = str(_read_json(folder / file, argument).get("_class_name"))
    if name not in allowed:
        expected = " or ".join(allowed) if len(allowed) <= _FEW else "one that diffusers knows"
        rule = f"must have as its {folder.name} {expected}"
        raise UserError(
            argument, rule, name, "only the Stable Diffusion 1.x, 2.x and XL layouts are supported"
        )
    return getattr(diffusers, name)


def _load_weights(model_class: Any, folder: Path, *, dtype: torch.dtype, argument: str) -> Any:
    """A model with every one of its weights from the folder, none of them fresh."""
    with loading_errors(argument, folder):
        model, report = model_class.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            variant=_variant(folder),
            output_loading_info=True,
            local_files_only=True,
        )
    absent = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if absent:
        rule = f"has weights that do not fit its config.json: {len(absent)} are missing, first {absent[0]}"
        raise UserError(argument, rule, str(folder), "the folder is incomplete or mixed: copy it again")
    return model.eval()


def _variant(folder: Path) -> str | None:
    """`fp16` where the weights are there in that form alone, as some fine-tunes are published."""
    whole = [path for path in folder.glob("*.safetensors*") if not is_variant(path)]
    return None if whole else "fp16"


@contextlib.contextmanager
def loading_errors(argument: str, folder: Path) -> Iterator[None]:
    """Whatever loading raises is reported as a damaged folder or file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # loaders of broken folders raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "the folder is damaged or incomplete: copy it again"
        raise UserError(argument, f"cannot be loaded ({reason})", str(folder), remedy) from error
