"""Randomness as a parameter: (seed, purpose, index) names one stream, the same on every machine.

Nothing here or elsewhere touches the global generators. A sample's stream does not depend on the batch
it is in, on the number of workers or on the device: noise is drawn on the CPU and moved.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for the stream of `purpose` and `index` under the run's `seed`."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A NumPy generator of its own for one sample."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, purpose, index)))


def torch_generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU torch generator of its own for one sample."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, purpose, index))
