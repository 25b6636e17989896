"""What is installed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    *("torch", "torchvision", "transformers", "datasets", "huggingface_hub", "accelerate", "lion-pytorch"),
    *("onnxruntime", "openvino"),
)


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that a score can depend on, and Python's; what is missing is left out."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**versions, "python": platform.python_version()}
