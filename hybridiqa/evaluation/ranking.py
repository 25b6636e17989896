"""How well scorers order the pictures of a dataset, each by itself and two beside each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from hybridiqa.evaluation.datasets import RatedPictures
from hybridiqa.utils.runtime import map_in_processes
from metrics.iqa.iqa import (
    MIN_GROUP_SIZE,
    LogisticFitError,
    bootstrap_samples,
    compute_metrics,
    difference_intervals,
    fit_logistic,
    fit_logistic5,
    intervals_of,
    is_defined,
)

FITS = {"plcc_logistic": fit_logistic, "plcc_logistic5": fit_logistic5}
# Errors are no measure of two scorers of different scales; all others are the higher the better.
NOT_COMPARED = ("rmse", "rmse_logistic")


def failed_fits(predictions: np.ndarray, references: np.ndarray) -> dict[str, str]:
    """Why a fit has no value, by the metric that needs it."""
    failed = {}
    for name, fit in FITS.items():
        try:
            fit(predictions, references)
        except (ValueError, LogisticFitError) as error:
            failed[name] = str(error)
    return failed


def _agreement(
    predictions: np.ndarray, references: np.ndarray, groups: Sequence[str] | None, num_resamples: int, seed: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """A row's metrics with their intervals and failed fits, and the metrics' bootstrap samples."""
    metrics = compute_metrics(predictions, references, groups)
    samples = bootstrap_samples(predictions, references, groups, num_resamples, seed)
    intervals = intervals_of(samples)
    row = {
        "num_images": len(references),
        "metrics": {name: {"value": value, "interval": intervals[name]} for name, value in metrics.items()},
        "failed_fits": failed_fits(predictions, references),
    }
    return row, samples


def _group_row(job: tuple[str, str, np.ndarray, np.ndarray], num_resamples: int, seed: int) -> dict:
    model, group, predictions, references = job
    row, _ = _agreement(predictions, references, None, num_resamples, seed)
    return {"model": model, "group": group, **row}


def _group_jobs(
    model: str, predictions: np.ndarray, references: np.ndarray, groups: Sequence[str]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Predictions and references of each group that is large enough."""
    labels = np.asarray(groups)
    for group in dict.fromkeys(groups):
        is_member = labels == group
        if is_member.sum() >= MIN_GROUP_SIZE:
            yield model, group, predictions[is_member], references[is_member]


def compare(first: dict, second: dict, samples: Mapping[str, dict[str, np.ndarray]]) -> dict:
    """First less second, metric by metric, with the interval of the paired bootstrap and whether it excludes 0.

    Args:
        first, second: rows, with the names of their models.
        samples: of both, by model.
    """
    intervals = difference_intervals(samples[first["model"]], samples[second["model"]])
    differences = {}
    for name, interval in intervals.items():
        if name not in NOT_COMPARED:
            value = first["metrics"][name]["value"] - second["metrics"][name]["value"]
            differ = all(map(is_defined, interval)) and not interval[0] <= 0 <= interval[1]
            differences[name] = {"value": value, "interval": interval, "differ": differ}
    return {"first": first["model"], "second": second["model"], "metrics": differences}


def scored_by_all(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Which pictures every scorer has a score for: `(pictures,)`, so that all are measured on the same.

    Raises:
        ValueError: fewer than two.
    """
    is_scored = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    if is_scored.sum() < 2:
        raise ValueError(
            f"{int(is_scored.sum())} of {is_scored.size} pictures have a score of every model; 2 are needed"
        )
    return is_scored


def measure_ranking(
    data: RatedPictures,
    scores: Mapping[str, Sequence[float]],
    num_resamples: int = 1000,
    seed: int = 0,
    num_workers: int = 1,
) -> dict:
    """The agreement of every scorer with the true scores, in all, within groups, and scorer against scorer.

    Pictures that one of the scorers has no score for are left out for all. Intervals are 95 %: whole groups are
    resampled where there are any, the images of a group for its own row.

    Args:
        scores: one a picture, NaN for none, by scorer.
        num_workers: processes that share the groups' rows, which take as long as all pictures' own.

    Returns:
        `rows` (one a model), `groups` (one a model and group), `differences` (one a pair of models), `left_out`.

    Raises:
        ValueError: fewer than two pictures are left.
    """
    is_scored = scored_by_all(scores)
    references = np.asarray(data.references, float)[is_scored]
    groups = data.groups and [group for group, kept in zip(data.groups, is_scored, strict=True) if kept]
    rows, jobs, samples = [], [], {}
    for model, values in scores.items():
        predictions = np.asarray(values, float)[is_scored]
        row, samples[model] = _agreement(predictions, references, groups, num_resamples, seed)
        rows.append({"model": model, **row})
        jobs += _group_jobs(model, predictions, references, groups or ())
    return {
        "rows": rows,
        "groups": map_in_processes(partial(_group_row, num_resamples=num_resamples, seed=seed), jobs, num_workers),
        "differences": [compare(first, second, samples) for first, second in itertools.combinations(rows, 2)],
        "left_out": [name for name, kept in zip(data.names, is_scored, strict=True) if not kept],
    }
