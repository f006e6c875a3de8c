"""What the judge is trained on (tools/judge_examples.py), with a few sprites."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mtadiffusion.stickers.assets import STYLES, labels
from mtadiffusion.stickers.colours import COLOURS

SIZE = 64


@pytest.fixture(scope="module")
def examples() -> Any:
    """The tool as a module."""
    path = Path(__file__).parents[2] / "tools" / "judge_examples.py"
    spec = importlib.util.spec_from_file_location("judge_examples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def material(examples: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "HUES", 1)
        return examples.gather(seed=0, scenes=12, backdrops=6, side=48)


def test_a_batch_is_a_pure_function_of_seed_and_step(examples: Any, material: Any) -> None:
    one, again, other = (examples.batch(material, seed=0, step=step, size=SIZE) for step in (3, 3, 4))
    assert torch.equal(one.views, again.views)
    assert torch.equal(one.category, again.category)
    assert not torch.equal(one.views, other.views)


def test_targets_are_classes_of_the_judge_or_unknown(examples: Any, material: Any) -> None:
    for step in range(4):
        batch = examples.batch(material, seed=1, step=step, size=SIZE)
        assert batch.views.shape == (SIZE, 3, 48, 48)
        assert batch.views.abs().max() <= 1
        for target, last in (
            (batch.category, len(labels())),
            (batch.style, len(STYLES) - 1),
            (batch.colour, len(COLOURS)),
        ):
            assert target.shape == (SIZE,)
            assert target.min() >= examples.UNKNOWN
            assert target.max() <= last


def test_a_part_has_no_object_and_then_neither_style_nor_colour(examples: Any, material: Any) -> None:
    batches = [examples.batch(material, seed=2, step=step, size=SIZE) for step in range(4)]
    category, style, colour = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("category", "style", "colour")
    )
    nothing = category == len(labels())
    assert 0.05 < nothing.float().mean() < 0.4
    assert (style[nothing] == examples.UNKNOWN).all()
    assert (colour[nothing] == examples.UNKNOWN).all()


def test_disturbed_views_stay_near_the_originals(examples: Any) -> None:
    views = torch.rand(8, 3, 48, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    smooth = torch.nn.functional.avg_pool2d(views, 9, 1, 4)
    disturbed = examples.disturbed(smooth, torch.Generator().manual_seed(1))
    assert 0.005 < (disturbed - smooth).abs().mean() < 0.15
