"""Old place of `dataset_on_device` and `load_resident`, for one release: they are in `hybridiqa.data.loading`."""

from __future__ import annotations

import warnings
from typing import Any

MOVED = ("dataset_on_device", "load_resident")


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hybridiqa.data import loading

    text = f"hybridiqa.dataset_loading.{name} has moved to hybridiqa.data.loading.{name}"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(loading, name)
