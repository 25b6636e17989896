"""The README.md of a trained model: what it is, what it was trained on, and what was measured. Written offline."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hybridiqa.utils.files import as_text
from hybridiqa.utils.hub import HUB_ID
from hybridiqa.utils.libraries import library_versions
from hybridiqa.utils.runs import show_argument, show_command
from metrics.iqa.iqa import is_defined

TAGS = ["image-quality-assessment", "no-reference-iqa", "aesthetic", "hyperiqa", "custom_code", "model-index"]
# The metrics that a card shows (metrics.json has all): what one is called here, and the Hub's name for it, or its own
# where the Hub has none.
METRIC_NAMES = {
    "srcc": ("SRCC", "spearmanr"),
    "plcc": ("PLCC", "pearsonr"),
    "plcc_logistic": ("PLCC after logistic fit", "pearsonr"),
    "krcc": ("KRCC", "kendalltau"),
    "rmse": ("RMSE", "rmse"),
    "pairwise_accuracy": ("pairwise accuracy", "pairwise_accuracy"),
    "srcc_within_group": ("SRCC within group", "spearmanr"),
}

LOAD_TEMPLATE = """```python
from transformers import AutoModel

model = AutoModel.from_pretrained({quoted_id}, trust_remote_code=True)  # a folder, or a Hub id
print(model.score("picture.png"))
```

Whole folders are scored by hybridIQA's `score.py`:

