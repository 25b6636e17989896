"""The metrics against numbers worked by hand, and where they are not defined."""

import math

import pytest

from hybridiqa.metrics import IQAMetric, compute_metrics


def test_metrics_agree_with_numbers_worked_by_hand():
    metrics = compute_metrics([1, 2, 3, 5], [1, 3, 2, 4])
    assert metrics["srcc"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # two ranks differ by one
    assert metrics["krcc"] == pytest.approx((5 - 1) / 6)
    assert metrics["plcc"] == pytest.approx(5.5 / math.sqrt(8.75 * 5))
    assert metrics["rmse"] == pytest.approx(math.sqrt(3 / 4))


def test_perfect_reversed_and_tied_predictions():
    assert compute_metrics([1, 2, 3], [10, 20, 30])["srcc"] == pytest.approx(1)
    assert compute_metrics([3, 2, 1], [10, 20, 30])["krcc"] == pytest.approx(-1)
    assert compute_metrics([1, 1, 2], [1, 2, 3])["krcc"] == pytest.approx(2 / math.sqrt(2 * 3))  # tau-b


@pytest.mark.parametrize(("predictions", "references"), [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1], [4])])
def test_a_correlation_that_is_not_defined_is_nan(predictions, references):
    metrics = compute_metrics(predictions, references)
    assert all(math.isnan(metrics[name]) for name in ("srcc", "plcc", "krcc"))
    assert math.isfinite(metrics["rmse"])


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([1, 2], [1]), ([1, math.nan], [1, 2])])
def test_unusable_input_is_refused(predictions, references):
    with pytest.raises(ValueError, match="predictions and references must be"):
        compute_metrics(predictions, references)


def test_the_evaluate_metric_gives_the_same_numbers():
    predictions, references = [1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 4.0]
    assert IQAMetric().compute(predictions=predictions, references=references) == compute_metrics(
        predictions, references
    )
