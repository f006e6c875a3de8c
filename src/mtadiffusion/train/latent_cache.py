"""Samples encoded once, before training: a folder of shards that is read instead of pictures and texts.

A cache keeps the crop of each record with its kept variants. `cache.json` says what its content depends on;
the shards are made by any number of processes, each shard whole or absent, and found again by the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from mtadiffusion.config import TrainConfig
from mtadiffusion.data.files import write_json
from mtadiffusion.errors import UserError
from mtadiffusion.models.hub import weights_digest
from mtadiffusion.models.loading import zeros_for_empty_prompt
from mtadiffusion.models.registry import resolve_backbone
from mtadiffusion.train.cache_files import DamagedShardError, Row, open_shard
from mtadiffusion.train.cache_filler import CacheFiller
from mtadiffusion.train.dataset import TrainingSamples
from mtadiffusion.train.encoding import LatentEncoder, PromptEncoder
from mtadiffusion.train.faults import Faults

FORMAT_VERSION = 2
"""Rises when crops, holes, the layout or the facts come out differently."""

_FACTS = "cache.json"
_HOW_ONLY = (
    *("source", "source_seed", "records", "cache", "cache_dir", "shard_records", "workers", "encode_batch"),
    *("empty_prompt", "posterior", "max_damaged"),
)
"""Fields of `DataConfig` that a cache's content does not depend on, or only through the records."""


def cache_facts(config: TrainConfig, samples: TrainingSamples) -> dict[str, Any]:
    """What the content of a cache depends on, JSON-ready."""
    backbone = resolve_backbone(config.backbone, "backbone", ())
    data = {name: value for name, value in asdict(config.data).items() if name not in _HOW_ONLY}
    facts = {
        "format_version": FORMAT_VERSION,
        "vae": _digest(backbone, "vae"),
        "text encoder": _digest(backbone, "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        "empty prompt": {"all zeros": zeros_for_empty_prompt(backbone, "backbone")},
        "crop policy": data | {"seed": samples.seed},
        "conditioning": {"hole_fill": config.branch.hole_fill, "latent_known": config.branch.latent_known},
        "edges": {"target": config.loss.edge_target, "downsampling": config.loss.edge_downsampling},
        "records": {"count": samples.count, "source": _source_digest(samples)},
    }
    return json.loads(json.dumps(facts))


def _digest(backbone: Path, *parts: str) -> str | None:
    """Of some parts; None where they are not all on this machine, as a run on a cache does not need them."""
    networks = [backbone / part for part in parts if (backbone / part / "config.json").is_file()]
    whole = backbone.is_file() or all(any(network.glob("*.safetensors")) for network in networks)
    return weights_digest(backbone, parts) if whole else None


def _source_digest(samples: TrainingSamples) -> str:
    """The source's own fingerprint, else a digest of its first picture."""
    if hasattr(samples.source, "fingerprint"):
        return samples.source.fingerprint()
    image = samples.source.record(0).image
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What filling a cache did."""

    records: int
    """In the whole cache."""

    variants: int

    bytes: int

    made: int
    """Shards made by this call."""

    damaged: int
    """Records that could not be read, in the whole cache; as the next two."""

    resampled: int
    """Objects of which a crop showed too little."""

    truncated: int
    """Texts longer than the text encoder's."""


class LatentCache:
    """The cache in a folder, complete or not.

    Args:
        folder: where; it may be new.
        samples: what it is of.
        facts: see `cache_facts`.
        replace: empty the folder if its cache is of something else, instead of refusing it.

    Raises:
        UserError: it holds a cache of something else; the message says what differs.
    """

    def __init__(
        self, folder: Path, samples: TrainingSamples, facts: dict[str, Any], *, replace: bool = False
    ) -> None:
        self.folder, self.samples = folder, samples
        known = _read_facts(folder)
        differing = [] if known is None else _differences(known["facts"], facts)
        if differing and not replace:
            remedy = "make another with `mta train cache`, or set what differs as it was"
            raise UserError("data.cache_dir", "was made with another " + "; ".join(differing), None, remedy)
        if differing:
            self._empty()
        if known is None or differing:
            known = {"facts": facts, "shard_records": samples.config.shard_records}
            write_json(folder / _FACTS, known)
        self.shards = _planned(samples.order.buckets, int(known["shard_records"]))
        self._places = np.empty((len(samples.order.buckets), 2), np.int64)  # shard, row
        for shard, records in enumerate(self.shards):
            self._places[records, 0] = shard
            self._places[records, 1] = np.arange(len(records))

    def _empty(self) -> None:
        for path in (self.folder / _FACTS, *self.folder.glob("shard-*.safetensors")):
            path.unlink(missing_ok=True)
        open_shard.cache_clear()

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{shard:06d}.safetensors"

    def absent(self) -> list[int]:
        """Shards that are not made yet."""
        present = {path.name for path in self.folder.glob("shard-*.safetensors")}
        return [shard for shard in range(len(self.shards)) if self.path(shard).name not in present]

    def kinds(self, record: int) -> tuple[str, ...]:
        """Of the record's variants; none where it could not be read. Raises DamagedShardError."""
        shard, row = self._places[record].tolist()
        return open_shard(self.path(shard)).kinds(row)

    def row(self, record: int, variant: int, emptied: bool) -> Row:
        """The tensors of one variant of a record, on the CPU as they are stored. Raises DamagedRowError."""
        shard, row = self._places[record].tolist()
        return open_shard(self.path(shard)).sample(row, variant, emptied)

    def records_beside(self, record: int) -> list[int]:
        """The records of the shard that the record is in."""
        return self.shards[self._places[record, 0]].tolist()

    def pictures(self, count: int) -> tuple[Tensor, Tensor]:
        """z_0 (n, C, h, w) and mean colours (n, 3, h, w) in [0, 1], fp32, of the first records of one bucket
        that can be read, `count` at most."""
        rows: list[Row] = []
        for record in np.flatnonzero(self.samples.order.buckets == self.samples.order.buckets[0]).tolist():
            shard, row = self._places[record].tolist()
            with contextlib.suppress(ValueError):
                if self.kinds(record):
                    rows.append(open_shard(self.path(shard)).record(row))
            if len(rows) == count:
                break
        if not rows:
            raise UserError("data.cache_dir", "has no record that can be read", str(self.folder))
        return torch.stack([row["mean"] for row in rows]).float(), torch.stack(
            [row["colours"] for row in rows]
        ).float()

    def fill(self, encoders: Callable[[Faults], tuple[LatentEncoder, PromptEncoder]]) -> CacheReport:
        """Make the absent shards, beside other processes that do the same; waits for theirs.

        Args:
            encoders: gives what encodes; asked only if there is something to encode.
        """
        made = 0
        if self.absent():
            filler = CacheFiller(self.samples, encoders)
            with tqdm(total=len(self._places), desc="latents", unit="record") as progress:
                for patience in (0, -1):
                    for shard in self.absent():
                        progress.update(len(self._places) - self._missing() - progress.n)
                        made += self._make(shard, filler, patience)
                progress.update(len(self._places) - progress.n)
        return self._report(made)

    def _missing(self) -> int:
        return sum(len(self.shards[shard]) for shard in self.absent())

    def _make(self, shard: int, filler: CacheFiller, patience: float) -> bool:
        """Whether the shard was made here, not there already or, without patience, in another's hands."""
        path = self.path(shard)
        lock = path.with_name(f".{path.name}.lock")
        try:
            with FileLock(lock, timeout=patience):
                if path.exists():
                    return False
                filler.write(path, self.shards[shard].tolist())
                lock.unlink(missing_ok=True)
                return True
        except Timeout:
            return False

    def _report(self, made: int) -> CacheReport:
        facts = []
        for shard in range(len(self.shards)):
            with contextlib.suppress(DamagedShardError):
                facts.append(open_shard(self.path(shard)).facts())
        sums = {
            name: sum(int(one[name]) for one in facts)
            for name in ("variants", "damaged", "resampled", "truncated")
        }
        size = sum(path.stat().st_size for path in self.folder.glob("shard-*.safetensors"))
        return CacheReport(records=len(self._places), bytes=size, made=made, **sums)


def _planned(buckets: np.ndarray, size: int) -> list[np.ndarray]:
    """The records of each shard: up to `size` of them, all of one bucket."""
    members = [np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)]
    return [of[i : i + size] for of in members for i in range(0, len(of), size)]


