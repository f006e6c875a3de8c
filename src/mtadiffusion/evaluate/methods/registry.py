"""Which methods can be compared, each made from its specification, such as
`brushnet:branch=FOLDER,label=brushnet-random`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.methods.method import Method
from mtadiffusion.evaluate.specification import split, typed

ARGUMENT = "--method"
_PACKAGE = "mtadiffusion.evaluate.methods"


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One method that can be named."""

    name: str
    """What the command line takes."""

    help: str
    """One line."""

    place: str | None = None
    """`module:class`, imported when the method is made; None: only its published figures are known."""

    @property
    def runs(self) -> bool:
        """Whether it can be run; else the report has what is published of it."""
        return self.place is not None


_ENTRIES = (
    MethodEntry(
        name="mtadiffusion",
        help="this project's model: a backbone and its branch (model, branch, branch_scale)",
        place="mtadiffusion:MTADiffusion",
    ),
    MethodEntry(
        name="backbone",
        help="the backbone alone, text to image laid into the hole (model)",
        place="mtadiffusion:BackboneAlone",
    ),
    MethodEntry(
        name="blended-latent",
        help="Blended Latent Diffusion: the backbone, known latents put back at each step (model, strength)",
        place="mtadiffusion:BlendedLatent",
    ),
    MethodEntry(
        name="brushnet",
        help="an official BrushNet checkpoint (branch is needed; model, branch_scale)",
        place="mtadiffusion:BrushNet",
    ),
    MethodEntry(
        name="sd-inpainting",
        help="Stable Diffusion Inpainting, a UNet of nine channels (model)",
        place="stable_diffusion:SDInpainting",
    ),
    MethodEntry(
        name="controlnet-inpaint",
        help="the inpainting ControlNet on a backbone (model, controlnet, control_scale)",
        place="stable_diffusion:ControlNetInpaint",
    ),
    MethodEntry(
        name="powerpaint",
        help="PowerPaint v1, its object task (model, weights)",
        place="powerpaint:PowerPaint",
    ),
    MethodEntry(
        name="flux-fill",
        help="FLUX.1 Fill (model)",
        place="flux:FluxFill",
    ),
    MethodEntry(
        name="flux-controlnet-inpaint",
        help="an inpainting ControlNet on FLUX.1 (model, controlnet, control_scale, control_mode)",
        place="flux:FluxControlNetInpaint",
    ),
    MethodEntry(
        name="harmonic",
        help="the floor: Laplace's equation, without weights or prompt",
        place="harmonic:Harmonic",
    ),
    MethodEntry(name="hd-painter", help="HD-Painter: published figures only"),
    MethodEntry(name="smartbrush", help="SmartBrush: no weights, and no figures under these protocols"),
    MethodEntry(name="cat-diffusion", help="CAT-Diffusion: no figures under these protocols"),
)

METHODS: dict[str, MethodEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every method by its name. All that run also take label; those that sample, steps, guidance, scheduler."""


def method(text: str) -> Method:
    """The method that a specification describes. No weights are loaded, nothing is fetched.

    Raises:
        UserError: an unknown method or option, a value out of range, a folder that is not there.
    """
    name, options = split(text, ARGUMENT)
    if name not in METHODS:
        raise UserError(ARGUMENT, "is no known method", name, nearest_name(name, METHODS))
    place = METHODS[name].place
    if place is None:
        remedy = "what is published of it stands in the report by itself, marked as published"
        raise UserError(ARGUMENT, "has no weights that could be run here", name, remedy)
    module, _, class_name = place.partition(":")
    kind = getattr(import_module(f"{_PACKAGE}.{module}"), class_name)
    known = [one.name for one in fields(kind) if one.init]
    for option in options:
        if option not in known:
            raise UserError(f"{ARGUMENT} {name}", "has no such option", option, nearest_name(option, known))
    made: Method = kind(**typed(kind, options, f"{name}:"))
    return made
