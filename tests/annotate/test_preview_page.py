"""The preview of a dataset in a real browser."""

from __future__ import annotations

from browser import opened
from playwright.sync_api import expect

from mtadiffusion.annotate.annotate import annotate
from mtadiffusion.annotate.describe import Describe
from mtadiffusion.annotate.detect import Detect
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.labels import Labels, Vocabulary
from mtadiffusion.annotate.segment import Segment
from mtadiffusion.data.preview import write_preview

from .test_describe import Parrot
from .test_detect import Fixed
from .test_segment import FixedMasks


class Alternating(Fixed):
    """Finds a cat in every first picture of two, a dog in every second."""

    def detect(self, images, labels, min_score):
        return [[self.boxes[i % 2]] for i, _ in enumerate(images)]


def test_the_page_shows_filters_and_uncovers_what_was_annotated(folder, tmp_path, limit):
    boxes = [("cat", 0.9, (12, 8, 24, 16)), ("dog", 0.8, (30, 10, 40, 20))]
    stages = [
        Index(),
        Filters(),
        Labels(source=Vocabulary(names=("cat", "dog"))),
        Detect(detector=Alternating(*boxes)),
        Segment(segmenter=FixedMasks("box")),
        Describe(describer=Parrot("A red thing of wood."), limit=limit),
    ]
    annotate(str(folder), tmp_path / "ds", stages)
    shown = write_preview(tmp_path / "ds", tmp_path / "page.html", 7)
    with opened(tmp_path / "page.html") as page:
        articles = page.locator("article:visible")
        assert articles.count() == shown
        assert page.locator("img.masked").first.evaluate("image => image.naturalWidth") > 0
        page.select_option("#label", "dog")
        assert articles.count() == shown // 2
        assert page.inner_text("#shown") == f"{shown // 2} shown"
        page.select_option("#label", "")
        page.uncheck("#masks")
        expect(page.locator("img.plain:visible")).to_have_count(shown)  # they load when they are uncovered
        assert page.locator("img.masked:visible").count() == 0
