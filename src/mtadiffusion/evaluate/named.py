"""What the command line names: benchmarks, methods, metrics, and what is published of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtadiffusion.evaluate.benchmark import Benchmark
from mtadiffusion.evaluate.generate import Place
from mtadiffusion.evaluate.methods.method import Method
from mtadiffusion.evaluate.metrics.metric import Metric
from mtadiffusion.evaluate.report.published import Published
from mtadiffusion.evaluate.specification import split

_STICKERS = "sticker"


def named_benchmark(text: str, path: Path | None) -> Benchmark:
    """The benchmark of a specification `NAME[:option=value,...]`.

    Raises:
        UserError: no such benchmark, option or folder.
    """
    from mtadiffusion.evaluate.benchmarks import benchmark

    name, options = split(text, "--benchmark")
    return benchmark(name, path, **options)


def named_methods(texts: Sequence[str]) -> list[Method]:
    """A method a specification.

    Raises:
        UserError: no such method or option.
    """
    from mtadiffusion.evaluate.methods.registry import method

    return [method(text) for text in texts]


def named_metrics(texts: Sequence[str] | None, benchmark: str) -> list[Metric]:
    """The metrics of specifications, each once: `NAME,NAME,...`, `NAME:option=value,...`, or a family's name.

    Args:
        texts: None for those that go with the benchmark.
        benchmark: its name.

    Raises:
        UserError: no such metric or option.
    """
    from mtadiffusion.evaluate.metrics import DEFAULTS, metric_named

    family = _STICKERS if benchmark.startswith(_STICKERS) else "paper"
    chosen: dict[str, Mapping[str, str]] = {}
    for text in texts if texts is not None else [family]:
        for name, options in _listed(text):
            names = DEFAULTS[name] if name in DEFAULTS and not options else (name,)
            chosen |= dict.fromkeys(names, options)
    return [metric_named(name, **options) for name, options in chosen.items()]


def published_for(benchmark: Benchmark) -> list[Published]:
    """What is published of a benchmark, in any of its groups."""
    from mtadiffusion.evaluate.methods.published import published

    return [
        Published(
            method=f"{row.method}, blended" if row.blended else row.method,
            group=row.group,
            figures=row.figures,
            source=row.source,
            note="; ".join(part for part in (_blended(row.blended), row.protocol, row.note) if part),
        )
        for row in published(benchmark.name)
    ]


def place_on(device: str, dtype: str, workers: int) -> Place:
    """Where models run: `workers` processes on a CPU share its cores.

    Raises:
        UserError: no such dtype.
    """
    import torch

    from mtadiffusion.models.loading import torch_dtype

    found = str(torch_dtype(dtype, torch.device(device))).removeprefix("torch.")
    threads = max(1, len(os.sched_getaffinity(0)) // workers) if workers and device == "cpu" else 0
    return Place(device=device, dtype=found, threads=threads)


def _listed(text: str) -> list[tuple[str, dict[str, str]]]:
    if ":" in text:
        return [split(text, "--metrics")]
    return [(name.strip(), {}) for name in text.split(",") if name.strip()]


def _blended(blended: bool | None) -> str:
    return {True: "blended", False: "not blended", None: ""}[blended]
