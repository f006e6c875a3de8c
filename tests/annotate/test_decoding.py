"""Decoding ahead: the same pictures in the same order, not too far ahead, errors where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.annotate.stage import Inputs
from mtadiffusion.data import images
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.images import UndecodableImageError, decode, decoded, opened, pixels
from mtadiffusion.engines.engine import Resources
from mtadiffusion.engines.local import Local

from .conftest import encoded


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_pictures_come_in_order_with_any_number_of_threads(threads, count):
    data = [encoded(number) for number in range(count)]
    seen = list(decoded(data, 32, threads))
    assert [np.asarray(one).tobytes() for one in seen] == [
        np.asarray(decode(one, 32)).tobytes() for one in data
    ]


@pytest.mark.parametrize(
    ("size", "longest", "scale"),
    [
        ((1024, 512), 512, 2),
        ((512, 1024), 512, 2),
        ((1024, 683), 512, 2),
        ((1023, 683), 512, 1),
        ((1536, 200), 336, 4),
        ((300, 200), 512, 1),
    ],
)
def test_a_jpeg_is_decoded_at_the_least_scale_that_has_the_longest_side(size, longest, scale):
    image = opened(encoded(0, size))
    small = pixels(image, longest)
    assert image.decoderconfig[0] == scale
    assert max(small.size) == min(longest, max(size))


def test_it_reads_only_a_few_pictures_ahead():
    read = []

    def source():
        for number in range(100):
            read.append(number)
            yield encoded(0)

    pictures = decoded(source(), 32, 2)
    next(pictures)
    assert len(read) <= images._AHEAD * 2 + 1
    pictures.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_picture_raises_at_its_turn(threads):
    pictures = decoded([encoded(0), b"no picture", encoded(1)], None, threads)
    assert next(pictures).size == (96, 64)
    with pytest.raises(UndecodableImageError):
        next(pictures)


def test_a_stage_with_a_gpu_has_its_pictures_decoded_ahead(make_tars, tmp_path):
    assert Resources(cpus=4, gpus=1).decoders == 4
    assert Resources(cpus=4).decoders == 0
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(make_tars()), 2)
    (report,) = run_stages(dataset, [Index()], Local())
    shards = [
        Inputs(dataset=dataset, tables={"index": report.table}, decoders=threads).shard(1)
        for threads in (0, 2)
    ]
    one, two = ([np.asarray(p).tobytes() for p in shard.images(shard.rows("index"))] for shard in shards)
    assert one == two
    assert len(one) == 4
