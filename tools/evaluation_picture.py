"""The picture of docs/evaluation.md: the page of a small evaluation of the embedded model.

    python tools/evaluation_picture.py docs/pictures/evaluation.png

Draws a dozen items of the embedded benchmark with and without the branch, and photographs the page in
headless Chromium; `--run FOLDER` keeps the evaluation, or takes the one that is there.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from mtadiffusion.evaluate.benchmarks import benchmark
from mtadiffusion.evaluate.methods.registry import method
from mtadiffusion.evaluate.metrics import DEFAULTS, metric_named
from mtadiffusion.evaluate.run import Plan, evaluate

ITEMS = 12
WIDTH, HEIGHT = 1100, 900
COLOURS = 128


def run(out: Path) -> Path:
    """The evaluation's page."""
    plan = Plan(
        benchmark=benchmark("stickerbench"),
        methods=[method("mtadiffusion"), method("backbone")],
        metrics=[metric_named(name) for name in DEFAULTS["sticker"]],
        limit=ITEMS,
    )
    evaluate(plan, out)
    return out / "index.html"


def photograph(page_file: Path, out: Path) -> None:
    """Write a picture of the first items, as the page lists them."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(page_file.absolute().as_uri())
        page.wait_for_load_state("networkidle")
        heading = page.get_by_role("heading", name="All results")
        below = heading.evaluate("it => it.getBoundingClientRect().bottom")
        page.evaluate("top => window.scrollBy({top, behavior: 'instant'})", below)
        page.wait_for_timeout(500)  # pictures fade in as they come into sight
        page.screenshot(path=out)
        browser.close()
    Image.open(out).convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS).save(out, optimize=True)


def main() -> None:
    """Parse, evaluate, photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, help="folder of the evaluation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        photograph(run(arguments.run or Path(temporary) / "run"), arguments.out)


if __name__ == "__main__":
    main()
