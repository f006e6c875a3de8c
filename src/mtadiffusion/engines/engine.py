"""What an engine and a worker are: a job is cut into numbered parts, copies of one worker make them.

A worker knows nothing of the engine that it runs on; an engine knows nothing of what its parts are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

ATTEMPTS = 3
"""How often a part is tried, or may cost a worker its life, before it is given up."""

Result = TypeVar("Result")
_Made = TypeVar("_Made", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker occupies."""

    cpus: float = 1
    """Cores."""

    gpus: float = 0
    """GPUs, or a share of one."""

    @property
    def decoders(self) -> int:
        """Threads that decode pictures while the GPU works on earlier ones; without a GPU none would help."""
        return int(self.cpus) if self.gpus else 0


class Worker(Protocol[_Made]):
    """What makes parts, wherever it lives; picklable until its first part, for which it loads its models."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def resources(self) -> Resources:
        """What one copy occupies."""

    def make(self, part: int) -> _Made:
        """Make one part. What it raises ends the job: no other part would fare better."""

    def give_up(self, part: int, reason: str, attempts: int) -> _Made:
        """Note, in the process that started the job, that a part cost its workers their lives."""


class Engine(Protocol):
    """Where parts are made."""

    def make(self, worker: Worker[Result], parts: Sequence[int]) -> Iterator[Result]:
        """Make all parts with copies of `worker`; each result as it is done, in any order.

        Closing the iterator early ends what it started.
        """
