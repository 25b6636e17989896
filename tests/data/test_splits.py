"""Splits that keep related images together."""

import random
from collections import Counter

import pytest

from hybridiqa.data.splits import split_by_group


def test_every_image_is_in_one_split_and_no_group_straddles():
    rng = random.Random(0)
    groups = [f"group{rng.randrange(60)}" for _ in range(500)]
    scores = [rng.uniform(1, 9) for _ in groups]
    splits = split_by_group(scores, groups, (0.7, 0.2, 0.1), seed=1)
    assert sorted(index for split in splits for index in split) == list(range(500))
    group_sets = [{groups[index] for index in split} for split in splits]
    assert not (group_sets[0] & group_sets[1] or group_sets[0] & group_sets[2] or group_sets[1] & group_sets[2])


def test_each_score_is_divided_by_the_fractions():
    scores = [score for score in range(1, 10) for _ in range(50)]
    splits = split_by_group(scores, [str(index) for index in range(450)], (0.8, 0.1, 0.1), seed=0)
    assert [len(split) for split in splits] == [360, 45, 45]
    for split, expected in zip(splits, (40, 5, 5), strict=True):
        counts = Counter(scores[index] for index in split)
        assert all(abs(counts[score] - expected) <= 1 for score in range(1, 10))


def test_groups_of_mixed_scores_are_divided_by_the_fractions():
    scores = [score for _ in range(40) for score in (1, 2, 3, 4, 5, 7)]
    groups = [f"g{index // 6}" for index in range(240)]
    splits = split_by_group(scores, groups, (0.8, 0.1, 0.1), seed=0)
    assert [len(split) for split in splits] == [192, 24, 24]


def test_the_seed_decides_and_the_order_of_the_input_does_not():
    scores = [index % 9 + 1 for index in range(90)]
    groups = [f"g{index}" for index in range(90)]

    def members(order: list[int], seed: int) -> list[set[str]]:
        splits = split_by_group([scores[i] for i in order], [groups[i] for i in order], (0.6, 0.2, 0.2), seed)
        return [{groups[order[index]] for index in split} for split in splits]

    forward, backward = list(range(90)), list(range(89, -1, -1))
    assert members(forward, 5) == members(forward, 5) == members(backward, 5)
    assert members(forward, 5) != members(forward, 6)


def test_no_wanted_split_is_empty_however_few_the_groups():
    for num_groups in range(3, 12):
        splits = split_by_group([5.0] * num_groups, [str(i) for i in range(num_groups)], (0.9, 0.05, 0.05), seed=0)
        assert all(splits)
    assert split_by_group([1, 2], ["a", "b"], (0.5, 0.5, 0), seed=0)[2] == []


def test_too_few_groups_and_wrong_fractions_are_refused():
    with pytest.raises(ValueError, match="got 2 groups; 3 splits need at least 3 groups"):
        split_by_group([1, 2, 3], ["a", "a", "b"], (0.8, 0.1, 0.1), seed=0)
    with pytest.raises(ValueError, match="a sum of 1"):
        split_by_group([1, 2], ["a", "b"], (0.8, 0.1), seed=0)
    with pytest.raises(ValueError, match="got 1 scores and 2 groups"):
        split_by_group([1], ["a", "b"], (1.0,), seed=0)
