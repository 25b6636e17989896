"""Training loop: one model, one split to learn from, one to choose by."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm

from hybridiqa.data.folders import group_namer
from hybridiqa.data.loading import DatasetImages, ResidentImages, load_resident
from hybridiqa.models import hub_code
from hybridiqa.training import checkpoints
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.training.model import build_optimizer, total_gradient_norm
from hybridiqa.training.patches import RandomPatches, balanced_repeats
from hybridiqa.training.stopping import Stopped, StopSignals
from hybridiqa.utils.libraries import first_line
from metrics.iqa.iqa import compute_metrics

logger = get_logger(__name__)

GROUP_NAMES = ("backbone", "hyper_network")  # of the optimiser's parameter groups, in their order
STEPS_PER_LOOK = 4  # between two questions to all processes whether to stop, where an answer waits for the device
SHOWN_METRICS = ("srcc", "plcc", "krcc", "rmse", "srcc_within_group")  # in a line of the log; the files hold them all


def ranking_loss(scores: torch.Tensor, labels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return the loss of RankNet (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005) within blocks.

    For every pair of a block whose labels differ, log(1 + exp(worse score - better score)); averaged over the partners
    of each patch, then over all patches. A patch without a partner counts 0, so that the loss of a batch is the mean of
    its parts' losses, weighted by their numbers of patches, where no block is torn apart.

    Args:
        scores, labels: `(patches,)`.
        blocks: `(patches,)`, whole numbers; patches of one number are compared.

    Returns:
        A scalar.
    """
    is_better = (labels.unsqueeze(1) > labels) & (blocks.unsqueeze(1) == blocks)  # (patches, patches)
    losses = functional.softplus(scores - scores.unsqueeze(1)).masked_fill(~is_better, 0.0)
    num_partners = (is_better | is_better.T).sum(dim=1)  # (patches,)
    return ((losses + losses.T).sum(dim=1) / num_partners.clamp(min=1)).mean()


def _columns(dataset: Dataset) -> tuple[list[float], list[str], list[str] | None]:
    """Return scores, paths and groups of a prepared split."""
    columns = dataset.column_names
    return (
        [float(score) for score in dataset["score"]],
        list(dataset["path"]) if "path" in columns else [f"row {row}" for row in range(len(dataset))],
        list(dataset["group"]) if "group" in columns else None,
    )


Images = TypeVar("Images", ResidentImages, DatasetImages)


@dataclass
class Split(Generic[Images]):
    """One split: its images, and what is known of each."""

    images: Images
    scores: list[float]
    paths: list[str]
    groups: list[str] | None

    @staticmethod
    def open(dataset: Dataset, name: str = "") -> Split[DatasetImages]:
        """Return a prepared split whose images are decoded one by one, each time one is asked for."""
        return Split(DatasetImages(dataset, name), *_columns(dataset))

    @staticmethod
    def load(dataset: Dataset, device: torch.device, args: TrainingArguments, name: str = "") -> Split[ResidentImages]:
        """Decode a prepared split into memory of the device, or pinned memory where it would not fit.

        Args:
            name: of the split, for the error about an image that cannot be decoded.
        """
        images = load_resident(dataset, device, args.device_memory_share, args.num_workers, name)
        return Split(images, *_columns(dataset))

    def find_references(self, pattern: str | None) -> list[str]:
        """Return of which reference image each image is a version: what a pattern finds in its path, or its group.

        Raises:
            ValueError: no groups, or a path in which the pattern finds nothing.
        """
        if pattern is not None:
            group_of = group_namer(pattern)
            return [group_of(path) for path in self.paths]
        if self.groups is None:
            raise ValueError("--ranking_weight compares versions of an image: without groups, give --ranking_pattern")
        return self.groups


@dataclass
class Progress:
    """State of a run; all of it is in every checkpoint.

    Args:
        epoch: whole epochs done.
        step: steps done in all.
        epoch_step: steps done in the epoch that has begun.
        loss_sum: of the patches of that epoch.
        losses: [step, mean loss of the steps since the last such row].
        history: one row of numbers an epoch.
        best: the row that is best on validation, and the folder of its `model`.
        pending: where a run was stopped between two rows of the losses, what is summed of the next one:
            `num_patches`, and `loss_sums` of the processes.
    """

    epoch: int = 0
    step: int = 0
    epoch_step: int = 0
    loss_sum: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)
    best: dict | None = None
    pending: dict | None = None

    def find_best(self) -> dict:
        """Return the best row. Raises RuntimeError before the first epoch was validated."""
        if self.best is None:
            raise RuntimeError("no epoch was validated yet: call Trainer.fit first")
        return self.best


