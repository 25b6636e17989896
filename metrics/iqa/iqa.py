"""Agreement of predicted with true scores: the field's measures and their intervals, as functions and for `evaluate`.

    metric = evaluate.load("metrics/iqa")  # this folder; or a Space's id
    metric.compute(predictions=[2.9, 5.1, 4.2, 7.0, 8.3], references=[3, 4, 5, 7, 9])

This one file is all that `evaluate.load` takes along: it imports nothing of the project.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import datasets
import evaluate
import numpy as np
from scipy import optimize, special, stats

CORRELATIONS = {"srcc": stats.spearmanr, "plcc": stats.pearsonr, "krcc": stats.kendalltau}
WITHIN_GROUP = "srcc_within_group"
MIN_GROUP_SIZE = 3  # the SRCC of two images is 1 or -1 and tells next to nothing
MIN_FIT_SIZE = 5  # a curve of four parameters goes through any four points
# Middle and logarithm of the width, both of the predictions in standard deviations from their mean: a gentle and a
# steep curve, and two that use one half of the S only. A single start ends in a local optimum too often.
FIT_STARTS = ((0.0, 0.0), (0.0, math.log(0.25)), (-1.0, 0.0), (1.0, 0.0))
MAX_LOG_WIDTH = 10.0  # a curve 20,000 standard deviations wide is a line, one as narrow a step; beyond, digits run out
MAX_DISTANCE = 10.0  # widths from the middle to the nearest score: beyond, the same exponential with fewer digits
MIN_FIT5_SIZE = 6  # and one of five through any five
FIT5_STARTS = tuple(
    (middle, math.log(width))
    for width in (1.0, 0.25, 0.05)
    for middle in (0.0, -0.5, 0.5, -1.0, 1.0, -1.5, 1.5, -2.0, 2.0)  # with fewer, one fit in twenty was not the best
)
FIT_TOLERANCE = 1.49012e-8  # relative change of the squared error that ends a search, scipy's own
NEAR_FIT5_TOLERANCE = 1e-6  # of one that begins near its end: it moves PLCC by less than 1e-5, in half the time
MIN_BEND = 1e-9  # an S of height 1 that is nearer (root mean square) to a line is one: the rest is mostly rounding

Scores = Sequence[float] | np.ndarray
Parameters = tuple[float, float, float, float]  # upper, lower, middle, width
Parameters5 = tuple[float, float, float, float, float]  # b1 to b5

DESCRIPTION = """Agreement of predicted with true image quality scores: SRCC, KRCC, PLCC and RMSE, as predicted and
after logistic fits of four and five parameters, pairwise accuracy and, given groups, SRCC within them; with 95 %
bootstrap intervals."""

INPUTS_DESCRIPTION = """
Args:
    predictions, references: one finite number an image.
    groups (optional): one label an image; adds `srcc_within_group`, and whole groups are resampled.
    num_resamples (optional): bootstrap resamples for the intervals, 1000; 0 leaves the intervals out.
    seed, confidence (optional): of the intervals; 0 and 0.95.
Returns:
    A dict of the metrics, NaN where one is not defined, and `intervals` ({name: [low, high]}) unless left out.
"""

CITATION = """@inproceedings{su2020hyperiqa,
  title = {Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network},
  author = {Su, Shaolin and Yan, Qingsen and Zhu, Yu and Zhang, Cheng and Ge, Xin and Sun, Jinqiu and Zhang, Yanning},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}
