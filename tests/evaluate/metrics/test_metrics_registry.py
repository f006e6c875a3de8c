"""The registry: names, options, families, what a batch is scored by, and the document about them."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics import DEFAULTS, METRICS, metric_named, score_batch
from mtadiffusion.evaluate.metrics.metric import Batch
from mtadiffusion.evaluate.metrics.table import markdown_table, renewed

from .samples import batch, sample

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_can_be_made_by_its_name_and_sent_to_another_process(name):
    made = pickle.loads(pickle.dumps(metric_named(name)))
    definition = made.definition
    assert definition.name == name
    assert definition.bounds[0] < definition.bounds[1]
    assert definition.scale > 0
    assert definition.source
    assert definition.title


def test_titles_are_unlike_each_other():
    titles = [metric_named(name).definition.title for name in METRICS]
    assert len(set(titles)) == len(titles)


def test_families_name_metrics_and_stickers_need_no_download():
    assert {name for names in DEFAULTS.values() for name in names} <= set(METRICS)
    for name in DEFAULTS["sticker"]:
        metric_named(name).setup("cpu")


def test_an_unknown_metric_is_told_the_nearest():
    with pytest.raises(
        UserError, match="names no known metric, got 'clip_similarty'; did you mean 'clip_similarity'"
    ):
        metric_named("clip_similarty")


def test_an_unknown_option_is_told_the_nearest():
    with pytest.raises(UserError, match=r"hps\.weight is no option of hps; did you mean 'weights'"):
        metric_named("hps", weight="x")
    with pytest.raises(UserError, match=r"psnr\.model is no option of psnr; it has none"):
        metric_named("psnr", model="x")


def test_a_batch_is_scored_by_every_metric_under_its_name():
    made = [metric_named(name) for name in ("psnr", "seam_delta_e", "edge_f1")]
    scores = score_batch(made, batch())
    assert list(scores) == ["psnr", "seam_delta_e", "edge_f1"]
    assert [len(values) for values in scores.values()] == [3, 3, 3]
    assert scores["edge_f1"] == [None] * 3


def test_a_batch_equals_its_members():
    made = [metric_named(name) for name in METRICS if name not in NEED_WEIGHTS]
    for one in made:
        one.setup("cpu")
    samples = [
        sample(number, (64, 64), label="apple", facts={"reference": "original"}) for number in range(3)
    ]
    together = score_batch(made, batch(*samples))
    for place, alone in enumerate(samples):
        for name, (value,) in score_batch(made, batch(alone)).items():
            assert together[name][place] == (value if value is None else pytest.approx(value, rel=1e-5)), name


NEED_WEIGHTS = {
    "image_reward", "hps", "aesthetic", "lpips", "lpips_brushnet", "clip_similarity", "vqa_score",
    "vqa_score_vlm", "hit", "style_gram",
}  # fmt: skip


def test_an_original_scores_as_well_as_any_result_by_its_own_edges_colours_and_seams():
    untouched = sample(result=sample().original, facts={"reference": "original"})
    made = [metric_named(name) for name in ("psnr", "mse", "edge_f1", "edge_f1_sobel", "seam_delta_e")]
    scores = {name: values[0] for name, values in score_batch(made, batch(untouched)).items()}
    for one in made:
        best = {"psnr": 100, "mse": 0, "seam_delta_e": 0}.get(one.definition.name, 1)
        assert scores[one.definition.name] == best
        if math.isfinite(one.definition.bounds[0]):
            assert best in one.definition.bounds


def test_what_one_metric_computed_another_takes():
    shared = Batch(samples=())
    assert [shared.once("key", lambda: []), shared.once("key", lambda: [1])] == [[], []]


def test_the_document_has_the_definitions_of_the_code():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert markdown_table() in text, (
        "renew it: python -m mtadiffusion.evaluate.metrics.table < docs/metrics.md"
    )
    assert renewed(text) == text


def test_the_document_names_every_metric_and_family():
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in (*METRICS, *DEFAULTS):
        assert f"`{name}`" in text


def test_importing_the_registry_loads_no_heavy_library():
    heavy = "{'torch', 'skimage', 'numpy'}"
    code = f"import sys, mtadiffusion.evaluate.metrics; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
