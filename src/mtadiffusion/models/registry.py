"""Which models can be named, where they lie, and whether they are complete.

A backbone is a folder or hub id in the diffusers Stable Diffusion layout or one safetensors file, a branch a
folder with `config.json` and safetensors. The embedded models are such folders inside the package, known here
by name; nothing else asks whether a model is the embedded one. How these become models is `loading`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.models.hub import cached_folder, fetched_folder
from mtadiffusion.models.loading import load_branch, load_components, torch_device, torch_dtype
from mtadiffusion.models.model_files import NETWORKS, Kind, branch_of_file, check_layout, hub_files
from mtadiffusion.models.single_file import read_header

if TYPE_CHECKING:
    import torch

    from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline

NO_BRANCH = "none"
"""The branch name that means: the backbone alone, with latent blending."""

_ON_HUB: tuple[Kind, ...] = ("backbone", "branch")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OPTIONS: dict[Kind, str] = {
    "backbone": "--model",
    "branch": "--branch",
    "style_vgg": "style_vgg.weights",
    "judge": "judge",
    "instances": "model",
    "attributes": "model",
}


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model that can be named."""

    name: str
    """What the command line takes."""

    kind: Kind
    """What it is."""

    source: str
    """`embedded` in this package, or `hub`."""

    licence: str
    """The licence of the weights."""

    size_mb: float
    """Megabytes (10^6 bytes) on disk; of a model that is not present, what a download fetches."""

    present: bool
    """Whether it can be loaded without a network."""

    folder: str | None
    """Where it lies, if it is present."""


@dataclass(frozen=True, kw_only=True)
class _Known:
    name: str
    kind: Kind
    licence: str
    embedded_at: str | None = None
    """Folder inside the package; None: a hub id."""
    download_mb: float = 0.0


_KNOWN = (
    _Known(name="sticker", kind="backbone", licence="Apache-2.0", embedded_at="stickers/weights/base"),
    _Known(name="sticker", kind="branch", licence="Apache-2.0", embedded_at="stickers/weights/branch"),
    _Known(name="sticker", kind="style_vgg", licence="Apache-2.0", embedded_at="stickers/weights/latent_vgg"),
    _Known(name="sticker", kind="judge", licence="Apache-2.0", embedded_at="stickers/weights/judge"),
    _Known(name="sticker", kind="instances", licence="Apache-2.0", embedded_at="stickers/weights/instances"),
    _Known(
        name="sticker", kind="attributes", licence="Apache-2.0", embedded_at="stickers/weights/attributes"
    ),
    _Known(
        name="stable-diffusion-v1-5/stable-diffusion-v1-5",
        kind="backbone",
        licence="CreativeML OpenRAIL-M",
        download_mb=4270,
    ),
    _Known(
        name="CompVis/stable-diffusion-v1-4",
        kind="backbone",
        licence="CreativeML OpenRAIL-M",
        download_mb=4270,
    ),
    _Known(
        name="stabilityai/stable-diffusion-xl-base-1.0",
        kind="backbone",
        licence="CreativeML Open RAIL++-M",
        download_mb=13880,
    ),
)
_BRANCH_OF = {"sticker": "sticker"}
"""The branch that goes with a backbone when none is named."""


def known_models() -> list[ModelEntry]:
    """Every model that can be named, embedded ones first."""
    return [_entry(known) for known in _KNOWN]


def embedded_backbone(name: str) -> Path | None:
    """The folder of an embedded backbone, None if none has that name."""
    known = {one.name: one for one in _KNOWN if one.kind == "backbone" and one.embedded_at}
    return _embedded_folder(known[name]) if name in known else None


def resolve_backbone(
    name: str, argument: str = _OPTIONS["backbone"], networks: Collection[str] = NETWORKS
) -> Path:
    """Where a backbone lies, given its embedded name, folder, safetensors file or hub id; fetched if need be.

    Args:
        name: what names it.
        argument: what the user typed it for, in messages.
        networks: those whose weights must be there; of a hub id no others are fetched.

    Returns:
        A folder in the diffusers layout, or a file in the original one.

    Raises:
        UserError: unknown, in neither layout, pickles instead of safetensors, hub out of reach.
    """
    if name and (path := Path(name).expanduser()).is_file():
        return read_header(path, argument).path
    return _resolved("backbone", name, argument, networks)


def resolve_branch(name: str, argument: str = _OPTIONS["branch"]) -> Path:
    """Where a branch lies: the folder, as `resolve_backbone`, or the safetensors file of a BrushNet."""
    if name and (path := Path(name).expanduser()).is_file():
        return branch_of_file(path, argument)
    return _resolved("branch", name, argument)


def resolve_style_vgg(name: str, argument: str = _OPTIONS["style_vgg"]) -> Path:
    """The folder of a style loss's VGG, given its embedded name or its folder."""
    return _resolved("style_vgg", name, argument)


