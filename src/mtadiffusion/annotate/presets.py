"""Named sets of annotators, and TOML files like them, turned into stages.

A set is one table of settings a stage. `grounded-sam-llava` is the paper's: models, thresholds and prompt.
`sticker` is for pictures of the sticker world: small networks that come with the package, known here by name.
`source` asks no model: boxes, masks and texts are those that came with the images.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from mtadiffusion.annotate.aesthetic import Aesthetic
from mtadiffusion.annotate.caption import Caption
from mtadiffusion.annotate.describe import PROMPT, Describe, TextLimit
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.from_source import SourceBoxes, SourceMasks, SourceTexts
from mtadiffusion.annotate.grounding_dino import GroundingDino
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import CaptionNouns, Labels, ModelLabels, Vocabulary
from mtadiffusion.annotate.sam import Sam
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.annotate.stage import Stage
from mtadiffusion.annotate.verify import Verify
from mtadiffusion.annotate.vision_language import HttpVisionLanguage, LocalVisionLanguage
from mtadiffusion.engines.engine import Resources
from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.models.clip_scorer import ClipScorer

Settings = dict[str, dict[str, Any]]

LABEL_SOURCES = ("vocabulary", "caption", "model")
"""Where labels come from."""

MOST_OBJECTS = 1000
"""Objects an image that `source` takes: all."""

DECODERS = 4
"""Cores beside a GPU: they decode pictures ahead of the model."""

EMBEDDED = "sticker"
"""The `kind` of a stage's model that is one of the package's small networks."""

SOURCE = "source"
"""The `kind` of a stage that takes what came with the images and asks no model."""


def grounded_sam_llava() -> Settings:
    """The paper's annotators, filters and prompt."""
    return {
        "index": {},
        "filters": {"min_resolution": 1024, "min_aesthetic": 5.8},
        "labels": {"source": "vocabulary"},
        "detect": {"model": "IDEA-Research/grounding-dino-base", "min_score": 0.6, "max_objects": 5},
        "segment": {"model": "facebook/sam-vit-huge"},
        "caption": {"model": "llava-hf/llava-1.5-7b-hf"},
        "describe": {"model": "llava-hf/llava-1.5-7b-hf", "prompt": PROMPT},
        "verify": {"model": "openai/clip-vit-large-patch14"},
    }


def sticker() -> Settings:
    """The embedded annotators, and texts no longer than the embedded backbone reads."""
    network: dict[str, Any] = {"kind": EMBEDDED, "model": "sticker"}
    text: dict[str, Any] = {"tokenizer": "sticker", "tokens": 32}
    return {
        "index": {},
        "filters": {},
        "labels": {"names": _embedded("assets:labels")()},
        "detect": network | {"min_score": 0.35},
        "segment": network,
        "caption": network | text,
        "describe": network | text | {"prompt": "{label}"},
    }


def source() -> Settings:
    """The source's own boxes, masks and texts, duplicates included; no model."""
    return {
        "index": {},
        "filters": {"duplicates": False},
        "detect": {"kind": SOURCE, "max_objects": MOST_OBJECTS},
        "segment": {"kind": SOURCE},
        "describe": {"kind": SOURCE},
    }


PRESETS: dict[str, Callable[[], Settings]] = {
    "grounded-sam-llava": grounded_sam_llava,
    "sticker": sticker,
    "source": source,
}
"""Every set by the name that the command line takes."""

_KINDS: dict[str, tuple[type, ...]] = {
    "index": (Index,),
    "aesthetic": (Aesthetic, ClipScorer),
    "filters": (Filters,),
    "labels": (Vocabulary, ModelLabels, LocalVisionLanguage, HttpVisionLanguage),
    "detect": (Detect, GroundingDino, SourceBoxes),
    "segment": (Segment, Sam, SourceMasks),
    "caption": (Caption, TextLimit, LocalVisionLanguage, HttpVisionLanguage),
    "describe": (Describe, TextLimit, LocalVisionLanguage, HttpVisionLanguage, SourceTexts),
    "verify": (Verify, ClipScorer),
}
_MODELLED = ("labels", "detect", "segment", "caption", "describe")
_SWITCHES = {stage: {"kind"} for stage in _MODELLED} | {"labels": {"kind", "source"}}
"""Settings that choose a class and are no field of one."""

