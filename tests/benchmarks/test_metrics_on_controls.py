"""The comparison of metrics with fills whose worth is known, on a few holes."""

from __future__ import annotations

import metrics_on_controls as controls
import numpy as np
import pytest

from mtadiffusion.stickers.problems import hole_problem


@pytest.fixture(scope="module")
def problems() -> list:
    return [hole_problem("validation", index) for index in range(8)]


def test_fills_differ_inside_the_hole_alone(problems: list) -> None:
    for place, problem in enumerate(problems):
        drawn = controls.fills(problem, controls.foreign_picture(problems, place))
        assert len({picture.tobytes() for picture in drawn.values()}) == 6
        for picture in drawn.values():
            assert (picture == problem.scene.record.image)[~problem.hole].all()


def test_a_foreign_picture_is_in_another_style(problems: list) -> None:
    by_picture = {problem.scene.record.image.tobytes(): problem.style for problem in problems}
    for place, problem in enumerate(problems):
        assert by_picture[controls.foreign_picture(problems, place).tobytes()] != problem.style


def test_the_share_knows_the_metrics_direction_and_leaves_out_what_has_no_score() -> None:
    assert controls.better_share("seam_delta_e", [0, 1, None, 2], [1, 0, 5, 2]) == pytest.approx(0.5)
    assert controls.better_share("seam_delta_e", [0, 0], [1, 1]) == 1
    assert controls.better_share("sticker_style", [0, 0], [1, 1]) == 0


def test_the_report_has_a_row_a_metric_in_both_tables() -> None:
    text = controls.report(controls.scores("validation", 8))
    for name in controls.METRICS:
        assert text.count(f"| `{name}` |") == 2
    values = [float(cell) for row in text.splitlines() if "`" in row for cell in row.split("|")[2:-1]]
    assert np.isfinite(values).all()