def resolve_instances(name: str = "sticker", argument: str = _OPTIONS["instances"]) -> Path:
    """The folder of a small network that finds objects, given its embedded name or its folder."""
    return _resolved("instances", name, argument)


def resolve_attributes(name: str = "sticker", argument: str = _OPTIONS["attributes"]) -> Path:
    """The folder of a small classifier of styles and colours, given its embedded name or its folder."""
    return _resolved("attributes", name, argument)


def default_branch(model: str) -> str:
    """The name of the branch that goes with a backbone; a backbone without one is the user's mistake."""
    if model not in _BRANCH_OF:
        remedy = (
            f"pass the folder of a branch that was trained for it, or {NO_BRANCH!r} for the backbone alone"
        )
        raise UserError("--branch", f"is needed with --model {model}", None, remedy)
    return _BRANCH_OF[model]


def load_pipeline(
    model: str = "sticker",
    branch: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
) -> MTAInpaintPipeline:
    """A pipeline from a backbone and a branch, each loaded from safetensors.

    Args:
        model: embedded name, folder, safetensors file or hub id of a backbone.
        branch: embedded name, folder or hub id of a branch, or an official BrushNet's folder or file; "none"
            for the backbone alone; None for the branch that goes with the backbone.
        dtype: of the weights; "auto" is float16 on CUDA and float32 elsewhere.
        device: "auto" is CUDA where there is a GPU, else the CPU.

    Raises:
        UserError: a name, folder or device that cannot be used; a branch that does not fit the backbone.
    """
    backbone_folder = resolve_backbone(model)
    branch_name = default_branch(model) if branch is None else branch
    branch_folder = None if branch_name == NO_BRANCH else resolve_branch(branch_name)

    from mtadiffusion.inpaint.pipeline import MTAInpaintPipeline

    place = torch_device(device)
    weights_dtype = torch_dtype(dtype, place)
    loaded = None if branch_folder is None else load_branch(branch_folder, weights_dtype)
    components = load_components(backbone_folder, weights_dtype)
    return MTAInpaintPipeline(branch=loaded, **components).to(place)


def _entry(known: _Known) -> ModelEntry:
    folder = (
        _embedded_folder(known) if known.embedded_at else cached_folder(known.name, hub_files(known.kind))
    )
    present = folder is not None and _is_complete(known.kind, folder)
    size = _size_mb(folder) if present and folder is not None else known.download_mb
    return ModelEntry(
        name=known.name,
        kind=known.kind,
        source="embedded" if known.embedded_at else "hub",
        licence=known.licence,
        size_mb=round(size, 2),
        present=present,
        folder=str(folder) if present else None,
    )


def _embedded_folder(known: _Known) -> Path:
    return Path(str(files("mtadiffusion"))) / str(known.embedded_at)


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _resolved(kind: Kind, name: str, argument: str, networks: Collection[str] = NETWORKS) -> Path:
    folder = _find_folder(kind, name, argument, networks)
    check_layout(kind, folder, argument, networks)
    return folder


def _find_folder(kind: Kind, name: str, argument: str, networks: Collection[str]) -> Path:
    embedded = {known.name: known for known in _KNOWN if known.kind == kind and known.embedded_at}
    if name in embedded:
        folder = _embedded_folder(embedded[name])
        if not folder.is_dir():
            remedy = "install the package with its weights, or pass a folder"
            raise UserError(argument, f"{name} is not part of this installation", str(folder), remedy)
        return folder
    path = Path(name).expanduser() if name else Path()
    if name and path.is_dir():
        return path
    if name and path.exists():
        raise UserError(argument, "must be a folder, not a file", name, "name the folder that holds it")
    names = [known.name for known in _KNOWN if known.kind == kind]
    if name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1:
        raise UserError(argument, "must be an existing folder", name, "there is no such folder")
    if not _HUB_ID.fullmatch(name) or kind not in _ON_HUB:
        remedy = f"{nearest_name(name, names)}; a folder serves too"
        raise UserError(argument, f"is no known {kind.replace('_', ' ')}", name, remedy)
    return _from_hub(kind, name, argument, names, networks)


def _from_hub(kind: Kind, name: str, argument: str, names: list[str], networks: Collection[str]) -> Path:
    """The snapshot of a hub id in the local cache, fetched if it is not complete there."""
    cached = cached_folder(name, hub_files(kind, networks))
    if cached is not None and _is_complete(kind, cached, networks):
        return cached
    otherwise = f"; or use {argument} sticker"
    folder = fetched_folder(name, hub_files(kind, networks), argument, names, otherwise)
    if kind == "backbone" and not _is_complete(kind, folder, networks):
        folder = fetched_folder(name, hub_files(kind, networks, half=True), argument, names, otherwise)
    return folder


def _is_complete(kind: Kind, folder: Path, networks: Collection[str] = NETWORKS) -> bool:
    try:
        check_layout(kind, folder, "", networks)
    except UserError:
        return False
    return True
