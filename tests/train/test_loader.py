"""Worker processes: the same stream as without them, errors in one line, no process left."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal

import pytest
import torch

from mtadiffusion.config import DataConfig
from mtadiffusion.errors import UserError
from mtadiffusion.stickers.scenes import SceneWorld  # importable by a worker, unlike a test's class
from mtadiffusion.train.dataset import TrainingSamples
from mtadiffusion.train.loader import Loader, SampleWorkers


def scenes() -> TrainingSamples:
    return TrainingSamples(SceneWorld(length=12), DataConfig(holes_per_image=0, cache=False), seed=2)


def test_any_number_of_workers_gives_the_same_stream_and_a_killed_one_is_named() -> None:
    plain, shared = Loader(scenes(), 0), Loader(scenes(), 1)
    for first in (0, 3, 6, 30, 33):  # a jump, as after a resume, is no mistake
        numbers = range(first, first + 3)
        one, other = plain.batch(numbers), shared.batch(numbers)
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.holes, other.holes)
        assert one.prompts == other.prompts
    (process,) = multiprocessing.active_children()
    os.kill(process.pid or 0, signal.SIGTERM)  # as a machine tells all processes; the training one answers it
    shared.batch(range(36, 39))
    assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match=r"data\.workers lost a process"):
        [shared.batch(range(first, first + 3)) for first in range(39, 300, 3)]
    del shared
    # not join() and is_alive(): the pool waits for the process too, and who comes second is told nothing
    assert multiprocessing.connection.wait([process.sentinel], timeout=20)


def test_without_workers_results_come_in_order() -> None:
    samples = TrainingSamples(SceneWorld(length=12), DataConfig(), seed=2)
    made = [item.prompts for item in SampleWorkers(samples, 0).map("kept_samples", range(5))]
    assert made == [samples.record_samples(record).prompts for record in range(5)]


def test_a_rise_of_the_numbers_is_learnt() -> None:
    loader = Loader(scenes(), 0)
    for first in (4, 12, 20):
        assert loader.batch([first, first + 1]).prompts == scenes().batch([first, first + 1]).prompts
