"""Plots of a run: they are there, they are the same for the same numbers, and odd numbers do not stop them."""

import math

import pytest
from PIL import Image

from hybridiqa.utils.plots import plot_predictions, plot_training


def make_history(*srcc_values: float | None) -> list[dict]:
    return [
        {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "validation": {"srcc": srcc}}
        for epoch, srcc in enumerate(srcc_values, start=1)
    ]


STEPS_AND_LOSSES = [(step, 1 / step) for step in range(1, 31)]


def draw_twice(draw, tmp_path) -> Image.Image:
    """Return what `draw(path)` draws, having checked that another file gets the same bytes."""
    paths = [tmp_path / "one.png", tmp_path / "two"]
    for path in paths:
        draw(path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and b"Software" not in first
    return Image.open(paths[0])


def test_the_training_plot_is_the_same_file_for_the_same_run(tmp_path):
    image = draw_twice(lambda path: plot_training(make_history(0.2, 0.5, 0.4), STEPS_AND_LOSSES, path), tmp_path)
    assert image.format == "PNG" and image.size == (960, 720)
    assert image.convert("L").getextrema()[0] < 100  # something dark is drawn


def test_the_plot_of_predictions_is_the_same_file_for_the_same_scores(tmp_path):
    predictions, references = [1.5, 2.5, 6.0], [1, 2, 7]
    image = draw_twice(lambda path: plot_predictions(predictions, references, path, "test"), tmp_path)
    assert image.format == "PNG" and image.size == (720, 720)


def test_the_title_is_drawn_as_it_is(tmp_path):
    plot_predictions([1, 2], [1, 2], tmp_path / "plot.png", r"a$\nonsense$_b")  # broken mathematics, were it that
    assert (tmp_path / "plot.png").is_file()


@pytest.mark.parametrize("srcc_values", [(math.nan,), (None, 0.5), (math.nan, math.nan)])
def test_a_metric_that_is_not_defined_is_left_out(tmp_path, srcc_values):
    plot_training(make_history(*srcc_values), [], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").is_file()


@pytest.mark.parametrize(("predictions", "references"), [([3], [3]), ([2, 2], [2, 2]), ([1, 2, 3], [5, 5, 5])])
def test_constant_scores_are_drawn(tmp_path, predictions, references):
    plot_predictions(predictions, references, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").is_file()


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one epoch"):
        plot_training([], [], tmp_path / "plot.png")
    with pytest.raises(ValueError, match="must be lists of one length"):
        plot_predictions([], [], tmp_path / "plot.png")