```bash
python score.py PICTURES/ --model {model_argument} --output scores.csv
```"""


@dataclass
class SplitFacts:
    """One split; `metrics` as `compute_metrics` and `intervals` as `bootstrap_intervals` return them, if measured.

    NaN or None stands for what is not defined. `num_groups` is None where the data has no groups.
    """

    num_images: int
    num_groups: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class RunFacts:
    """All that a model card tells. `dataclasses.asdict` makes it ready for JSON (but for NaN).

    Paths may be given as they are: only the last component of one outside the working folder is shown.
    """

    dataset: str  # name or path
    dataset_hash: str  # as `dataset_hash` returns it
    splits: dict[str, SplitFacts]  # by name: train, validation, test
    score_range: list[float]  # [low, high] of the labels' scale
    score_quantiles: list[float]  # of the model's scores on the validation split, as `score_quantiles` returns them
    num_epochs: int
    best_epoch: int  # counted from 1
    num_steps: int
    num_eval_patches: int  # patches an image when the metrics were measured
    seed: int
    command: list[str]  # sys.argv
    device: str
    precision: str
    versions: dict[str, str] = field(default_factory=library_versions)
    hub_dataset_id: str | None = None  # user/name, where the data is on the Hub
    hub_model_id: str | None = None  # user/name, where the model goes to the Hub
    license: str | None = None

    def __post_init__(self) -> None:
        for name in ("hub_dataset_id", "hub_model_id"):
            value = getattr(self, name)
            if value is not None and not HUB_ID.fullmatch(value):
                raise ValueError(f"{name} must be a Hub id (user/name) or None, got {value!r}")
        measured = [name for name, split in self.splits.items() if split.metrics]
        if "validation" not in measured:
            raise ValueError(f"splits must hold the metrics of validation, got those of {measured}")


def _last_component(path: str | Path) -> str:
    return as_text(os.path.basename(os.path.abspath(path)))


def _metric_cell(name: str, split: SplitFacts) -> str:
    if not is_defined(split.metrics.get(name)):
        return "not defined"
    low, high = split.intervals.get(name, (None, None))
    interval = f"[{low:.3f}, {high:.3f}]" if is_defined(low) and is_defined(high) else "(no interval)"
    return f"{split.metrics[name]:.3f} {interval}"


def _table(header: Sequence, rows: Sequence[Sequence]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _metrics_table(splits: dict[str, SplitFacts]) -> str:
    measured = {name: split for name, split in splits.items() if split.metrics}
    metrics = [name for name in METRIC_NAMES if any(name in split.metrics for split in measured.values())]
    return _table(
        ["split", "images", *(METRIC_NAMES[metric][0] for metric in metrics)],
        [
            [name, split.num_images, *(_metric_cell(metric, split) for metric in metrics)]
            for name, split in measured.items()
        ],
    )


def _quantiles_table(quantiles: Sequence[float], num_columns: int = 3) -> str:
    """Read down, then to the right; each pair of columns is a share of the images and the score that it lies below."""
    step = 100 / max(len(quantiles) - 1, 1)
    cells = [[f"{index * step:g} %", f"{score:.3f}"] for index, score in enumerate(quantiles)]
    num_rows = math.ceil(len(cells) / num_columns)
    rows = [[text for cell in cells[start::num_rows] for text in cell] for start in range(num_rows)]
    return _table(["images", "score at most"] * num_columns, rows)


def _data_section(facts: RunFacts) -> str:
    name = facts.hub_dataset_id or _last_component(facts.dataset)
    rows = [
        [name, split.num_images, "none given" if split.num_groups is None else split.num_groups]
        for name, split in facts.splits.items()
    ]
    return (
        f"`{name}`, hash `{facts.dataset_hash}` (SHA-256 over splits, paths, scores, groups and image files).\n\n"
        f"{_table(['split', 'images', 'groups'], rows)}"
    )


def _training_section(facts: RunFacts) -> str:
    rows = [
        ["epochs", facts.num_epochs],
        ["best epoch, chosen on the validation split", facts.best_epoch],
        ["steps", facts.num_steps],
        ["seed", facts.seed],
        ["device", facts.device],
        ["precision", facts.precision],
        *facts.versions.items(),
    ]
    return f"```bash\n{show_command(facts.command)}\n```\n\n{_table(['', ''], rows)}"


def _results_section(facts: RunFacts) -> str:
    note = (
        f"Each score is the mean over {facts.num_eval_patches} patches. Intervals are 95 %, by bootstrap over images, "
        "or over whole groups where a split has fewer groups than images; of fewer than about ten groups they are too "
        "narrow."
    )
    if any("srcc_within_group" in split.metrics for split in facts.splits.values()):
        note += " SRCC within group is the mean over the groups of at least 3 images."
    return f"{note}\n\n{_metrics_table(facts.splits)}"


def _has_test(facts: RunFacts) -> bool:
    return "test" in facts.splits and bool(facts.splits["test"].metrics)


def _limits_section(facts: RunFacts) -> str:
    limits = [
        "Measured on the splits above and on nothing else: other kinds of pictures may be judged worse.",
        "The epoch was chosen on the validation split, whose numbers are therefore on the high side.",
        *([] if _has_test(facts) else ["There was no test split."]),
        f"Nothing is clamped: a score may leave the {facts.score_range[0]:g}-{facts.score_range[1]:g} scale.",
    ]
    return "\n".join(f"- {limit}" for limit in limits)


def _how_to_load(model_id: str) -> str:
    return LOAD_TEMPLATE.format(
        quoted_id=json.dumps(model_id, ensure_ascii=False), model_argument=shlex.quote(model_id)
    )


def _body(facts: RunFacts, model_name: str) -> str:
    low, high = facts.score_range
    sections = {
        "How to load it": _how_to_load(facts.hub_model_id or model_name),
        "Data": _data_section(facts),
        "Training": _training_section(facts),
        "Results": _results_section(facts),
        "Scores on the validation split": _quantiles_table(facts.score_quantiles),
        "Limits": _limits_section(facts),
    }
    introduction = (
        f"A hybridIQA model: it scores how good a picture looks, on a {low:g}-{high:g} scale and without a reference. "
        "It was trained by hybridIQA's `train.py`, which wrote this card."
    )
    text = "\n\n".join(f"## {title}\n\n{section}" for title, section in sections.items())
    return f"# {model_name}\n\n{introduction}\n\n{text}\n"


def _eval_results(facts: RunFacts) -> list[EvalResult]:
    """The defined metrics of the test split, or else of the validation split."""
    split_name = "test" if _has_test(facts) else "validation"
    dataset_name = facts.hub_dataset_id or _last_component(facts.dataset)
    metrics = facts.splits[split_name].metrics
    return [
        EvalResult(
            task_type="image-classification",
            task_name="No-reference image quality assessment",
            dataset_type=dataset_name,
            dataset_name=dataset_name,
            dataset_split=split_name,
            metric_type=metric_type,
            metric_name=metric_name,
            metric_value=round(float(metrics[name]), 4),
        )
        for name, (metric_name, metric_type) in METRIC_NAMES.items()
        if is_defined(metrics.get(name))
    ]


def write_model_card(output_dir: str | Path, facts: RunFacts) -> Path:
    """Write `output_dir`/README.md and return its path; nothing is asked of the network.

    The metadata holds the defined metrics as `model-index`, and a licence only where `facts` names one.
    """
    model_name = facts.hub_model_id.split("/")[1] if facts.hub_model_id else _last_component(output_dir)
    results = _eval_results(facts)
    data = ModelCardData(
        license=facts.license,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=list(TAGS),
        datasets=[facts.hub_dataset_id] if facts.hub_dataset_id else None,
        metrics=list(dict.fromkeys(metric_type for _, metric_type in METRIC_NAMES.values())),
        model_name=model_name if results else None,
        eval_results=results or None,
    )
    path = Path(output_dir, "README.md")
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(facts, model_name)}").save(path)
    return path


def write_converted_card(
    output_dir: str | Path,
    source: str,
    source_hash: str,
    score_range: Sequence[float],
    name: str,
    license: str | None = None,
) -> Path:
    """Write the README.md of a converted checkpoint and return its path.

    Args:
        source: file or Hub id of the published checkpoint; only the last component of a path outside the working folder
            is shown.
        source_hash: SHA-256 of that file.
        name: folder or Hub id under which the converted checkpoint is loaded.
    """
    low, high = score_range
    data = ModelCardData(
        license=license, library_name="transformers", pipeline_tag="image-classification", tags=list(TAGS[:-1])
    )
    text = (
        f"# {name.split('/')[-1]}\n\nA published hyperIQA checkpoint, `{show_argument(source)}`, as hybridIQA's "
        "`convert_checkpoint.py` has turned it into a folder that `AutoModel` loads: the same weights, in safetensors. "
        f"It scores how good a picture looks, on a {low:g}-{high:g} scale and without a reference. How it was trained, "
        "what it was measured with and what may be done with it is what its authors say.\n\n"
        f"SHA-256 of the published file: `{source_hash}`\n\n## How to load it\n\n{_how_to_load(name)}\n"
    )
    path = Path(output_dir, "README.md")
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(path)
    return path
