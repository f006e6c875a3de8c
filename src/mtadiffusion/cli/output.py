"""What commands print: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout; paths become texts."""
    print(json.dumps(values, ensure_ascii=False, default=str))


def print_lines(lines: Iterable[object]) -> None:
    """A line each on stdout."""
    for line in lines:
        print(line)


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, on stdout."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def quieten_libraries() -> None:
    """Our own warnings go to stderr, one line each; the libraries' chatter and bars while loading do not."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.addLevelName(logging.WARNING, "warning")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in ("diffusers", "transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
