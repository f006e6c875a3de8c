"""The pictures of docs/study.md: a small study of the embedded model, photographed in headless Chromium.

    python tools/study_pictures.py docs/pictures

Three ways to fill the holes of held-out sticker scenes (the backbone alone, and the branch with two weights
of the prompt) become plain runs, the runs a study, and the study's page a picture at the size of a desk and
one at the size of a phone. `--runs FOLDER` keeps the runs, or takes those that are there, to try out a study:

    mta study create --runs FOLDER/backbone FOLDER/branch FOLDER/branch-unguided --images 6 --out study
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from mtadiffusion.models.registry import load_pipeline
from mtadiffusion.stickers.demo import DemoRow, demo_problems, draw_rows
from mtadiffusion.study.create import Terms, create_study
from mtadiffusion.study.links import participants_links
from mtadiffusion.study.runs import read_runs
from mtadiffusion.study.serve import listening, server_of

GUIDED, UNGUIDED = 4.0, 1.0
SHOTS = {"study-desktop.png": (1280, 800), "study-phone.png": (390, 844)}
"""File name to the window's size in pixels."""


def write_runs(folder: Path, count: int, steps: int) -> None:
    """Plain runs of the embedded model, a folder each."""
    pipeline = load_pipeline("sticker", None, "auto", "auto")
    problems = demo_problems("validation", count, 0, pipeline.resolution)
    guided = draw_rows(pipeline, problems, steps=steps, guidances=(GUIDED, GUIDED), seed=0)
    unguided = draw_rows(pipeline, problems, steps=steps, guidances=(UNGUIDED, UNGUIDED), seed=0)
    results = {
        "backbone": [row.backbone_alone for row in guided],
        "branch": [row.with_branch for row in guided],
        "branch-unguided": [row.with_branch for row in unguided],
    }
    for method, images in results.items():
        _write_run(folder / method, guided, images)


def _write_run(folder: Path, rows: list[DemoRow], images: list) -> None:
    (folder / "masked").mkdir(parents=True)
    lines = []
    for row, image in zip(rows, images, strict=True):
        name = f"scene-{row.problem.index:03d}"
        row.pictures["input"].save(folder / "masked" / f"{name}.png")
        image.save(folder / f"{name}.png")
        lines.append({"item_id": name, "prompt": row.problem.prompt, "masked": f"masked/{name}.png"})
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@contextmanager
def served(study: Path) -> Iterator[str]:
    """The study's address, while it is served."""
    server, socket = server_of(study), listening("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def photograph(browser: Browser, link: str, size: tuple[int, int], out: Path) -> None:
    """Agree, answer the first question of the first picture, and picture the second question."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=size[0] < 600)
    page = context.new_page()
    page.goto(link)
    page.get_by_role("button", name="I agree").click()
    page.locator("#judge").wait_for()
    page.keyboard.press("2")
    page.locator(".tabs .done").wait_for()
    page.keyboard.press("ArrowRight")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=out)
    context.close()


def main() -> None:
    """Parse, draw, serve, photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=Path, help="keep the runs here, or take them from here")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = arguments.runs or Path(scratch) / "runs"
        if not runs.exists():
            write_runs(runs, arguments.scenes, arguments.steps)
        words = [str(folder) for folder in sorted(runs.iterdir())]
        study = Path(scratch) / "study"
        create_study(read_runs(words), Terms(images=arguments.scenes, participants=len(SHOTS)), study)
        with served(study) as url, sync_playwright() as playwright:
            links, _ = participants_links(study, url)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            for link, (name, size) in zip(links, SHOTS.items(), strict=True):
                photograph(browser, link.link, size, arguments.out / name)
            browser.close()


if __name__ == "__main__":
    main()
