"""`mta demo`: held-out scenes filled by the backbone alone and with the branch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output


def demo(
    out: Annotated[Path, typer.Option(help="Folder for sheet and page; created if need be.")] = Path("demo"),
    count: Annotated[int, typer.Option(help="How many scenes.")] = 8,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    seed: options.Seed = 0,
    steps: options.Steps = options.STEPS,
    guidance: Annotated[
        float | None,
        typer.Option(help="Weight of the prompt, for both. Default: what `mta measure` uses for each."),
    ] = None,
    model: options.Model = options.EMBEDDED,
    branch: options.Branch = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Fill holes of held-out scenes; a sheet and a page.

    Training never saw these scenes. A row is: input, hole, the backbone alone with latent blending, the
    backbone with the branch, original. Written are a contact sheet (PNG) and a page (HTML); their paths are
    printed last.

    \b
    Examples:
      mta demo
      mta demo --count 4 --seed 3 --out /tmp/demo
      mta demo --split test --json
    """
    options.check_held_out(split)
    options.check_count(count)
    options.check_seed(seed)
    options.check_steps(steps)
    options.check_guidance(guidance)
    options.check_folder(out)
    output.quieten_libraries()

    from mtadiffusion.models.registry import load_pipeline
    from mtadiffusion.stickers.demo import demo_problems, draw_rows, write_demo
    from mtadiffusion.stickers.sampling import BACKBONE_GUIDANCE, BRANCH_GUIDANCE

    pipeline = load_pipeline(model, branch, dtype, device)
    problems = demo_problems(split, count, seed, pipeline.resolution)
    guidances = (BACKBONE_GUIDANCE, BRANCH_GUIDANCE) if guidance is None else (guidance, guidance)
    rows = draw_rows(pipeline, problems, steps=steps, guidances=guidances, seed=seed)
    scales = f"guidance {guidances[0]:g} for the backbone alone and {guidances[1]:g} with the branch"
    facts = f"Backbone {model}, {split} scenes, {steps} steps, {scales}, seed {seed}."
    written = write_demo(rows, out, facts)
    if json:
        prompts = [problem.prompt for problem in problems]
        output.print_json({"sheet": written.sheet, "page": written.page, "prompts": prompts})
    else:
        output.print_lines([written.sheet, written.page])
