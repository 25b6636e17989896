"""Place of a score among others, from 0 (the lowest) to 100 (the highest)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from hybridiqa.models import hub_code

NUM_QUANTILES = 21  # 0 %, 5 %, ... 100 %


def score_quantiles(scores: Sequence[float]) -> list[float]:
    """Return 21 quantiles (0 %, 5 %, ... 100 %) of the scores, rounded to 4 decimals.

    `config.score_quantiles` holds them.

    Raises:
        ValueError: no score, or one that is not finite.
    """
    values = np.asarray(scores, float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"scores must be a list of at least one finite number, got {values.size} of {values.shape}")
    return np.quantile(values, np.linspace(0, 1, NUM_QUANTILES)).round(4).tolist()


def percentiles_among(scores: Sequence[float]) -> list[float]:
    """Return each score's percentile among all of them: the share of lower ones, equal ones counted half."""
    return (100 * (rankdata(scores) - 0.5) / len(scores)).round(hub_code.PERCENTILE_DECIMALS).tolist()
