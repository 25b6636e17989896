"""The field's four measures of agreement between predicted and true scores, and as an `evaluate` metric."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy import stats


def compute_metrics(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """SRCC, PLCC and KRCC (rank, linear and Kendall's tau-b correlation, -1 to 1) and RMSE (in units of the score).

    A correlation is NaN where it is not defined: fewer than two images, or constant predictions or references.

    Raises:
        ValueError: different lengths, nothing at all, or a value that is not finite.
    """
    predictions, references = np.asarray(predictions, float), np.asarray(references, float)
    if predictions.shape != references.shape or predictions.ndim != 1 or predictions.size == 0:
        raise ValueError(
            f"predictions and references must be lists of one length, got {predictions.shape} and {references.shape}"
        )
    if not (np.isfinite(predictions).all() and np.isfinite(references).all()):
        raise ValueError("predictions and references must be finite, got NaN or infinity")
    rmse = float(np.sqrt(np.mean((predictions - references) ** 2)))
    correlations = {"srcc": stats.spearmanr, "plcc": stats.pearsonr, "krcc": stats.kendalltau}
    if predictions.size < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return {**dict.fromkeys(correlations, float("nan")), "rmse": rmse}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        results = {name: float(function(predictions, references)[0]) for name, function in correlations.items()}
    return {**results, "rmse": rmse}


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
