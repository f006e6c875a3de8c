"""SIGTERM as a wish: a machine that is taken away sends it some time before it goes."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Termination:
    """Takes note of SIGTERM instead of dying of it; a context, of use in the main thread only."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True
