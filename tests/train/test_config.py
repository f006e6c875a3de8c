"""Configurations: recipes, the trip through JSON, overrides from a command line, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtadiffusion.config import (
    BranchConfig,
    CriticConfig,
    DataConfig,
    HoleConfig,
    LossConfig,
    OptimConfig,
    StyleVGGConfig,
    TrainConfig,
)
from mtadiffusion.errors import UserError
from mtadiffusion.fields import from_dict, to_dict, with_overrides
from mtadiffusion.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_json(name: str) -> None:
    config = recipe(name)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_papers_recipe_has_the_papers_figures() -> None:
    config = recipe("sd15")
    assert (config.loss.gamma, config.loss.delta, config.loss.eta) == (1.0, 100.0, 0.1)
    assert (config.optim.lr, config.style_vgg.lr, config.steps) == (1e-5, 1e-7, 200_000)
    assert config.loss.style_step == 1
    assert sum(map(len, config.style_vgg.widths)) == 13
    assert config.data.holes.foreign == 0


def test_overrides_reach_nested_fields_with_their_types() -> None:
    config = with_overrides(
        recipe("debug"),
        ["optim.lr=3e-4", "loss.style_step=x0", "data.cache = false", "steps=7", "loss.style_step=25"],
    )
    assert (config.optim.lr, config.loss.style_step, config.data.cache, config.steps) == (3e-4, 25, False, 7)
    config = with_overrides(config, ["data.holes.dilation=0.1,0.2", "loss.style_step=x0"])
    assert config.data.holes.dilation == (0.1, 0.2)
    assert config.loss.style_step == "x0"


def test_fields_that_must_fit_each_other_are_overridden_together() -> None:
    assignments = ["style_vgg.widths=((8, 8), (16,))", "style_vgg.pools=True"]
    style_vgg = with_overrides(recipe("debug"), assignments).style_vgg
    assert (style_vgg.widths, style_vgg.pools) == (((8, 8), (16,)), (True,))


def test_taps_may_be_left_out() -> None:
    style_vgg = with_overrides(recipe("debug"), ["style_vgg.taps=None,0,0"]).style_vgg
    assert style_vgg.taps == (None, 0, 0)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.warm_up=1", "did you mean 'warmup'"),
        ("optim=1", "is a group of fields"),
        ("steps.lr=1", "'lr' is part of no group"),
        ("steps=many", "steps must be int"),
        ("steps", "must be NAME=VALUE"),
        ("data.cache=maybe", "must be bool"),
        ("data.holes.dilation=1", "must be a pair"),
        ("data.holes.dilation=a b", "commas between"),
        ("optim.lr=nan", "must be between"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_overrides(recipe("debug"), [assignment])


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (OptimConfig, {"lr": -1.0}, "optim.lr must be between 0 and 1"),
        (OptimConfig, {"schedule": "cosin"}, "did you mean 'cosine'"),
        (LossConfig, {"delta": float("nan")}, "loss.delta"),
        (LossConfig, {"style_step": 0}, "loss.style_step"),
        (LossConfig, {"hole_weight": 0.0}, "loss.hole_weight must be between 0.01 and 100"),
        (LossConfig, {"timestep_power": -1.0}, "loss.timestep_power must be between 0.01 and 100"),
        (DataConfig, {"plain_texts": 1.5}, "data.plain_texts must be between 0 and 1"),
        (LossConfig, {"adversarial": -1.0}, "loss.adversarial must be at least 0"),
        (CriticConfig, {"width": 0}, "critic.width must be at least 1"),
        (CriticConfig, {"betas": (0.5, 1.0)}, "critic.betas must be between 0 and"),
        (CriticConfig, {"noise": float("nan")}, "critic.noise"),
        (LossConfig, {"style_step": "x1"}, "did you mean 'x0'"),
        (LossConfig, {"edge_reduction": "max"}, "edge_reduction"),
        (HoleConfig, {"exact": 0.0, "dilated": 0.0, "boxed": 0.0, "roughened": 0.0}, "needs a weight"),
        (HoleConfig, {"foreign": -1.0}, "holes.foreign"),
        (BranchConfig, {"time_conditioning": "shift"}, "did you mean 'scale_shift'"),
        (BranchConfig, {"initialise": "frsh"}, "did you mean 'fresh'"),
        (LossConfig, {"edge_downsampling": "mean"}, "loss.edge_downsampling is unknown"),
        (LossConfig, {"style_noise": "sme"}, "did you mean 'same'"),
        (LossConfig, {"gram_normalisation": "whc"}, "loss.gram_normalisation is unknown"),
        (StyleVGGConfig, {"initialise": "random", "taps": (0, 1)}, "style_vgg.taps must be 5, one a stage"),
        (HoleConfig, {"dilation": (0.3, 0.1)}, "must be a pair"),
        (DataConfig, {"holes_per_image": 0}, "data.cache=false"),
        (StyleVGGConfig, {}, "is needed for style_vgg.initialise='trained'"),
        (StyleVGGConfig, {"initialise": "random", "pools": ()}, "style_vgg.pools"),
        (TrainConfig, {"steps": 0}, "steps must be at least 1"),
        (TrainConfig, {"precision": "fp8"}, "precision"),
    ],
)
def test_values_out_of_range_are_refused(kind: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**fields)


def test_unknown_fields_and_recipes_offer_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'sticker'"):
        recipe("stiker")
    with pytest.raises(UserError, match=r"optim\.learning_rate is no configuration field"):
        from_dict(TrainConfig, {"optim": {"learning_rate": 1}})


def test_a_file_changes_the_recipe_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "sd15"\nsteps = 7\n[optim]\nlr = 2e-5\nbetas = [0.9, 0.99]\n[loss]\nstyle_step = "x0"\n'
    )
    config, paper = recipe(str(path)), recipe("sd15")
    assert (config.steps, config.optim.lr, config.optim.betas) == (7, 2e-5, (0.9, 0.99))
    assert config.loss.style_step == "x0"
    assert config.optim.warmup == paper.optim.warmup
    assert config.branch == paper.branch


def test_a_runs_own_configuration_is_a_recipe(tmp_path: Path) -> None:
    config = recipe("sticker")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert recipe(str(tmp_path / "config.json")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 'many'", "steps must be a whole number, got 'many'"),
        ("steps = 1.5", "steps must be a whole number"),
        ("steps = true", "steps must be a whole number"),
        ("channels_last = 1", "channels_last must be true or false"),
        ("[optim]\nlr = '1e-5'", r"optim\.lr must be a number"),
        ("[optim]\nbetas = 0.9", r"optim\.betas must be a list"),
        ("[loss]\nstyle_step = 0.5", r"loss\.style_step must be a whole number or a text"),
        ("optim = 3", "optim is a group of fields"),
        ("stepz = 3", "stepz is no configuration field.*steps"),
        ("base = 'sd16'", "base is unknown.*sd15"),
        ("steps =", "must be TOML"),
    ],
)
def test_a_wrong_file_is_told_apart(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        recipe(str(tmp_path / "mine.toml"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe cannot be read.*none\.toml"):
        recipe(str(tmp_path / "none.toml"))


def test_the_baseline_differs_from_the_paper_in_branch_and_losses_alone() -> None:
    ours, baseline = to_dict(recipe("sd15")), to_dict(recipe("sd15-brushnet"))
    assert {name for name in ours if ours[name] != baseline[name]} == {"branch", "loss", "style_vgg"}
    assert baseline["branch"]["block"] == "residual"
    assert (baseline["loss"]["delta"], baseline["loss"]["eta"]) == (0, 0)
