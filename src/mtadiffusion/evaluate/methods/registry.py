"""Which methods can be compared, and specifications of them as the command line has it:
`NAME[:key=value[,key=value...]]`, such as `brushnet:branch=FOLDER,label=brushnet-random`."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.methods.method import Method

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
    name, _, rest = text.partition(":")
    if name not in METHODS:
        raise UserError(ARGUMENT, "is no known method", name, nearest_name(name, METHODS))
    place = METHODS[name].place
    if place is None:
        remedy = "what is published of it stands in the report by itself, marked as published"
        raise UserError(ARGUMENT, "has no weights that could be run here", name, remedy)
    module, _, class_name = place.partition(":")
    kind = getattr(import_module(f"{_PACKAGE}.{module}"), class_name)
    made: Method = kind(**_options(kind, rest))
    return made


def _options(kind: Any, text: str) -> dict[str, Any]:
    """The options of a method's class, by the types of its fields."""
    hints = typing.get_type_hints(kind)
    known = {one.name: hints[one.name] for one in fields(kind) if one.init}
    options: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{ARGUMENT} {kind.kind}", "must have its options as key=value", part)
        if key not in known:
            raise UserError(f"{ARGUMENT} {kind.kind}", "has no such option", key, nearest_name(key, known))
        if key in options:
            raise UserError(f"{ARGUMENT} {kind.kind}", "has an option twice", key)
        options[key] = _value(known[key], value, f"{kind.kind}:{key}")
    return options


def _value(hint: Any, text: str, argument: str) -> Any:
    if not text:
        raise UserError(argument, "must have a value")
    wanted = next((one for one in typing.get_args(hint) if one is not types.NoneType), hint)
    try:
        return wanted(text)
    except ValueError:
        noun = "a whole number" if wanted is int else "a number"
        raise UserError(argument, f"must be {noun}", text) from None
