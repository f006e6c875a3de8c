"""The command line as a user meets it: exit codes, one-line errors, results on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.cli import main, options
from mtadiffusion.stickers.sampling import BRANCH_GUIDANCE

COMMANDS = ("inpaint", "demo", "train", "models", "measure", "annotate", "data", "evaluate", "study")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run_words(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_words


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    hole = np.zeros((80, 96), dtype=np.uint8)
    hole[20:50, 30:70] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


@pytest.fixture
def words(
    picture: Path, mask: Path, backbone_folder: Path, branch_folder: Path, tmp_path: Path
) -> list[object]:
    """A complete `mta inpaint` on the tiny models; options given later win."""
    return [
        "inpaint", "--image", picture, "--mask", mask, "--prompt", "a red apple", "--model", backbone_folder,
        "--branch", branch_folder, "--steps", 2, "--out", tmp_path / "out.png",
    ]  # fmt: skip


def assert_one_line(err: str, *parts: str) -> None:
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mtadiffusion.cli import main; main(['--help']);"
        "print(sorted({'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


def test_no_words_at_all_shows_the_help(run: Run) -> None:
    assert run() == run("--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_examples(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Examples:\n    mta {command}" in out


def test_version_is_the_packages(run: Run) -> None:
    import mtadiffusion

    assert run("--version") == (0, f"mta {mtadiffusion.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["inpaint"], ["Missing option '--image'", "mta inpaint --help"]),
        (["inpaint", "--steps", "many"], ["--steps", "integer"]),
        (["inpaint", "--stpes", "3"], ["No such option", "--steps"]),
        (["paint"], ["No such command 'paint'"]),
    ],
)
def test_parse_errors_are_one_line_and_exit_2(run: Run, arguments: list[str], parts: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, *parts)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--steps", "0", "--steps must be a whole number between 1 and 1000, got 0"),
        ("--steps", "1001", "--steps must be a whole number between 1 and 1000, got 1001"),
        ("--guidance", "nan", "--guidance must be a number between 0 and 100, got nan"),
        ("--guidance", "inf", "--guidance must be a number between 0 and 100, got inf"),
        ("--guidance", "-1", "--guidance must be a number between 0 and 100, got -1"),
        ("--count", "0", "--count must be a whole number between 1 and 100, got 0"),
        ("--count", "101", "--count must be a whole number between 1 and 100, got 101"),
        ("--seed", "-1", "--seed must be a whole number between 0 and 2^63 - 1, got -1"),
        (
            "--seed",
            str(2**63),
            "--seed must be a whole number between 0 and 2^63 - 1, got 9223372036854775808",
        ),
        ("--branch-scale", "nan", "--branch-scale must be a number between 0 and 10, got nan"),
        ("--blend", "mush", "--blend must be one of paste, brushnet, none, got 'mush'"),
        ("--dtype", "int8", "--dtype must be one of auto, float32, float16, bfloat16, got 'int8'"),
        ("--device", "toaster", "--device is not available on this machine, got 'toaster'"),
        ("--prompt", " ", "--prompt must say what to draw in the hole, got ' '"),
        ("--model", "stiker", "--model is no known backbone, got 'stiker'; did you mean 'sticker'?"),
        ("--branch", "stiker", "--branch is no known branch, got 'stiker'; did you mean 'sticker'?"),
        ("--out", "/nowhere/at/all.png", "--out must lie in an existing folder, got '/nowhere/at/all.png'"),
        ("--out", "result.jpg", "--out must end in .png, got 'result.jpg'"),
        ("--image", "absent.png", "--image must be an existing file, got 'absent.png'"),
        ("--mask", "absent.png", "--mask must be an existing file, got 'absent.png'"),
    ],
)
def test_bad_values_name_argument_rule_and_value(
    run: Run, words: list[object], tmp_path: Path, option: str, value: str, rule: str
) -> None:
    code, out, err = run(*words, option, value)
    assert (code, out) == (2, "")
    assert_one_line(err, rule)
    assert not list(tmp_path.glob("out*")), "nothing is written"


def test_mask_of_another_aspect_is_refused(run: Run, words: list[object], tmp_path: Path) -> None:
    Image.new("L", (50, 90), 255).save(tmp_path / "tall.png")
    code, _, err = run(*words, "--mask", tmp_path / "tall.png")
    assert code == 2
    assert_one_line(err, "--mask must have the image's size 96x80 or its aspect ratio, got '50x90'")


def test_mask_without_a_hole_is_refused(run: Run, words: list[object], tmp_path: Path) -> None:
    Image.new("L", (96, 80), 0).save(tmp_path / "black.png")
    code, _, err = run(*words, "--mask", tmp_path / "black.png")
    assert code == 2
    assert_one_line(err, "--mask has no hole")


def test_inpaint_writes_a_picture_of_the_inputs_size_and_keeps_known_pixels(
    run: Run, words: list[object], picture: Path, mask: Path, tmp_path: Path
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (0, f"{tmp_path / 'out.png'}\n"), err
    before, after = (np.asarray(Image.open(path)) for path in (picture, tmp_path / "out.png"))
    hole = np.asarray(Image.open(mask)) > 127
    assert after.shape == before.shape
    assert (after[~hole] == before[~hole]).all()
    assert (after[hole] != before[hole]).any()
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.png"], "no partial file is left"


def test_guidance_is_the_models_own_where_none_is_named(run: Run, words: list[object]) -> None:
    assert json.loads(run(*words, "--json")[1])["guidance"] == options.USUAL_GUIDANCE
    assert json.loads(run(*words, "--json", "--guidance", 3)[1])["guidance"] == 3
    assert options.guidance_for("sticker", None) == BRANCH_GUIDANCE


def test_same_seed_same_bytes_another_seed_another_picture(
    run: Run, words: list[object], tmp_path: Path
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(*words, "--out", tmp_path / f"{name}.png", "--seed", seed)[0] == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_count_numbers_the_files_and_does_not_change_the_first(
    run: Run, words: list[object], tmp_path: Path
) -> None:
    code, out, _ = run(*words, "--count", 5, "--out", tmp_path / "many.png")
    assert code == 0
    assert out.split() == [str(tmp_path / f"many-{number}.png") for number in range(1, 6)]
    run(*words, "--out", tmp_path / "one.png")
    first, alone = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("many-1.png", "one.png"))
    assert np.abs(first - alone).max() <= 1


def test_json_is_one_object_on_stdout(run: Run, words: list[object], tmp_path: Path) -> None:
    code, out, _ = run(*words, "--json", "--seed", 7)
    assert code == 0
    result = json.loads(out)
    assert out.count("\n") == 1
    assert result["outputs"] == [str(tmp_path / "out.png")]
    assert (result["seed"], result["size"]) == (7, [96, 80])


def test_long_prompt_is_drawn_with_a_warning_of_what_is_dropped(
    run: Run, words: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    code, _, _ = run(*words, "--prompt", "apple " * 1700)
    assert code == 0
    assert "prompt is cut to the text encoder's" in caplog.text


def test_output_folder_that_cannot_be_written_is_refused_before_work(
    run: Run, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _path, mode: mode != os.W_OK)
    code, _, err = run(*words)
    assert code == 2
    assert_one_line(err, "--out must lie in a writable folder")


def test_traceback_free_error_from_a_real_process(tmp_path: Path) -> None:
    command = [
        sys.executable, "-c", "import sys; from mtadiffusion.cli import main; sys.exit(main())",
        "inpaint", "--image", "a.png", "--mask", "b.png", "--prompt", "x", "--steps", "0",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr, "--steps")


def test_models_are_listed_as_a_table_and_as_json(run: Run) -> None:
    code, table, _ = run("models")
    assert code == 0
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in table
    code, out, _ = run("models", "--json")
    entries = json.loads(out)["models"]
    assert code == 0
    assert len(entries) == len(table.splitlines()) - 1
    assert {"name", "kind", "source", "licence", "size_mb", "present", "folder"} == set(entries[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "stiker"], "recipe is unknown, got 'stiker'; did you mean 'sticker'?"),
        (["--recipe", "debug", "--set", "optim.lr"], "must be NAME=VALUE, got 'optim.lr'"),
        (
            ["--recipe", "debug", "--set", "stepps=3"],
            "stepps is no configuration field; did you mean 'steps'?",
        ),
        (["--recipe", "debug", "--set", "steps=0"], "steps must be at least 1, got 0"),
        (["--recipe", "debug", "--set", "loss.gamma=nan"], "loss.gamma must be at least 0, got nan"),
    ],
)
def test_training_mistakes_are_one_line(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, err = run("train", "--out", tmp_path / "run", *arguments)
    assert code == 2
    assert_one_line(err, message)
    assert not (tmp_path / "run").exists()


def test_training_hands_the_changed_recipe_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtadiffusion.train.trainer as trainer

    calls: list[tuple[object, ...]] = []

    def train(config: object, out: Path, *, resume: bool) -> Path:
        calls.append((config, out, resume))
        return out / "branch"

    monkeypatch.setattr(trainer, "train", train)
    out = tmp_path / "run"
    code, printed, _ = run("train", "--recipe", "debug", "--out", out, "--set", "optim.lr=0.5", "--fresh")
    assert (code, printed) == (0, f"{out / 'branch'}\n")
    [(config, folder, resume)] = calls
    assert (config.optim.lr, folder, resume) == (0.5, out, False)  # type: ignore[attr-defined]
