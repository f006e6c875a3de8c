"""Whether a study keeps what it acknowledges: the paper's 30 people x 60 images x 3 questions, with kills
between.

    python benchmarks/study.py

Scripted participants open their links on a real server over loopback, look at the pictures and answer, all
at once. Meanwhile the server is killed (SIGKILL) at random moments and started again. Every answer that was
acknowledged is looked up in the store and in the state that the server shows afterwards. Progress goes to
stderr; the last line on stdout is one JSON object:

- `study_answers_lost`: acknowledged answers that the store lacks or holds otherwise. The one that counts: 0.
- `study_answers_acknowledged`, `study_answers_stored`, `study_kills`, `study_participants`.
- `study_requests_failed`: requests that a kill cut off and the participant sent again.
- `study_answers_per_second`, `study_answer_p50_ms`, `study_answer_p95_ms`: kills and starts included.
- `study_pictures_leaked`: pictures that a participant was given by another one's names. Also 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from tqdm import tqdm

from mtadiffusion.seeding import numpy_generator
from mtadiffusion.study.create import Terms, create_study
from mtadiffusion.study.plan import make_plan
from mtadiffusion.study.runs import read_runs
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS, Study

_START = "import sys; from mtadiffusion.cli import main; sys.exit(main())"
_PATIENCE_SECONDS = 20.0
_RETRY_SECONDS = 0.2
_CHANGED = 0.05
"""The share of answers that a participant changes at once."""

Key = tuple[int, str, str]
"""Participant's number, the place of the item in their order, question."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a study is simulated; the default is the paper's."""

    participants: int = 30
    images: int = 60
    questions: tuple[str, ...] = ("alignment", "structure", "style")
    methods: int = 3
    kills: int = 5
    seed: int = 0


@dataclass(kw_only=True)
class Ledger:
    """What participants were told."""

    acknowledged: dict[Key, int | str] = field(default_factory=dict)
    """The last choice of each question that was acknowledged: a position from 1, or `tie`."""

    seconds: list[float] = field(default_factory=list)
    """From sending an answer for the first time to its acknowledgement."""

    failed: int = 0
    """Requests without a reply."""

    leaked: int = 0
    """Pictures given out under another participant's names."""


