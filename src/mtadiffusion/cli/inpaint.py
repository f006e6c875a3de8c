"""`mta inpaint`: draw an object into the hole of a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mtadiffusion.cli import options, output


def inpaint(
    image: Annotated[Path, typer.Option(help="The picture: PNG, JPEG, WebP, …, of any size.")],
    mask: Annotated[Path, typer.Option(help="The mask, of the picture's size: white is the hole.")],
    prompt: Annotated[str, typer.Option(help="What to draw in the hole.")],
    out: Annotated[
        Path, typer.Option(help="The PNG to write; with --count N: NAME-1.png to NAME-N.png.")
    ] = Path("inpainted.png"),
    model: options.Model = options.EMBEDDED,
    branch: options.Branch = None,
    negative_prompt: Annotated[str, typer.Option(help="What to avoid.")] = "",
    seed: options.Seed = 0,
    steps: options.Steps = options.STEPS,
    guidance: options.Guidance = None,
    count: Annotated[int, typer.Option(help="How many results to draw.")] = 1,
    blend: Annotated[
        str,
        typer.Option(
            help="paste: pixels outside the hole stay as they are; brushnet: BrushNet's soft edge; "
            "none: all that the model drew."
        ),
    ] = "paste",
    branch_scale: Annotated[float, typer.Option(help="Weight of the branch; 0 leaves it out.")] = 1.0,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Draw an object into the hole of a picture.

    The result has the picture's size. The paths of what was written are printed.

    \b
    Examples:
      mta inpaint --image scene.png --mask mask.png --prompt "a red apple"
      mta inpaint --image scene.png --mask mask.png --prompt "a frog" --count 4 --seed 7 --out frog.png
      mta inpaint --image photo.jpg --mask mask.png --prompt "a wooden chair" \\
          --model stable-diffusion-v1-5/stable-diffusion-v1-5 --branch FOLDER --steps 50 --guidance 7.5
    """
    options.check_steps(steps)
    options.check_guidance(guidance)
    options.check_count(count)
    options.check_seed(seed)
    options.check_branch_scale(branch_scale)
    output.quieten_libraries()

    from mtadiffusion.inpaint.files import InpaintFiles, inpaint_files

    request = InpaintFiles(
        image=image, mask=mask, prompt=prompt, out=out, model=model, branch=branch,
        negative_prompt=negative_prompt, seed=seed, steps=steps, count=count, blend=blend,
        guidance=options.guidance_for(model, guidance), branch_scale=branch_scale, dtype=dtype, device=device,
    )  # fmt: skip
    result = inpaint_files(request)
    if json:
        output.print_json({**dataclasses.asdict(request), **dataclasses.asdict(result)})
    else:
        output.print_lines(result.outputs)
