"""Where figures come from: versions of code and libraries, as far as they are known."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtadiffusion import __version__

_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow", "scipy")


def versions(device: str) -> dict[str, Any]:
    """This project's version and commit, Python's and the libraries' versions, and the device's name."""
    return {
        "mtadiffusion": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "device": device_name(device),
    }


def commit() -> str | None:
    """The checkout's commit, with `+changes` where files differ from it; None outside of one."""
    root = Path(__file__).parents[4]
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    if head and _git(root, "status", "--porcelain", "--untracked-files=no"):
        return f"{head}+changes"
    return head


def device_name(device: str) -> str:
    """What a torch device is: the GPU's name, or `cpu`."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else device


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
