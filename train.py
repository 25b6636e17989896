"""Train a scorer on a prepared dataset; the output folder is ready for the Hub.

    accelerate launch train.py --dataset DIR --output_dir OUT

The defaults are the published recipe: ResNet-152 from ImageNet, 400 patches an image and epoch, batches of 300, Lion,
9 epochs. The best epoch is chosen on the validation split; the test split is read once, at the end.

    python train.py --dataset DIR --output_dir OUT --init_from . --freeze_backbone --learning_rate 4e-5
"""

from __future__ import annotations

import json
import logging
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import DataLoaderConfiguration, set_seed
from datasets import DatasetDict
from lion_pytorch import Lion
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import HfArgumentParser, PretrainedConfig, PreTrainedModel

from hybridiqa.backbones import DEFAULT_BACKBONE, load_backbone
from hybridiqa.dataset_loading import dataset_on_device, load_prepared
from hybridiqa.files import check_new_folder
from hybridiqa.loading import hub_class, load_model, silence_libraries
from hybridiqa.metrics import compute_metrics
from hybridiqa.patch_sampling import PatchOptions, RandomPatchDataset, balanced_indices

logger = get_logger(__name__)


@dataclass
class TrainingArguments:
    """Every option of a run; saved as `training_arguments.json` beside the checkpoint."""

    dataset: str = field(metadata={"help": "folder made by prepare_dataset.py, with a train and a validation split"})
    output_dir: str = field(metadata={"help": "a new or empty folder for the trained model"})
    config: str | None = field(
        default=None, metadata={"help": "architecture: a config.json or its folder (default: ResNet-152)"}
    )
    pretrained_backbone: str | None = field(
        default=None,
        metadata={"help": f"backbone to start from: folder, Hub id or torchvision file (default: {DEFAULT_BACKBONE})"},
    )
    from_scratch: bool = field(default=False, metadata={"help": "start from random weights"})
    init_from: str | None = field(default=None, metadata={"help": "start from a whole checkpoint: folder or Hub id"})
    trust_remote_code: bool = field(default=False, metadata={"help": "run the code that a Hub checkpoint brings"})
    freeze_backbone: bool = field(default=False, metadata={"help": "train only the LDA modules and the hyper network"})
    score_range: list[float] | None = field(
        default=None, metadata={"help": "MIN MAX of the labels (default: the checkpoint's or 1 9)"}
    )
    num_epochs: int = field(default=9, metadata={"help": "passes over every (image, patch) pair"})
    batch_size: int = field(default=300, metadata={"help": "patches a step, over all processes"})
    learning_rate: float = field(default=4e-6, metadata={"help": "of the backbone and the LDA modules"})
    hyper_learning_rate_factor: float = field(
        default=10.0, metadata={"help": "the hyper network's rate is this higher"}
    )
    weight_decay: float = field(default=2.5e-3, metadata={"help": "of both parameter groups, decoupled"})
    beta1: float = field(default=0.95, metadata={"help": "Lion's interpolation between momentum and gradient"})
    beta2: float = field(default=0.98, metadata={"help": "Lion's decay of the momentum"})
    lr_decay_epochs: int = field(default=6, metadata={"help": "epochs between two decays of both rates"})
    lr_decay_factor: float = field(default=0.1, metadata={"help": "what both rates are multiplied by then"})
    num_train_patches: int = field(default=400, metadata={"help": "random patches an image and epoch"})
    num_eval_patches: int = field(default=25, metadata={"help": "grid patches an image in validation and test"})
    train_crop: str = field(default="resized", metadata={"help": "resized (the published way) or native"})
    crop_scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0], metadata={"help": "MIN MAX share of the area of a resized crop"}
    )
    flip_probability: float = field(default=0.5, metadata={"help": "of a horizontal flip"})
    grayscale_probability: float = field(default=0.15, metadata={"help": "of a patch without colour"})
    balance_scores: bool = field(default=False, metadata={"help": "repeat the images of rarer scores in an epoch"})
    mixed_precision: str | None = field(
        default=None, metadata={"help": "no, fp16 or bf16 (default: as accelerate is configured)"}
    )
    seed: int = field(default=0, metadata={"help": "of initialisation, order and patches"})

    def __post_init__(self) -> None:
        starts = [name for name in ("pretrained_backbone", "from_scratch", "init_from") if getattr(self, name)]
        if len(starts) > 1:
            raise ValueError(f"one start at most can be chosen, got --{' and --'.join(starts)}")
        if self.config and self.init_from:
            raise ValueError("--config has no effect with --init_from, whose checkpoint brings its own")
        for name in ("num_epochs", "batch_size", "num_train_patches", "num_eval_patches", "lr_decay_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.score_range and not (len(self.score_range) == 2 and self.score_range[0] < self.score_range[1]):
            raise ValueError(f"--score_range must be MIN MAX with MIN < MAX, got {self.score_range}")
        if not self.learning_rate > 0:
            raise ValueError(f"--learning_rate must be above 0, got {self.learning_rate}")
        if self.mixed_precision not in (None, "no", "fp16", "bf16"):
            raise ValueError(f"--mixed_precision must be no, fp16 or bf16, got {self.mixed_precision}")
        for name in ("beta1", "beta2", "lr_decay_factor", "weight_decay", "hyper_learning_rate_factor"):
            limit = 1 if name.startswith("beta") else math.inf
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"--{name} must be at least 0 and below {limit}, got {getattr(self, name)}")
        self.patch_options(patch_size=1)  # checks what it is given
        check_new_folder(Path(self.output_dir))

    def patch_options(self, patch_size: int) -> PatchOptions:
        """How a training patch is made."""
        return PatchOptions(
            patch_size, self.train_crop, tuple(self.crop_scale), self.flip_probability, self.grayscale_probability
        )


