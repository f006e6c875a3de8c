"""`mta models`: what can be loaded, and from where."""

from __future__ import annotations

import dataclasses

from mtadiffusion.cli import options, output


def models(json: options.Json = False) -> None:
    """List what can be loaded, and from where.

    These are backbones, branches, the style loss's VGG and the judge. A folder in the same layout can be
    named in place of each of them, and any hub id or .safetensors file of Stable Diffusion 1.5 or XL in place
    of a backbone.

    \b
    Examples:
      mta models
      mta models --json
    """
    from mtadiffusion.models.registry import known_models

    entries = known_models()
    if json:
        output.print_json({"models": [dataclasses.asdict(entry) for entry in entries]})
        return
    rows = [
        (
            entry.name,
            entry.kind,
            entry.source,
            f"{entry.size_mb:.1f} MB" if entry.size_mb else "?",
            entry.licence,
            "present" if entry.present else "not present",
        )
        for entry in entries
    ]
    output.print_table(("name", "kind", "from", "size", "licence", "here"), rows)
