"""`mta train`: train a branch by a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output, train_cache
from mtadiffusion.errors import UserError

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[cache [ARGS]...]")
app.command("cache")(train_cache.cache)


@app.callback()
def train(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="debug, sticker, sd15, sd15-brushnet, sdxl, sdxl-brushnet, or a TOML or JSON file of fields."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run: log, checkpoints, pictures and branch.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="An annotated dataset to train on, for --set data.source.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Another value of a field; may be repeated."),
    ] = None,
    resume: Annotated[
        str, typer.Option(help="auto: go on from the newest checkpoint in --out; or a checkpoint's folder.")
    ] = "auto",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew; the checkpoints in --out are deleted.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be trained, from what and for how long.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train a branch by a recipe.

    An earlier run in the same folder goes on where it stopped. SIGTERM saves first and exits with 0.
    Several processes: torchrun --nproc-per-node 8 -m mtadiffusion train ...

    \b
    Examples:
      mta train --recipe debug --out runs/debug
      mta train --recipe sticker --out runs/branch --set optim.lr=1e-4 --set steps=20000
      mta train --recipe sticker --out runs/ablation --set branch.block=residual --fresh
      mta train --recipe sd15 --data dataset --out runs/paper --dry-run
      mta train --recipe mine.toml --data dataset --out runs/mine
      mta train --recipe sticker --out runs/other --resume runs/branch/checkpoints/step-00002000

    A file names the recipe that it changes:
      base = "sd15"
      batch_size = 4
      [optim]
      lr = 2e-5
    """
    if context.invoked_subcommand is not None:
        return
    recipe, out = options.needed("--recipe", recipe), options.needed("--out", out)

    from mtadiffusion.fields import with_overrides
    from mtadiffusion.recipes import recipe as recipe_named

    given = [f"data.source={data}"] if data is not None else []
    config = with_overrides(recipe_named(recipe), [*given, *(change or ())])
    options.check_folder(out)
    output.quieten_libraries()

    if dry_run:
        from mtadiffusion.train.plan import plan

        figures = plan(config)
        if json:
            output.print_json(figures)
        else:
            output.print_table(("what", "figure"), [[name, str(value)] for name, value in figures.items()])
        return

    from mtadiffusion.train.trainer import train as run_training

    branch = run_training(config, out, resume=_resume(resume, fresh))
    if os.environ.get("RANK", "0") != "0":
        return
    if json:
        output.print_json({"recipe": recipe, "steps": config.steps, "run": out, "branch": branch})
    else:
        output.print_lines([branch or f"stopped by SIGTERM; the same command goes on in {out}"])


def _resume(named: str, fresh: bool) -> bool | Path:
    """Whether, or from which checkpoint, a run goes on."""
    if named == "auto":
        return not fresh
    if fresh:
        raise UserError("--fresh", "cannot be used with --resume", named, "leave one of them out")
    return Path(named)