def build_model(args: TrainingArguments) -> PreTrainedModel:
    """The model that the run starts from.

    Raises:
        ValueError: a start that cannot be loaded; the message names the alternatives.
    """
    if args.init_from:
        model = load_model(args.init_from, dtype=torch.float32, trust_remote_code=args.trust_remote_code)
    else:
        model = _build_from_backbone(args)
    if args.score_range:
        model.config.score_range = args.score_range
    if args.freeze_backbone:
        model.freeze_backbone()
    return model


def _read_config(config_class: type, path: str) -> PretrainedConfig:
    try:
        fields, _ = config_class.get_config_dict(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--config must be a config.json or its folder, got {path}") from error
    if fields.get("model_type") != config_class.model_type:
        raise ValueError(f"--config {path} describes a model of type {fields.get('model_type')!r}, not 'hybridiqa'")
    return config_class.from_dict(fields)


def _build_from_backbone(args: TrainingArguments) -> PreTrainedModel:
    model_class = hub_class("modeling_hybridiqa.HybridIQAModel")
    config = _read_config(model_class.config_class, args.config) if args.config else None
    if args.from_scratch:
        return model_class(config or model_class.config_class())
    try:
        backbone = load_backbone(
            args.pretrained_backbone or DEFAULT_BACKBONE, config.backbone_config if config else None
        )
    except ValueError as error:
        hint = (
            "" if args.pretrained_backbone else "; offline, choose --pretrained_backbone, --init_from or --from_scratch"
        )
        raise ValueError(f"{error}{hint}") from error
    model = model_class(config or model_class.config_class(backbone_config=backbone.config))
    model.backbone.load_state_dict(backbone.state_dict())
    return model


def build_optimizer(model: PreTrainedModel, args: TrainingArguments) -> Lion:
    """Lion with two groups: backbone and LDA modules, and the hyper network at a multiple of their rate."""
    hyper = list(model.hyper_network.parameters())
    base = [*model.backbone.parameters(), *model.distortion_features.parameters()]
    groups = [
        {"params": [parameter for parameter in base if parameter.requires_grad], "lr": args.learning_rate},
        {"params": hyper, "lr": args.learning_rate * args.hyper_learning_rate_factor},
    ]
    return Lion(groups, betas=(args.beta1, args.beta2), weight_decay=args.weight_decay)


def load_splits(path: str) -> DatasetDict:
    """The prepared dataset.

    Raises:
        ValueError: no such dataset, or one without a train or a validation split.
    """
    splits = load_prepared(path)
    if missing := {"train", "validation"} - set(splits):
        raise ValueError(f"{path} lacks the split {' and '.join(sorted(missing))}, it has {', '.join(splits)}")
    return splits


def check_scores(splits: DatasetDict, score_range: list[float]) -> None:
    """Raise ValueError where a label lies outside the range that the model's scores speak in."""
    for name, split in splits.items():
        low, high = min(split["score"]), max(split["score"])
        if low < score_range[0] or high > score_range[1]:
            raise ValueError(
                f"the {name} split has scores {low:g} to {high:g}, outside {score_range}: give --score_range MIN MAX"
            )


class Split:
    """One split in memory: `images`, uint8 `(3, height, width)` tensors on a device, and their `scores`."""

    def __init__(self, dataset, device: torch.device):
        rows = dataset_on_device(dataset.select_columns(["image", "score"]), device)
        self.images = [row["image"] for row in tqdm(rows, desc="decode", leave=False, disable=None)]
        self.scores = [float(score) for score in dataset["score"]]


def evaluate_split(
    model: PreTrainedModel, split: Split, num_patches: int, accelerator: Accelerator
) -> dict[str, float]:
    """The metrics of one split, by `model.score`; the images are shared among the processes.

    A model in training scores in the run's mixed precision; one that was loaded, as its users will.
    """
    indices = range(accelerator.process_index, len(split.images), accelerator.num_processes)
    scores = torch.zeros(len(split.images), device=accelerator.device)
    for index in tqdm(indices, desc="evaluate", leave=False, disable=_is_quiet(accelerator)):
        scores[index] = model.score(split.images[index], num_patches=num_patches)[0]
    scores = accelerator.reduce(scores, "sum")  # every image has one process that scored it, the others add 0
    if not scores.isfinite().all():
        raise FloatingPointError("the scores are no longer finite: lower --learning_rate")
    return compute_metrics(scores.tolist(), split.scores)


def _is_quiet(accelerator: Accelerator) -> bool | None:
    return None if accelerator.is_main_process else True  # None: a bar only on a terminal


def train_epoch(model, loader, optimizer, normalize, accelerator: Accelerator, epoch: int) -> float:
    """One pass; returns the mean loss over all patches.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    model.train()
    total, count = 0.0, 0
    bar = tqdm(loader, desc=f"epoch {epoch + 1}", unit="step", leave=False, disable=_is_quiet(accelerator))
    for step, batch in enumerate(bar):
        pixel_values = normalize(batch["patches"]).contiguous(memory_format=torch.channels_last)
        loss = model(pixel_values, batch["labels"]).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses = accelerator.gather(loss.detach().repeat(len(batch["labels"])))
        total, count = total + float(losses.sum()), count + len(losses)
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is {loss.item()} in epoch {epoch + 1}, step {step + 1}: lower --learning_rate"
            )
        bar.set_postfix(loss=f"{total / count:.3f}", refresh=False)
    return total / count


def fit(model: PreTrainedModel, train: Split, validation: Split, args: TrainingArguments, accelerator: Accelerator):
    """Train, and save the epoch that is best on validation. Returns one row of numbers an epoch."""
    indices = balanced_indices(train.scores) if args.balance_scores else range(len(train.scores))
    patches = RandomPatchDataset(
        [train.images[index] for index in indices],
        [train.scores[index] for index in indices],
        args.num_train_patches,
        args.patch_options(model.config.patch_size),
        args.seed,
    )
    loader = DataLoader(patches, batch_size=args.batch_size, shuffle=True, collate_fn=lambda batch: batch)
    optimizer = build_optimizer(model, args)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, args.lr_decay_epochs, args.lr_decay_factor)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    history, best = [], None
    for epoch in range(args.num_epochs):
        loader.set_epoch(epoch)
        rates = [group["lr"] for group in optimizer.param_groups]
        loss = train_epoch(prepared, loader, optimizer, model.image_processor.normalize_patches, accelerator, epoch)
        scheduler.step()
        metrics = evaluate_split(model, validation, args.num_eval_patches, accelerator)
        history.append({"epoch": epoch + 1, "learning_rates": rates, "loss": loss, "validation": metrics})
        logger.info(f"epoch {epoch + 1}/{args.num_epochs}: loss {loss:.4f}, validation {format_metrics(metrics)}")
        if best is None or merit(metrics) > best:
            best = merit(metrics)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                model.save_pretrained(args.output_dir)
    return history


def merit(metrics: dict[str, float]) -> tuple[float, float]:
    """What the best epoch has most of: SRCC, and where that is tied or not defined, the smaller error."""
    return (metrics["srcc"] if math.isfinite(metrics["srcc"]) else -1.0, -metrics["rmse"])


def format_metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name.upper()} {value:.4f}" for name, value in metrics.items())


def without_nan(value):
    """The same with null for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def run(args: TrainingArguments) -> dict:
    """The whole run; returns what `metrics.json` holds."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=args.seed),
    )
    set_seed(args.seed)
    splits = load_splits(args.dataset)
    model = build_model(args)
    check_scores(splits, model.config.score_range)
    data = {name: Split(split, accelerator.device) for name, split in splits.items()}
    sizes = {name: len(split.images) for name, split in data.items()}
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info(
        f"images {sizes}, {accelerator.num_processes} process(es) on {accelerator.device}, "
        f"{trainable / 1e6:.1f} M of {model.num_parameters() / 1e6:.1f} M parameters trained"
    )
    model.to(accelerator.device, memory_format=torch.channels_last)
    history = fit(model, data["train"], data["validation"], args, accelerator)
    accelerator.wait_for_everyone()
    best = max(history, key=lambda row: merit(row["validation"]))
    if not math.isfinite(best["validation"]["srcc"]):
        logger.warning("SRCC is not defined on validation (too few images, or all scored alike): RMSE chose the epoch")
    results = {"num_images": sizes, "best_epoch": best["epoch"], "validation": best["validation"], "history": history}
    if "test" in data:
        saved = load_model(args.output_dir, accelerator.device)
        results["test"] = evaluate_split(saved, data["test"], args.num_eval_patches, accelerator)
        logger.info(f"best epoch {best['epoch']}, test {format_metrics(results['test'])}")
    if accelerator.is_main_process:
        output_dir = Path(args.output_dir)
        (output_dir / "training_arguments.json").write_text(json.dumps(asdict(args), indent=2) + "\n")
        (output_dir / "metrics.json").write_text(json.dumps(without_nan(results), indent=2) + "\n")
    return results


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    logger.logger.setLevel(logging.INFO)
    silence_libraries()
    try:
        (args,) = HfArgumentParser(TrainingArguments, description=__doc__).parse_args_into_dataclasses(argv)
        run(args)
    except (ValueError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"train.py: stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
