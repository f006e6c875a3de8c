"""Named sets of annotators, and TOML files like them, turned into stages.

A set is one table of settings a stage. `grounded-sam-llava` is the paper's: models, thresholds and prompt.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from mtadiffusion.annotate.caption import Caption
from mtadiffusion.annotate.clip_scorer import ClipScorer
from mtadiffusion.annotate.describe import PROMPT, Describe, TextLimit
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.grounding_dino import GroundingDino
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.sam import Sam
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.annotate.stage import Resources, Stage
from mtadiffusion.annotate.verify import Verify
from mtadiffusion.annotate.vision_language import HttpVisionLanguage, LocalVisionLanguage
from mtadiffusion.errors import UserError, nearest_name

Settings = dict[str, dict[str, Any]]


def grounded_sam_llava() -> Settings:
    """The paper's annotators, filters and prompt."""
    return {
        "filters": {"min_resolution": 1024, "min_aesthetic": 5.8},
        "detect": {"model": "IDEA-Research/grounding-dino-base", "min_score": 0.6, "max_objects": 5},
        "segment": {"model": "facebook/sam-vit-huge"},
        "caption": {"model": "llava-hf/llava-1.5-7b-hf"},
        "describe": {"model": "llava-hf/llava-1.5-7b-hf", "prompt": PROMPT},
        "verify": {"model": "openai/clip-vit-large-patch14"},
    }


PRESETS: dict[str, Callable[[], Settings]] = {"grounded-sam-llava": grounded_sam_llava}
"""Every set by the name that the command line takes."""

_KINDS: dict[str, tuple[type, ...]] = {
    "index": (Index,),
    "filters": (Filters,),
    "detect": (Detect, GroundingDino),
    "segment": (Segment, Sam),
    "caption": (Caption, TextLimit, LocalVisionLanguage, HttpVisionLanguage),
    "describe": (Describe, TextLimit, LocalVisionLanguage, HttpVisionLanguage),
    "verify": (Verify, ClipScorer),
}
_BUILT = ("detector", "segmenter", "describer", "scorer", "limit", "resources", "device")
"""Fields that are built from settings, or follow from where the run takes place."""

STAGES = ("index", "filters", "detect", "segment", "caption", "describe", "verify")
"""Stage names of the command line and of TOML files, in their order."""


def preset(name: str) -> Settings:
    """The settings of a named set, or of a TOML file over the paper's.

    Raises:
        UserError: no such name or file, or the file is no TOML of known tables.
    """
    if not name.endswith(".toml"):
        if name not in PRESETS:
            raise UserError("--annotators", "is no set of annotators", name, nearest_name(name, PRESETS))
        return PRESETS[name]()
    try:
        changes = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("--annotators", f"cannot be read ({error.strerror})", name) from error
    except ValueError as error:
        raise UserError("--annotators", f"must be TOML ({error})", name) from error
    return changed(grounded_sam_llava(), changes)


def changed(settings: Settings, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings with the values of `changes` in place of theirs; a `url` takes the place of a local model.

    Raises:
        UserError: an unknown stage or setting.
    """
    result = {name: dict(values) for name, values in settings.items()}
    for stage, values in changes.items():
        if stage not in STAGES or not isinstance(values, Mapping):
            raise UserError("annotators", "must be tables of stages", stage, nearest_name(stage, STAGES))
        known = {name for kind in _KINDS[stage] for name in _fields(kind)}
        for name in values:
            if name not in known:
                raise UserError(
                    f"annotators: {stage}.{name}", "is no setting", remedy=nearest_name(name, known)
                )
        result.setdefault(stage, {}).update(values)
    return result


def vocabulary(path: Path | None) -> tuple[str, ...]:
    """Labels, one a line of a file; without one, the 80 things of COCO."""
    if path is None:
        text = files("mtadiffusion.annotate").joinpath("coco_things.txt").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("--labels", "must be a readable text file", str(path), str(error)) from error
    names = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not names:
        raise UserError("--labels", "must name something, one label a line", str(path))
    return names


def build_stages(
    settings: Settings, wanted: Sequence[str] = STAGES, *, labels: tuple[str, ...], device: str = "cpu"
) -> list[Stage]:
    """The stages that are wanted, in their order, each from its table of settings.

    Raises:
        UserError: an unknown stage, or a value that cannot be.
    """
    for name in wanted:
        if name not in STAGES:
            raise UserError("--stages", "must name stages", name, nearest_name(name, STAGES))
    makers: dict[str, Callable[[dict[str, Any]], Stage]] = {
        "index": lambda values: Index(**values),
        "filters": lambda values: Filters(**values),
        "detect": lambda values: _detect({"labels": labels} | values, device),
        "segment": lambda values: _segment(values, device),
        "caption": lambda values: Caption(**_with_describer(values, device)),
        "describe": lambda values: Describe(**_with_describer(values, device)),
        "verify": lambda values: _verify(values, device),
    }
    return [makers[name](dict(settings.get(name, {}))) for name in STAGES if name in wanted]


def _detect(values: dict[str, Any], device: str) -> Stage:
    detector = GroundingDino(**_taken(values, GroundingDino), device=device)
    built = {"detector": detector, "labels": tuple(values["labels"]), "resources": _occupied(device)}
    return Detect(**values | built)


def _segment(values: dict[str, Any], device: str) -> Stage:
    segmenter = Sam(**_taken(values, Sam), device=device)
    return Segment(**values, segmenter=segmenter, resources=_occupied(device))


def _verify(values: dict[str, Any], device: str) -> Stage:
    scorer = ClipScorer(**_taken(values, ClipScorer), device=device)
    return Verify(**values, scorer=scorer, resources=_occupied(device))


def _with_describer(values: dict[str, Any], device: str) -> dict[str, Any]:
    limit = TextLimit(**_taken(values, TextLimit))
    if "url" in values:
        server = HttpVisionLanguage(**_taken(values, HttpVisionLanguage))
        return values | {"describer": server, "limit": limit}
    describer = LocalVisionLanguage(**_taken(values, LocalVisionLanguage), device=device)
    return values | {"describer": describer, "limit": limit, "resources": _occupied(device)}


def _occupied(device: str) -> Resources:
    """What a worker with a model on this device occupies."""
    return Resources(gpus=1) if device.startswith("cuda") else Resources()


def _taken(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Move what `kind` is made of out of `values`."""
    return {name: values.pop(name) for name in _fields(kind) if name in values}


def _fields(kind: Any) -> list[str]:
    """What a user may set of a stage or model."""
    return [one.name for one in fields(kind) if one.init and one.name not in _BUILT]
