"""Device that a program computes on. Importing this loads no torch."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, by default cuda, then mps, then cpu.

    Raises:
        ValueError: a device that this machine lacks.
    """
    import torch

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


def find_device_name(device: torch.device) -> str:
    """Return the GPU's or the processor's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
