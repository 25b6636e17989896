"""Checkpoints, loaded with the code that is trusted, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file

from hybridiqa.models import hub_code
from hybridiqa.utils.hub import HUB_ID
from hybridiqa.utils.libraries import first_line
from hybridiqa.utils.root import ROOT

FIELDS_OF_HEADS = {
    "hyper": ("patch_size", "lda_channels", "lda_width", "hyper_channels", "target_input_size", "target_widths"),
    "pooled": ("head_type", "patch_size", "whole_views", "num_features", "pooled_width", "score_range"),
}
PROCESSOR_FIELDS = ("patch_size", "size", "image_mean", "image_std")

HUB_CODE = (  # what a checkpoint brings; the images' own two files not before they were parted from the first
    "configuration_hybridiqa.py",
    "image_processing_hybridiqa.py",
    "image_loading_hybridiqa.py",
    "image_bounds_hybridiqa.py",
    "modeling_hybridiqa.py",
    "pipeline_hybridiqa.py",
)
MODEL_CODE = "modeling_hybridiqa.py"  # without which a checkpoint brings no code
RELEASED_CODE = Path(__file__).with_name("released_hub_files.txt")  # as sha256sum writes it


def _backbone_fields(config: PretrainedConfig) -> dict:
    """Return the fields that the backbone's class adds to those of any configuration, which change with the library."""
    fields = config.to_dict()
    return {name: fields[name] for name in fields.keys() - PretrainedConfig().to_dict().keys()}


def find_head_type(config: PretrainedConfig) -> str:
    """Return `config.head_type`, also of a checkpoint whose own code is older than the pooled head."""
    return getattr(config, "head_type", "hyper")


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return 16 hex digits of weights (as float32), architecture and normalisation, the same on every machine.

    What only says what a score means (`score_quantiles`; with the hyper head `score_range`) and how patches are chosen
    is not in it.

    Raises:
        RuntimeError: after `prepare_for_scoring`, which changes the weights.
    """
    fields = {name: getattr(model.config, name) for name in FIELDS_OF_HEADS[find_head_type(model.config)]}
    return _fingerprint(model, "", {"model": fields})


def views_fingerprint(model: PreTrainedModel) -> str:
    """Return 16 hex digits of all that a pooled head's statistics depend on besides the image: backbone and views.

    Raises:
        RuntimeError: after `prepare_for_scoring`, which changes the weights.
    """
    processor = model.image_processor
    names = ("whole_views", "num_patches", "sampling", "seed")
    return _fingerprint(model, "backbone.", {"views": {name: getattr(processor, name) for name in names}})


def _fingerprint(model: PreTrainedModel, prefix: str, fields: dict) -> str:
    """Return 16 hex digits of the weights whose names begin with a prefix, of backbone, processor and `fields`."""
    if model.is_prepared_for_scoring:
        raise RuntimeError("a fingerprint is taken before prepare_for_scoring()")
    description = fields | {
        "backbone_type": model.config.backbone_config.model_type,
        "backbone": _backbone_fields(model.config.backbone_config),
        "processor": {name: getattr(model.image_processor, name) for name in PROCESSOR_FIELDS},
    }
    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(prefix) and not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


class UntrustedCodeError(ValueError):
    """Code in a Hub checkpoint that is not ours, and was not allowed.

    Args:
        commit: of the repository, that was looked at; `address` is where its code can be read.
    """

    def __init__(self, name: str, commit: str):
        self.commit, self.address = commit, f"{HfApi().endpoint}/{name}/tree/{commit}"
        self.reason = (
            f"{name} brings code that is not this project's: read it at {self.address}, then allow just that with "
            "--trust_remote_code"
        )
        super().__init__(f"{self.reason} --model_revision {commit}")


def code_hash(path: Path) -> str:
    """Return the SHA-256 of a file of code, whichever line ends it has."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


