"""`mta annotate`: from any images to mask-text pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mtadiffusion.cli import options, output

FAILED = 1
"""Exit code where shards are in quarantine."""

_COLUMNS = ("table", "made", "reused", "failed")


def annotate(
    source: Annotated[
        str, typer.Argument(help="Folder of images or tars, a tar, a Parquet file, a glob, or a URL of one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; an earlier run in it goes on.")],
    annotators: Annotated[
        str, typer.Option(help="grounded-sam-llava, sticker, source, or a TOML file of changes to its base.")
    ] = "grounded-sam-llava",
    annotations: options.Annotations = None,
    labels: Annotated[
        str | None,
        typer.Option(help="What to look for: a file of labels; caption: its nouns; model: what it lists."),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Least confidence of a box.")] = None,
    min_aesthetic: Annotated[float | None, typer.Option(help="Least aesthetic score of an image.")] = None,
    min_resolution: Annotated[int | None, typer.Option(help="Least shorter side of an image.")] = None,
    max_objects: Annotated[int | None, typer.Option(help="Most objects an image.")] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Of index, aesthetic, filters, labels, detect, segment, caption, describe, verify."
        ),
    ] = None,
    executor: options.Executor = "local",
    ray_address: options.RayAddress = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes a stage; 0: this one. Default: 1, or all that a cluster has room for."),
    ] = None,
    shard_size: Annotated[int, typer.Option(help="Images a shard; a tar of the source stays one.")] = 1000,
    device: options.Device = "auto",
    json: options.Json = False,
) -> int:
    """Annotate images: for every object a box, a mask and a description of its content and style.

    Every image and object keeps its row, with the reason where it is left out. A stage's table is named for
    its settings: other settings make another table. Exit code 1: some shards failed, the others are done.

    \b
    Examples:
      mta annotate photos --out dataset --min-resolution 512 --labels labels.txt
      mta annotate laion/ --out dataset --workers 8 --stages index,filters
      mta annotate val2017 --out dataset --annotators boxes.toml --annotations instances_val2017.json
      mta annotate 's3://bucket/*.tar' --out dataset --annotators annotators.toml
      mta annotate /shared/laion --out /shared/dataset --executor ray --ray-address auto
    """
    options.check_folder(out)
    if workers is not None:
        options.check_workers(workers)
    options.check_shard_size(shard_size)
    options.check_annotations(annotations)
    output.quieten_libraries()

    from mtadiffusion.annotate import presets
    from mtadiffusion.annotate.annotate import annotate as run
    from mtadiffusion.engines.named import engine

    given: dict[str, dict[str, Any]] = {
        "filters": {"min_aesthetic": min_aesthetic, "min_resolution": min_resolution},
        "detect": {"min_score": min_score, "max_objects": max_objects},
    }
    if labels is not None:
        given["labels"] = presets.label_settings(labels)
    chosen = {stage: {k: v for k, v in values.items() if v is not None} for stage, values in given.items()}
    settings = presets.changed(presets.preset(annotators), chosen)
    names = None if stages is None else [name.strip() for name in stages.split(",") if name.strip()]
    with engine(executor, workers, address=ray_address, device=device) as (at, found):
        built = presets.build_stages(settings, names, device=found)
        reports = run(source, out, built, engine=at, shard_size=shard_size, annotations=annotations or ())
    failed = sum(len(report.failed) for report in reports)
    rows = [(r.table.key, r.made, r.reused, len(r.failed)) for r in reports]
    if json:
        output.print_json({"dataset": out, "tables": [dict(zip(_COLUMNS, row, strict=True)) for row in rows]})
    else:
        output.print_table(_COLUMNS, [[str(cell) for cell in row] for row in rows])
    return FAILED if failed else 0
