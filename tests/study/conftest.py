"""Small studies: plain runs of noise, the study made of them, its server in this process or beside it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mtadiffusion.seeding import numpy_generator
from mtadiffusion.study.create import Terms, create_study
from mtadiffusion.study.runs import read_runs
from mtadiffusion.study.serve import listening, server_of
from mtadiffusion.study.server import create_app
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS, Study

ITEMS = tuple(f"item-{number}" for number in range(5))
METHODS = ("ours", "theirs", "older")


def noise(purpose: str, number: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """A picture of coarse noise; another purpose or number is another picture."""
    coarse = numpy_generator(0, purpose, number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_run(folder: Path, method: str, items: tuple[str, ...] = ITEMS) -> str:
    """A plain run; the word for `--runs`."""
    run = folder / method
    (run / "masked").mkdir(parents=True)
    rows = []
    for item_id in items:
        number = int(item_id.rpartition("-")[2])
        noise("masked", number).save(run / "masked" / f"{item_id}.png")
        noise(method, number).save(run / f"{item_id}.png")
        rows.append({"item_id": item_id, "prompt": f"thing <{number}>", "masked": f"masked/{item_id}.png"})
    (run / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return f"{method}={run}"


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Three runs of five items."""
    return [write_run(tmp_path / "runs", method) for method in METHODS]


@pytest.fixture
def make_study(tmp_path: Path, runs: list[str]) -> Callable[..., Study]:
    """A study of four images by three methods, with one check; terms may differ."""

    def make(**terms: object) -> Study:
        usual = {"images": 4, "checks": 1, "participants": 3, "questions": ("alignment", "style")}
        return create_study(read_runs(runs), Terms(**usual | terms), tmp_path / "study")

    return make


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Study:
    """As `make_study` makes it by itself."""
    return make_study()


@pytest.fixture
def store(study: Study) -> Iterator[Store]:
    """Its answers."""
    opened = Store(study.root / ANSWERS)
    yield opened
    opened.close()


@pytest.fixture
def client(study: Study, store: Store) -> Iterator[TestClient]:
    """Asks its server, in this process."""
    with TestClient(create_app(study, store), follow_redirects=False) as asked:
        yield asked


@pytest.fixture
def served() -> Iterator[Callable[[Study], str]]:
    """Serves studies on free ports, in threads; gives the address."""
    running = []

    def serve(study: Study) -> str:
        server, socket = server_of(study.root), listening("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{socket.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join()
