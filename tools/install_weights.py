"""Put trained weights into the package: fp16 safetensors, with the logs that they were trained by.

    python tools/install_weights.py runs

Reads the folders of `SHIPPED` below RUNS, and the training logs; what is absent is left as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).parent.parent / "src/mtadiffusion/stickers/weights"
SHIPPED = {
    "base": "base/pipeline",
    "base/vae": "decoder/vae",
    "latent_vgg": "latent_vgg/latent_vgg",
    "branch": "refined/branch",
    "instances": "annotators/instances",
    "attributes": "annotators/attributes",
}
LOGS = (
    "autoencoder",
    "base",
    "decoder",
    "latent_vgg",
    "branch",
    "annotators",
    "reader-0",
    "reader-1",
    "refined",
)
LOG_NAMES = "training.jsonl", "log.jsonl"
"""Of the recipes of this folder, and of `mta train`."""

LOG_ROWS = 200


def install(source: Path, target: Path) -> None:
    """Copy a model folder, its tensors in half precision; the old one goes only when the new one is whole.

    Configurations go on saying float32, which loaders then turn the weights into.
    """
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    for path in fresh.rglob("*.safetensors"):
        tensors = {name: _half(value) for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    for path in fresh.rglob("config.json"):
        _forget_origin(path)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _forget_origin(path: Path) -> None:
    """Configurations remember the folder that they were loaded from; it means nothing elsewhere."""
    values = json.loads(path.read_text())
    if values.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(values, indent=2) + "\n")


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def install_log(source: Path, target: Path) -> None:
    """Copy a JSONL log, thinned evenly to about `LOG_ROWS` rows."""
    rows = source.read_text().splitlines()
    thinned = rows[:: max(1, len(rows) // LOG_ROWS)]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(json.dumps(json.loads(row)) for row in thinned) + "\n")


def main() -> None:
    """Parse and install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    runs = parser.parse_args().runs
    for name, folder in SHIPPED.items():
        if (runs / folder).is_dir():
            install(runs / folder, WEIGHTS / name)
            print(f"installed {WEIGHTS / name}")
    for name, log in product(LOGS, LOG_NAMES):
        if (runs / name / log).is_file():
            install_log(runs / name / log, WEIGHTS / "logs" / f"{name}.jsonl")


if __name__ == "__main__":
    main()
