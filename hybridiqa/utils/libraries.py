"""Libraries of others: what they print, what their errors say, which are there and in which versions."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

LIBRARIES = (
    *("torch", "torchvision", "transformers", "datasets", "huggingface_hub", "accelerate", "lion-pytorch"),
    *("onnxruntime", "openvino"),
)


def silence_libraries() -> None:
    """Keep bars of transformers and retries of the Hub's client out of what a command prints."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()


def first_line(error: Exception) -> str:
    """Return what went wrong, without the paragraphs that libraries add."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first


def import_optional(name: str, install: str = "pip install -r requirements-optional.txt") -> ModuleType:
    """Import a library that is asked for only where it is used.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"this needs {name}: {install} ({first_line(error)})") from error


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of those libraries, where they are there, that a score can depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**versions, "python": platform.python_version()}
