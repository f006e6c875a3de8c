"""`mta annotate` and `mta data`, with the paper's kinds of models at a tiny size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtadiffusion.annotate import presets
from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.describe import Describe
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.annotate.vision_language import HttpVisionLanguage, LocalVisionLanguage
from mtadiffusion.cli import main
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.preview import overlaid
from mtadiffusion.data.validate import problems
from mtadiffusion.errors import UserError
from mtadiffusion.records import ImageRecord, ObjectRecord

from .test_describe import Parrot
from .test_detect import Fixed
from .test_segment import FixedMasks


@pytest.fixture
def annotators(tmp_path, grounding_dino, sam, llava, tokenizer, clip):
    """A TOML file that names tiny models."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = tmp_path / "annotators.toml"
    path.write_text(f"""
[filters]
min_resolution = 32
min_aesthetic = 5.8
[detect]
model = "{grounding_dino}"
min_score = 0.1
nms_iou = 0.9
[segment]
model = "{sam}"
min_fit = 0.0
[caption]
model = "{llava}"
max_new_tokens = 8
tokenizer = "{tmp_path / "tokenizer"}"
[describe]
model = "{llava}"
max_new_tokens = 8
tokenizer = "{tmp_path / "tokenizer"}"
[verify]
model = "{clip}"
""")
    return path


@pytest.fixture
def dataset(folder, tmp_path, annotators):
    """A dataset that the command made."""
    out = tmp_path / "dataset"
    command = [
        "annotate",
        folder,
        "--out",
        out,
        "--annotators",
        annotators,
        "--shard-size",
        4,
        "--workers",
        0,
    ]
    assert main([str(word) for word in command]) == 0
    return out


def test_one_command_goes_from_a_folder_to_descriptions(dataset, capsys):
    assert set(Dataset.open(dataset).manifest.tables) == {
        "index",
        "filters",
        "labels",
        "detections",
        "masks",
        "captions",
        "descriptions",
        "alignment",
    }
    made_by = json.loads((Dataset.open(dataset).table("descriptions").folder / "made_by.json").read_text())
    assert made_by["settings"]["prompt"] == "Describe the {label} and its style in details"


