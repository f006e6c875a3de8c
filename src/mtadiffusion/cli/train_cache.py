"""`mta train cache`: encode a dataset once, for runs that then decode and encode nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mtadiffusion.cli import options, output


def cache(
    recipe: Annotated[str, typer.Option(help="As of `mta train`; its data fields decide crops and holes.")],
    out: Annotated[Path, typer.Option(help="Folder of the cache.")],
    data: Annotated[
        str | None, typer.Option(help="Annotated dataset or exported shards, for --set data.source.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Another value of a field; may be repeated."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Encode crops, masks and texts once.

    The same command goes on where it was stopped, and may run several times at once on the same folder.
    Where a recipe has fresh holes at every visit, 2 brush holes an image and 2 holes an object are kept,
    unless --set says otherwise.

    \b
    Examples:
      mta train cache --recipe sd15 --data dataset --out cache --set device=cuda
      mta train cache --recipe sd15 --data shards --out cache --set data.holes_per_object=4
      mta train --recipe sd15 --data dataset --out run --set data.cache_dir=cache
    """
    from mtadiffusion.fields import with_overrides
    from mtadiffusion.recipes import recipe as recipe_named

    given = [f"data.source={data}"] if data is not None else []
    config = with_overrides(recipe_named(recipe), [*given, f"data.cache_dir={out}", *(change or ())])
    options.check_folder(out)
    output.quieten_libraries()

    from mtadiffusion.train.make_cache import make_cache

    reports = make_cache(config, out)
    if json:
        output.print_json({"cache": out, **reports})
        return
    names = list(next(iter(reports.values())))
    rows: list[list[Any]] = [[split, *map(str, report.values())] for split, report in reports.items()]
    output.print_table(("split", *names), rows)
