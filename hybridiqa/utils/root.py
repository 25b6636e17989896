"""Folder of the Hub files and the embedded checkpoint, and what can be read there without loading torch."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any


def find_root() -> Path:
    """Return the folder that is itself a Hub repository: the Hub files, the scripts and the embedded checkpoint."""
    return Path(__file__).resolve().parents[2]


ROOT = find_root()


@cache
def hub_constant(file: str, name: str) -> Any:
    """Return a constant of a Hub file, such as `image_processing_hybridiqa` and `SAMPLINGS`.

    The file is read and not imported, as importing it loads torch, which takes seconds. The constant must be a literal.
    """
    statements = ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8")).body
    assigned = {ast.unparse(node.targets[0]): node.value for node in statements if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned[name])
