"""What holds for every method, on tiny random checkpoints in the layouts of the releases."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.registry import METHODS, method

RUNNING = [name for name, entry in METHODS.items() if entry.runs]
DRAWING = [name for name in RUNNING if name != "harmonic"]


def test_every_method_that_runs_has_a_checkpoint_here(specs: dict[str, str]) -> None:
    assert sorted(specs) == sorted(RUNNING)


@pytest.mark.parametrize("name", RUNNING)
def test_known_pixels_stay_and_the_hole_is_filled(
    name: str, draw: Callable[..., Any], image: np.ndarray, hole: np.ndarray
) -> None:
    first = draw(name, image, hole).first
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    assert np.array_equal(first[~hole], image[~hole])
    assert (first[hole] != image[hole]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("name", RUNNING)
def test_a_seed_gives_one_picture_whatever_lies_in_the_hole(
    name: str, draw: Callable[..., Any], image: np.ndarray, hole: np.ndarray
) -> None:
    drawn = draw(name, image, hole)
    assert np.array_equal(drawn.first, drawn.again)


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_gives_another_picture(
    name: str, draw: Callable[..., Any], image: np.ndarray, hole: np.ndarray
) -> None:
    drawn = draw(name, image, hole)
    assert not np.array_equal(drawn.first, drawn.other_seed)


def test_methods_draw_different_pictures(
    draw: Callable[..., Any], image: np.ndarray, hole: np.ndarray
) -> None:
    pictures = {draw(name, image, hole).first.tobytes() for name in RUNNING}
    assert len(pictures) == len(RUNNING)


@pytest.mark.parametrize("name", RUNNING)
def test_a_method_travels_to_another_process_before_its_setup(name: str, specs: dict[str, str]) -> None:
    made = method(specs[name])
    again = pickle.loads(pickle.dumps(made))
    assert (again.name, again.options()) == (made.name, made.options())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", RUNNING)
def test_an_identity_names_the_kind_the_options_and_every_weight(name: str, specs: dict[str, str]) -> None:
    made = method(specs[name])
    identity = json.loads(json.dumps(made.identity()))
    assert identity["kind"] == name
    assert sorted(identity["weights"]) == sorted(getattr(made, "models", ()))
    assert len(set(identity["weights"].values())) == len(identity["weights"])


def test_another_label_is_the_same_method_by_another_name(specs: dict[str, str]) -> None:
    made, labelled = method(specs["backbone"]), method(f"{specs['backbone']},label=Baseline-1.5")
    assert labelled.name == "Baseline-1.5"
    assert labelled.identity() == made.identity()


def test_other_options_and_other_weights_are_another_identity(
    specs: dict[str, str], branch_folder: Path, backbone_folder: Path, tmp_path: Path
) -> None:
    made = method(specs["mtadiffusion"]).identity()
    assert method(f"{specs['mtadiffusion']},steps=7").identity() != made
    other = tmp_path / "branch"
    shutil.copytree(branch_folder, other)
    same = method(f"mtadiffusion:model={backbone_folder},branch={other}").identity()
    assert same["weights"] == made["weights"]
    file = other / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    changed = method(f"mtadiffusion:model={backbone_folder},branch={other}").identity()
    assert changed["weights"] != made["weights"]


def test_a_picture_without_a_hole_comes_back_as_it_is(
    ready: Callable[..., Any], specs: dict[str, str], image: np.ndarray
) -> None:
    made = ready(specs["backbone"])
    assert np.array_equal(made.generate(image, np.zeros(image.shape[:2], bool), "a cat", 0), image)


def test_nothing_is_drawn_before_the_setup(image: np.ndarray, hole: np.ndarray) -> None:
    with pytest.raises(RuntimeError, match=r"harmonic: setup\(\) comes before generate\(\)"):
        method("harmonic").generate(image, hole, "", 0)


def test_a_broken_result_is_an_error_and_no_black_picture(
    ready: Callable[..., Any], specs: dict[str, str], image: np.ndarray, hole: np.ndarray
) -> None:
    made = method(specs["sd-inpainting"])
    made.setup(ready("harmonic").settings, "cpu", "float32")
    made._pipe.vae.decoder.conv_out.bias.data.fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="must not hold NaN"):
        made.generate(image, hole, "a cat", 0)


@pytest.mark.parametrize(("dtype", "device"), [("float8", "cpu"), ("float32", "cuda:99")])
def test_a_dtype_or_device_that_is_not_there_is_named(
    dtype: str, device: str, specs: dict[str, str], ready: Callable[..., Any]
) -> None:
    made = method(specs["backbone"])
    with pytest.raises(UserError, match=f"--d.*{dtype if device == 'cpu' else device}"):
        made.setup(ready("harmonic").settings, device, dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mtadiffusion", "bfloat16"), ("flux-controlnet-inpaint", "bfloat16")],
)
def test_other_dtypes_draw_too(
    name: str,
    dtype: str,
    specs: dict[str, str],
    ready: Callable[..., Any],
    image: np.ndarray,
    hole: np.ndarray,
) -> None:
    made = method(specs[name])
    made.setup(ready("harmonic").settings, "auto", dtype)
    result = made.generate(image, hole, "a cat", 0)
    assert np.array_equal(result[~hole], image[~hole])
