"""Training of the pooled head on statistics of the frozen backbone, which are computed once for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from datasets import DatasetDict
from scipy.optimize import minimize
from scipy.stats import spearmanr
from torch.nn import functional
from tqdm.auto import tqdm

from hybridiqa.data.folders import group_namer
from hybridiqa.data.loading import DatasetImages, dataset_hash
from hybridiqa.models import hub_code
from hybridiqa.models.loading import views_fingerprint
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.utils.atomic import open_atomically

logger = get_logger(__name__)

SPLITS = ("train", "validation")
ROWS_AT_ONCE = 1024  # of statistics that become features
IMAGES_A_FILE = 64  # of statistics: a run that is stopped loses no more
EVALUATIONS = 30  # of the validation splits in a run


@dataclass
class RatedFeatures:
    """Features and scores of the images of one split of a source; only these are compared with each other.

    Args:
        features: `(images, num_features)`, as the pooled head reads them.
        scores: `(images,)`, on the source's own scale.
        groups: `(images,)`, whole numbers.
    """

    features: torch.Tensor
    scores: torch.Tensor
    groups: torch.Tensor

    @property
    def targets(self) -> torch.Tensor:
        """Return the scores in standard deviations from their mean."""
        std = self.scores.std(correction=0)
        return (self.scores - self.scores.mean()) / (std if std > 0 else 1)

    def find_versions(self) -> list[torch.Tensor]:
        """Return the indices of each group's images, of the groups in which scores differ."""
        order = torch.argsort(self.groups, stable=True)
        sizes = torch.unique_consecutive(self.groups[order], return_counts=True)[1].tolist()
        return [indices for indices in order.split(sizes) if self.scores[indices].unique().numel() > 1]


@dataclass
class Source:
    """Images with scores of one kind, such as people's, or levels of distortion.

    Args:
        within_groups: compare only images of one group.
    """

    name: str
    train: RatedFeatures
    validation: RatedFeatures
    within_groups: bool = False

    def measure(self, unbounded: torch.Tensor) -> float:
        """Return the rank correlation of the head's scores with those of the validation images, NaN without one.

        It is Spearman's, or of images that are compared within groups Kendall's over the pairs whose scores differ.
        """
        rated = self.validation
        if self.within_groups:
            is_better = rated.scores.unsqueeze(1) > rated.scores  # (images, images)
            is_better &= rated.groups.unsqueeze(1) == rated.groups
            return (unbounded.unsqueeze(1) - unbounded).sign()[is_better].mean().item()
        if rated.scores.unique().numel() == 1 or unbounded.unique().numel() == 1:
            return math.nan
        return float(spearmanr(unbounded, rated.scores).statistic)


def load_sources(
    datasets: dict[str, DatasetDict],
    model: hub_code.HybridIQAModel,
    args: TrainingArguments,
    accelerator: Accelerator,
    folder: Path,
) -> list[Source]:
    """Return the sources of prepared datasets; a head that is fresh standardises by what is in their train splits.

    Args:
        datasets: by name, each with the splits train and validation.
        folder: for the statistics.

    Raises:
        ValueError: a dataset to be compared within groups that has none.
    """
    patterns = args.patterns_to_compare_within
    labels = {name: _read_labels(name, splits, patterns) for name, splits in datasets.items()}
    views = views_fingerprint(model)
    statistics: dict[tuple[str, str], torch.Tensor] = {}
    for name, splits in datasets.items():
        for split in SPLITS:
            images = DatasetImages(splits[split], split)
            files = folder / f"{views}-{dataset_hash(DatasetDict({split: splits[split]}))}"
            statistics[name, split] = compute_statistics(model, images, files, accelerator, args.num_workers)
    head = model.pooled_head
    if not head.is_standardised:
        head.fit_statistics(torch.cat([statistics[name, "train"] for name in datasets]))
    sources = []
    for name in datasets:
        rated = {
            split: RatedFeatures(_to_features(head, statistics[name, split]), *labels[name][split]) for split in SPLITS
        }
        sources.append(Source(name, rated["train"], rated["validation"], name in patterns))
    return sources


