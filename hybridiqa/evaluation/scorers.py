"""Scorers that a benchmark compares: checkpoints of this project, other libraries' scorers, and files of scores.

All see the same pixels (`hybridiqa.models.hub_code.load_image`), and of all of them a higher score is a better image.
Importing this loads no torch: a kind of scorer is imported where one is asked for.
"""

from __future__ import annotations

import logging
import math
import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hybridiqa.inference.decoding import Sources
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.libraries import first_line
from hybridiqa.utils.tables import TABLE_SUFFIXES, read_table

LABEL = re.compile(r"([\w .()+-]+)=(.+)")
PYIQA = "pyiqa:"
KINDS = (
    "a checkpoint's folder or Hub id (user/name or user/name@commit), brisque, pyiqa:METRIC, a transformers model with "
    "`.score` or of images and texts, or a table of scores"
)

logger = logging.getLogger(__name__)


class Scorer(Protocol):
    """Scorer of images, the higher the better.

    Args:
        description: what it is, exactly enough to find it again.
        needs_prompts: whether it scores an image for a text, instead of by itself.
    """

    description: str
    needs_prompts: bool

    def score(self, sources: Sources, prompts: Sequence[str] | None) -> list[float]:
        """Return one score an image, NaN where it has none; the reason is logged.

        Args:
            prompts: one an image, where it needs them.
        """


@dataclass(frozen=True)
class ScorerOptions:
    """Options of `benchmark.py` that say how models are loaded and run."""

    device: str | None = None
    num_patches: int | None = None
    batch_size: int = 1
    num_workers: int = 2
    trust_remote_code: bool = False

    @classmethod
    def from_arguments(cls, args: Namespace) -> ScorerOptions:
        return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})


class ScoreFile:
    """Scores that are there already: a table with `path` and `score`, as `score.py` writes it, or `prediction`.

    An image is found by its whole name or, where that is not listed, by the only listed path that ends with it.

    Raises:
        ValueError: no such table, a path that is listed twice, or a score that is no number.
    """

    needs_prompts = False

    def __init__(self, path: Path):
        rows = read_table(path, None, ["path"])
        column = "prediction" if "prediction" in rows[0] else "score"  # beside a prediction, the score is the true one
        if column not in rows[0]:
            raise ValueError(f"{path} has neither a column prediction nor score; it has {', '.join(rows[0])}")
        self.path, self.description = path, f"column {column} of {path.name}"
        self.scores: dict[str, float] = {}
        self.paths: dict[str, list[str]] = {}  # by the last component of each
        for row in rows:
            if not isinstance(row.get("path"), str):
                raise ValueError(f"{path} has a row without a path: {row}")
            if row["path"] in self.scores:
                raise ValueError(f"{path} lists {row['path']} twice: which of its scorers is meant?")
            self.scores[row["path"]] = self._parse_score(row, column)
            self.paths.setdefault(row["path"].rsplit("/", 1)[-1], []).append(row["path"])

    def _parse_score(self, row: dict, column: str) -> float:
        try:
            return math.nan if row.get(column) in (None, "") else float(row[column])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path} has no number as {column} of {row['path']}: {row[column]!r}") from error

    def score(self, sources: Sources, prompts: Sequence[str] | None = None) -> list[float]:
        return [self._find_score(sources[index][0]) for index in range(len(sources))]

    def _find_score(self, name: str) -> float:
        if name in self.scores:
            return self.scores[name]
        paths = [path for path in self.paths.get(name.rsplit("/", 1)[-1], []) if path.endswith(f"/{name}")]
        if len(paths) == 1:
            return self.scores[paths[0]]
        logger.warning("%s: %s in %s", name, "several such paths" if paths else "not listed", self.path)
        return math.nan


def split_label(given: str) -> tuple[str, str]:
    """Return name and model of `NAME=MODEL`; without a name, the model's last part is one."""
    if Path(given).exists():
        return Path(given).resolve().name, given
    if labelled := LABEL.fullmatch(given):
        return labelled[1], labelled[2]
    return given.rsplit("/", 1)[-1], given


def _load_checkpoint(name: str, revision: str | None, options: ScorerOptions) -> Scorer:
    """Load a checkpoint of this project."""
    from hybridiqa.evaluation.checkpoint_scorer import CheckpointScorer
    from hybridiqa.inference.engine import load_engine
    from hybridiqa.models.loading import UntrustedCodeError

    is_trusted = options.trust_remote_code
    try:
        engine = load_engine(name, device=options.device, trust_remote_code=is_trusted, revision=revision)
    except UntrustedCodeError as error:
        raise ValueError(f"{error.reason} --model {name}@{error.commit}") from error
    return CheckpointScorer(engine, options.num_patches, options.batch_size, options.num_workers)


def _load_from_config(model: str, options: ScorerOptions) -> Scorer:
    """Load what a folder or a Hub id holds, by its `config.json`."""
    from transformers import PretrainedConfig

    name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    try:
        config, _ = PretrainedConfig.get_config_dict(name, revision=revision or None)
        if not config:  # so does transformers 5 say that a folder has no config.json
            raise OSError("it has no config.json")
    except OSError as error:
        raise ValueError(f"--model {model}: {first_line(error)}; accepted: {KINDS}") from error
    if config.get("model_type") == "hybridiqa":
        return _load_checkpoint(name, revision or None, options)
    from hybridiqa.evaluation.reference_scorers import load_transformers_scorer

    device = choose_device(options.device)
    return load_transformers_scorer(name, config, revision or None, device, options.trust_remote_code)


def load_scorer(model: str, options: ScorerOptions) -> Scorer:
    """Load the scorer that `--model` names, without its label.

    Raises:
        ValueError: none that is known, one that cannot be loaded, a library that is missing, or code not trusted.
    """
    if model == "brisque":
        from hybridiqa.evaluation.reference_scorers import BrisqueScorer

        return BrisqueScorer()
    if model.startswith(PYIQA):
        from hybridiqa.evaluation.reference_scorers import PyiqaScorer

        return PyiqaScorer(model.removeprefix(PYIQA), choose_device(options.device))
    if Path(model).is_file():
        if Path(model).suffix.lower() not in TABLE_SUFFIXES:
            raise ValueError(f"--model {model}: accepted is {KINDS}")
        return ScoreFile(Path(model))
    return _load_from_config(model, options)


def load_scorers(models: Sequence[str], options: ScorerOptions) -> dict[str, Scorer]:
    """Load the scorers, by name.

    Raises:
        ValueError: as `load_scorer`, or a name that is there twice.
    """
    names = [split_label(model)[0] for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--model has {', '.join(sorted(twice))} twice: name them apart, NAME=MODEL")
    return {name: load_scorer(split_label(model)[1], options) for name, model in zip(names, models, strict=True)}