@techreport{vqeg2003,
  title = {Final Report from the Video Quality Experts Group on the Validation of Objective Models of Video Quality
           Assessment, Phase II},
  author = {{Video Quality Experts Group}},
  year = {2003}
}
@article{sheikh2006,
  title = {A Statistical Evaluation of Recent Full Reference Image Quality Assessment Algorithms},
  author = {Sheikh, Hamid R. and Sabir, Muhammad F. and Bovik, Alan C.},
  journal = {IEEE Transactions on Image Processing},
  volume = {15},
  number = {11},
  year = {2006}
}"""


class LogisticFitError(RuntimeError):
    """Failure of a logistic fit: it converged from none of its starts."""


def is_defined(value: float | None) -> bool:
    """Return whether a metric has a value: it is neither NaN nor None, which stands for NaN in JSON."""
    return value is not None and math.isfinite(value)


def _check(predictions: Scores, references: Scores) -> tuple[np.ndarray, np.ndarray]:
    predictions, references = np.asarray(predictions, float), np.asarray(references, float)
    if predictions.shape != references.shape or predictions.ndim != 1 or predictions.size == 0:
        raise ValueError(
            f"predictions and references must be lists of one length, got {predictions.shape} and {references.shape}"
        )
    if not (np.isfinite(predictions).all() and np.isfinite(references).all()):
        raise ValueError("predictions and references must be finite, got NaN or infinity")
    return predictions, references


def _number_groups(groups: Sequence[Hashable], num_images: int) -> np.ndarray:
    """Return each image's group as a number from 0 on: `(images,)`."""
    if len(groups) != num_images:
        raise ValueError(f"groups must hold one label an image, got {len(groups)} for {num_images} images")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _correlation(name: str, predictions: np.ndarray, references: np.ndarray) -> float:
    if predictions.size < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(CORRELATIONS[name](predictions, references)[0])


def logistic(scores: np.ndarray, upper: float, lower: float, middle: float, width: float) -> np.ndarray:
    """Map scores by the monotonic curve of four parameters that VQEG maps predictions to mean opinion scores by.

    Its value is (upper - lower) / (1 + exp(-(score - middle) / |width|)) + lower: `upper` is where it goes for high
    scores, `lower` for low ones, so it falls where `upper` is the smaller.
    """
    return (upper - lower) * special.expit((scores - middle) / abs(width)) + lower


def logistic5(scores: np.ndarray, b1: float, b2: float, b3: float, b4: float, b5: float) -> np.ndarray:
    """Map scores by the curve of five parameters, an S and a line, of Sheikh, Sabir and Bovik (2006).

    Its value is b1 * (1/2 - 1 / (1 + exp(b2 * (score - b3)))) + b4 * score + b5. It need not be monotonic.
    """
    return b1 * np.tanh(b2 * (scores - b3) / 2) / 2 + b4 * scores + b5  # tanh keeps the digits of a wide S


