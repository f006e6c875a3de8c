"""`mta data`: taking in annotated datasets, looking at them, handing them on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output

FAULTY = 1
"""Exit code where a dataset is not sound."""

_SHOWN = 50
_PREVIEWED = 60
_LABELS = 20

Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder that `mta annotate` made.")]

_HELP = """Take in annotated datasets, look at them, and hand them on: figures, pictures, checks, exports.

\b
Examples:
  mta data import val2017 --out dataset --annotations instances_val2017.json
  mta data stats dataset
  mta data validate dataset --images
  mta data preview dataset --out preview.html
  mta data export dataset --out shards --format webdataset
"""

app = typer.Typer(
    help=_HELP,
    rich_markup_mode=None,
    no_args_is_help=True,
)


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="Folder of images or tars, a tar, a Parquet file, a glob, or a URL of one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; an earlier run in it goes on.")],
    annotations: options.Annotations = None,
    workers: Annotated[int, typer.Option(help="Processes a stage; 0: this one.")] = 1,
    shard_size: Annotated[int, typer.Option(help="Images a shard; a tar of the source stays one.")] = 1000,
    json: options.Json = False,
) -> None:
    """Take in images that have annotations: BrushData, MTADataset, COCO, LVIS, OpenImages; no model is asked.

    Says which of the source's fields were understood. What is missing can be made by `mta annotate` with
    `kind = "source"` for the stages that the source has.

    \b
    Examples:
      mta data import val2017 --out dataset --annotations instances_val2017.json
      mta data import brushdata/ --out dataset
      mta data import images --out dataset --annotations boxes.csv --annotations class-descriptions.csv
    """
    options.check_folder(out)
    options.check_workers(workers)
    options.check_shard_size(shard_size)
    options.check_annotations(annotations)

    from mtadiffusion.annotate import presets
    from mtadiffusion.annotate.annotate import annotate
    from mtadiffusion.data import dataset as datasets
    from mtadiffusion.data.stats import dataset_stats
    from mtadiffusion.data.understood import understood
    from mtadiffusion.engines.local import Local

    stages = presets.build_stages(presets.source())
    engine, files = Local(workers), annotations or ()
    annotate(source, out, stages, engine=engine, shard_size=shard_size, annotations=files)
    made = datasets.Dataset.open(out)
    fields, objects = understood(made), dataset_stats(made).objects
    if json:
        output.print_json({"dataset": out, "fields": [vars(one) for one in fields], "objects": objects})
        return
    output.print_table(
        ("field", "taken for", "count"), [[one.field, one.meaning or "-", str(one.count)] for one in fields]
    )
    output.print_lines([""])
    rows = [[table, name, str(count)] for table, counts in objects.items() for name, count in counts.items()]
    output.print_table(("table", "objects", "count"), rows)


@app.command()
def stats(
    dataset: Dataset,
    out: Annotated[Path | None, typer.Option(help="Also a page of bar charts, one HTML file.")] = None,
    json: options.Json = False,
) -> None:
    """Images and objects by status and reason, labels, words a description.

    \b
    Examples:
      mta data stats dataset
      mta data stats dataset --out stats.html
      mta data stats dataset --json
    """
    if out is not None:
        options.check_page(out)

    from mtadiffusion.data import dataset as datasets
    from mtadiffusion.data.stats import dataset_stats
    from mtadiffusion.data.stats_page import write_stats_page

    opened = datasets.Dataset.open(dataset)
    found = dataset_stats(opened)
    if out is not None:
        write_stats_page(found, opened.manifest.source, out)
    if json:
        output.print_json(found.as_dict())
        return
    rows = [["images", name, str(count)] for name, count in found.images.most_common()]
    for table, counts in found.objects.items():
        rows += [[table, name, str(count)] for name, count in counts.most_common()]
    rows += [["failed shards", name, str(count)] for name, count in found.failed.items()]
    rows += [["label", name, str(count)] for name, count in found.labels.most_common(_LABELS)]
    figures = found.as_dict()
    rows += [
        ["mean", name.replace("_", " "), str(figures[name])]
        for name in ("objects_per_kept_image", "words_per_description", "area_share", "crop_similarity")
        if figures[name] is not None
    ]
    output.print_table(("what", "of", "count"), rows)
    if out is not None:
        output.print_lines([out])


@app.command()
def validate(
    dataset: Dataset,
    images: Annotated[bool, typer.Option("--images", help="Also decode every image.")] = False,
    json: options.Json = False,
) -> int:
    """Check every row, box, mask and text; exit code 1 where something is wrong.

    \b
    Examples:
      mta data validate dataset
      mta data validate dataset --images
    """
    from mtadiffusion.data import dataset as datasets
    from mtadiffusion.data.validate import problems

    found = [str(problem) for problem in problems(datasets.Dataset.open(dataset), images=images)]
    if json:
        output.print_json({"dataset": dataset, "problems": found})
    elif found:
        output.print_lines(found[:_SHOWN])
        if len(found) > _SHOWN:
            output.print_lines([f"... and {len(found) - _SHOWN} more"])
    else:
        output.print_lines(["sound"])
    return FAULTY if found else 0


@app.command()
def preview(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The page, one HTML file with everything in it.")],
    count: Annotated[int, typer.Option(help="The most images on the page.")] = _PREVIEWED,
) -> None:
    """A page of annotated images: masks drawn over them, label and description of each object.

    \b
    Examples:
      mta data preview dataset --out preview.html
      mta data preview dataset --out preview.html --count 500
    """
    options.check_page(out)
    options.check_count(count, options.MOST_IMAGES)

    from mtadiffusion.data.preview import write_preview

    write_preview(dataset, out, count)
    output.print_lines([out])


@app.command()
def export(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Folder to write to; an export that was stopped goes on.")],
    form: Annotated[str, typer.Option("--format", help="webdataset, hf or coco.")] = "webdataset",
    json: options.Json = False,
) -> None:
    """Hand a dataset on: WebDataset shards or Hugging Face Parquet with images and objects, or one COCO file.

    \b
    Examples:
      mta data export dataset --out shards --format webdataset
      mta data export dataset --out parquet --format hf
      mta data export dataset --out coco --format coco
    """
    options.check_folder(out)

    from mtadiffusion.data.export import export as run

    images = run(dataset, out, form)
    if json:
        output.print_json({"dataset": dataset, "out": out, "format": form, "images": images})
    else:
        output.print_lines([out])