def _read_labels(
    name: str, splits: DatasetDict, patterns: dict[str, str | None]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return scores and numbers of groups by split. Raises ValueError where nothing can be compared."""
    labels = {}
    for split in SPLITS:
        rows = splits[split]
        groups = list(rows["group"] if "group" in rows.column_names else map(str, range(len(rows))))
        if pattern := patterns.get(name):
            groups = list(map(group_namer(pattern), rows["path"]))
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        scores = torch.tensor([float(score) for score in rows["score"]])
        labels[split] = (scores, torch.tensor([numbers[group] for group in groups]))
    if name in patterns and not RatedFeatures(torch.empty(0), *labels["train"]).find_versions():
        raise ValueError(f"--compare_within {name}: no two images of one group have different scores")
    return labels


def _to_features(head: Any, statistics: torch.Tensor) -> torch.Tensor:
    device = head.statistics_mean.device
    with torch.no_grad():
        return torch.cat([head.to_features(rows.to(device)).cpu() for rows in statistics.split(ROWS_AT_ONCE)])


def compute_statistics(
    model: hub_code.HybridIQAModel, images: DatasetImages, folder: Path, accelerator: Accelerator, num_workers: int
) -> torch.Tensor:
    """Return what the pooled head standardises, `(images, statistics)`, float32; what was computed before is read.

    The images are shared among the processes, which need to see one file system.

    Args:
        folder: for the files of these images and this backbone, each with the statistics of 64 images.
        num_workers: threads that decode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(images), IMAGES_A_FILE)
    paths = [folder / f"{start:08d}.npy" for start in starts]
    is_quiet = None if accelerator.is_main_process else True
    rounds = range(accelerator.process_index, len(starts), accelerator.num_processes)
    for number in tqdm(rounds, desc="backbone", unit=f"{IMAGES_A_FILE} images", leave=False, disable=is_quiet):
        if not paths[number].exists():
            indices = range(starts[number], min(starts[number] + IMAGES_A_FILE, len(images)))
            statistics = _read_images(model, images, indices, num_workers)
            with open_atomically(paths[number], is_synced=False) as file:
                np.save(file, statistics.numpy())
    accelerator.wait_for_everyone()
    return torch.cat([torch.from_numpy(np.load(path)) for path in paths])


def _read_images(
    model: hub_code.HybridIQAModel, images: DatasetImages, indices: Sequence[int], num_workers: int
) -> torch.Tensor:
    processor = model.image_processor
    with ThreadPoolExecutor(num_workers) as pool:
        rows = [
            model.read_views(processor.normalize_patches(patches.to(model.device)).unsqueeze(0))
            for patches in pool.map(lambda index: processor.extract_patches(images[index]), indices)
        ]
    return torch.cat(rows)


