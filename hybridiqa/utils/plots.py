"""Plots as PNG files: how a run learned, and how scores agree with the true ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from hybridiqa.utils.tables import METRIC_TITLES
from metrics.iqa.iqa import LogisticFitError, Scores, compute_metrics, fit_logistic, is_defined, logistic

DOTS_PER_INCH = 120
LIGHT, DARK, ACCENT, GREY = "#a9c6e3", "#1f4e79", "#c8501e", "#8c8c8c"


def _new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own (inches), which no other code's pyplot can reach."""
    figure = Figure((width, height), dpi=DOTS_PER_INCH, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    # Matplotlib would sign the file with its version, and the same plot would not be the same file.
    figure.savefig(path, format="png", metadata={"Software": None})


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_loss(axes: Axes, history: Sequence[dict], steps_and_losses: Sequence[tuple[int, float]]) -> None:
    if steps_and_losses:
        steps, losses = zip(*steps_and_losses, strict=True)
        axes.plot(steps, losses, color=LIGHT, linewidth=0.9, label="single steps")
    starts = [0, *(row["step"] for row in history)]
    # In the middle of its epoch: at its end, the mean of a falling loss would lie above the curve.
    means = [((start + row["step"]) / 2, row["loss"]) for start, row in zip(starts, history, strict=False)]
    axes.plot(*zip(*means, strict=True), color=DARK, linewidth=1.6, marker="o", markersize=4, label="mean of the epoch")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)


def _draw_srcc(axes: Axes, history: Sequence[dict]) -> None:
    defined = [row for row in history if is_defined(row["validation"]["srcc"])]
    axes.set_ylabel("validation SRCC")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not defined:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not defined", color=GREY, ha="center", va="center", transform=axes.transAxes)
        return
    points = [(row["step"], row["validation"]["srcc"]) for row in defined]
    axes.plot(*zip(*points, strict=True), color=DARK, linewidth=1.6, marker="o", markersize=4)
    best = max(defined, key=lambda row: row["validation"]["srcc"])
    label = f"{best['validation']['srcc']:.3f} in epoch {best['epoch']}"
    axes.plot(best["step"], best["validation"]["srcc"], "o", color=ACCENT, markersize=7, label=label)
    axes.legend(frameon=False)


def plot_training(history: Sequence[dict], steps_and_losses: Sequence[tuple[int, float]], path: str | Path) -> None:
    """Draw training loss over the steps and validation SRCC after each epoch (the highest marked), as a PNG.

    `history` has one `{"epoch", "step", "loss", "validation": {"srcc", ...}}` an epoch, `step` being the last one of
    the epoch; an SRCC may be NaN or None and is left out then. `steps_and_losses` may be empty.

    Raises:
        ValueError: no epoch.
    """
    if not history:
        raise ValueError("history must have at least one epoch, got none")
    figure = _new_figure(8, 6)
    loss_axes, srcc_axes = figure.subplots(2, 1, sharex=True)
    _draw_loss(loss_axes, history, steps_and_losses)
    _draw_srcc(srcc_axes, history)
    srcc_axes.set_xlim(0, 1.02 * max(row["step"] for row in history))
    for axes in (loss_axes, srcc_axes):
        _tidy(axes)
    _save(figure, path)


def _write_numbers(predictions: Scores, references: Scores) -> str:
    """Return SRCC, PLCC and the number of images as a line below a title."""
    metrics = compute_metrics(predictions, references)
    shown = {name: f"{metrics[name]:.3f}" if is_defined(metrics[name]) else "not defined" for name in ("srcc", "plcc")}
    return ", ".join([*(f"{METRIC_TITLES[name]} {value}" for name, value in shown.items()), f"n = {len(references)}"])


def _scatter(axes: Axes, references: Scores, predictions: Scores) -> None:
    opacity = min(0.8, max(0.15, 8 / math.sqrt(len(references))))  # so that a crowd shows where it is dense
    axes.scatter(references, predictions, s=18, color=DARK, alpha=opacity, linewidths=0)


def plot_predictions(
    predictions: Sequence[float], references: Sequence[float], path: str | Path, title: str = ""
) -> None:
    """Draw predicted over true scores and the line on which they are equal, as a PNG; SRCC and PLCC are in the title.

    Raises:
        ValueError: different lengths, nothing at all, or a value that is not finite.
    """
    numbers = _write_numbers(predictions, references)
    figure = _new_figure(6, 6)
    axes = figure.subplots()
    low, high = min(*predictions, *references), max(*predictions, *references)
    margin = 0.04 * (high - low) or 1  # all of one value: a scale of some width around it
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=ACCENT, linewidth=1, linestyle="--", zorder=3)
    _scatter(axes, references, predictions)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true score", ylabel="predicted score")
    axes.set_title(f"{title}\n{numbers}" if title else numbers, fontsize=11, parse_math=False)
    _tidy(axes)
    _save(figure, path)


def _draw_model(axes: Axes, name: str, predictions: np.ndarray, references: np.ndarray) -> None:
    """Draw predicted over true scores, and the logistic curve that maps them to each other."""
    _scatter(axes, references, predictions)
    try:
        parameters = fit_logistic(predictions, references)
        scores = np.linspace(predictions.min(), predictions.max(), 200)
        axes.plot(logistic(scores, *parameters), scores, color=ACCENT, linewidth=1.2, zorder=3)
    except (ValueError, LogisticFitError):  # the report says why
        pass
    axes.set_title(f"{name}\n{_write_numbers(predictions, references)}", fontsize=10, parse_math=False)
    axes.set(xlabel="true score", ylabel="predicted score")
    _tidy(axes)


def plot_ranking(
    scores: Mapping[str, Sequence[float]], references: Sequence[float], path: str | Path, title: str = ""
) -> None:
    """Draw predicted over true scores, a panel a model, on its own scale, with the fitted logistic curve, as a PNG.

    Images without a score (NaN) are left out.
    """
    figure = _new_figure(4.2 * min(3, len(scores)), 4 * math.ceil(len(scores) / 3))
    panels = figure.subplots(math.ceil(len(scores) / 3), min(3, len(scores)), squeeze=False).ravel()
    true_scores = np.asarray(references, float)
    for axes, (name, values) in zip(panels, scores.items(), strict=False):
        is_scored = np.isfinite(values)
        _draw_model(axes, name, np.asarray(values, float)[is_scored], true_scores[is_scored])
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=12, parse_math=False)
    _save(figure, path)
