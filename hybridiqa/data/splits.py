"""Splits (train, validation, test) in which no group of related images stands on two sides."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from hybridiqa.data.folders import ScoredImage

SPLIT_NAMES = ("train", "validation", "test")


def _check(scores: Sequence[float], groups: Sequence[str], fractions: Sequence[float]) -> None:
    if len(scores) != len(groups):
        raise ValueError(f"got {len(scores)} scores and {len(groups)} groups; one of each per image is accepted")
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"got the fractions {list(fractions)}; none below 0 and a sum of 1 are accepted")
    num_needed = sum(fraction > 0 for fraction in fractions)
    if len(set(groups)) < num_needed:
        raise ValueError(f"got {len(set(groups))} groups; {num_needed} splits need at least {num_needed} groups")


def _deal(sizes: Sequence[int], fractions: Sequence[float]) -> list[list[int]]:
    """Give each group, in the order that it comes, to the split that lags most behind its share of images."""
    dealt: list[list[int]] = [[] for _ in fractions]
    num_dealt = [0] * len(fractions)
    num_seen = 0
    for position, size in enumerate(sizes):
        num_seen += size
        lags = [f * num_seen - n if f > 0 else float("-inf") for f, n in zip(fractions, num_dealt, strict=True)]
        split = lags.index(max(lags))
        dealt[split].append(position)
        num_dealt[split] += size
    return dealt


def _fill_empty_splits(dealt: list[list[int]], fractions: Sequence[float], rng: random.Random) -> None:
    """Give a split that few groups left without any one from the split that has most."""
    for split, fraction in zip(dealt, fractions, strict=True):
        if fraction > 0 and not split:
            donor = max(dealt, key=len)
            split.append(donor.pop(rng.randrange(len(donor))))


def split_by_group(
    scores: Sequence[float], groups: Sequence[str], fractions: Sequence[float], seed: int
) -> list[list[int]]:
    """Return one ascending list of indices for each fraction; the members of a group always share a list.

    Groups are shuffled by the seed, put in the order of their median score and dealt out along it, so that each split
    gets its share of every stratum as well as groups permit. Which group goes where depends on the names, scores and
    seed, not on the order of the input. Raises ValueError for fractions that do not sum to 1, and where there are
    fewer groups than splits with a fraction above 0.
    """
    _check(scores, groups, fractions)
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    rng = random.Random(seed)
    names = sorted(members)
    rng.shuffle(names)
    names.sort(key=lambda name: median(scores[index] for index in members[name]))  # stable: ties stay shuffled
    dealt = _deal([len(members[name]) for name in names], fractions)
    _fill_empty_splits(dealt, fractions, rng)
    return [sorted(index for position in split for index in members[names[position]]) for split in dealt]


def paths_of_groups(records: list[ScoredImage], patterns: dict[str, str | None]) -> dict[str, set[str]]:
    """Return the relative paths of the images whose whole group names match a pattern, by split.

    Args:
        patterns: regular expressions by the name of their split; splits without one are left out.

    Raises:
        ValueError: a pattern that matches no group.
    """
    named = {}
    for name, pattern in patterns.items():
        if pattern is None:
            continue
        named[name] = {record.relative_path for record in records if re.fullmatch(pattern, record.group)}
        if not named[name]:
            raise ValueError(f"no group matches --{name}_groups {pattern!r} whole (one is {records[0].group!r})")
    return named


def _split_records(records: list[ScoredImage], shares: dict[str, float], seed: int) -> dict[str, list[ScoredImage]]:
    """Return records by split name: those of the shares, and what is left as train."""
    fractions = [1 - sum(shares.values()), *shares.values()]
    indices = split_by_group([r.score for r in records], [r.group for r in records], fractions, seed)
    names = [SPLIT_NAMES[0], *shares]
    return {name: [records[index] for index in split] for name, split in zip(names, indices, strict=True)}


def _in_order(splits: dict[str, list[ScoredImage]]) -> dict[str, list[ScoredImage]]:
    """Return the splits that are not empty, train first."""
    return {name: splits[name] for name in SPLIT_NAMES if splits[name]}


def split_at_random(
    records: list[ScoredImage], shares: dict[str, float], named: dict[str, set[str]], seed: int
) -> dict[str, list[ScoredImage]]:
    """Return records by split name; a split whose share is 0 is left out.

    Args:
        shares: of `validation` and `test`, 0-1.
        named: paths of images whose groups become a split whatever its share, see `paths_of_groups`; a group of two
            splits goes to the first of them.
    """
    splits = {}
    for name, paths in named.items():
        groups = {record.group for record in records if record.relative_path in paths}
        splits[name] = [record for record in records if record.group in groups]
        records = [record for record in records if record.group not in groups]
    shares = {name: share for name, share in shares.items() if name not in named}
    return _in_order(splits | _split_records(records, shares, seed))


def split_as_published(
    records: list[ScoredImage], official: dict[str, str], validation_share: float, seed: int
) -> dict[str, list[ScoredImage]]:
    """Return records as the database's authors split them; validation is taken from their train split if need be.

    Args:
        official: split names by relative path.
    """
    splits = {name: [r for r in records if official.get(r.relative_path) == name] for name in SPLIT_NAMES}
    if not splits["validation"] and validation_share:
        splits |= _split_records(splits["train"], {"validation": validation_share}, seed)
    return _in_order(splits)
