"""The benchmarks that can be run, by name; each reads its folder when it is asked for its items."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.benchmark import Benchmark
from mtadiffusion.evaluate.specification import typed

BENCHMARKS: dict[str, str] = {
    "brushbench": "mtadiffusion.evaluate.benchmarks.brushbench:BrushBench",
    "editbench": "mtadiffusion.evaluate.benchmarks.editbench:EditBench",
    "editbench-brushnet": "mtadiffusion.evaluate.benchmarks.brushbench:BrushNetEditBench",
    "object-holes": "mtadiffusion.evaluate.benchmarks.object_holes:ObjectHoles",
    "stickerbench": "mtadiffusion.stickers.bench:StickerBench",
}
"""Name -> the text "module:attribute" of its class; one that takes no `path` comes with the package."""


def benchmark(name: str, path: str | Path | None = None, **options: Any) -> Benchmark:
    """The benchmark called `name`. Nothing but the options is checked before its items are asked for.

    Args:
        name: one of `BENCHMARKS`.
        path: its folder; None for a benchmark that comes with the package.
        options: as the benchmark's class takes them, or as texts (see `specification`).

    Raises:
        UserError: unknown name or option, a path that is missing or not wanted, an option out of range.
    """
    if name not in BENCHMARKS:
        raise UserError("--benchmark", "is no known benchmark", name, nearest_name(name, BENCHMARKS))
    module, _, attribute = BENCHMARKS[name].partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known or option == "path":
            remedy = nearest_name(option, [one for one in known if one != "path"])
            raise UserError(option, f"is no option of the benchmark {name}", remedy=remedy)
    options = typed(factory, options)
    if "path" not in known:
        if path is not None:
            raise UserError(
                "--path", f"is not for {name}", str(path), "it comes with the package: leave it out"
            )
        return factory(**options)
    if path is None:
        remedy = "docs/evaluation-benchmarks.md says where to get it"
        raise UserError("--path", f"must name the folder of {name}", remedy=remedy)
    return factory(Path(path), **options)