def filled_cache(
    config: TrainConfig,
    samples: TrainingSamples,
    folder: Path,
    encoders: Callable[[Faults], tuple[LatentEncoder, PromptEncoder]],
) -> LatentCache:
    """The complete cache of `samples` in `folder`: found there, or made.

    A folder that the configuration names must hold the cache of these samples or none; the run's own is made
    anew.
    """
    replace = not config.data.cache_dir
    cache = LatentCache(folder, samples, cache_facts(config, samples), replace=replace)
    if cache.absent():
        cache.fill(encoders)
    return cache


def with_cached_holes(config: TrainConfig) -> TrainConfig:
    """The configuration with the numbers of holes of its cache, where it asks for fresh ones."""
    known = _read_facts(Path(config.data.cache_dir) / "train") if config.data.cache_dir else None
    if known is None or config.data.holes_per_image:
        return config
    policy = known["facts"]["crop policy"]
    holes = {name: policy[name] for name in ("holes_per_image", "holes_per_object")}
    return replace(config, data=replace(config.data, **holes))


def check_is_cache(folder: str) -> None:
    """Raises UserError if a run is to read its samples from a folder where no cache was begun."""
    if folder and _read_facts(Path(folder) / "train") is None:
        remedy = "make it with `mta train cache --out`, or leave the field empty for a cache of the run's own"
        raise UserError("data.cache_dir", "must be the folder of a latent cache", folder, remedy)


def _read_facts(folder: Path) -> dict[str, Any] | None:
    try:
        known = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return {"facts": dict(known["facts"]), "shard_records": max(1, int(known["shard_records"]))}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError("data.cache_dir", f"has a damaged {_FACTS} ({error})", str(folder)) from error


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, group by group, with the values where they are short."""
    if before.get("format_version") != now["format_version"]:
        return ["format_version"]
    found = []
    for group in sorted(before.keys() | now.keys()):
        old, new = before.get(group), now.get(group)
        if old == new or new is None:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found.append(f"{group} ({', '.join(_differing_fields(old, new))})")
        else:
            found.append(group)
    return found


def _differing_fields(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        there, here = old.get(name), new.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            yield from _differing_fields(there, here, f"{prefix}{name}.")
        elif there != here:
            yield f"{prefix}{name} {there} there, {here} here"
