"""Subsets of a dataset's images by a regular expression in their paths."""

import re

import pytest

from hybridiqa.evaluation.subsets import assign_subsets, read_patterns


def test_group_1_names_the_subset_and_without_groups_the_whole_match_does():
    paths = ["ss01 (2).jpg", "ss03 (7805).jpg", "other.jpg", "folder/ss02 (1).jpg"]
    assert assign_subsets(re.compile(r"^(ss\d+) "), paths, "biq2021") == ["ss01", "ss03", None, None]
    assert assign_subsets(re.compile(r"ss\d+"), paths, "biq2021") == ["ss01", "ss03", None, "ss02"]


def test_a_group_that_is_empty_or_has_no_part_in_the_match_names_no_subset():
    assert assign_subsets(re.compile("^(a)?(b)?c"), ["ac", "bc", "c"], "mine") == ["a", None, None]
    assert assign_subsets(re.compile("^(a*)"), ["b", "aab"], "mine") == [None, "aa"]


def test_a_pattern_that_finds_no_subset_is_refused_with_a_path():
    with pytest.raises(ValueError, match=r"'\^x' finds no subset in the paths of mine, such as 'a\.png'"):
        assign_subsets(re.compile("^x"), ["a.png", "b.png"], "mine")


def test_a_pattern_is_for_the_dataset_that_it_names_or_for_all_others():
    patterns = read_patterns(["b=^(x=.)", "(?=y)y"], ["a", "b", "c"])
    assert {name: pattern.pattern for name, pattern in patterns.items()} == {
        "a": "(?=y)y",
        "b": "^(x=.)",
        "c": "(?=y)y",
    }
    assert list(read_patterns(["b=z"], ["a", "b"])) == ["b"]
    assert read_patterns([], ["a"]) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a=1", "a=2"], "two regular expressions for a: 'a=2' is one"),
        (["1", "2"], "two regular expressions for all datasets: '2' is one"),
        (["a=("], r"--subsets '\(' is no regular expression: "),
    ],
)
def test_two_patterns_for_one_dataset_and_no_pattern_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read_patterns(given, ["a"])