def _standardise(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the values with mean 0 and standard deviation 1, and the mean and standard deviation that they had."""
    mean = values.mean()
    centred = values - mean
    scale = np.abs(centred).max()  # without it, the squares of very small numbers would be 0
    deviation = scale * (centred / scale).std()
    return centred / deviation, float(mean), float(deviation)


def _regress_out(values: np.ndarray, scores: np.ndarray, with_line: bool) -> np.ndarray:
    """Return what a regression on a constant, or on standardised scores too, leaves of each column: `(images, ...)`."""
    centred = values - values.mean(axis=0)
    if not with_line:
        return centred
    return centred - np.multiply.outer(scores, scores @ centred / (scores @ scores))


def _bound(scores: np.ndarray, middle: float, log_width: float) -> tuple[float, float]:
    """Return the nearest middle and logarithm of the width whose curve has digits enough where the scores are."""
    log_width = float(np.clip(log_width, -MAX_LOG_WIDTH, MAX_LOG_WIDTH))
    reach = MAX_DISTANCE * math.exp(log_width)
    return float(np.clip(middle, scores.min() - reach, scores.max() + reach)), log_width


def _project(
    scores: np.ndarray, references: np.ndarray, with_line: bool
) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """Return the best fit of a middle and a logarithm of the width, and its Jacobian, as `curve_fit` calls them.

    The other parameters, which the curve is linear in, follow from these two by regression, so two are left to search
    for: both ends of the S, `with_line` also the line that is added to it. Searched for as well, they would run away
    together with the width wherever a straight line fits best, and the search would not end. What is fitted is the
    remainder of the S. The Jacobian neglects how its height changes (Kaufman's approximation).
    """
    min_norm = scores.size * MIN_BEND**2 if with_line else 0.0

    @functools.lru_cache(maxsize=1)  # the Jacobian is wanted where the fit just was
    def curve(middle: float, log_width: float) -> tuple[np.ndarray, ...]:
        middle, log_width = _bound(scores, middle, log_width)
        rate = math.exp(-log_width)
        steps = (scores - middle) * rate  # (images,)
        rising = special.expit(steps)
        shape = _regress_out(rising, scores, with_line)
        norm = shape @ shape
        dual = shape / norm if norm > min_norm else np.zeros_like(shape)  # a dot product with it is the S's height
        density = rising * special.expit(-steps)
        return shape, dual, np.stack([-rate * density, -steps * density], axis=1)

    def fitted(_, middle: float, log_width: float) -> np.ndarray:
        shape, dual, _ = curve(middle, log_width)
        return shape * (dual @ references)

    def jacobian(_, middle: float, log_width: float) -> np.ndarray:
        shape, dual, columns = curve(middle, log_width)
        columns = _regress_out(columns, scores, with_line)  # (images, 2)
        columns -= shape[:, None] * (dual @ columns)
        return columns * (dual @ references)

    return fitted, jacobian


def _search(
    scores: np.ndarray,
    references: np.ndarray,
    starts: Sequence[tuple[float, float]],
    with_line: bool = False,
    tolerance: float = FIT_TOLERANCE,
) -> tuple[float, float]:
    """Return middle and logarithm of the width of the best fit that any start leads to; both inputs are standardised.

    `with_line`, references are the remainder of such, and a fit without an S, a mere line, is one as well.
    """
    fitted, jacobian = _project(scores, references, with_line)
    ends = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", optimize.OptimizeWarning)  # a line or a step leaves no covariance to estimate
        for start in starts:
            try:
                options = {"jac": jacobian, "check_finite": False, "ftol": tolerance}
                end = optimize.curve_fit(fitted, scores, references, start, **options)[0]
            except RuntimeError:
                continue
            values = fitted(scores, *end)
            if np.isfinite(values).all() and (with_line or values.any()):
                ends.append((np.sum((values - references) ** 2), *end))
    if not ends:
        raise LogisticFitError(f"the logistic fit of {scores.size} images converged from none of {len(starts)} starts")
    _, middle, log_width = min(ends)
    return _bound(scores, middle, log_width)


def _check_for_fit(predictions: Scores, references: Scores, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    predictions, references = _check(predictions, references)
    spreads = np.ptp(predictions), np.ptp(references)
    if predictions.size < min_size or 0 in spreads:
        raise ValueError(
            f"a logistic is fitted to at least {min_size} images that differ in predictions and in references, got "
            f"{predictions.size} images with a spread of {spreads[0]:g} and {spreads[1]:g}"
        )
    return predictions, references


def fit_logistic(predictions: Scores, references: Scores, start: Parameters | None = None) -> Parameters:
    """Return `upper, lower, middle, width` of the `logistic` that brings predictions nearest to references.

    Nearest is by least squares.

    The curve may fall (`upper` < `lower`); `width` is positive. Where a straight line fits best, a very large width
    makes it one. `start`, the fit to nearly the same images, is one more place to search from.

    Raises:
        ValueError: as `compute_metrics`, fewer than 5 images, or constant predictions or references.
        LogisticFitError: no start converged.
    """
    predictions, references = _check_for_fit(predictions, references, MIN_FIT_SIZE)
    scores, mean, deviation = _standardise(predictions)
    starts: tuple[tuple[float, float], ...] = FIT_STARTS
    if start is not None:
        starts = (((start[2] - mean) / deviation, math.log(abs(start[3]) / deviation)), *FIT_STARTS)
    middle, log_width = _search(scores, _standardise(references)[0], starts)
    middle, width = mean + deviation * middle, deviation * math.exp(log_width)
    rising = logistic(predictions, 1, 0, middle, width)
    slope = float(np.cov(rising, references)[0, 1] / np.var(rising, ddof=1))
    lower = float(references.mean() - slope * rising.mean())
    return lower + slope, lower, float(middle), float(width)


def fit_logistic5(predictions: Scores, references: Scores, start: Parameters5 | None = None) -> Parameters5:
    """Return `b1` to `b5` of the `logistic5` that brings predictions nearest (least squares) to references.

    `b2` is positive. `start`, the fit to nearly the same images, spares most of the search, and of few images may end a
    little beside the best fit (0.005 of PLCC was seen). Where a straight line fits best, or predictions have two values
    only, `b1` may be 0.

    Raises:
        ValueError: as `compute_metrics`, fewer than 6 images, or constant predictions or references.
        LogisticFitError: no start converged.
    """
    predictions, references = _check_for_fit(predictions, references, MIN_FIT5_SIZE)
    scores, mean, deviation = _standardise(predictions)
    targets, targets_mean, targets_deviation = _standardise(references)
    starts: tuple[tuple[float, float], ...] = FIT5_STARTS
    tolerance = FIT_TOLERANCE
    if start is not None:
        tolerance = NEAR_FIT5_TOLERANCE
        starts = (((start[2] - mean) / deviation, -math.log(abs(start[1]) * deviation)), FIT5_STARTS[0])
    bend = _regress_out(targets, scores, with_line=True)
    middle, log_width = _search(scores, bend, starts, with_line=True, tolerance=tolerance)
    b2, b3 = math.exp(-log_width) / deviation, mean + deviation * middle
    rising = logistic5(predictions, 1, b2, b3, 0, 0)
    shape = _regress_out(rising, scores, with_line=True)
    norm = shape @ shape
    height = shape @ bend / norm if norm > scores.size * MIN_BEND**2 else 0.0
    line = targets - height * rising
    b4 = targets_deviation * (scores @ line) / (scores @ scores) / deviation
    b5 = targets_mean + targets_deviation * line.mean() - b4 * mean
    return float(targets_deviation * height), float(b2), float(b3), float(b4), float(b5)


class Fits(NamedTuple):
    """Fits of four and of five parameters, None where there is none."""

    four: Parameters | None = None
    five: Parameters5 | None = None


NO_FITS = Fits()


def _fit_or_none(fit: Callable, predictions: np.ndarray, references: np.ndarray, start: tuple | None) -> tuple | None:
    try:
        return fit(predictions, references, start)
    except (ValueError, LogisticFitError):
        return None


def _fit_both(predictions: np.ndarray, references: np.ndarray, start: Fits = NO_FITS) -> Fits:
    return Fits(
        _fit_or_none(fit_logistic, predictions, references, start.four),
        _fit_or_none(fit_logistic5, predictions, references, start.five),
    )


def _plcc_after_fit(predictions: np.ndarray, references: np.ndarray, parameters: Parameters | None) -> float:
    """Return the PLCC of the mapped predictions, with the sign of the curve's direction; NaN without a fit.

    Mapped by a falling curve, even predictions that order everything the wrong way agree with the references.
    Turning the curve round, so that it rises, turns the sign round.
    """
    if parameters is None:
        return float("nan")
    _, _, middle, width = parameters
    return _correlation("plcc", logistic(predictions, 1, 0, middle, width), references)


def _plcc_after_fit5(predictions: np.ndarray, references: np.ndarray, parameters: Parameters5 | None) -> float:
    """Return the PLCC of the mapped predictions, negative where these fall on the whole; NaN without a fit."""
    if parameters is None:
        return float("nan")
    mapped = logistic5(predictions, *parameters)
    return math.copysign(_correlation("plcc", mapped, references), _correlation("plcc", mapped, predictions))


def _rmse(predictions: np.ndarray, references: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predictions - references) ** 2)))


def _rmse_after_fit(predictions: np.ndarray, references: np.ndarray, parameters: Parameters | None) -> float:
    return float("nan") if parameters is None else _rmse(logistic(predictions, *parameters), references)


def _count_tied_pairs(values: np.ndarray) -> int:
    _, counts = np.unique(values, return_counts=True)
    return int(np.sum(counts * (counts - 1) // 2))


def _pairwise_accuracy(predictions: np.ndarray, references: np.ndarray, tau_b: float) -> float:
    """Return the share of pairs of different references that predictions order likewise, a tie counting half.

    It is (1 + Somers' D) / 2, and Somers' D is tau-b without its correction for tied predictions.
    """
    num_pairs = predictions.size * (predictions.size - 1) // 2
    num_different = num_pairs - _count_tied_pairs(references)
    num_ordered = num_pairs - _count_tied_pairs(predictions)
    if num_different == 0:
        return float("nan")
    return 0.5 + 0.5 * tau_b * math.sqrt(num_ordered / num_different) if num_ordered else 0.5


def _pooled_metrics(predictions: np.ndarray, references: np.ndarray, fits: Fits) -> dict[str, float]:
    """Return the metrics that know no groups."""
    krcc = _correlation("krcc", predictions, references)
    return {
        "srcc": _correlation("srcc", predictions, references),
        "plcc": _correlation("plcc", predictions, references),
        "plcc_logistic": _plcc_after_fit(predictions, references, fits.four),
        "plcc_logistic5": _plcc_after_fit5(predictions, references, fits.five),
        "krcc": krcc,
        "rmse": _rmse(predictions, references),
        "rmse_logistic": _rmse_after_fit(predictions, references, fits.four),
        "pairwise_accuracy": _pairwise_accuracy(predictions, references, krcc),
    }


def _srcc_of_groups(predictions: np.ndarray, references: np.ndarray, group_numbers: np.ndarray) -> np.ndarray:
    """Return each group's own SRCC, NaN where it is too small or not defined: `(groups,)`."""
    order, sizes = np.argsort(group_numbers, kind="stable"), np.bincount(group_numbers)
    members = np.split(order, np.cumsum(sizes)[:-1])
    return np.array(
        [
            _correlation("srcc", predictions[index], references[index]) if index.size >= MIN_GROUP_SIZE else np.nan
            for index in members
        ]
    )


def _average_defined(values: np.ndarray, weights: np.ndarray) -> float:
    weights = weights * np.isfinite(values)
    return float(np.average(np.nan_to_num(values), weights=weights)) if weights.any() else float("nan")


def within_group_srcc(predictions: Scores, references: Scores, groups: Sequence[Hashable]) -> float:
    """Return the mean SRCC inside the groups that have at least 3 images and a defined SRCC; NaN where there is none.

    Every group counts the same. It tells how well images of one subject are ordered, whatever the subject.

    Raises:
        ValueError: as `compute_metrics`.
    """
    predictions, references = _check(predictions, references)
    values = _srcc_of_groups(predictions, references, _number_groups(groups, predictions.size))
    return _average_defined(values, np.ones(values.size))


def compute_metrics(
    predictions: Scores, references: Scores, groups: Sequence[Hashable] | None = None
) -> dict[str, float]:
    """Return the agreement of predictions with references, by name.

    - `srcc`, `plcc`, `krcc`: rank, linear and Kendall's tau-b correlation, -1 to 1.
    - `plcc_logistic`, `plcc_logistic5`: PLCC after `fit_logistic` and `fit_logistic5`, -1 to 1. It is negative where
      the curve falls, that is where predictions are low for high references; fitted to the very images it is measured
      on, it is on the high side.
    - `rmse`, `rmse_logistic`: in units of the score, as predicted and after `fit_logistic`.
    - `pairwise_accuracy`: the share, 0 to 1, of pairs of different references that predictions order likewise, a tied
      prediction counting half; 0.5 is chance.
    - `srcc_within_group`: with `groups`, one label an image, where a group has at least 3 images.

    NaN stands where one is not defined: a correlation of fewer than two images or of constant predictions or
    references; what needs a fit also of fewer than 5 images (`plcc_logistic5`: 6) or where the fit fails;
    `pairwise_accuracy` of constant references.

    Raises:
        ValueError: different lengths, nothing at all, or a value that is not finite.
    """
    predictions, references = _check(predictions, references)
    metrics = _pooled_metrics(predictions, references, _fit_both(predictions, references))
    if groups is not None and np.bincount(_number_groups(groups, predictions.size)).max() >= MIN_GROUP_SIZE:
        metrics[WITHIN_GROUP] = within_group_srcc(predictions, references, groups)
    return metrics


def _compute_interval(values: np.ndarray, confidence: float) -> list[float]:
    defined = values[np.isfinite(values)]
    if 2 * defined.size < values.size:
        return [float("nan")] * 2
    return np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def bootstrap_samples(
    predictions: Scores,
    references: Scores,
    groups: Sequence[Hashable] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return each metric of `compute_metrics` in every bootstrap resample: `(resamples,)`, NaN where it is not defined.

    Images are drawn with replacement, or whole groups where groups have more than one image: related images are not
    independent observations. What is drawn depends on the seed and the number of groups alone, so the samples of two
    predictions of the same images are pairs. The logistics are fitted anew to every resample, beginning from the fits
    to all images. Of a single image or group nothing can be learned: all is NaN.

    Raises:
        ValueError: as `compute_metrics`, or no resample.
    """
    predictions, references = _check(predictions, references)
    if num_resamples < 1:
        raise ValueError(f"got {num_resamples} resamples; 1 and more are accepted")
    numbers = np.arange(predictions.size) if groups is None else _number_groups(groups, predictions.size)
    names = list(compute_metrics(predictions, references, groups))
    num_groups = numbers.max() + 1
    if num_groups == 1:
        return {name: np.full(num_resamples, np.nan) for name in names}
    start = _fit_both(predictions, references)
    srcc_of_groups = _srcc_of_groups(predictions, references, numbers)
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num_resamples):
        draws = np.bincount(generator.integers(num_groups, size=num_groups), minlength=num_groups)  # (groups,)
        counts = draws[numbers]  # (images,): every image comes as often as its group was drawn
        resample = np.repeat(predictions, counts), np.repeat(references, counts)
        metrics = _pooled_metrics(*resample, _fit_both(*resample, start))
        rows.append({**metrics, WITHIN_GROUP: _average_defined(srcc_of_groups, draws)})
    return {name: np.array([row[name] for row in rows]) for name in names}


def compute_intervals(samples: Mapping[str, np.ndarray], confidence: float = 0.95) -> dict[str, list[float]]:
    """Return `[low, high]` of each metric by the percentile bootstrap.

    Resamples in which a metric is not defined are left out; [NaN, NaN] stands where more than half are.

    Args:
        samples: as `bootstrap_samples` returns them.

    Raises:
        ValueError: a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence {confidence}; numbers between 0 and 1 are accepted")
    return {name: _compute_interval(values, confidence) for name, values in samples.items()}


def difference_intervals(
    samples: Mapping[str, np.ndarray], other_samples: Mapping[str, np.ndarray], confidence: float = 0.95
) -> dict[str, list[float]]:
    """Return `[low, high]` of samples less other samples, by the paired bootstrap; one without 0 tells the two apart.

    Args:
        samples, other_samples: of the same images, groups, seed and number of resamples.

    Raises:
        ValueError: as `compute_intervals`, or samples that are no pairs.
    """
    if {name: values.shape for name, values in samples.items()} != {
        name: values.shape for name, values in other_samples.items()
    }:
        raise ValueError("samples of the same metrics and as many resamples are accepted")
    return compute_intervals({name: values - other_samples[name] for name, values in samples.items()}, confidence)


def bootstrap_intervals(
    predictions: Scores,
    references: Scores,
    groups: Sequence[Hashable] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, list[float]]:
    """Return `compute_intervals` of the `bootstrap_samples`; the same for the same seed.

    With fewer than about ten groups the intervals are too narrow. 2,000 images take about 12 seconds of one CPU core,
    and up to 35 where predictions and references lie on a straight line, which the fits are slowest to reach.

    Raises:
        ValueError: as `bootstrap_samples` and `compute_intervals`.
    """
    if not 0 < confidence < 1:  # before the long work
        raise ValueError(f"got confidence {confidence}; numbers between 0 and 1 are accepted")
    return compute_intervals(bootstrap_samples(predictions, references, groups, num_resamples, seed), confidence)


class IQAMetric(evaluate.Metric):
    """Metric of `evaluate`: `compute_metrics` and, under the key `intervals`, `bootstrap_intervals`; offline.

    `compute(predictions=..., references=...)` takes `groups`, `num_resamples`, `seed` and `confidence` as well, as
    `bootstrap_intervals` does. `num_resamples=0` leaves the intervals, their time and their key out.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")}),
        )

    def _compute(
        self,
        predictions: Scores,
        references: Scores,
        groups: Sequence[Hashable] | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
        confidence: float = 0.95,
    ) -> dict[str, float | dict[str, list[float]]]:
        result: dict[str, float | dict[str, list[float]]] = {**compute_metrics(predictions, references, groups)}
        if num_resamples:
            result["intervals"] = bootstrap_intervals(predictions, references, groups, num_resamples, seed, confidence)
        return result
