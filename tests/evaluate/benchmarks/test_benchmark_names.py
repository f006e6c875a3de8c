"""Benchmarks by name, and the options that they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmarks import BENCHMARKS, benchmark


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_found_by_its_name(name: str, tmp_path: Path) -> None:
    bench = benchmark(name, None if name == "stickerbench" else tmp_path)
    assert bench.name == name
    assert bench.title
    assert bench.settings.steps > 0


@pytest.mark.parametrize(
    ("name", "path", "options", "message"),
    [
        ("brushbanch", None, {}, "is no known benchmark, got 'brushbanch'; did you mean 'brushbench'?"),
        ("brushbench", None, {}, "--path must name the folder of brushbench"),
        ("stickerbench", "somewhere", {}, "--path is not for stickerbench, got 'somewhere'; it comes with"),
        ("brushbench", ".", {"alow_missing": True}, "alow_missing is no option of the benchmark brushbench"),
        ("brushbench", ".", {"alow_missing": True}, "did you mean 'allow_missing'?"),
        ("brushbench", ".", {"groups": ("insde",)}, "groups is unknown, got 'insde'; did you mean 'inside'?"),
        ("brushbench", ".", {"groups": ()}, "groups must name at least one group"),
        ("editbench", ".", {"groups": "full, poor"}, "groups is unknown, got 'poor'"),
        ("stickerbench", None, {"split": "train"}, "split must be one of validation, test, got 'train'"),
        ("object-holes", ".", {"count": 0}, "count must be at least 1"),
        ("object-holes", ".", {"margin": 0.5}, "margin must be above 0 and at most 0.25"),
        ("object-holes", ".", {"area": (0.5, 0.1)}, "area must be two rising shares"),
        ("object-holes", ".", {"split": "test"}, "split must be one of train, validation"),
        ("object-holes", ".", {"size": 8}, "size must be between 32 and 4096 pixels"),
    ],
)
def test_a_wrong_name_or_option_is_named(name: str, path: str | None, options: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        benchmark(name, path, **options)
    assert message in str(error.value)
