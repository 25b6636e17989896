"""What a score means: where it stands among others, from 0 (the lowest) to 100 (the highest)."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import rankdata

from hybridiqa.loading import hub_class

percentiles_in = hub_class("configuration_hybridiqa.percentiles_in")  # of the scores that a checkpoint was measured by
DECIMALS = hub_class("configuration_hybridiqa.PERCENTILE_DECIMALS")


def percentiles_among(scores: Sequence[float]) -> list[float]:
    """Where each score stands among all of them: the share of lower ones, equal ones counted half."""
    return (100 * (rankdata(scores) - 0.5) / len(scores)).round(DECIMALS).tolist()
