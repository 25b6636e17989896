"""What a score means: where it stands among others, from 0 (the lowest) to 100 (the highest)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

DECIMALS = 2


def percentiles_in(quantiles: Sequence[float], scores: Sequence[float]) -> list[float]:
    """Where the scores stand in a distribution.

    Args:
        quantiles: of the distribution, evenly spaced from 0 % to 100 %, as `config.score_quantiles` holds them.
        scores: on the same scale; beyond the distribution's ends they get 0 or 100.
    """
    return np.interp(scores, quantiles, np.linspace(0, 100, len(quantiles))).round(DECIMALS).tolist()


def percentiles_among(scores: Sequence[float]) -> list[float]:
    """Where each score stands among all of them: the share of lower ones, equal ones counted half."""
    return (100 * (rankdata(scores) - 0.5) / len(scores)).round(DECIMALS).tolist()