class Server:
    """`mta study serve` in a process of its own, on one port from the first start on."""

    def __init__(self, study: Path) -> None:
        self.study, self.port = study, 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait for the line with the address."""
        words = ["study", "serve", str(self.study), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *words], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def answers_lost(size: Size | None = None) -> dict[str, Any]:
    """Simulate a study with kills; the figures that the module names."""
    size = size or Size()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        terms = Terms(
            images=size.images, questions=size.questions, participants=size.participants, seed=size.seed
        )
        study = create_study(read_runs(list(write_runs(root, size))), terms, root / "study")
        ledger, seconds = asyncio.run(simulate(study, size))
        return _figures(study, size, ledger, seconds)


def write_runs(root: Path, size: Size) -> Iterator[str]:
    """Plain runs of coarse noise; the words for `--runs`."""
    for method in range(size.methods):
        folder = root / f"method-{method}"
        (folder / "masked").mkdir(parents=True)
        lines = []
        for index in range(size.images):
            _noise(index, "masked").save(folder / "masked" / f"{index:03d}.png")
            _noise(index, f"method {method}").save(folder / f"{index:03d}.png")
            row = {"item_id": f"{index:03d}", "prompt": f"thing {index}", "masked": f"masked/{index:03d}.png"}
            lines.append(json.dumps(row))
        (folder / "items.jsonl").write_text("\n".join(lines))
        yield f"method-{method}={folder}"


def _noise(index: int, purpose: str) -> Image.Image:
    coarse = numpy_generator(0, f"study benchmark {purpose}", index).integers(
        0, 256, (8, 8, 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


async def simulate(study: Study, size: Size) -> tuple[Ledger, float]:
    """Everyone answers while the server is killed and started again; what they were told, and the seconds."""
    server, ledger = Server(study.root), Ledger()
    people = Store(study.root / ANSWERS).participants()
    total = study.answers_each * len(people)
    server.start()
    begun = time.monotonic()
    limits = httpx2.Limits(max_connections=2 * len(people))
    try:
        with tqdm(total=total, desc="answers", unit="answer", mininterval=1) as bar:
            async with httpx2.AsyncClient(
                timeout=_PATIENCE_SECONDS, limits=limits, trust_env=False
            ) as client:
                killer = asyncio.create_task(_kill_and_restart(server, ledger, total, size))
                everyone = [
                    Visitor(client, server, f"/p/{one.token}", one.number, ledger, bar, size.seed)
                    for one in people
                ]
                await asyncio.gather(*(visitor.take_part() for visitor in everyone))
                await killer
                seconds = time.monotonic() - begun
                ledger.leaked = await _leaked(everyone)
    finally:
        server.kill()
    return ledger, seconds


async def _kill_and_restart(server: Server, ledger: Ledger, total: int, size: Size) -> None:
    """Kills at random shares of the answers, whatever the server is doing then."""
    rng = numpy_generator(size.seed, "study benchmark kills")
    for at in sorted(rng.uniform(0.05, 0.9, size.kills) * total):
        while len(ledger.acknowledged) < at:
            await asyncio.sleep(0.005)
        server.kill()
        await asyncio.to_thread(server.start)


class Visitor:
    """A scripted participant."""

    def __init__(
        self, client: Any, server: Server, path: str, number: int, ledger: Ledger, bar: Any, seed: int
    ) -> None:
        self.client, self.server, self.path, self.number = client, server, path, number
        self.ledger, self.bar = ledger, bar
        self.rng = numpy_generator(seed, "study benchmark choices", number)
        self.state: Mapping[str, Any] = {}

    async def take_part(self) -> None:
        """Agree, look, answer everything, finish; whatever fails is sent again."""
        await self.ask("GET", "")
        await self.ask("POST", "/consent")
        self.state = (await self.ask("GET", "/state")).json()
        for place, item in enumerate(self.state["items"], 1):
            for name in (item["masked"], *item["results"]):
                await self.ask("GET", f"/pictures/{name}")
            for question in self.state["questions"]:
                await self.answer(place, question["name"], item)
        self.state = (await self.ask("GET", "/state")).json()
        await self.ask("POST", "/finish")

    async def answer(self, place: int, question: str, item: Mapping[str, Any]) -> None:
        """Choose; now and then change one's mind."""
        for _ in range(2 if self.rng.random() < _CHANGED else 1):
            position = item["instruction"] or int(self.rng.integers(0, len(item["results"]) + 1))
            choice = position or "tie"
            begun = time.monotonic()
            await self.ask("PUT", f"/answers/{place}/{question}", {"choice": choice})
            self.ledger.seconds.append(time.monotonic() - begun)
            self.ledger.acknowledged[self.number, str(place), question] = choice
        self.bar.update()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The reply, 2xx; asked again until there is one."""
        while True:
            try:
                reply = await self.client.request(method, f"{self.server.url}{self.path}{path}", json=body)
                return reply.raise_for_status()
            except httpx2.TransportError:
                self.ledger.failed += 1
                await asyncio.sleep(_RETRY_SECONDS)


async def _leaked(everyone: Sequence[Visitor]) -> int:
    """How many of the first participant's pictures the second is given by their names."""
    if len(everyone) < 2:
        return 0
    owner, other = everyone[:2]
    replies = [
        await other.client.get(f"{other.server.url}{other.path}/pictures/{name}")
        for item in owner.state["items"]
        for name in (item["masked"], *item["results"])
    ]
    return sum(reply.status_code != 404 for reply in replies)


def _figures(study: Study, size: Size, ledger: Ledger, seconds: float) -> dict[str, Any]:
    store = Store(study.root / ANSWERS)
    stored = {
        key: choice for one in store.participants() for key, choice in _stored(study, store, one.number)
    }
    lost = [key for key, choice in ledger.acknowledged.items() if stored.get(key) != choice]
    percentiles = quantiles(ledger.seconds, n=100)
    return {
        "study_participants": size.participants,
        "study_answers_acknowledged": len(ledger.acknowledged),
        "study_answers_stored": len(stored),
        "study_kills": size.kills,
        "study_requests_failed": ledger.failed,
        "study_answers_per_second": round(len(ledger.seconds) / seconds, 1),
        "study_answer_p50_ms": round(1000 * percentiles[49], 1),
        "study_answer_p95_ms": round(1000 * percentiles[94], 1),
        "study_pictures_leaked": ledger.leaked,
        "study_answers_lost": len(lost),
    }


def _stored(study: Study, store: Store, number: int) -> Iterator[tuple[Key, int | str]]:
    """The store's answers under the places at which the participant saw them."""
    shown = make_plan(study, number, store.secret).shown
    places = {one.item.item_id: str(place) for place, one in enumerate(shown, 1)}
    for answer in store.answers(number):
        yield (number, places[answer.item_id], answer.question), answer.position or answer.choice


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("participants", "images", "methods", "kills", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Size(), name))
    print(json.dumps(answers_lost(Size(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