def pair_loss(
    unbounded: torch.Tensor, targets: torch.Tensor, margin: float, groups: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean of log(1 + exp(2 (worse - better))) over all pairs whose targets differ by more than the margin.

    Args:
        unbounded: `(images,)`, the head's scores before `to_scores`.
        targets: `(images,)`.
        groups: `(images,)`; only images of one group are compared. None compares all.

    Returns:
        A scalar; 0 without such pairs.
    """
    is_better = targets.unsqueeze(1) - targets > margin  # (images, images)
    if groups is not None:
        is_better &= groups.unsqueeze(1) == groups
    losses = functional.softplus(-2 * (unbounded.unsqueeze(1) - unbounded))[is_better]
    return losses.mean() if losses.numel() else unbounded.sum() * 0


class _Batches:
    """Batches of a source: images at random and, every second step, all versions of images at random."""

    def __init__(self, source: Source, batch_size: int, generator: torch.Generator):
        self.source, self.batch_size, self.generator = source, batch_size, generator
        self.targets = source.train.targets
        self.versions = source.train.find_versions()
        in_versions = sum(map(len, self.versions))
        self.has_versions = in_versions > len(self.targets) / 2

    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return indices of images, and their groups where only images of one group are compared."""
        groups = self.source.train.groups
        if self.source.within_groups or (self.has_versions and step % 2):
            chosen, count = [], 0
            for number in torch.randperm(len(self.versions), generator=self.generator).tolist():
                chosen.append(self.versions[number])
                count += len(self.versions[number])
                if count >= self.batch_size:
                    break
            indices = torch.cat(chosen)
            if len(indices) > 2 * self.batch_size:  # a few large groups
                indices = indices[torch.randperm(len(indices), generator=self.generator)[: self.batch_size]]
            return indices, groups[indices]
        return torch.randperm(len(self.targets), generator=self.generator)[: self.batch_size], None


def fit_calibration(unbounded: torch.Tensor, scores: torch.Tensor, score_range: Sequence[float]) -> tuple[float, float]:
    """Return (scale, shift), scale > 0, with which `to_scores(scale * unbounded + shift)` is nearest to the scores.

    Nearest is the least mean absolute difference.
    """
    lowest, highest = score_range
    values, wanted = unbounded.double().numpy(), scores.double().numpy()
    center, spread = float(np.median(values)), float(values.std()) or 1.0

    def mean_difference(parameters: np.ndarray) -> float:
        log_scale, shift = parameters
        x = np.exp(log_scale) * (values - center) / spread + shift
        return float(np.abs(lowest + (highest - lowest) / (1 + np.exp(-x)) - wanted).mean())

    log_scale, shift = minimize(mean_difference, [0.0, 0.0], method="Nelder-Mead").x
    scale = float(np.exp(log_scale)) / spread
    return scale, float(shift) - scale * center


class PooledTrainer:
    """Trains a model's pooled head on several sources; the model has the best of all evaluated steps in the end.

    Every process computes the same, from the same numbers.

    Args:
        sources: the first one's validation is reported step by step; the best step is the best of their mean. Of the
            one that `args.calibrate_on` names (default: the first) the scores, on the model's `score_range`, say what a
            score means.
    """

    def __init__(self, model: hub_code.HybridIQAModel, sources: Sequence[Source], args: TrainingArguments):
        self.model, self.head, self.args = model, model.pooled_head, args
        self.sources = list(sources)
        device = model.device
        self.affine = torch.nn.Parameter(torch.tensor([[1.0, 0.0]] * len(sources), device=device))  # scale and shift
        parameters = [*self.head.parameters(), self.affine]
        self.optimizer = torch.optim.AdamW(parameters, args.pooled_learning_rate, weight_decay=args.pooled_weight_decay)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, args.pooled_steps)
        self.history: list[dict] = []
        self.losses: list[list[float]] = []
        self.best: dict | None = None
        self.best_head: dict[str, torch.Tensor] = {}

    def find_best(self) -> dict:
        """Return the row of `history` that is best. Raises RuntimeError before `fit`."""
        if self.best is None:
            raise RuntimeError("nothing was evaluated yet: call fit first")
        return self.best

    def fit(self) -> None:
        """Train, evaluate now and then, and leave the head as it was at the best step, calibrated.

        Raises:
            FloatingPointError: a loss that is no finite number.
        """
        args = self.args
        generator = torch.Generator().manual_seed(args.seed)
        torch.manual_seed(args.seed)  # of dropout
        batches = [_Batches(source, args.pooled_batch_size, generator) for source in self.sources]
        every = max(1, args.pooled_steps // EVALUATIONS)
        losses: list[float] = []
        for step in range(1, args.pooled_steps + 1):
            self.head.train()
            loss = torch.stack([self._source_loss(number, batch, step) for number, batch in enumerate(batches)]).mean()
            if not loss.isfinite():
                raise FloatingPointError(
                    f"the loss is {loss.item()} in step {step}: try a lower --pooled_learning_rate"
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
            if step % every == 0 or step == args.pooled_steps:
                self.losses.append([step, float(np.mean(losses))])
                self._evaluate(step, float(np.mean(losses)))
                losses = []
        self.head.load_state_dict(self.best_head)
        self._calibrate()

    def _source_loss(self, number: int, batches: _Batches, step: int) -> torch.Tensor:
        source, device = self.sources[number], self.model.device
        indices, groups = batches.draw(step)
        unbounded = self.head(source.train.features[indices].to(device))
        targets = batches.targets[indices].to(device)
        groups = None if groups is None else groups.to(device)
        loss = pair_loss(unbounded, targets, self.args.pair_margin, groups)
        if self.args.regression_weight and not source.within_groups:
            scale, shift = self.affine[number]
            loss = loss + self.args.regression_weight * functional.l1_loss(scale * unbounded + shift, targets)
        return loss

    @torch.no_grad()
    def _predict(self, features: torch.Tensor) -> torch.Tensor:
        self.head.eval()
        return self.head(features.to(self.model.device)).cpu()

    def _evaluate(self, step: int, loss: float) -> None:
        correlations = {
            source.name: source.measure(self._predict(source.validation.features)) for source in self.sources
        }
        row: dict[str, Any] = {
            "epoch": len(self.history) + 1,
            "step": step,
            "learning_rates": self.scheduler.get_last_lr(),
            "loss": loss,
            "validation": {"srcc": correlations[self.sources[0].name]},
            "rank_correlations": correlations,
        }
        self.history.append(row)
        if self.best is None or _mean_correlation(row) > _mean_correlation(self.best):
            self.best = row
            self.best_head = {name: tensor.clone() for name, tensor in self.head.state_dict().items()}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in correlations.items())
        logger.info(f"step {step}/{self.args.pooled_steps}: loss {loss:.4f}, rank correlation on validation: {shown}")

    def _calibrate(self) -> None:
        """Scale and shift the head's output so that scores mean what those of the calibrating source do."""
        name = self.args.calibrate_on or self.sources[0].name
        rated = next(source.train for source in self.sources if source.name == name)
        score_range = self.model.config.score_range
        scale, shift = fit_calibration(self._predict(rated.features), rated.scores, score_range)
        with torch.no_grad():
            self.head.output.weight *= scale
            self.head.output.bias.copy_(scale * self.head.output.bias + shift)


def _mean_correlation(row: dict) -> float:
    values = [value if math.isfinite(value) else -1.0 for value in row["rank_correlations"].values()]
    return sum(values) / len(values)
