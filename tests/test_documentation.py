"""What the documents say is true: links resolve, commands parse, tables match the code."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from mtadiffusion.cli import app
from mtadiffusion.config import TrainConfig
from mtadiffusion.fields import to_dict

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")],
    key=lambda path: path.as_posix(),
)
WITH_CODE = [path for path in DOCUMENTS if "```sh" in path.read_text(encoding="utf-8")]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (.+) \|$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in _BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


def shell_lines(path: Path) -> list[list[str]]:
    joined = "".join(blocks(path, "sh")).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in joined.splitlines() if line.strip()]


def rows_below(path: Path, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its title."""
    text = path.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n## ", text, maxsplit=1)[0]
    return [[cell.strip() for cell in row.split(" | ")] for row in _ROW.findall(section)[1:]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_resolves(document: Path) -> None:
    for target in _LINK.findall(document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", WITH_CODE, ids=name_of)
def test_every_mta_command_line_parses(document: Path) -> None:
    root = typer.main.get_command(app)
    for words in shell_lines(document):
        if Path(words[0]).name == "mta":
            command = root.commands[words[1]]  # type: ignore[attr-defined]
            command.make_context(words[1], words[2:], resilient_parsing=False)


@pytest.mark.parametrize("document", WITH_CODE, ids=name_of)
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in shell_lines(document):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets


def test_the_readme_shows_the_commands_of_a_newcomer() -> None:
    lines = [" ".join(words) for words in shell_lines(ROOT / "README.md")]
    assert "make demo" in lines
    assert any("mta inpaint --image" in line for line in lines)
    assert any("mta train --recipe" in line for line in lines)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_python_snippets_compile(document: Path) -> None:
    for snippet in blocks(document, "python"):
        compile(snippet, name_of(document), "exec")


def test_dependencies_are_documented_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"## Needed to run": project["dependencies"]}
    extras = {
        "assets": "to rebuild the sprite pack",
        "ray": "to annotate and evaluate on a cluster",
        "evaluate": "to draw an evaluation's plots",
        "study": "to run a user study",
        "dev": "to work on the project",
    }
    for extra, title in extras.items():
        groups[f"## Extra `{extra}`: {title}"] = project["optional-dependencies"][extra]
    for heading, requirements in groups.items():
        names = {re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in requirements}
        documented = {row[0] for row in rows_below(ROOT / "docs" / "dependencies.md", heading)}
        assert documented == names, heading


def test_the_changelog_knows_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_equations_point_at_code_that_exists() -> None:
    rows = rows_below(ROOT / "docs" / "method.md", "## Where it is in the code")
    assert rows
    for cell in (row[2] for row in rows):
        for file, names in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", cell):
            source = (ROOT / "src" / "mtadiffusion" / file).read_text(encoding="utf-8")
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"^(class|def) {name}\b", source, re.MULTILINE), f"{file}: {name}"
        assert ".py`: `" in cell


def test_choices_point_at_fields_with_the_defaults_named() -> None:
    rows = rows_below(ROOT / "docs" / "method.md", "## Choices made")
    assert rows
    for cells in rows:
        fields = re.findall(r"`([\w.]+)`", cells[2])
        assert fields
        for field in fields:
            value: object = to_dict(TrainConfig())
            for part in field.split("."):
                assert isinstance(value, dict)
                assert part in value, field
                value = value[part]
        if (stated := re.fullmatch(r"`(.+)`", cells[3])) and field != "style_vgg.initialise":
            assert stated[1] == str(value).lower(), field


def test_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.split("```")[1]
    for path in (ROOT / "src" / "mtadiffusion").iterdir():
        if path.is_dir() and any(module.name != "__init__.py" for module in path.glob("*.py")):
            assert f"  {path.name}/" in tree
