"""Reading every kind of source once, and surviving what sources hold."""

from __future__ import annotations

import io
import json
import tarfile

import imagehash
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.annotate.stage import Inputs
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.images import decode
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError

from .conftest import encoded, write_tar


def indexed(root, source, shard_size=4):
    """(dataset, rows of all shards)."""
    dataset = Dataset.open_or_plan(root, str(source), shard_size)
    (report,) = run_stages(dataset, [Index()], Local())
    dataset = Dataset.open(root)
    shards = [n for n in range(dataset.manifest.shards) if report.table.has(n)]
    return dataset, [row for n in shards for row in report.table.read(n).to_pylist()]


def pictures(dataset, shard=0, longest=None):
    """The decoded pictures of a shard."""
    inputs = Inputs(dataset=dataset, tables={"index": dataset.table("index")}).shard(shard)
    rows = inputs.rows("index")
    readable = pa.Table.from_pylist([r for r in rows.to_pylist() if r["status"] == "decoded"], rows.schema)
    return list(inputs.images(readable, longest))


def one(tmp_path, name, data):
    """The row of a folder that holds one file."""
    source = tmp_path / "one"
    source.mkdir()
    (source / name).write_bytes(data)
    _, (row,) = indexed(tmp_path / "ds", source)
    return row


def test_a_folder_is_packed_into_even_shards(folder, tmp_path):
    dataset, rows = indexed(tmp_path / "ds", folder)
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    assert len(rows) == 7
    assert dataset.manifest.shards == 2
    with tarfile.open(tmp_path / "ds/images/shard-000000.tar") as tar:
        assert tar.getnames() == ["000000.jpeg", "000001.jpeg", "000002.jpeg", "000003.jpeg"]


def test_packed_images_are_read_again_byte_for_byte(folder, tmp_path):
    dataset, rows = indexed(tmp_path / "ds", folder)
    source = [(folder / row["image_id"]).read_bytes() for row in rows]
    for data, row in zip(source, rows, strict=True):
        packed = (dataset.root / row["url"]).read_bytes()
        assert packed[row["offset"] :][: row["size"]] == data


def test_texts_beside_a_file_are_its_caption_and_fields(folder, tmp_path):
    rows = {row["image_id"]: row for row in indexed(tmp_path / "ds", folder)[1]}
    assert rows["p0.jpg"]["caption"] == "a first picture"
    assert rows["inner/p1.jpg"]["caption"] == "a second"
    assert rows["inner/p1.jpg"]["aesthetic"] == pytest.approx(6.5)
    assert rows["p2.jpg"]["caption"] is None


def test_tars_stay_where_they_are(make_tars, tmp_path):
    source = make_tars()
    dataset, rows = indexed(tmp_path / "ds", source)
    assert not (tmp_path / "ds/images").exists()
    assert rows[0]["url"] == str(source / "00000.tar")
    assert rows[0]["image_id"] == "00000/000000000"
    assert (rows[0]["caption"], rows[0]["unsafe"]) == ("picture 0 0", False)
    assert [picture.size for picture in pictures(dataset, 1)] == [(96, 64)] * 4


def test_parquet_rows_hold_bytes_or_paths(tmp_path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/x.jpg").write_bytes(encoded(1))
    rows = [
        {"jpg": encoded(0), "path": None, "TEXT": "bytes", "punsafe": 0.9, "AESTHETIC_SCORE": 5.0},
        {"jpg": None, "path": "beside/x.jpg", "TEXT": "a path", "punsafe": 0.1, "AESTHETIC_SCORE": None},
        {"jpg": None, "path": "gone.jpg", "TEXT": "nowhere", "punsafe": None, "AESTHETIC_SCORE": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "laion.parquet")
    _, found = indexed(tmp_path / "ds", tmp_path / "laion.parquet", shard_size=2)
    assert [row["status"] for row in found] == ["decoded", "decoded", "unreadable"]
    assert [row["unsafe"] for row in found] == [True, False, False]
    assert found[0]["aesthetic"] == 5.0
    assert found[2]["reason"].startswith("unreadable file")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.jpg", encoded(0)[:900], "cannot be decoded"),
        ("a.jpg", b"no picture at all", "not an image"),
        ("a.png", b"", "not an image"),
    ],
)
def test_what_is_no_picture_keeps_its_row_with_a_reason(tmp_path, name, data, reason):
    row = one(tmp_path, name, data)
    assert row["status"] == "unreadable"
    assert row["reason"].startswith(reason)
    assert not (tmp_path / "ds/images").exists()


