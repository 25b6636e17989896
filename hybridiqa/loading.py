"""The model and its classes, loaded the way users load them: through the Auto classes and the Hub files."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import AutoModel, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging as transformers_logging

ROOT = Path(__file__).resolve().parent.parent  # itself a Hub repository, with the embedded checkpoint


def silence_libraries() -> None:
    """No bars of transformers and no retries of the Hub's client in what a door prints."""
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()


def first_line(error: Exception) -> str:
    """What went wrong, without the paragraphs that libraries add."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def hub_class(name: str) -> type:
    """A class of this repository's Hub files, such as `modeling_hybridiqa.HybridIQAModel`."""
    return get_class_from_dynamic_module(name, str(ROOT))


def import_optional(name: str) -> ModuleType:
    """A library of `requirements-optional.txt`, which is asked for only where it is used.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"this needs {name}: pip install -r requirements-optional.txt ({first_line(error)})"
        ) from error


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, by default cuda, then mps, then cpu.

    Raises:
        ValueError: a device that this machine lacks.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind, is_there in available.items() if is_there))
    usable = ", ".join(kind for kind, is_there in available.items() if is_there)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} cannot be used here, accepted is {usable}") from error
    if not available.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ValueError(f"--device {name} cannot be used here, accepted is {usable}")
    return device


def load_model(
    name: str | Path,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A checkpoint from a folder or the Hub, in evaluation mode; its image processor is `model.image_processor`.

    Args:
        dtype: default is the checkpoint's, which its `config.json` names.
        trust_remote_code: the Hub's checkpoints bring code, which runs only with this; a folder on disk is trusted.

    Raises:
        ValueError: not a hybridIQA checkpoint, or code that is not trusted.
    """
    is_folder = Path(name).is_dir()
    if not is_folder and (str(name).count("/") != 1 or Path(name).exists()):
        raise ValueError(f"the model must be a folder or a Hub id like user/name, got {name}")
    if not is_folder and not trust_remote_code:
        raise ValueError(
            f"{name} comes from the Hub with code of its own: read it, then allow it with --trust_remote_code"
        )
    options = {} if dtype is None else {"dtype": dtype}
    try:
        model, loading_info = AutoModel.from_pretrained(
            str(name), trust_remote_code=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load {name}: {first_line(error)}") from error
    if model.config.model_type != "hybridiqa":
        raise ValueError(f"{name} holds a model of type {model.config.model_type!r}, accepted is 'hybridiqa'")
    if missing := [key for key in loading_info["missing_keys"] if not key.endswith("num_batches_tracked")]:
        raise ValueError(f"{name} lacks {len(missing)} weights, the first of them {min(missing)}")
    return model.to(device or "cpu").eval()
