"""Divide pictures into train, validation and test so that no group of related pictures stands on two sides."""

import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import median


def _check(scores: Sequence[float], groups: Sequence[str], fractions: Sequence[float]) -> None:
    if len(scores) != len(groups):
        raise ValueError(f"got {len(scores)} scores and {len(groups)} groups; one of each per picture is accepted")
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"got the fractions {list(fractions)}; none below 0 and a sum of 1 are accepted")
    num_needed = sum(fraction > 0 for fraction in fractions)
    if len(set(groups)) < num_needed:
        raise ValueError(f"got {len(set(groups))} groups; {num_needed} splits need at least {num_needed} groups")


def _deal(sizes: Sequence[int], fractions: Sequence[float]) -> list[list[int]]:
    """Give each group, in the order that it comes, to the split that lags most behind its share of pictures."""
    dealt = [[] for _ in fractions]
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
    """Few groups can leave a small split without any: it gets one from the split that has most."""
    for split, fraction in zip(dealt, fractions, strict=True):
        if fraction > 0 and not split:
            donor = max(dealt, key=len)
            split.append(donor.pop(rng.randrange(len(donor))))


def split_by_group(
    scores: Sequence[float], groups: Sequence[str], fractions: Sequence[float], seed: int
) -> list[list[int]]:
    """One ascending list of indices for each fraction; the members of a group always share a list.

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