@pytest.mark.parametrize("size", [(1, 1), (30_000, 4)])
def test_extreme_sizes_are_facts(tmp_path, size):
    row = one(tmp_path, "a.png", encoded(0, size, "PNG"))
    assert (row["width"], row["height"], row["status"]) == (*size, "decoded")


def test_a_decompression_bomb_is_not_decoded(tmp_path):
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert one(tmp_path, "a.png", buffer.getvalue())["reason"].startswith("more than")


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    row = one(tmp_path, "a.jpg", buffer.getvalue())
    assert (row["width"], row["height"]) == (30, 40)
    assert pictures(Dataset.open(tmp_path / "ds"))[0].size == (30, 40)


def test_a_broken_exif_is_ignored(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    row = one(tmp_path, "a.jpg", buffer.getvalue())
    assert (row["width"], row["height"], row["status"]) == (40, 30, "decoded")


def test_the_perceptual_hash_is_the_library_s(tmp_path):
    """Independent computation: the hash as imagehash spells it."""
    data = encoded(0)
    row = one(tmp_path, "a.jpg", data)
    assert row["perceptual_hash"].hex() == str(imagehash.phash(decode(data, 64)))


def test_a_caption_in_another_encoding_is_kept_as_far_as_it_can_be_read(tmp_path):
    source = tmp_path / "one"
    source.mkdir()
    (source / "a.jpg").write_bytes(encoded(0))
    (source / "a.txt").write_bytes("caf\xe9 table".encode("latin-1"))
    _, (row,) = indexed(tmp_path / "ds", source)
    assert row["caption"] == "caf\ufffd table"
    assert (row["status"], row["reason"]) == ("decoded", "txt is not UTF-8")


def test_a_key_that_comes_twice_names_two_images(tmp_path):
    write_tar(tmp_path / "a.tar", [("k.jpg", encoded(0)), ("l.jpg", encoded(1)), ("k.jpg", encoded(2))])
    _, rows = indexed(tmp_path / "ds", tmp_path / "a.tar")
    assert [row["image_id"] for row in rows] == ["a/k", "a/l", "a/k#2"]


def test_a_member_that_points_outside_is_never_written(tmp_path):
    source = tmp_path / "deep/down"
    source.mkdir(parents=True)
    path = write_tar(source / "a.tar", [("../../x.jpg", encoded(0)), ("/tmp/mta-x.jpg", encoded(1))])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    _, rows = indexed(tmp_path / "ds", path)
    assert [row["status"] for row in rows] == ["decoded", "decoded"]
    new = {p for p in set(tmp_path.rglob("*")) - before if (tmp_path / "ds") not in [p, *p.parents]}
    assert not new


def test_a_damaged_tar_is_quarantined_and_the_rest_goes_on(make_tars, tmp_path):
    source = make_tars()
    whole = (source / "00001.tar").read_bytes()
    (source / "00001.tar").write_bytes(whole[: len(whole) // 2])
    dataset, rows = indexed(tmp_path / "ds", source)
    assert len(rows) == 8
    failure = json.loads(dataset.table("index").failure_path(1).read_text())
    assert failure["attempts"] == 3
    assert "ends early" in failure["error"] or "unexpected end of data" in failure["error"]


def test_a_mended_tar_is_taken_up_by_the_next_run(make_tars, tmp_path):
    source = make_tars()
    whole = (source / "00001.tar").read_bytes()
    (source / "00001.tar").write_bytes(whole[: len(whole) // 2])
    indexed(tmp_path / "ds", source)
    (source / "00001.tar").write_bytes(whole)
    dataset, rows = indexed(tmp_path / "ds", source)
    assert len(rows) == 12
    assert dataset.table("index").quarantined() == {}


def test_a_source_without_images_is_a_mistake(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="SOURCE must hold images"):
        Dataset.open_or_plan(tmp_path / "ds", str(tmp_path / "empty"), 10)
    with pytest.raises(UserError, match="SOURCE must be there"):
        Dataset.open_or_plan(tmp_path / "ds", str(tmp_path / "gone"), 10)
    assert not (tmp_path / "ds").exists()


def test_another_source_needs_another_folder(folder, make_tars, tmp_path):
    Dataset.open_or_plan(tmp_path / "ds", str(folder), 10)
    with pytest.raises(UserError, match="already holds a dataset of"):
        Dataset.open_or_plan(tmp_path / "ds", str(make_tars()), 10)
