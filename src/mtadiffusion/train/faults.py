"""What was wrong with the data of a run: warned of by name, counted, and too much when it is too much."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mtadiffusion.errors import UserError

_log = logging.getLogger(__name__)
_NAMED = 10
"""Warnings of a kind that are printed; all are counted."""


class Faults:
    """Counts of records that could not be read, objects drawn anew and texts cut.

    Args:
        records: of the source, which the damaged ones are a share of.
        most: the share of damaged records beyond which the run stops.
    """

    def __init__(self, records: int, most: float) -> None:
        self.records, self.most = records, most
        self.resampled = self.truncated = 0
        self._damaged: set[int] = set()

    def damage(self, records: Iterable[int], reason: str) -> None:
        """Records that cannot be read; others take their places.

        Raises:
            UserError: there are too many of them.
        """
        before = len(self._damaged)
        self._damaged.update(records)
        if len(self._damaged) == before:
            return
        if before < _NAMED:
            _log.warning("%s; other samples take the place of its own", reason)
        if len(self._damaged) > self.most * self.records:
            rule = f"allows no more than {self.most:g} of the records to be damaged"
            found = f"{len(self._damaged)} of {self.records}, last {reason}"
            raise UserError("data.max_damaged", rule, None, f"{found}; mend the data, or allow more")

    def resample(self, count: int) -> None:
        """Objects of which the crop shows too little, after all; another was drawn."""
        self.resampled += count

    def truncate(self, text: str, kept: str) -> None:
        """A text longer than the text encoder's, cut at a word."""
        if self.truncated < _NAMED:
            _log.warning(
                "a text is cut to the text encoder's length; dropped: %r", text[len(kept) :].strip()[:60]
            )
        self.truncated += 1

    def counts(self) -> dict[str, int]:
        """What there was, by name; empty where all was well."""
        counts = {"damaged": len(self._damaged), "resampled": self.resampled, "truncated": self.truncated}
        return {name: count for name, count in counts.items() if count}
