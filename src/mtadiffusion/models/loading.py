"""Folders to models: the parts of a backbone and a branch, read from safetensors, every tensor accounted for.

What the folders are called is `registry`'s business. Whatever is wrong with a folder is the user's mistake.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtadiffusion.errors import UserError

if TYPE_CHECKING:
    import torch

    from mtadiffusion.models.branch import InpaintBranch

DTYPES = ("auto", "float32", "float16", "bfloat16")
_FEW = 3


def load_components(folder: Path, dtype: torch.dtype, argument: str = "--model") -> dict[str, Any]:
    """The parts of a backbone's folder: vae, text_encoder, tokenizer, unet, scheduler."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    unet_class = _class_named(folder / "unet", "config.json", ("UNet2DConditionModel",), argument)
    vae_class = _class_named(folder / "vae", "config.json", ("AutoencoderKL", "AutoencoderTiny"), argument)
    schedulers = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    scheduler_class = _class_named(folder / "scheduler", "scheduler_config.json", schedulers, argument)
    load = partial(_load_weights, dtype=dtype, argument=argument)
    parts = {
        "vae": load(vae_class, folder / "vae"),
        "text_encoder": load(CLIPTextModel, folder / "text_encoder"),
        "unet": load(unet_class, folder / "unet"),
    }
    with _loading(argument, folder / "tokenizer"):
        parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    with _loading(argument, folder / "scheduler"):
        parts["scheduler"] = scheduler_class.from_pretrained(folder / "scheduler")
    return parts


def load_branch(folder: Path, dtype: torch.dtype, argument: str = "--branch") -> InpaintBranch:
    """A branch from its folder; an official BrushNet's folder gives a residual branch."""
    from mtadiffusion.models.branch import InpaintBranch

    name = _read_json(folder / "config.json", argument).get("_class_name")
    if name == "BrushNetModel":
        with _loading(argument, folder):
            return InpaintBranch.from_brushnet(folder).to(dtype).eval()
    if name != InpaintBranch.__name__:
        rule, remedy = "must be the folder of an InpaintBranch or a BrushNetModel", "see mta models"
        raise UserError(argument, rule, name, remedy)
    return _load_weights(InpaintBranch, folder, dtype=dtype, argument=argument)


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


def _class_named(folder: Path, file: str, allowed: Collection[str], argument: str) -> Any:
    """The diffusers class that a component's configuration names, if it is one of those allowed."""
    import diffusers

    name = str(_read_json(folder / file, argument).get("_class_name"))
    if name not in allowed:
        expected = " or ".join(allowed) if len(allowed) <= _FEW else "one that diffusers knows"
        rule = f"must have as its {folder.name} {expected}"
        raise UserError(argument, rule, name, "only the Stable Diffusion 1.x and 2.x layout is supported")
    return getattr(diffusers, name)


def _load_weights(model_class: Any, folder: Path, *, dtype: torch.dtype, argument: str) -> Any:
    """A model with every one of its weights from the folder, none of them fresh."""
    with _loading(argument, folder):
        model, report = model_class.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, output_loading_info=True, local_files_only=True
        )
    absent = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if absent:
        rule = f"has weights that do not fit its config.json: {len(absent)} are missing, first {absent[0]}"
        raise UserError(argument, rule, str(folder), "the folder is incomplete or mixed: copy it again")
    return model.eval()


@contextlib.contextmanager
def _loading(argument: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # loaders of broken folders raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "the folder is damaged or incomplete: copy it again"
        raise UserError(argument, f"cannot be loaded ({reason})", str(folder), remedy) from error
