"""`mta study`: people judge the results of several methods, on a web page served from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output
from mtadiffusion.errors import UserError

Study = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder that `mta study create` made.")]

_HELP = """A user study: results side by side and blinded, asked of people by personal links, evaluated.

\b
Examples:
  mta study create --runs ours=results/ours --runs theirs=results/theirs --out study
  mta study serve study --port 8000
  mta study links study --url https://study.example.org
  mta study report study --out report
"""

app = typer.Typer(help=_HELP, rich_markup_mode=None, no_args_is_help=True)


@app.command()
def create(
    runs: Annotated[
        list[str],
        typer.Option(help="Folder of `mta evaluate`, or NAME=FOLDER with items.jsonl and a PNG an item."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; must not exist yet.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="More of --runs.")] = None,
    images: Annotated[int, typer.Option(help="How many, drawn from those that all runs have.")] = 60,
    questions: Annotated[
        str, typer.Option(help="Of alignment, structure, style, overall; commas between.")
    ] = "alignment,structure,style",
    participants: Annotated[int, typer.Option(help="How many personal links.")] = 30,
    enrol: Annotated[
        int, typer.Option(help="How many more may come by one open link; 0: there is none.")
    ] = 0,
    checks: Annotated[int, typer.Option(help="Attention checks among the images.")] = 2,
    consent: Annotated[
        Path | None, typer.Option(help="Text file that participants agree to; blank lines part paragraphs.")
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Make a study's folder: pictures, questions, links. It holds everything and can be moved.

    \b
    Examples:
      mta study create --runs results/brushbench --images 60 --out study
      mta study create --runs a=runs/a b=runs/b c=runs/c --images 20 --questions style --out study
    """
    options.check_seed(seed)
    options.check_folder(out)
    _check_installed()

    from mtadiffusion.study.create import CONSENT, Terms, create_study
    from mtadiffusion.study.runs import read_runs

    terms = Terms(
        images=images,
        questions=tuple(questions.split(",")),
        checks=checks,
        participants=participants,
        most_enrolled=enrol,
        consent=CONSENT if consent is None else _text(consent),
        seed=seed,
    )
    study = create_study(read_runs([*runs, *(more or ())]), terms, out)
    if json:
        output.print_json({"study": out, "methods": study.methods, "images": len(study.items)})
    else:
        output.print_lines([out])


@app.command()
def serve(
    study: Study,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
) -> None:
    """Serve the study's pages until interrupted; the address is printed first. Killing it loses no answer.

    \b
    Examples:
      mta study serve study
      mta study serve study --host 0.0.0.0 --port 80
    """
    _check_installed()

    from mtadiffusion.study.serve import listening, server_of

    server = server_of(study)
    socket = listening(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{socket.getsockname()[1]}", flush=True)
    try:
        server.run(sockets=[socket])
    except KeyboardInterrupt:
        return


@app.command()
def links(
    study: Study,
    url: Annotated[str, typer.Option(help="Where participants reach the server.")] = "http://127.0.0.1:8000",
    invite: Annotated[int, typer.Option(help="Add so many participants first.")] = 0,
    json: options.Json = False,
) -> None:
    """Print each participant's link and how far they are. Whoever has a link answers as that participant.

    \b
    Examples:
      mta study links study --url https://study.example.org
      mta study links study --invite 5
    """
    from mtadiffusion.study.links import participants_links

    rows, open_link = participants_links(study, url, invite)
    if json:
        output.print_json({"participants": [vars(row) for row in rows], "open_link": open_link})
        return
    titles = ("participant", "state", "answers", "link")
    output.print_table(titles, [[str(value) for value in vars(row).values()] for row in rows])
    if open_link:
        output.print_lines([f"open link  {open_link}"])


@app.command()
def forget(
    study: Study,
    participant: Annotated[int, typer.Option(help="Number of whose answers and link are deleted.")],
) -> None:
    """Delete a participant's answers and link for good, for whoever withdraws.

    \b
    Examples:
      mta study forget study --participant 7
    """
    from mtadiffusion.study.store import Store
    from mtadiffusion.study.study import ANSWERS
    from mtadiffusion.study.study import Study as Opened

    deleted = Store(Opened.open(study).root / ANSWERS).forget(participant)
    output.print_lines([f"{deleted} answers deleted"])


@app.command()
def report(
    study: Study,
    out: Annotated[Path, typer.Option(help="Folder for page, tables and plots; created if need be.")],
    allowed_failures: Annotated[
        int, typer.Option(help="Attention checks that a participant may fail and still count.")
    ] = 0,
    finished_only: Annotated[
        bool, typer.Option("--finished-only", help="Leave out who has not finished.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Votes by question with intervals, agreement, a table by image; page, plots, CSV and JSON.

    \b
    Examples:
      mta study report study --out report
      mta study report study --out report --finished-only
    """
    options.check_folder(out)
    if allowed_failures < 0:
        raise UserError("--allowed-failures", "must be at least 0", allowed_failures)
    _check_installed()

    from mtadiffusion.study.report import write_report

    figures = write_report(study, out, allowed_failures=allowed_failures, finished_only=finished_only)
    if json:
        output.print_json(figures)
        return
    rows = [
        [question["name"], choice["choice"], str(choice["votes"]), _percent(choice["share"])]
        for question in figures["questions"]
        for choice in question["choices"]
    ]
    output.print_table(("question", "choice", "votes", "share"), rows)
    output.print_lines([out / "index.html"])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise UserError("--consent", "must be a readable text file in UTF-8", str(path)) from None


def _check_installed() -> None:
    """All that the study needs beside the package, before any work is done."""
    from importlib.util import find_spec

    for name in ("fastapi", "uvicorn", "pydantic", "nltk", "matplotlib"):
        if find_spec(name) is None:
            remedy = "pip install 'mtadiffusion[study]'"
            raise UserError("mta study", f"needs the package {name}", None, remedy)
