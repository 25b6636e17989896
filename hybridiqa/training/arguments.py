"""Options of a training run, checked where they are given."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from hybridiqa.models.backbones import DEFAULT_BACKBONE
from hybridiqa.training.patches import PatchOptions
from hybridiqa.utils.atomic import check_new_folder
from hybridiqa.utils.root import hub_constant

ARGUMENTS_FILE = "training_arguments.json"
COUNTS = (
    "num_epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "num_train_patches",
    "num_eval_patches",
    "lr_decay_epochs",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "num_workers",
    "num_resamples",
    "pooled_steps",
    "pooled_batch_size",
)
OPTIONAL_COUNTS = ("max_steps", "early_stopping_patience", "num_repeats")
HEAD_TYPES = hub_constant("configuration_hybridiqa", "HEAD_TYPES")
MAX_PATCHES = hub_constant("configuration_hybridiqa", "MAX_PATCHES")
SAMPLINGS = hub_constant("image_processing_hybridiqa", "SAMPLINGS")
# What may differ when a run goes on: none of it changes what a step computes.
CHANGEABLE = (
    *("output_dir", "resume", "num_epochs", "early_stopping_patience", "save_total_limit"),
    *("report_to", "logging_steps", "num_workers", "num_resamples", "device_memory_share", "trust_remote_code"),
    *("push_to_hub", "hub_model_id", "hub_private"),
)


def _option(default, help_text: str):
    return field(default=default, metadata={"help": help_text})


@dataclass
class TrainingArguments:
    """Every option of a run; saved as `training_arguments.json` beside the checkpoint."""

    dataset: str = field(
        metadata={"help": "folder made by prepare_dataset.py, or a Hub id, with splits train and validation"}
    )
    output_dir: str = field(metadata={"help": "a new or empty folder for the trained model (or a run to --resume)"})

    config: str | None = _option(None, "architecture: a config.json or its folder (default: ResNet-152)")
    pretrained_backbone: str | None = _option(
        None, f"backbone to start from: folder, Hub id or torchvision file (default: {DEFAULT_BACKBONE})"
    )
    from_scratch: bool = _option(False, "start from random weights")
    init_from: str | None = _option(None, "start from a whole checkpoint: folder or Hub id")
    trust_remote_code: bool = _option(False, "run code that --init_from's Hub checkpoint brings")
    model_revision: str | None = _option(None, "of --init_from on the Hub: branch, tag or commit (default: the newest)")
    head_type: str | None = _option(
        None, "hyper or pooled (default: what --config or --init_from has, else hyper); pooled freezes the backbone"
    )
    freeze_backbone: bool = _option(False, "train only the LDA modules and the hyper network")
    freeze_batch_norm: bool = _option(False, "normalise by the statistics that the start brings (small batches)")
    score_range: list[float] | None = field(
        default=None, metadata={"help": "MIN MAX of the labels (default: the checkpoint's or 1 9)"}
    )

    num_epochs: int = _option(9, "passes over every (image, patch) pair")
    max_steps: int | None = _option(None, "stop after this many steps, whatever --num_epochs says")
    batch_size: int = _option(300, "patches a step, over all processes")
    gradient_accumulation_steps: int = _option(
        1,
        "parts in which a process computes its share of a batch: less memory; batch norm sees the parts",
    )
    gradient_checkpointing: bool = _option(False, "compute activations twice instead of keeping them: less memory")
    max_grad_norm: float | None = _option(None, "scale larger gradients down to this norm (default: never)")
    learning_rate: float = _option(4e-6, "of the backbone and the LDA modules")
    hyper_learning_rate_factor: float = _option(10.0, "the hyper network's rate is this higher")
    weight_decay: float = _option(2.5e-3, "of both parameter groups, decoupled")
    beta1: float = _option(0.95, "Lion's interpolation between momentum and gradient")
    beta2: float = _option(0.98, "Lion's decay of the momentum")
    lr_decay_epochs: int = _option(6, "epochs between two decays of both rates")
    lr_decay_factor: float = _option(0.1, "what both rates are multiplied by then")
    early_stopping_patience: int | None = _option(
        None, "stop after this many epochs without a better validation SRCC (default: never)"
    )

    ranking_weight: float = _option(
        0.0, "of a second loss, beside L1: the wrong order of versions of one image, cut at the same place"
    )
    ranking_pattern: str | None = _option(
        None,
        "regular expression in the path; its group 1 (or all of it) names what it is a version of (default: the group)",
    )

    num_train_patches: int = _option(400, "random patches an image and epoch")
    train_crop: str = _option("resized", "resized (the published way) or native")
    crop_scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0],
        metadata={"help": "MIN MAX share of the area of a resized crop (default: 0.08 1)"},
    )
    flip_probability: float = _option(0.5, "of a horizontal flip")
    grayscale_probability: float = _option(0.15, "of a patch without colour")
    balance_scores: bool = _option(False, "repeat the images of rarer scores in an epoch")
    num_eval_patches: int = _option(25, "patches an image in validation and test; the checkpoint keeps it")
    eval_sampling: str | None = _option(
        None, "grid, multiscale or random patches in validation and test; the checkpoint keeps it (default: its own)"
    )

    more_datasets: list[str] = field(
        default_factory=list,
        metadata={"help": "pooled head: further datasets; images are compared within one dataset, never across"},
    )
    compare_within: list[str] = field(
        default_factory=list,
        metadata={
            "help": "pooled head: DATASET or DATASET=REGEX, of which only images of one group are compared, or images "
            "in whose paths the regular expression's group 1 (or all of it) finds the same"
        },
    )
    calibrate_on: str | None = _option(
        None, "pooled head: the dataset whose scores say what a score means (default: --dataset)"
    )
    pooled_steps: int = _option(1500, "pooled head: updates, each from one batch of every dataset")
    pooled_batch_size: int = _option(128, "pooled head: images of a dataset in a step, all pairs of them compared")
    pooled_learning_rate: float = _option(1e-3, "pooled head: AdamW's, which falls to 0 as a cosine")
    pooled_weight_decay: float = _option(1e-2, "pooled head: AdamW's")
    pair_margin: float = _option(
        0.1, "pooled head: pairs whose scores differ by less are not compared, in standard deviations of the scores"
    )
    regression_weight: float = _option(0.5, "pooled head: of L1 to the scores of each dataset, beside the pairs' loss")
    statistics_dir: str | None = _option(
        None, "pooled head: folder that keeps what the backbone says of each image, for further runs (default: none)"
    )

    mixed_precision: str | None = _option(None, "no, fp16 or bf16 (default: bf16 where the device computes it)")
    compile: bool = _option(False, "compile the backbone with torch.compile: slow to start, faster steps")
    seed: int = _option(0, "of initialisation, order and patches")
    num_workers: int = _option(2, "threads that decode the images")
    device_memory_share: float = _option(
        0.5, "of the device's free memory that the images may take; else they stay in pinned host memory"
    )

    resume: bool = _option(False, "go on with the run in --output_dir, from its last checkpoint")
    save_steps: int = _option(500, "steps between two checkpoints; every epoch ends with one, too")
    save_total_limit: int = _option(2, "checkpoints kept, the newest")
    logging_steps: int = _option(10, "steps between two values of the loss in the log")
    report_to: list[str] = field(
        default_factory=list, metadata={"help": "trackers: tensorboard, trackio, or others that accelerate knows"}
    )
    num_resamples: int = _option(1000, "of the bootstrap that gives the intervals of the metrics, at the end")
    num_repeats: int | None = _option(
        None, "train on this many random splits by group instead of the given one; median and deviation of the metrics"
    )
    push_to_hub: bool = _option(False, "upload the trained model to --hub_model_id, in one commit, when all is done")
    hub_model_id: str | None = _option(None, "user/name of the repository, which is made if there is none")
    hub_private: bool = _option(False, "make a new repository private")

    def __post_init__(self) -> None:
        self._check_start()
        for name in COUNTS + OPTIONAL_COUNTS:
            value = getattr(self, name)
            if value is None and name in OPTIONAL_COUNTS:
                continue
            if value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        if self.num_eval_patches > MAX_PATCHES:
            raise ValueError(f"--num_eval_patches must be at most {MAX_PATCHES}, got {self.num_eval_patches}")
        if self.score_range and not (len(self.score_range) == 2 and self.score_range[0] < self.score_range[1]):
            raise ValueError(f"--score_range must be MIN MAX with MIN < MAX, got {self.score_range}")
        for name in ("learning_rate", "max_grad_norm", "pooled_learning_rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"--{name} must be above 0, got {getattr(self, name)}")
        if self.mixed_precision not in (None, "no", "fp16", "bf16"):
            raise ValueError(f"--mixed_precision must be no, fp16 or bf16, got {self.mixed_precision}")
        if self.eval_sampling not in (None, *SAMPLINGS):
            raise ValueError(f"--eval_sampling must be {', '.join(SAMPLINGS)}, got {self.eval_sampling}")
        factors = ["lr_decay_factor", "weight_decay", "hyper_learning_rate_factor", "ranking_weight"]
        factors += ["pooled_weight_decay", "pair_margin", "regression_weight"]
        for name in ("beta1", "beta2", *factors):
            limit = 1 if name.startswith("beta") else math.inf
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"--{name} must be at least 0 and below {limit}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be 0 to {2**32 - 1}, got {self.seed}")
        if not 0 <= self.device_memory_share <= 1:
            raise ValueError(f"--device_memory_share must be 0 to 1, got {self.device_memory_share}")
        if self.ranking_pattern is not None and not self.ranking_weight:
            raise ValueError("--ranking_pattern goes with --ranking_weight")
        patterns = [("ranking_pattern", self.ranking_pattern)]
        patterns += [("compare_within", pattern) for pattern in self.patterns_to_compare_within.values()]
        for name, pattern in patterns:
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ValueError(f"--{name} {pattern!r} is no regular expression: {error}") from error
        self.patch_options(patch_size=1)  # checks what it is given
        self._check_sources()
        self._check_push()
        self._check_output()

    def _check_start(self) -> None:
        starts = [name for name in ("pretrained_backbone", "from_scratch", "init_from") if getattr(self, name)]
        if len(starts) > 1:
            raise ValueError(f"one start at most can be chosen, got --{' and --'.join(starts)}")
        if self.compile and self.gradient_checkpointing:
            raise ValueError("--compile and --gradient_checkpointing cannot be combined")
        if self.config and self.init_from:
            raise ValueError("--config has no effect with --init_from, whose checkpoint brings its own")

    def _check_sources(self) -> None:
        if self.head_type not in (None, *HEAD_TYPES):
            raise ValueError(f"--head_type must be {' or '.join(HEAD_TYPES)}, got {self.head_type}")
        datasets = [self.dataset, *self.more_datasets]
        if len(set(datasets)) < len(datasets):
            raise ValueError(f"--more_datasets must be other ones than --dataset, each once, got {', '.join(datasets)}")
        chosen = {"compare_within": list(self.patterns_to_compare_within)}
        chosen["calibrate_on"] = [self.calibrate_on] if self.calibrate_on else []
        for name, values in chosen.items():
            if others := [value for value in values if value not in datasets]:
                raise ValueError(f"--{name} must be among the datasets {', '.join(datasets)}, got {others[0]}")
        if self.more_datasets and self.num_repeats is not None:
            raise ValueError("--num_repeats splits one dataset anew, and --more_datasets names others")

    @property
    def patterns_to_compare_within(self) -> dict[str, str | None]:
        """Return what --compare_within says: by dataset the pattern, or None for its groups."""
        named = [value.partition("=") for value in self.compare_within]
        return {dataset: pattern if equals else None for dataset, equals, pattern in named}

    def _check_push(self) -> None:
        if self.push_to_hub and self.hub_model_id is None:
            raise ValueError("--push_to_hub needs --hub_model_id user/name")
        if (self.hub_model_id or self.hub_private) and not self.push_to_hub:
            raise ValueError("--hub_model_id and --hub_private go with --push_to_hub")
        if self.push_to_hub and self.num_repeats is not None:
            raise ValueError("--push_to_hub uploads one model, --num_repeats trains many")

    def _check_output(self) -> None:
        path = Path(self.output_dir, ARGUMENTS_FILE)
        if not self.resume or not path.is_file():
            check_new_folder(Path(self.output_dir))
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"--resume: {path} is damaged, so the options of the run are not known") from error
        before = {option.name: option.default for option in fields(self)} | before  # older versions knew fewer options
        now = asdict(self)
        differing = [name for name in now if name not in CHANGEABLE and now[name] != before[name]]
        if differing:
            changes = ", ".join(f"--{name} {before[name]} -> {now[name]}" for name in differing)
            raise ValueError(f"--resume goes on with the same options, got {changes}")

    def patch_options(self, patch_size: int) -> PatchOptions:
        """Return how a training patch is made."""
        return PatchOptions(
            patch_size, self.train_crop, tuple(self.crop_scale), self.flip_probability, self.grayscale_probability
        )
