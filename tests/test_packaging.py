"""What is shipped and how it holds together: versions, pins, licences, declared imports, boundaries, size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mtadiffusion

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "mtadiffusion"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]

_IMPORT_NAMES = {"pillow": "PIL", "scikit-image": "skimage"}
_AT_RUN_TIME = ("ray", "evaluate", "study")
"""Extras that the package imports where they are used."""

_LARGEST_TREE_MB = 48
_LARGEST_WEIGHTS_MB = 26
_LARGEST_SPRITES_MB = 4


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): pinned for name, pinned in pairs}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def megabytes(*paths: Path) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def test_the_version_is_stated_once_in_effect() -> None:
    assert mtadiffusion.__version__ == PROJECT["version"]


@pytest.mark.parametrize("name", mtadiffusion.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    assert getattr(mtadiffusion, name).__name__ == name


@pytest.mark.parametrize("requirement", REQUIRED + DEVELOPMENT, ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pinned = pins()[canonical(requirement.name)]
    assert requirement.specifier.contains(pinned, prereleases=True)


def test_the_command_is_installed_under_its_name() -> None:
    assert PROJECT["scripts"] == {"mta": "mtadiffusion.cli:main"}
    assert version("mtadiffusion") == PROJECT["version"]


def test_the_licence_is_the_whole_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_sprites_ship_with_their_authors_and_licences() -> None:
    from mtadiffusion.stickers.assets import STYLES

    text = (SOURCE / "stickers" / "assets" / "LICENCES.md").read_text(encoding="utf-8")
    for part in (*STYLES, "Microsoft", "Google", "Twitter", "jdecked", "MIT License", "Apache", "CC-BY"):
        assert part in text, part


def test_every_import_is_a_declared_dependency() -> None:
    extras = {Requirement(one) for name in _AT_RUN_TIME for one in PROJECT["optional-dependencies"][name]}
    declared = {_IMPORT_NAMES.get(one.name, one.name.replace("-", "_")) for one in {*REQUIRED, *extras}}
    found = {name.partition(".")[0]: path for path in modules() for name in imported(path)}
    foreign = {
        name: path.relative_to(SOURCE).as_posix()
        for name, path in found.items()
        if name not in sys.stdlib_module_names and name not in {*declared, "mtadiffusion"}
    }
    assert foreign == {}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("imaging", ("cli", "inpaint", "models", "stickers", "train", "evaluate")),
        ("models", ("cli", "stickers", "train", "evaluate")),
        ("inpaint", ("cli", "stickers", "train", "evaluate", "annotate")),
        ("train", ("cli", "stickers", "annotate", "evaluate")),
        ("data", ("cli", "stickers", "annotate", "models", "inpaint", "train", "evaluate")),
        ("engines", ("cli", "stickers", "inpaint", "train", "evaluate", "annotate", "data")),
        ("annotate", ("cli", "stickers", "inpaint", "train", "evaluate")),
        ("evaluate", ("cli", "stickers", "study", "train", "annotate")),
        ("study", ("cli", "stickers", "train", "annotate", "models", "inpaint")),
        ("stickers", ("cli",)),
    ],
)
def test_packages_keep_to_their_boundaries(package: str, forbidden: tuple[str, ...]) -> None:
    for path in (SOURCE / package).rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            assert parts[0] != "mtadiffusion" or len(parts) < 2 or parts[1] not in forbidden, (
                f"{path}: {name}"
            )


def test_no_pickle_is_ever_loaded() -> None:
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"torch\.load\((?![^)]*weights_only=True)", text), path
        assert not {"pickle", "dill", "joblib"} & set(imported(path)), path


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, mtadiffusion; print('torch' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_shipped_data_is_covered_by_the_package_data_patterns() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    matched = {path for pattern in settings["package-data"]["mtadiffusion"] for path in SOURCE.glob(pattern)}
    data = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert data <= matched


def test_weights_and_sprites_stay_small() -> None:
    assert megabytes(*SOURCE.rglob("*.safetensors")) <= _LARGEST_WEIGHTS_MB
    assert megabytes(*(SOURCE / "stickers" / "assets").iterdir()) <= _LARGEST_SPRITES_MB


def test_the_tracked_tree_stays_small() -> None:
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert megabytes(*tracked) <= _LARGEST_TREE_MB
