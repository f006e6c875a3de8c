"""The command line `mta`: one file a command, each of which parses, calls and prints.

A user's mistake becomes one line on stderr and exit code 2. Heavy libraries are imported inside the commands,
so that `mta --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mtadiffusion import __version__
from mtadiffusion.cli import annotate, data, demo, evaluate, inpaint, measure, models, study, train
from mtadiffusion.errors import UserError

USER_ERROR = 2
INTERRUPTED = 130

# typer's public exceptions stop short of the common base of all parse errors.
_ParseError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="mta",
    help="Text-guided object inpainting. Every command explains itself: mta COMMAND --help",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(inpaint.inpaint)
app.command()(demo.demo)
app.command()(models.models)
app.command()(measure.measure)
app.command()(annotate.annotate)
app.command()(evaluate.evaluate)
app.add_typer(train.app, name="train")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = typer.main.get_command(app)
    try:
        code = command.main(args=words, prog_name="mta", standalone_mode=False)
    except UserError as error:
        return _report(str(error))
    except _ParseError as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "mta"
        return _report(f"{error.format_message().rstrip('.')}; see {path} --help")
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _report(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mta {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text-guided object inpainting. Every command explains itself: mta COMMAND --help"""
