"""`mta train`: train a branch by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output


def train(
    recipe: Annotated[
        str, typer.Option(help="debug, sticker, sd15, sd15-brushnet, or a TOML or JSON file of fields.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: log, checkpoints, pictures and branch.")],
    data: Annotated[
        str | None, typer.Option(help="An annotated dataset to train on, for --set data.source.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Another value of a field; may be repeated."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--fresh", help="Go on from the newest checkpoint in --out, or start anew."),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be trained, from what and for how long.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train a branch by a recipe.

    An earlier run in the same folder goes on where it stopped. SIGTERM saves first and exits with 0.

    \b
    Examples:
      mta train --recipe debug --out runs/debug
      mta train --recipe sticker --out runs/branch --set optim.lr=1e-4 --set steps=20000
      mta train --recipe sticker --out runs/ablation --set branch.block=residual --fresh
      mta train --recipe sd15 --data dataset --out runs/paper --dry-run
      mta train --recipe mine.toml --data dataset --out runs/mine

    A file names the recipe that it changes:
      base = "sd15"
      batch_size = 4
      [optim]
      lr = 2e-5
    """
    from mtadiffusion.config import with_overrides
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

    branch = run_training(config, out, resume=resume)
    if json:
        output.print_json({"recipe": recipe, "steps": config.steps, "run": out, "branch": branch})
    else:
        output.print_lines([branch or f"stopped by SIGTERM; the same command goes on in {out}"])
