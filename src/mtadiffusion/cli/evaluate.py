"""`mta evaluate`: methods against each other on a benchmark, with a page of all results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mtadiffusion.cli import options, output
from mtadiffusion.errors import UserError

FAILED = 1
"""Exit code where some items have no picture or no score, or a metric was not computed."""

MOST_ITEMS = 1_000_000
MOST_TOGETHER = 1024


def evaluate(
    benchmark: Annotated[
        str | None, typer.Option(help="brushbench, editbench, stickerbench, ...; NAME:option=value,...")
    ] = None,
    path: Annotated[
        Path | None, typer.Option(help="The benchmark's folder, unless it comes with the package.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="NAME[:option=value,...]; may be given several times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the evaluation; an earlier run in it goes on.")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME,NAME,... or NAME:option=value,...; paper, sticker: the usual ones; may be given "
            "several times. Default: those that go with the benchmark."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many items, the first of each group in turn.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, where not the benchmark's.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Weight of the prompt, where not the benchmark's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Where not the benchmark's.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures that a method draws at once, where it can.")] = 8,
    executor: options.Executor = "local",
    ray_address: options.RayAddress = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that draw and score; 0: this one. Default: 0, or all the cluster has."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two finished evaluations, compared item by item.", metavar="RUN_A RUN_B"),
    ] = None,
    json: options.Json = False,
) -> int:
    """Compare methods on a benchmark: pictures, scores, tables with intervals, a page of all results.

    Running the same again goes on where it was stopped. Everything lies in the folder; docs/evaluation.md
    says what is what. Exit code 1: some items failed or some metric could not be computed, the rest is done.

    \b
    Examples:
      mta evaluate --benchmark stickerbench --method mtadiffusion --method backbone --out runs/stickers
      mta evaluate --benchmark brushbench --path BrushBench --method mtadiffusion:branch=RUN/branch --out eval
      mta evaluate --benchmark brushbench --path BrushBench --method mtadiffusion --limit 20 --out quick
      mta evaluate --compare runs/before runs/after
    """
    if compare is not None:
        return _print_comparison(compare, json)
    if not (benchmark and method and out):
        given = {"--benchmark": benchmark, "--method": method, "--out": out}
        missing = next(argument for argument, value in given.items() if not value)
        raise UserError(missing, "is needed", remedy="or --compare for two finished evaluations")
    options.check_folder(out)
    changes = _changes(steps, guidance, seed)
    _check_numbers(limit, batch, workers)
    output.quieten_libraries()

    from mtadiffusion.engines.named import engine
    from mtadiffusion.evaluate import named
    from mtadiffusion.evaluate.report.plots import check_plotting
    from mtadiffusion.evaluate.run import Plan
    from mtadiffusion.evaluate.run import evaluate as run

    check_plotting()
    chosen, methods = named.named_benchmark(benchmark, path), named.named_methods(method)
    count = 0 if workers is None and executor == "local" else workers
    with engine(executor, count, address=ray_address, device=device) as (at, found):
        plan = Plan(
            benchmark=chosen,
            methods=methods,
            metrics=named.named_metrics(metrics, chosen.name),
            limit=limit,
            changes=changes,
            place=named.place_on(found, dtype, workers=count or 0),
            batch=batch,
            published=named.published_for(chosen),
        )
        summary = run(plan, out, at)
    _print_summary(summary, out, json)
    return FAILED if summary["failed"] or summary["faults"] or summary["unusable"] else 0


def _check_numbers(limit: int | None, batch: int, workers: int | None) -> None:
    if workers is not None:
        options.check_workers(workers)
    if limit is not None:
        options.check_number_of("--limit", limit, MOST_ITEMS)
    options.check_number_of("--batch", batch, MOST_TOGETHER)


def _changes(steps: int | None, guidance: float | None, seed: int | None) -> dict[str, Any]:
    """What takes the place of the benchmark's own settings."""
    if steps is not None:
        options.check_steps(steps)
    options.check_guidance(guidance)
    if seed is not None:
        options.check_seed(seed)
    given = {"steps": steps, "guidance_scale": guidance, "seed": seed}
    return {name: value for name, value in given.items() if value is not None}


def _print_summary(summary: Mapping[str, Any], out: Path, json: bool) -> None:
    if json:
        output.print_json({**summary, "out": out})
        return

    from mtadiffusion.evaluate.report import tables

    for table in tables.tables(summary):
        titles = [table.group, "drawn", *(tables.heading(metric) for metric in table.metrics)]
        output.print_table(titles, [tables.plain_cells(row) for row in table.rows])
        print()
    for metric, reason in summary["unusable"].items():
        print(f"{metric} was not computed: {reason}")
    for method in summary["methods"]:
        if method["failed"]:
            print(
                f"{method['name']}: {method['failed']} of {method['drawn'] + method['failed']} items failed"
            )
    print(f"all results: {out / 'index.html'}")


def _print_comparison(runs: tuple[Path, Path], json: bool) -> int:
    from mtadiffusion.evaluate.compare import compare
    from mtadiffusion.evaluate.report import tables

    found = compare(*runs)
    if json:
        output.print_json(found)
        return 0
    print(
        f"{found['common']} common items; only in the first: {found['only_first']}, only in the second: "
        f"{found['only_second']}, asked otherwise: {found['different']}"
    )
    for metric, reason in found["left_out"].items():
        print(f"{metric} is left out: {reason}")
    rows = [row for row in found["differences"] if row["difference"] is not None]
    output.print_table(
        tables.DIFFERENCE_TITLES, [tables.difference_cells(row, found["metrics"]) for row in rows]
    )
    return 0
