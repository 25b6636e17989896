"""Subsets of a dataset's images, told by a regular expression in their paths: `benchmark.py ranking --subsets`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--subsets {pattern!r} is no regular expression: {error}") from error


def read_patterns(given: Sequence[str], datasets: Collection[str]) -> dict[str, re.Pattern[str]]:
    """Return the pattern of every dataset that has one.

    Args:
        given: `NAME=REGEX` for one dataset, or `REGEX` for all that have none of their own.
        datasets: their names.

    Raises:
        ValueError: two patterns for the same, or what is no regular expression.
    """
    patterns: dict[str | None, re.Pattern[str]] = {}
    for text in given:
        name = next((name for name in datasets if text.startswith(f"{name}=")), None)
        if name in patterns:
            raise ValueError(f"--subsets has two regular expressions for {name or 'all datasets'}: {text!r} is one")
        patterns[name] = _compile(text if name is None else text.removeprefix(f"{name}="))
    chosen = {name: patterns.get(name) or patterns.get(None) for name in datasets}
    return {name: pattern for name, pattern in chosen.items() if pattern is not None}


def assign_subsets(pattern: re.Pattern[str], paths: Sequence[str], dataset: str) -> list[str | None]:
    """Return the subset of each image: group 1 of what the pattern finds in its path, or all of it without groups.

    An image whose path has no match is in no subset: None.

    Args:
        dataset: its name, for the error.

    Raises:
        ValueError: no image is in a subset.
    """
    matches = [pattern.search(path) for path in paths]
    subsets = [(match and match.group(1 if pattern.groups else 0)) or None for match in matches]
    if not any(subsets):
        example = f", such as {paths[0]!r}" if paths else ""
        raise ValueError(f"--subsets {pattern.pattern!r} finds no subset in the paths of {dataset}{example}")
    return subsets
