"""The metrics against numbers worked by hand, where they are not defined, and their intervals."""

import math

import numpy as np
import pytest

from hybridiqa.metrics import (
    IQAMetric,
    bootstrap_intervals,
    compute_metrics,
    is_defined,
    score_quantiles,
    within_group_srcc,
)


def scored_pictures(num_images: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True scores of 1-9 and noisy predictions of them."""
    generator = np.random.default_rng(seed)
    references = generator.integers(1, 10, num_images).astype(float)
    return references + generator.normal(0, 2, num_images), references


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


def test_srcc_within_groups_is_the_mean_over_groups_of_three_and_more():
    groups = ["a", "b", "a", "b", "a", "b", "c", "c", "d", "d", "d"]
    references = [1, 7, 2, 8, 3, 9, 1, 2, 4, 5, 6]
    predictions = [5, 3, 6, 1, 7, 2, 9, 1, 3, 3, 3]  # a: 1, b: -0.5, c: too small, d: not defined
    assert within_group_srcc(predictions, references, groups) == pytest.approx((1 - 0.5) / 2)
    assert compute_metrics(predictions, references, groups)["srcc_within_group"] == pytest.approx(0.25)
    assert math.isnan(within_group_srcc([3, 3, 3], [1, 2, 3], ["d", "d", "d"]))


def test_srcc_within_groups_is_left_out_where_no_group_has_three_images():
    predictions, references = scored_pictures(6)
    expected = {"srcc", "plcc", "krcc", "rmse"}
    assert set(compute_metrics(predictions, references, list("aabbcc"))) == expected
    assert set(bootstrap_intervals(predictions, references, list("aabbcc"), num_resamples=20)) == expected


def test_one_label_an_image_is_wanted():
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        compute_metrics([1, 2, 3], [1, 2, 3], ["a", "b"])


@pytest.mark.parametrize("groups", [None, [index // 5 for index in range(60)]])
def test_intervals_hold_the_metrics_and_depend_on_the_seed_alone(groups):
    predictions, references = scored_pictures()
    state = np.random.get_state()[1].copy()
    intervals = bootstrap_intervals(predictions, references, groups, num_resamples=200)
    metrics = compute_metrics(predictions, references, groups)
    assert list(intervals) == list(metrics)
    assert all(intervals[name][0] < value < intervals[name][1] for name, value in metrics.items())
    assert intervals == bootstrap_intervals(predictions, references, groups, num_resamples=200)
    assert intervals != bootstrap_intervals(predictions, references, groups, num_resamples=200, seed=1)
    assert (np.random.get_state()[1] == state).all()


def test_intervals_are_the_quantiles_of_resampled_groups():
    predictions, references = scored_pictures()
    groups = np.arange(60) % 12
    generator, values = np.random.default_rng(3), []
    for _ in range(50):
        drawn = generator.integers(12, size=12)
        index = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        new_groups = np.repeat(np.arange(12), 5)  # a group drawn twice is two groups
        values.append(compute_metrics(predictions[index], references[index], new_groups))
    intervals = bootstrap_intervals(predictions, references, groups, num_resamples=50, seed=3, confidence=0.8)
    for name, interval in intervals.items():
        assert interval == pytest.approx(np.quantile([value[name] for value in values], [0.1, 0.9]))


def test_groups_of_one_image_are_images():
    predictions, references = scored_pictures()
    names = [f"{index}.png" for index in range(60)]
    assert bootstrap_intervals(predictions, references, names, 50) == bootstrap_intervals(
        predictions, references, num_resamples=50
    )


def test_copies_of_pictures_do_not_narrow_the_intervals_of_groups():
    predictions, references = (np.repeat(values, 6) for values in scored_pictures())
    groups = np.repeat(np.arange(60), 6)
    width = {
        name: np.ptp(bootstrap_intervals(predictions, references, labels, 200)["plcc"])
        for name, labels in (("images", None), ("groups", groups))
    }
    assert width["groups"] > 1.8 * width["images"]  # sqrt(6) is expected


@pytest.mark.parametrize(
    ("predictions", "references", "has_interval"),
    [
        ([2] * 8, range(8), False),
        ([1], [1], False),
        ([1, 0, 0, 0, 0, 0, 0, 0], range(8), True),  # the 1 is in 66 % of the resamples
        ([1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], False),  # both 1s are in 41 %
    ],
)
def test_an_interval_wants_half_of_the_resamples_to_be_defined(predictions, references, has_interval):
    interval = bootstrap_intervals(predictions, references)["srcc"]
    assert [is_defined(bound) for bound in interval] == [has_interval] * 2


def test_a_single_group_has_no_interval():
    intervals = bootstrap_intervals(*scored_pictures(), groups=["a"] * 60, num_resamples=10)
    assert not any(is_defined(bound) for interval in intervals.values() for bound in interval)


def test_resamples_and_confidence_are_checked():
    for options in ({"num_resamples": 0}, {"confidence": 1.0}, {"confidence": 95}):
        with pytest.raises(ValueError, match="are accepted"):
            bootstrap_intervals([1, 2], [1, 2], **options)


def test_score_quantiles_are_21_rounded_steps_of_five_percent():
    assert score_quantiles(np.arange(101) / 3) == [round(5 * step / 3, 4) for step in range(21)]
    assert score_quantiles([4.00004]) == [4.0] * 21
    for scores in ([], [1, math.nan]):
        with pytest.raises(ValueError, match="at least one finite number"):
            score_quantiles(scores)


def test_nan_and_none_are_not_defined():
    assert [is_defined(value) for value in (0.0, -1, math.nan, None)] == [True, True, False, False]
