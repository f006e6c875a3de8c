"""Specifications of methods as the command line has them, and what is wrong with bad ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.registry import METHODS, method


def test_options_get_the_types_of_their_fields(tmp_path: Path) -> None:
    made = method(f"mtadiffusion:model={tmp_path},steps=12,guidance=2.5,branch_scale=0.5,label=half")
    assert made.name == "half"
    assert made.options() == {  # type: ignore[attr-defined]
        "model": str(tmp_path), "branch": None, "steps": 12, "guidance": 2.5, "scheduler": None,
        "branch_scale": 0.5,
    }  # fmt: skip


def test_the_embedded_model_is_the_default() -> None:
    made = method("mtadiffusion")
    assert made.name == "mtadiffusion"
    assert set(made.identity()["weights"]) == {"model", "branch"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("brushnett", "--method is no known method, got 'brushnett'; did you mean 'brushnet'"),
        ("", "--method is no known method"),
        ("hd-painter", "--method has no weights that could be run here.*marked as published"),
        ("backbone:modell=x", "--method backbone has no such option, got 'modell'; did you mean 'model'"),
        ("backbone:branch=x", "has no such option"),
        ("backbone:name=x", "has no such option"),
        ("backbone:sticker", "must have its options as option=value, got 'sticker'"),
        ("backbone:steps=2,steps=3", "has an option twice, got 'steps'"),
        ("backbone:model=", "backbone:model must have a value"),
        ("backbone:steps=many", "backbone:steps must be a whole number, got 'many'"),
        ("backbone:steps=0", "backbone:steps must be between 1 and 1000"),
        ("backbone:guidance=x", "backbone:guidance must be a number"),
        ("backbone:guidance=nan", "backbone:guidance must be a number between 0 and 100"),
        ("backbone:model=./nowhere", "backbone:model must be an existing folder, got './nowhere'"),
        ("powerpaint:weights=/nowhere", "powerpaint:weights must be an existing folder"),
        ("blended-latent:strength=0", "blended-latent:strength must be above 0 and at most 1"),
        ("mtadiffusion:branch=none", "mtadiffusion:branch must be a branch.*backbone or blended-latent"),
        ("mtadiffusion:branch_scale=-1", "branch_scale must be a number between 0 and 10"),
        ("brushnet", "brushnet:branch is needed; pass branch=FOLDER"),
        ("flux-fill:scheduler=DDIMScheduler", "flux-fill:scheduler is not a choice"),
        ("harmonic:label=a/b", "harmonic:label must start with a letter or digit"),
        ("harmonic:steps=3", "harmonic has no such option"),
    ],
)
def test_a_bad_specification_is_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        method(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].runs])
def test_every_entry_names_its_class_and_its_options_in_one_line(name: str, specs: dict[str, str]) -> None:
    made = method(specs[name])
    entry = METHODS[name]
    assert made.kind == name  # type: ignore[attr-defined]
    assert len(entry.help) < 110
    own = set(made.options()) - {"steps", "guidance", "scheduler"}  # type: ignore[attr-defined]
    assert all(option in entry.help for option in own)


def test_the_registry_loads_no_heavy_library() -> None:
    code = "import sys, mtadiffusion.evaluate.methods.registry as r; r.method('harmonic'); "
    code += "assert r.METHODS and not {'torch', 'diffusers', 'transformers', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
