"""What to look for: a vocabulary, the nouns of captions, a model's list."""

from __future__ import annotations

import pytest

from mtadiffusion.annotate import presets
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import (
    MOST_LABELS,
    CaptionNouns,
    Labels,
    ModelLabels,
    Vocabulary,
    listed,
    nouns,
)
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.annotate.vision_language import HttpVisionLanguage, LocalVisionLanguage
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError

from .test_describe import Parrot
from .test_detect import Fixed


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red car parked on the street in front of two old houses", ["car", "street", "houses"]),
        ("Portrait of a young woman with a straw hat, oil on canvas", ["woman", "straw hat", "canvas"]),
        ("a dog and a cat playing with a ball of yarn", ["dog", "cat", "ball", "yarn"]),
        ("beer mug beer mug", ["beer mug beer mug"]),
        ("A Dog. a dog!", ["dog"]),
        ("IMG_2039.jpg", []),
        ("", []),
        ("and / or", []),
    ],
)
def test_the_nouns_of_a_caption_are_labels(caption, expected):
    assert nouns(caption) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A dog, the red ball and grass.", ["dog", "red ball", "grass"]),
        ("1. chair\n2. table\n- lamp", ["chair", "table", "lamp"]),
        ("I see many things that are lying around here", []),
        ("dog, dog, dog", ["dog"]),
        ("", []),
        (", ".join(map("thing {}".format, range(99))), [f"thing {n}" for n in range(MOST_LABELS)]),
    ],
)
def test_a_model_s_list_is_taken_apart(answer, expected):
    assert listed(answer) == expected


def labels_of(root, source, labels):
    dataset = Dataset.open_or_plan(root, str(source), 100)
    run_stages(
        dataset, [Index(), Filters(), labels, Detect(detector=Fixed(("x", 0.9, (8, 8, 40, 40))))], Local()
    )
    dataset = Dataset.open(root)
    rows = zip(*(dataset.table(name).read(0).to_pylist() for name in ("labels", "detections")), strict=True)
    return {asked["image_id"]: (asked["labels"], len(found["objects"])) for asked, found in rows}


def test_images_without_labels_are_not_searched(folder, tmp_path):
    (folder / "p2.txt").write_text("a cat on a mat")
    (folder / "p4.jpg").write_bytes(b"no picture")
    found = labels_of(tmp_path / "ds", folder, Labels(source=CaptionNouns()))
    assert found["p2.jpg"] == (["cat", "mat"], 1)
    assert found["p4.jpg"] == ([], 0)
    assert found["p6.jpg"] == ([], 0)


def test_a_model_is_asked_about_kept_images_only(folder, tmp_path):
    (folder / "p4.jpg").write_bytes(b"no picture")
    parrot = Parrot("a kite, a string")
    found = labels_of(tmp_path / "ds", folder, Labels(source=ModelLabels(describer=parrot, batch=2)))
    assert found.pop("p4.jpg") == ([], 0)
    assert set(map(str, found.values())) == {"(['kite', 'string'], 1)"}


def test_an_empty_vocabulary_is_a_mistake():
    with pytest.raises(UserError, match="labels must name"):
        Vocabulary(names=())


def test_the_model_that_lists_is_the_one_that_describes_unless_another_is_named():
    settings = presets.preset("grounded-sam-llava")
    (stage,) = presets.build_stages(presets.changed(settings, {"labels": {"source": "model"}}), ["labels"])
    assert isinstance(stage.source.describer, LocalVisionLanguage)
    assert stage.source.describer.model == settings["describe"]["model"]
    served = {"source": "model", "url": "http://localhost:8000/v1", "model": "qwen"}
    (stage,) = presets.build_stages(presets.changed(settings, {"labels": served}), ["labels"])
    assert isinstance(stage.source.describer, HttpVisionLanguage)
    with pytest.raises(UserError, match=r"labels\.source must be one of"):
        presets.build_stages(presets.changed(settings, {"labels": {"source": "tags"}}), ["labels"])


def test_the_embedded_set_can_list_its_own_labels():
    settings = presets.changed(presets.preset("sticker"), {"labels": presets.label_settings("model")})
    (stage,) = presets.build_stages(settings, ["labels"])
    assert type(stage.source.describer).__name__ == "StickerCaptioner"


@pytest.mark.parametrize("changes", [{"detect": {"source": "caption"}}, {"filters": {"kind": "sticker"}}])
def test_settings_that_choose_a_class_belong_to_stages_that_have_a_choice(changes):
    with pytest.raises(UserError, match="is no setting"):
        presets.changed(presets.preset("sticker"), changes)