def predict(
    model: hub_code.HybridIQAModel,
    images: ResidentImages | DatasetImages,
    accelerator: Accelerator,
    before_image: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Return scores by `model.score`; the images are shared among the processes.

    A model in training scores in the run's mixed precision; one that was loaded, as its users will.

    Args:
        before_image: called in all processes alike, with the number of those that each of them has scored.
    """
    num_rounds = math.ceil(len(images) / accelerator.num_processes)
    scores = torch.zeros(num_rounds, device=accelerator.device)
    for position in tqdm(range(num_rounds), desc="score", leave=False, disable=_is_quiet(accelerator)):
        # Every process scores equally often, as sharded models need; what is beyond the last image is dropped below.
        before_image(position)
        index = min(position * accelerator.num_processes + accelerator.process_index, len(images) - 1)
        scores[position] = model.score(images[index])[0]
    gathered = accelerator.gather(scores).view(accelerator.num_processes, num_rounds)
    scores = gathered.T.flatten()[: len(images)].tolist()
    if not all(map(math.isfinite, scores)):
        raise FloatingPointError("the scores are not finite")
    return scores


def rank_epoch(metrics: dict[str, float]) -> tuple[float, float]:
    """Return what the best epoch has most of: SRCC, and where that is tied or not defined, the smaller error."""
    return (metrics["srcc"] if math.isfinite(metrics["srcc"]) else -1.0, -metrics["rmse"])


def format_metrics(metrics: dict[str, float]) -> str:
    """Return the metrics that a line of the log shows."""
    shown = {name: metrics[name] for name in SHOWN_METRICS if name in metrics}
    shown = {name: math.nan if value is None else value for name, value in shown.items()}  # None: read from JSON
    return "  ".join(f"{name.upper()} {value:.4f}" for name, value in shown.items())


def _is_quiet(accelerator: Accelerator) -> bool | None:
    return None if accelerator.is_main_process else True  # None: a bar only on a terminal


class Trainer:
    """Trains a model, writes checkpoints, and keeps the epoch that is best on validation.

    What a step computes depends on the arguments and its number alone, not on how often the run was stopped, nor (where
    the backbone drops no paths at random) on the number of processes.

    Args:
        model: on the accelerator's device.
        train_split, validation: validation is scored after every epoch.
        checkpoints_dir: where checkpoints are written.
        data_hash: of the dataset; a checkpoint of other data is refused.
        signals: what asks the run to stop; by default nothing does.
    """

    def __init__(
        self,
        args: TrainingArguments,
        model: hub_code.HybridIQAModel,
        train_split: Split[ResidentImages],
        validation: Split[ResidentImages],
        accelerator: Accelerator,
        checkpoints_dir: Path,
        data_hash: str = "",
        signals: StopSignals | None = None,
    ):
        self.args, self.accelerator, self.validation, self.train_split = args, accelerator, validation, train_split
        self.checkpoints_dir, self.data_hash = checkpoints_dir, data_hash
        self.signals = signals or StopSignals()
        self.patches = RandomPatches(
            train_split.images,
            train_split.scores,
            args.num_train_patches,
            args.patch_options(model.config.patch_size),
            model.image_processor.normalize_patches,
            args.seed,
            repeats=balanced_repeats(train_split.scores) if args.balance_scores else None,
            reference_ids=train_split.find_references(args.ranking_pattern) if args.ranking_weight else None,
            device=accelerator.device,
        )
        if accelerator.num_processes > 1 and not (args.freeze_batch_norm or args.freeze_backbone):
            if accelerator.device.type != "cuda":
                raise ValueError(
                    "batch norm is synchronised on GPUs only: here, several processes need --freeze_batch_norm or "
                    "--freeze_backbone"
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if args.compile:
            model.backbone.compile()
        self.model = model
        self.wrapped_model, self.optimizer = accelerator.prepare(model, build_optimizer(model, args))
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress = Progress()
        self.saved_step: int | None = None  # of the newest checkpoint
        self._reset_sums()

    @property
    def steps_per_epoch(self) -> int:
        return self.patches.blocks.num_batches(self.args.batch_size)

    @property
    def is_finished(self) -> bool:
        """Return whether all epochs or steps are done, or none was better for too long."""
        progress, args = self.progress, self.args
        if progress.epoch_step:  # the epoch is not closed by its validation
            return False
        if progress.epoch >= args.num_epochs or (args.max_steps and progress.step >= args.max_steps):
            return True
        if args.early_stopping_patience is None or progress.best is None:
            return False
        return progress.history[-1]["epoch"] - progress.best["epoch"] >= args.early_stopping_patience

    def fit(self) -> Progress:
        """Train to the end from where the run stands.

        Raises:
            FloatingPointError: the loss is no longer finite; the last checkpoint stays.
            checkpoints.WriteError: a checkpoint could not be written; the one before it stays.
            Stopped: a signal came, and a checkpoint was written.
        """
        with self.signals.waiting():
            while not self.is_finished:
                self._train_epoch()
                self._validate()
                self._save()
        return self.progress

    def resume(self) -> bool:
        """Go on from the newest checkpoint that is whole; return whether there is one.

        Raises:
            ValueError: it was trained on other data, or there are checkpoints and none is whole.
        """
        faults = []
        for folder in self._ask_main(lambda: checkpoints.list_states(self.checkpoints_dir)):
            fault = self._ask_main(partial(checkpoints.find_fault, folder)) or self._load(folder)
            if fault is None:
                logger.info(f"goes on from {folder.name}")
                return True
            logger.warning(f"the checkpoint {folder} is damaged, the one before it is used: {fault}")
            faults.append(f"{folder.name} ({fault})")
        if faults:
            raise ValueError(
                f"--resume: no checkpoint in {self.checkpoints_dir} is whole: {', '.join(faults)}; "
                "to begin at the first step, choose another --output_dir or remove this one"
            )
        return False

    def _ask_main(self, question: Callable[[], object]):
        """Return the main process's answer in all of them, so that they go on from one checkpoint."""
        answer = [question() if self.accelerator.is_main_process else None]
        return broadcast_object_list(answer)[0]

    def _load(self, folder: Path) -> str | None:
        """Go on from a checkpoint; return why one of the processes cannot, or None."""
        state = self._ask_main(lambda: checkpoints.read_progress(folder))
        if state.pop("data_hash", None) != self.data_hash:
            raise ValueError(f"--resume goes on with the same data, and {folder} was trained on other images")
        if unknown := set(state) - {known.name for known in fields(Progress)}:
            return f"{checkpoints.PROGRESS_FILE} has {', '.join(sorted(unknown))} of another version"
        fault = None
        try:
            self.accelerator.load_state(str(folder))
        except Exception as error:  # each kind of file has errors of its own
            fault = first_line(error)
        if faults := [fault for fault in gather_object([fault]) if fault is not None]:
            return faults[0]
        self.progress = Progress(**state)
        self._resume_sums()
        self.saved_step = self.progress.step
        return None

    def _resume_sums(self) -> None:
        """Take up the sums that a stopped run had begun; of another number of processes, in the main one."""
        pending, accelerator = self.progress.pending, self.accelerator
        if pending is None:
            return
        sums = pending["loss_sums"]
        if len(sums) != accelerator.num_processes:
            sums = [sum(sums)] + [0.0] * (accelerator.num_processes - 1)
        self._sums[0] = sums[accelerator.process_index]
        self._num_summed, self.progress.pending = pending["num_patches"], None

    def _save(self) -> None:
        pending = {"num_patches": self._num_summed, "loss_sums": self._gather_sums()} if self._num_summed else None
        state = asdict(self.progress) | {"data_hash": self.data_hash, "pending": pending}
        step, limit = self.progress.step, self.args.save_total_limit
        checkpoints.save_state(self.accelerator, self.checkpoints_dir, step, state, limit, self._checkpoint_bytes())
        self.saved_step = step

    def _checkpoint_bytes(self) -> int:
        """Return about how much a checkpoint takes: the weights, and the momentum of those that are trained."""
        trained = (weight for weight in self.model.parameters() if weight.requires_grad)
        return self.model.get_memory_footprint() + sum(weight.nbytes for weight in trained)

    def _stop_if_asked(self, count: int) -> None:
        """End the run by a checkpoint where a signal has come to any process; all of them call this alike.

        Args:
            count: of the calls.
        """
        accelerator, number = self.accelerator, self.signals.received
        if accelerator.num_processes > 1:
            if accelerator.device.type != "cpu" and count % STEPS_PER_LOOK:
                return
            numbers = accelerator.gather(torch.tensor([number or 0], device=accelerator.device))
            number = int(numbers.max()) or None  # what has come to this process since is asked for by the next call
        if number is None:
            return
        self.signals.received = number
        if self.saved_step != self.progress.step:
            self._save()
        raise Stopped(number)

    def _rates(self) -> list[float]:
        factor = self.args.lr_decay_factor ** (self.progress.epoch // self.args.lr_decay_epochs)
        return [rate * factor for rate in self.base_rates]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        return self.patches.blocks.batches(epoch, self.args.batch_size)

    def _train_epoch(self) -> None:
        """Do the rest of the epoch that the run stands in, or as much of it as --max_steps allows."""
        progress, args = self.progress, self.args
        for group, rate in zip(self.optimizer.param_groups, self._rates(), strict=True):
            group["lr"] = rate
        self.wrapped_model.train()
        self._freeze_batch_norm()
        batches = self._batches(progress.epoch)
        bar = tqdm(
            desc=f"epoch {progress.epoch + 1}/{args.num_epochs}",
            total=len(self.patches),
            initial=sum(map(len, batches[: progress.epoch_step])),
            unit="patch",
            leave=False,
            disable=_is_quiet(self.accelerator),
        )
        steps_left = args.max_steps - progress.step if args.max_steps else len(batches)
        with bar:
            for batch in batches[progress.epoch_step :][:steps_left]:
                self._step(batch)
                is_last = progress.epoch_step == len(batches) or progress.step == args.max_steps
                is_saved = progress.step % args.save_steps == 0 and not is_last  # the epoch's end saves by itself
                if is_last or is_saved or progress.step % args.logging_steps == 0:
                    self._collect_losses(bar)
                bar.update(len(batch))
                if is_saved:
                    self._save()
                self._stop_if_asked(progress.step)
                if is_last:
                    break

    def _freeze_batch_norm(self) -> None:
        for module in self.model.modules():
            if self.args.freeze_batch_norm and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _step(self, pairs: np.ndarray) -> None:
        """Make one update from a batch of (image, patch) pairs; every process computes a share of it, part by part."""
        accelerator, progress = self.accelerator, self.progress
        entropy = (self.args.seed, progress.step, accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))  # for backbones that drop paths
        split = partial(self.patches.blocks.split, progress.epoch)
        shares = split(pairs, accelerator.num_processes)
        num_parts = min(self.args.gradient_accumulation_steps, len(shares[0]))
        parts = split(shares[accelerator.process_index], num_parts)
        for number, part in enumerate(parts):
            is_last = number == num_parts - 1
            with nullcontext() if is_last else accelerator.no_sync(self.wrapped_model):
                self._backward(part, pairs)
        if accelerator.scaler is None:  # which skips such steps by itself
            # Lion takes the sign of its momentum, and that of NaN is 0: it would stand still, with a finite loss.
            self._note_failure(~total_gradient_norm(self.model).isfinite())
        if self.args.max_grad_norm:
            accelerator.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._num_summed += len(pairs)
        progress.step += 1
        progress.epoch_step += 1

    def _backward(self, part: np.ndarray, pairs: np.ndarray) -> None:
        """Add the gradients of a part's share in the mean loss of the whole batch."""
        num_processes = self.accelerator.num_processes
        # A process without a patch of its own takes part all the same: the others wait for its gradients, here 0.
        shown = part if len(part) else pairs[:1]
        pixel_values, labels = self.patches.batch(self.progress.epoch, shown)
        output = self.wrapped_model(pixel_values, labels)
        loss = output.loss
        if self.args.ranking_weight:
            blocks = torch.from_numpy(self.patches.blocks.numbers(self.progress.epoch)[shown]).to(labels.device)
            loss = loss + self.args.ranking_weight * ranking_loss(output.logits, labels, blocks)
        self.accelerator.backward(loss * (len(part) * num_processes / len(pairs)))  # processes are averaged
        loss_sum = loss.detach().to(self._sums.dtype) * len(part)
        self._sums[0] += loss_sum
        self._note_failure(~loss_sum.isfinite())

    def _note_failure(self, is_bad: torch.Tensor) -> None:
        is_first = is_bad & (self._sums[1] < 0)
        self._sums[1] = torch.where(is_first, self.progress.epoch_step, self._sums[1])

    def _reset_sums(self) -> None:
        # The loss, and the epoch's first step that was not finite; reading them has to wait for the device.
        dtype = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
        self._sums = torch.tensor([0.0, -1.0], dtype=dtype, device=self.accelerator.device)
        self._num_summed = 0

    def _gather_sums(self) -> list[float]:
        """Return the losses of all processes since the last row; stop the run where they are not finite."""
        sums = self.accelerator.gather(self._sums.unsqueeze(0)).tolist()  # (processes, 2)
        if bad_steps := [int(step) for _, step in sums if step >= 0]:
            raise FloatingPointError(self._describe_failure("the loss or a gradient is not finite", min(bad_steps)))
        return [process_sum for process_sum, _ in sums]

    def _collect_losses(self, bar: tqdm) -> None:
        """Make a row of the losses since the last one."""
        loss_sum = sum(self._gather_sums())
        loss = loss_sum / self._num_summed
        progress = self.progress
        progress.loss_sum += loss_sum
        progress.losses.append([progress.step, loss])
        rates = {f"learning_rate/{name}": rate for name, rate in zip(GROUP_NAMES, self._rates(), strict=True)}
        self.accelerator.log({"loss": loss, "epoch": progress.epoch + 1} | rates, step=progress.step)
        srcc = progress.history[-1]["validation"]["srcc"] if progress.history else math.nan
        bar.set_postfix(loss=f"{loss:.3f}", srcc=f"{srcc:.3f}", refresh=False)
        self._reset_sums()

    def _describe_failure(self, what: str, epoch_step: int) -> str:
        progress = self.progress
        pairs = self._batches(progress.epoch)[epoch_step]
        paths = sorted({self.train_split.paths[index] for index in self.patches.pair_images[pairs]})
        last = checkpoints.latest_state(self.checkpoints_dir)
        rates = ", ".join(f"{rate:g}" for rate in self._rates())
        return (
            f"{what} in step {progress.step - progress.epoch_step + epoch_step + 1} "
            f"(epoch {progress.epoch + 1}, step {epoch_step + 1}), at the learning rates {rates}. "
            f"The last good checkpoint is {last.name if last else 'none'}. "
            f"Begin anew with a lower --learning_rate, or look at the batch's images: {', '.join(paths)}"
        )

    def _validate(self) -> None:
        """Close the epoch: score the validation split, and keep the model if no epoch was better."""
        progress, num_epochs = self.progress, self.args.num_epochs
        try:
            scores = predict(self.model, self.validation.images, self.accelerator, self._stop_if_asked)
        except FloatingPointError as error:  # the epoch's last update did it
            raise FloatingPointError(self._describe_failure(str(error), progress.epoch_step - 1)) from error
        metrics = compute_metrics(scores, self.validation.scores, self.validation.groups)
        num_patches = sum(map(len, self._batches(progress.epoch)[: progress.epoch_step]))
        epoch = progress.epoch + 1
        row = {
            "epoch": epoch,
            "step": progress.step,
            "learning_rates": self._rates(),
            "loss": progress.loss_sum / num_patches,
            "validation": metrics,
        }
        logger.info(f"epoch {epoch}/{num_epochs}: loss {row['loss']:.4f}, validation {format_metrics(metrics)}")
        self.accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=progress.step)
        progress.history.append(row)
        if progress.best is None or rank_epoch(metrics) > rank_epoch(progress.best["validation"]):
            state_dict = self.accelerator.get_state_dict(self.wrapped_model)
            name = checkpoints.save_model(
                self.accelerator,
                self.checkpoints_dir,
                epoch,
                self.model,
                state_dict,
                self.model.get_memory_footprint(),
            )
            progress.best = row | {"model": name}
        progress.epoch, progress.epoch_step, progress.loss_sum = epoch, 0, 0.0
