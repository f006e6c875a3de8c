"""`mta train`: train a branch by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe: debug, sticker or sd15.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: log, checkpoints, pictures and branch.")],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Another value of a field; may be repeated."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--fresh", help="Go on from the newest checkpoint in --out, or start anew."),
    ] = True,
    json: options.Json = False,
) -> None:
    """Train a branch by a recipe.

    An earlier run in the same folder goes on where it stopped. SIGTERM saves first and exits with 0.

    \b
    Examples:
      mta train --recipe debug --out runs/debug
      mta train --recipe sticker --out runs/branch --set optim.lr=1e-4 --set steps=20000
      mta train --recipe sticker --out runs/ablation --set branch.block=residual --fresh
    """
    from mtadiffusion.config import with_overrides
    from mtadiffusion.recipes import recipe as recipe_named

    config = with_overrides(recipe_named(recipe), change or ())
    options.check_folder(out)
    output.quieten_libraries()

    from mtadiffusion.train.trainer import train as run_training

    branch = run_training(config, out, resume=resume)
    if json:
        output.print_json({"recipe": recipe, "steps": config.steps, "run": out, "branch": branch})
    else:
        output.print_lines([branch or f"stopped by SIGTERM; the same command goes on in {out}"])