def test_the_command_again_reuses_everything(dataset, folder, annotators, capsys):
    capsys.readouterr()
    command = ["annotate", folder, "--out", dataset, "--annotators", annotators, "--workers", 0, "--json"]
    assert main([str(word) for word in command]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert [(t["made"], t["reused"], t["failed"]) for t in tables] == [(0, 2, 0)] * 8


def test_options_take_the_place_of_a_set_s_values(dataset, folder, annotators, capsys):
    capsys.readouterr()
    command = [
        "annotate",
        folder,
        "--out",
        dataset,
        "--annotators",
        annotators,
        "--workers",
        0,
        "--stages",
        "filters",
    ]
    assert main([*map(str, command), "--min-resolution", "80"]) == 0
    assert main(["data", "stats", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == {"small": 7}


def test_failed_shards_are_said_and_make_the_exit_code_1(make_tars, tmp_path, capsys):
    source = make_tars()
    (source / "00001.tar").write_bytes((source / "00001.tar").read_bytes()[:1000])
    command = [
        "annotate",
        source,
        "--out",
        tmp_path / "ds",
        "--workers",
        0,
        "--stages",
        "index,filters",
        "--json",
    ]
    assert main([str(word) for word in command]) == 1
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert [table["failed"] for table in tables] == [1, 0]
    assert main(["data", "validate", str(tmp_path / "ds")]) == 1
    assert "in quarantine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages", "detct"], "--stages must name stages, got 'detct'; did you mean 'detect'?"),
        (["--annotators", "grounded-sam-lava"], "did you mean 'grounded-sam-llava'?"),
        (["--annotators", "none.toml"], "--annotators cannot be read"),
        (["--min-score", "1.5"], "min_score must be at least 0 and less than 1"),
        (["--workers", "-1"], "--workers must be"),
        (["--shard-size", "0"], "--shard-size must be"),
        (["--labels", "none.txt"], "--labels must be a readable text file"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder, tmp_path, capsys, words, message):
    assert main(["annotate", str(folder), "--out", str(tmp_path / "ds"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "ds").exists()


def test_a_toml_file_may_only_say_what_is_known(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[detect]\nmodle = 'x'\n")
    with pytest.raises(UserError, match=r"detect\.modle is no setting.*did you mean 'model'"):
        presets.preset(str(path))
    path.write_text("[detekt]\n")
    with pytest.raises(UserError, match="did you mean 'detect'"):
        presets.preset(str(path))


def test_the_paper_s_set_has_the_paper_s_numbers():
    settings = presets.preset("grounded-sam-llava")
    _, filters, labels, detect, _, _, describe, _ = presets.build_stages(settings)
    assert (filters.min_resolution, filters.min_aesthetic) == (1024, 5.8)
    assert labels.source == Vocabulary(names=presets.coco_things())
    assert isinstance(detect, Detect)
    assert (detect.min_score, detect.max_objects) == (0.6, 5)
    assert isinstance(describe.describer, LocalVisionLanguage)


def test_a_url_puts_a_server_in_the_model_s_place():
    settings = presets.changed(
        presets.preset("grounded-sam-llava"),
        {"describe": {"url": "http://localhost:8000/v1", "model": "qwen", "concurrency": 4}},
    )
    (describe,) = presets.build_stages(settings, ["describe"])
    assert describe.describer == HttpVisionLanguage(
        url="http://localhost:8000/v1", model="qwen", concurrency=4
    )


def test_the_built_in_vocabulary_is_coco_s(tmp_path):
    assert len(presets.coco_things()) == 80
    (tmp_path / "labels.txt").write_text("cat\n\n dog \ncat\n")
    assert presets.vocabulary(tmp_path / "labels.txt") == ("cat", "dog")


def test_stats_count_every_image_and_object(dataset, capsys):
    capsys.readouterr()
    assert main(["data", "stats", str(dataset), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == {"kept": 7}
    sizes = [sum(counts.values()) for counts in found["objects"].values()]
    assert len(set(sizes)) == 1
    assert main(["data", "stats", str(dataset)]) == 0
    assert "detections" in capsys.readouterr().out


def test_a_dataset_that_was_just_made_is_sound(dataset, capsys):
    assert main(["data", "validate", str(dataset), "--images"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sound"


def damaged(dataset, name, change):
    """What validation says after `change` was made to the first shard's rows of a table."""
    import pyarrow as pa

    table = Dataset.open(dataset).table(name)
    rows = table.read(0)
    values = rows.to_pylist()
    change(values)
    table.write(0, pa.Table.from_pylist(values, schema=rows.schema))
    return "\n".join(str(problem) for problem in problems(Dataset.open(dataset), images=True))


def first_object(rows):
    return next(one for row in rows for one in row["objects"] if one["status"] == "kept")


def test_a_box_outside_its_image_is_found(dataset):
    def change(rows):
        next(row for row in rows if row["objects"])["objects"][0]["box_xyxy"] = [0.0, 0.0, 500.0, 10.0]

    assert "is not within the image" in damaged(dataset, "detections", change)


def test_a_mask_that_was_changed_is_found(dataset):
    assert "pixels, not" in damaged(dataset, "masks", lambda rows: first_object(rows).update(area=1))
    said = damaged(dataset, "masks", lambda rows: first_object(rows).update(counts="0"))
    assert "the mask cannot be decoded" in said


def test_rows_that_are_lost_are_found(dataset):
    said = damaged(dataset, "filters", lambda rows: rows.pop())
    assert "its rows are not those of the index" in said


def test_an_image_that_is_gone_is_found(dataset):
    def change(rows):
        rows[0]["offset"] += 10**9

    assert "ends before byte" in damaged(dataset, "index", change)


def test_a_folder_that_is_no_dataset_is_a_mistake(tmp_path, capsys):
    assert main(["data", "stats", str(tmp_path)]) == 2
    assert "must be a folder with a manifest.json" in capsys.readouterr().err


def test_a_preview_is_one_page_with_every_label_and_text(tmp_path, folder, limit, capsys):
    boxes = [("cat", 0.9, (12, 8, 24, 16)), ("<b>dog</b>", 0.8, (30, 10, 40, 20))]
    stages = [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("cat", "dog"))),
        Detect(detector=Fixed(*boxes)),
        Segment(segmenter=FixedMasks("box")),
        Describe(describer=Parrot("A red thing of wood."), limit=limit),
    ]
    annotate(str(folder), tmp_path / "ds", stages)
    assert (
        main(["data", "preview", str(tmp_path / "ds"), "--out", str(tmp_path / "p.html"), "--count", "3"])
        == 0
    )
    page = (tmp_path / "p.html").read_text()
    assert page.count("<article") == 3
    assert page.count("A red thing of wood.") == 6
    assert "<b>dog" not in page
    assert "&lt;b&gt;dog" in page
    assert "http" not in page.replace("http-equiv", "")


def test_an_overlay_changes_the_objects_only():
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:25] = True
    thing = ObjectRecord(label="a", mask=mask, box_xyxy=(5, 5, 25, 15), description="a")
    record = ImageRecord(image_id="a", image=np.zeros((20, 30, 3), np.uint8), caption="", objects=(thing,))
    drawn = overlaid(record, [(200, 0, 100)])
    assert (drawn[~mask] == 0).all()
    assert tuple(drawn[5, 5]) == (200, 0, 100)
    assert tuple(drawn[10, 15]) == (40, 0, 20)


@pytest.mark.parametrize(
    ("name", "rule"), [("p.txt", "must end in .html"), ("file/p.html", "--out must be a folder")]
)
def test_a_page_that_cannot_be_written_is_a_mistake(tmp_path, capsys, name, rule):
    (tmp_path / "file").touch()
    assert main(["data", "preview", str(tmp_path), "--out", str(tmp_path / name)]) == 2
    assert rule in capsys.readouterr().err
