"""How far predicted and true scores agree: the field's four measures, their intervals, and an `evaluate` metric."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence

import datasets
import evaluate
import numpy as np
from scipy import stats

CORRELATIONS = {"srcc": stats.spearmanr, "plcc": stats.pearsonr, "krcc": stats.kendalltau}
WITHIN_GROUP = "srcc_within_group"
MIN_GROUP_SIZE = 3  # the SRCC of two images is 1 or -1 and tells next to nothing
NUM_QUANTILES = 21  # 0 %, 5 %, ... 100 %


def is_defined(value: float | None) -> bool:
    """Whether a metric has a value: it is neither NaN nor None, which stands for NaN in JSON."""
    return value is not None and math.isfinite(value)


def _checked(predictions: Sequence[float], references: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    predictions, references = np.asarray(predictions, float), np.asarray(references, float)
    if predictions.shape != references.shape or predictions.ndim != 1 or predictions.size == 0:
        raise ValueError(
            f"predictions and references must be lists of one length, got {predictions.shape} and {references.shape}"
        )
    if not (np.isfinite(predictions).all() and np.isfinite(references).all()):
        raise ValueError("predictions and references must be finite, got NaN or infinity")
    return predictions, references


def _group_numbers(groups: Sequence[Hashable], num_images: int) -> np.ndarray:
    """Each image's group as a number from 0 on: `(images,)`."""
    if len(groups) != num_images:
        raise ValueError(f"groups must hold one label an image, got {len(groups)} for {num_images} images")
    numbers = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _correlation(name: str, predictions: np.ndarray, references: np.ndarray) -> float:
    if predictions.size < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(CORRELATIONS[name](predictions, references)[0])


def _pooled_metrics(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    correlations = {name: _correlation(name, predictions, references) for name in CORRELATIONS}
    return {**correlations, "rmse": float(np.sqrt(np.mean((predictions - references) ** 2)))}


def _srcc_of_groups(predictions: np.ndarray, references: np.ndarray, group_numbers: np.ndarray) -> np.ndarray:
    """Each group's own SRCC, NaN where it is too small or not defined: `(groups,)`."""
    order, sizes = np.argsort(group_numbers, kind="stable"), np.bincount(group_numbers)
    members = np.split(order, np.cumsum(sizes)[:-1])
    return np.array(
        [
            _correlation("srcc", predictions[index], references[index]) if index.size >= MIN_GROUP_SIZE else np.nan
            for index in members
        ]
    )


def _mean_of_defined(values: np.ndarray, weights: np.ndarray) -> float:
    weights = weights * np.isfinite(values)
    return float(np.average(np.nan_to_num(values), weights=weights)) if weights.any() else float("nan")


def within_group_srcc(predictions: Sequence[float], references: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Mean SRCC inside the groups that have at least 3 images and a defined SRCC; NaN where there is none.

    Every group counts the same. It tells how well pictures of one subject are ordered, whatever the subject.

    Raises:
        ValueError: as `compute_metrics`.
    """
    predictions, references = _checked(predictions, references)
    values = _srcc_of_groups(predictions, references, _group_numbers(groups, predictions.size))
    return _mean_of_defined(values, np.ones(values.size))


def compute_metrics(
    predictions: Sequence[float], references: Sequence[float], groups: Sequence[Hashable] | None = None
) -> dict[str, float]:
    """SRCC, PLCC and KRCC (rank, linear and Kendall's tau-b correlation, -1 to 1) and RMSE (in units of the score).

    With `groups`, one label an image, and a group of at least 3 images, `srcc_within_group` is added. A correlation is
    NaN where it is not defined: fewer than two images, or constant predictions or references.

    Raises:
        ValueError: different lengths, nothing at all, or a value that is not finite.
    """
    predictions, references = _checked(predictions, references)
    metrics = _pooled_metrics(predictions, references)
    if groups is not None and np.bincount(_group_numbers(groups, predictions.size)).max() >= MIN_GROUP_SIZE:
        metrics[WITHIN_GROUP] = within_group_srcc(predictions, references, groups)
    return metrics


def _interval(values: np.ndarray, confidence: float) -> list[float]:
    defined = values[np.isfinite(values)]
    if 2 * defined.size < values.size:
        return [float("nan")] * 2
    return np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def bootstrap_intervals(
    predictions: Sequence[float],
    references: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, list[float]]:
    """`[low, high]` of each metric of `compute_metrics`, by the percentile bootstrap; the same for the same seed.

    Images are drawn with replacement, or whole groups where groups have more than one image: related pictures are not
    independent observations. With fewer than about ten groups the intervals are too narrow. Resamples in which a
    metric is not defined are left out; [NaN, NaN] stands where more than half are, and where there is a single image
    or group, which nothing can be learned from. 2,000 images take 2 to 4 seconds of one CPU core.

    Raises:
        ValueError: as `compute_metrics`, no resample, or a confidence that is not between 0 and 1.
    """
    predictions, references = _checked(predictions, references)
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"got {num_resamples} resamples and confidence {confidence}; at least 1 and between 0 and 1 are accepted"
        )
    numbers = np.arange(predictions.size) if groups is None else _group_numbers(groups, predictions.size)
    names = list(compute_metrics(predictions, references, groups))
    num_groups = numbers.max() + 1
    if num_groups == 1:
        return {name: [float("nan")] * 2 for name in names}
    srcc_of_groups = _srcc_of_groups(predictions, references, numbers)
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num_resamples):
        draws = np.bincount(generator.integers(num_groups, size=num_groups), minlength=num_groups)  # (groups,)
        counts = draws[numbers]  # (images,): every image comes as often as its group was drawn
        metrics = _pooled_metrics(np.repeat(predictions, counts), np.repeat(references, counts))
        rows.append({**metrics, WITHIN_GROUP: _mean_of_defined(srcc_of_groups, draws)})
    return {name: _interval(np.array([row[name] for row in rows]), confidence) for name in names}


def score_quantiles(scores: Sequence[float]) -> list[float]:
    """21 quantiles (0 %, 5 %, ... 100 %) of the scores, rounded to 4 decimals.

    Raises:
        ValueError: no score, or one that is not finite.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores must be a list of at least one finite number, got {scores.size} of {scores.shape}")
    return np.quantile(scores, np.linspace(0, 1, NUM_QUANTILES)).round(4).tolist()


class IQAMetric(evaluate.Metric):
    """`compute_metrics` for `evaluate`: `IQAMetric().compute(predictions=..., references=...)`, offline."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Agreement of predicted with true image quality scores: SRCC, PLCC, KRCC, RMSE.",
            citation="",
            inputs_description="predictions, references: one number an image.",
            features=datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")}),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        return compute_metrics(predictions, references)
