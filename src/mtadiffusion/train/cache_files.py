"""One file of the latent cache: written whole, mapped into memory, read a row at a time, every row checked.

A shard is a safetensors file over some records of one shape. Each record has a row, the variants of all of
them lie one after the other, and each text that they use lies there once.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtadiffusion.data.files import whole_path

Row = dict[str, Tensor]
"""A sample's tensors by name."""

OF_RECORD = ("mean", "deviation", "edge", "colours", "sizes")
"""z_0's posterior (C, h, w) each, the edge target (1, h, w), the picture's mean colour in each cell (3, h, w)
in [0, 1], to which the style VGG's map from latents to RGB is fitted, and SDXL's sizes, int32 (6,)."""

OF_VARIANT = ("masked_mean", "masked_deviation", "known")
"""z_m's posterior (C, h, w) each, and the known map (1, h, w), uint8, 1 = known."""

OF_TEXT = ("text", "pooled")
"""Text encoder states (L, D), and SDXL's pooled text (P,), which is left out for other backbones; the first
ones are those of the empty prompt."""

_GROUPS = {"record": OF_RECORD, "variant": OF_VARIANT, "prompt": OF_TEXT}
_OPEN = 64
"""Shards that stay open."""


class DamagedRowError(ValueError):
    """A row is not what was written."""


class DamagedShardError(DamagedRowError):
    """No row of a shard can be read."""


def write_shard(path: Path, rows: Mapping[str, Tensor], facts: Mapping[str, int | str]) -> None:
    """Write a shard, whole or not at all.

    Args:
        path: where.
        rows: the tensors of `OF_RECORD` (n, ...), `OF_VARIANT` (V, ...) and `OF_TEXT` (T, ...); `first`,
            int64 (n + 1,), the place of each record's first variant; `brush`, uint8 (V,), 1 = a brush hole;
            `prompt`, int64 (V,), the row of each variant's text.
        facts: what else to say of it.
    """
    sums = {
        f"{group}_sums": _checksums([rows[name] for name in names if name in rows])
        for group, names in _GROUPS.items()
    }
    with whole_path(path) as partial:
        save_file(dict(rows) | sums, partial, metadata={name: str(value) for name, value in facts.items()})


def _checksums(columns: Sequence[Tensor]) -> Tensor:
    """CRC-32 of each row of tensors (n, ...), int64 (n,)."""
    sums = [_checksum([column[row] for column in columns]) for row in range(len(columns[0]))]
    return torch.tensor(sums, dtype=torch.int64)


def _checksum(tensors: Sequence[Tensor]) -> int:
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, value)
    return value


class Shard:
    """A shard that is open for reading. Use `open_shard`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = safe_open(path, framework="pt")
        small = ("first", "brush", "prompt", *(f"{group}_sums" for group in _GROUPS))
        self._small = {name: self._file.get_tensor(name) for name in small}
        held = set(self._file.keys())
        names = [name for of_group in _GROUPS.values() for name in of_group if name in held]
        self._slices = {name: self._file.get_slice(name) for name in names}

    def facts(self) -> dict[str, str]:
        """What was said of it when it was written."""
        return dict(self._file.metadata() or {})

    def kinds(self, row: int) -> tuple[str, ...]:
        """Of the variants of the record in `row`; none where the record could not be read."""
        first, after = self._small["first"][row : row + 2].tolist()
        return tuple("brush" if brush else "object" for brush in self._small["brush"][first:after].tolist())

    def record(self, row: int) -> Row:
        """The tensors of `OF_RECORD`. Raises DamagedRowError."""
        return self._checked("record", row)

    def sample(self, row: int, variant: int, emptied: bool) -> Row:
        """All of a record's variant's tensors, with its own text or the empty one. Raises DamagedRowError."""
        place = int(self._small["first"][row]) + variant
        prompt = 0 if emptied else int(self._small["prompt"][place])
        of_record, of_variant = self._checked("record", row), self._checked("variant", place)
        return of_record | of_variant | self._checked("prompt", prompt)

    def _checked(self, group: str, row: int) -> Row:
        held = (name for name in _GROUPS[group] if name in self._slices)
        tensors = {name: self._slices[name][row : row + 1][0] for name in held}
        if _checksum(list(tensors.values())) != int(self._small[f"{group}_sums"][row]):
            raise DamagedRowError(f"{self.path} is damaged (checksum of {group} {row})")
        return tensors


@lru_cache(_OPEN)
def open_shard(path: Path) -> Shard:
    """The shard in a file. Raises DamagedShardError where it is cut off, missing or no such file."""
    try:
        return Shard(path)
    except Exception as error:  # what reads headers raises nearly anything for broken ones
        raise DamagedShardError(f"{path} is damaged ({error})") from error