_BUILT = ("detector", "segmenter", "describer", "scorer", "scored", "limit", "resources", "device")
"""Fields that are built from settings, or follow from where the run takes place."""

STAGES = ("index", "aesthetic", "filters", "labels", "detect", "segment", "caption", "describe", "verify")
"""Stage names of the command line and of TOML files, in their order."""


def preset(name: str) -> Settings:
    """The settings of a named set, or of a TOML file over the one it names as `base`, else the paper's.

    Raises:
        UserError: no such name or file, or the file is no TOML of known tables.
    """
    if not name.endswith(".toml"):
        return _named(name, "--annotators")
    try:
        changes = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("--annotators", f"cannot be read ({error.strerror})", name) from error
    except ValueError as error:
        raise UserError("--annotators", f"must be TOML ({error})", name) from error
    return changed(_named(changes.pop("base", "grounded-sam-llava"), f"{name}: base"), changes)


def _named(name: str, argument: str) -> Settings:
    if name not in PRESETS:
        raise UserError(argument, "is no set of annotators", name, nearest_name(name, PRESETS))
    return PRESETS[name]()


def changed(settings: Settings, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings with the values of `changes` in place of theirs; a `url` takes the place of a local model.

    Raises:
        UserError: an unknown stage or setting.
    """
    result = {name: dict(values) for name, values in settings.items()}
    for stage, values in changes.items():
        if stage not in STAGES or not isinstance(values, Mapping):
            raise UserError("annotators", "must be tables of stages", stage, nearest_name(stage, STAGES))
        known = _SWITCHES.get(stage, set()) | {name for kind in _KINDS[stage] for name in _fields(kind)}
        for name in values:
            if name not in known:
                raise UserError(
                    f"annotators: {stage}.{name}", "is no setting", remedy=nearest_name(name, known)
                )
        result.setdefault(stage, {}).update(values)
    return result


def label_settings(choice: str) -> dict[str, Any]:
    """The settings that `--labels` stands for: `caption`, `model`, or a file with a label a line."""
    if choice in ("caption", "model"):
        return {"source": choice}
    return {"source": "vocabulary", "names": vocabulary(Path(choice))}


def vocabulary(path: Path) -> tuple[str, ...]:
    """Labels, one a line of a file."""
    try:
        names = _lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("--labels", "must be a readable text file", str(path), str(error)) from error
    if not names:
        raise UserError("--labels", "must name something, one label a line", str(path))
    return names


def coco_things() -> tuple[str, ...]:
    """The 80 things of COCO."""
    return _lines(files("mtadiffusion.annotate").joinpath("coco_things.txt").read_text(encoding="utf-8"))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def build_stages(
    settings: Settings,
    wanted: Sequence[str] | None = None,
    *,
    device: str = "cpu",
) -> list[Stage]:
    """The stages that are wanted, in their order, each from its table of settings.

    Args:
        settings: one table a stage.
        wanted: names of stages; None for all that have a table.
        device: where models run.

    Raises:
        UserError: an unknown stage, or a value that cannot be.
    """
    wanted = [name for name in STAGES if name in settings] if wanted is None else wanted
    for name in wanted:
        if name not in STAGES:
            raise UserError("--stages", "must name stages", name, nearest_name(name, STAGES))
    makers: dict[str, Callable[[dict[str, Any]], Stage]] = {
        "index": lambda values: Index(**values),
        "aesthetic": lambda values: _aesthetic(values, device),
        "filters": lambda values: Filters(**values, scored="aesthetic" in settings),
        "labels": lambda values: _labels(values, settings.get("describe", {}), device),
        "detect": lambda values: _detect(values, device),
        "segment": lambda values: _segment(values, device),
        "caption": lambda values: Caption(**_asking(values, "StickerCaptioner", device)),
        "describe": lambda values: _describe(values, device),
        "verify": lambda values: _verify(values, device),
    }
    _check_source(settings, wanted)
    return [makers[name](dict(settings.get(name, {}))) for name in STAGES if name in wanted]


def _check_source(settings: Settings, wanted: Sequence[str]) -> None:
    """The source's masks and texts go with its boxes, not with a model's."""
    if settings.get("detect", {}).get("kind") == SOURCE:
        return
    for name in ("segment", "describe"):
        if name in wanted and settings.get(name, {}).get("kind") == SOURCE:
            remedy = f'set [detect] kind = "{SOURCE}" too'
            raise UserError(f"annotators: {name}.kind", "needs the source's boxes", SOURCE, remedy)


def _aesthetic(values: dict[str, Any], device: str) -> Stage:
    if "head" not in values:
        raise UserError(
            "aesthetic.head", "must name the file of the linear layer", remedy="[aesthetic] head = FILE"
        )
    scorer = ClipScorer(**_taken(values, ClipScorer), device=device)
    return Aesthetic(**values, scorer=scorer, resources=_occupied(device))


def _labels(values: dict[str, Any], describe: Mapping[str, Any], device: str) -> Stage:
    """What to look for; a model that lists it is the one that describes, unless another is named."""
    source = values.pop("source", "vocabulary")
    if source not in LABEL_SOURCES:
        raise UserError("labels.source", f"must be one of {', '.join(LABEL_SOURCES)}", source)
    if source == "caption":
        return Labels(source=CaptionNouns())
    names = tuple(values.pop("names", ())) or coco_things()
    if source == "vocabulary":
        return Labels(source=Vocabulary(names=names))
    shared = {name: describe[name] for name in ("kind", "model", "url", "key") if name in describe}
    values = _with_describer(shared | values, "StickerCaptioner", device)
    resources = values.pop("resources", Resources())
    return Labels(source=ModelLabels(**values), resources=resources)


def _detect(values: dict[str, Any], device: str) -> Stage:
    if values.get("kind") == SOURCE:
        return SourceBoxes(**_chosen(values, SourceBoxes))
    kind = _kind(values, "annotators:StickerDetector", GroundingDino)
    detector = kind(**_taken(values, kind), device=device)
    return Detect(**values, detector=detector, resources=_occupied(device))


def _segment(values: dict[str, Any], device: str) -> Stage:
    if values.get("kind") == SOURCE:
        return SourceMasks(**_chosen(values, SourceMasks))
    kind = _kind(values, "annotators:StickerSegmenter", Sam)
    segmenter = kind(**_taken(values, kind), device=device)
    return Segment(**values, segmenter=segmenter, resources=_occupied(device))


def _describe(values: dict[str, Any], device: str) -> Stage:
    if values.get("kind") == SOURCE:
        return SourceTexts(**_chosen(values, SourceTexts))
    return Describe(**_asking(values, "StickerDescriber", device))


def _verify(values: dict[str, Any], device: str) -> Stage:
    scorer = ClipScorer(**_taken(values, ClipScorer), device=device)
    return Verify(**values, scorer=scorer, resources=_occupied(device))


def _with_describer(values: dict[str, Any], embedded: str, device: str) -> dict[str, Any]:
    if "url" in values:
        return values | {"describer": HttpVisionLanguage(**_taken(values, HttpVisionLanguage))}
    kind = _kind(values, f"annotators:{embedded}", LocalVisionLanguage)
    describer = kind(**_taken(values, kind), device=device)
    return values | {"describer": describer, "resources": _occupied(device)}


def _asking(values: dict[str, Any], embedded: str, device: str) -> dict[str, Any]:
    """A describer, and how much of its answers a text encoder reads."""
    limit = TextLimit(**_taken(values, TextLimit))
    return _with_describer(values, embedded, device) | {"limit": limit}


def _kind(values: dict[str, Any], embedded: str, other: type) -> Any:
    """The class of a stage's model: a small network of the package, or the stage's usual one."""
    kind = values.pop("kind", None)
    if kind not in (None, EMBEDDED):
        raise UserError("kind", f"must be {EMBEDDED}, or {SOURCE} for boxes, masks and texts", kind)
    return _embedded(embedded) if kind else other


def _embedded(name: str) -> Any:
    """`module:attribute` of the sticker world, which nothing imports before it is named."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"mtadiffusion.stickers.{module}"), attribute)


def _occupied(device: str) -> Resources:
    """What a worker with a model on this device occupies."""
    return Resources(cpus=DECODERS, gpus=1) if device.startswith("cuda") else Resources()


def _taken(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Move what `kind` is made of out of `values`."""
    return {name: values.pop(name) for name in _fields(kind) if name in values}


def _chosen(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Those of the values that `kind` has; the rest belong to a model that is not asked."""
    return _taken(dict(values), kind)


def _fields(kind: Any) -> list[str]:
    """What a user may set of a stage or model."""
    return [one.name for one in fields(kind) if one.init and one.name not in _BUILT]
