"""`mta measure`: how good the embedded model is, in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output


def measure(
    split: Annotated[
        str, typer.Option(help="validation; or test, on which nothing was chosen, for final figures.")
    ] = "validation",
    holes: Annotated[int, typer.Option(help="How many holes; 400 for figures to report.")] = 400,
    seed: options.Seed = 0,
    steps: options.Steps = options.STEPS,
    sheet: Annotated[Path | None, typer.Option(help="Also write a PNG of the first holes.")] = None,
    model: options.Model = "sticker",
    branch: options.Branch = None,
    device: options.Device = "auto",
) -> None:
    """Measure a model on held-out holes.

    The last line is one JSON object: shares of holes with the right category, style and colour, beside those
    of the backbone alone; quality of the autoencoder and of text to image; speed; how far the judge can be
    trusted.

    \b
    Examples:
      mta measure
      mta measure --split test
      mta measure --holes 40 --steps 10
    """
    options.check_held_out(split)
    options.check_seed(seed)
    options.check_steps(steps)
    if sheet is not None:
        options.check_folder(sheet.parent, "--sheet")
    output.quieten_libraries()

    from mtadiffusion.stickers.measure import Sampling
    from mtadiffusion.stickers.measure import measure as measure_model

    figures = measure_model(
        split,
        holes,
        model=model,
        branch=branch,
        sampling=Sampling(steps=steps, seed=seed),
        device=device,
        sheet=sheet,
    )
    output.print_json(figures)