@cache
def hashes_of_ours() -> dict[str, frozenset[str]]:
    """Return, by file of `HUB_CODE`, the hashes of all its versions that were ever released, and of the one here."""
    lines = [
        line.split() for line in RELEASED_CODE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    return {
        file: frozenset([code_hash(ROOT / file), *(digest for digest, name in lines if name == file)])
        for file in HUB_CODE
    }


def is_code_of_ours(find_file: Callable[[str], str | Path | None]) -> bool:
    """Return whether the code that a checkpoint brings is this project's, of today or of an earlier release.

    Args:
        find_file: the name of a file of the checkpoint -> its path, or None; may raise OSError.
    """
    files = {file: find_file(file) for file in HUB_CODE}
    found = {file: Path(path) for file, path in files.items() if path is not None}
    return MODEL_CODE in found and all(code_hash(path) in hashes_of_ours()[file] for file, path in found.items())


def _choose_code(name: str, revision: str | None, trust_remote_code: bool) -> tuple[Any, dict]:
    """Return the class that loads a Hub checkpoint, with its options: ours, or the repository's if that is allowed."""
    try:
        config = cached_file(name, CONFIG_NAME, revision=revision)
        if config is None:
            raise OSError(f"{name} has no {CONFIG_NAME}")
        commit = Path(config).parent.name  # the cache has a folder a commit
        find_file = hub_code.find_file
        is_ours = is_code_of_ours(partial(find_file, name, revision=commit))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load {name}: {first_line(error)}") from error
    if is_ours:
        return hub_code.HybridIQAModel, {"revision": commit}
    if not trust_remote_code:
        raise UntrustedCodeError(name, commit)
    return AutoModel, {"revision": commit, "code_revision": commit, "trust_remote_code": True}


def _choose_code_of_folder(folder: Path, trust_remote_code: bool) -> tuple[Any, dict]:
    """Return the class that loads a folder: today's where its code is ours, else its own, which is trusted.

    Raises:
        ValueError: its code lies in another repository, which is not.
    """
    if is_code_of_ours(lambda file: folder / file if (folder / file).is_file() else None):
        return hub_code.HybridIQAModel, {}
    fields, _ = PretrainedConfig.get_config_dict(folder)
    classes = fields.get("auto_map") or {}
    elsewhere = [name for name in (classes.values() if isinstance(classes, dict) else [classes]) if "--" in str(name)]
    if elsewhere and not trust_remote_code:
        raise ValueError(
            f"{folder}/{CONFIG_NAME} names code of another repository, {elsewhere[0]}: read it, then allow it with "
            "--trust_remote_code"
        )
    return AutoModel, {"trust_remote_code": True}


def load_model(
    name: str | Path,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """Load a checkpoint from a folder or the Hub, in evaluation mode; its processor is `model.image_processor`.

    Args:
        dtype: default is the checkpoint's, which its `config.json` names.
        trust_remote_code: run the code that a Hub checkpoint brings, where that is not ours; a folder on disk is
            trusted, unless it names code of another repository.
        revision: of a Hub checkpoint: branch, tag or commit.

    Raises:
        ValueError: not a hybridIQA checkpoint, or code that is not trusted.
    """
    options = {"use_safetensors": True} | ({} if dtype is None else {"dtype": dtype})
    if Path(name).is_dir():
        if revision is not None:
            raise ValueError(f"a revision is of a Hub id, got {revision} for the folder {name}")
    elif not HUB_ID.fullmatch(str(name)) or Path(name).exists():
        raise ValueError(f"the model must be a folder or a Hub id like user/name, got {name}")
    try:
        if Path(name).is_dir():
            model_class, code = _choose_code_of_folder(Path(name), trust_remote_code)
        else:
            model_class, code = _choose_code(str(name), revision, trust_remote_code)
        model, loading_info = model_class.from_pretrained(str(name), output_loading_info=True, **code, **options)
    except UntrustedCodeError:
        raise
    except Exception as error:  # whatever is wrong in somebody's files, transformers finds it in its own way
        reason = first_line(error).removeprefix(f"cannot load {name}: ").removeprefix(f"{name}: ")
        raise ValueError(f"cannot load {name}: {reason}") from error
    if model.config.model_type != "hybridiqa":
        raise ValueError(f"{name} holds a model of type {model.config.model_type!r}, accepted is 'hybridiqa'")
    if missing := [key for key in loading_info["missing_keys"] if not key.endswith("num_batches_tracked")]:
        raise ValueError(f"{name} lacks {len(missing)} weights, the first of them {min(missing)}")
    return model.to(device or "cpu").eval()
