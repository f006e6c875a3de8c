"""Headless Chromium for tests of pages: Debian's, driven by Playwright. Without it such tests skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright


@contextmanager
def opened(path: Path, *, width: int = 1280) -> Iterator[Page]:
    """A page of a file, its scripts run; errors on its console and requests to elsewhere fail the test."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs a browser: install Debian's package chromium")
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: _note_foreign(request.url, path, faults))
        page.goto(path.absolute().as_uri())
        yield page
        browser.close()
    assert faults == []


def _note_foreign(url: str, path: Path, faults: list[str]) -> None:
    if not url.startswith(("data:", path.absolute().parent.as_uri())):
        faults.append(f"asks for {url}")
