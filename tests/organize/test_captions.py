"""The quality tag of a caption: one of a set, everything else as it was."""

import pytest

from hybridiqa.organize.captions import check_tags, retag
from hybridiqa.organize.journal import apply_splices, reverse_splices

TAGS = ("worst quality", "low quality", "good", "best quality")


def tagged(caption: bytes, tag: str = "good", position: str = "first") -> bytes:
    splices = retag(caption, tag, TAGS, position)
    new = apply_splices(caption, splices)
    assert apply_splices(new, reverse_splices(splices)) == caption
    assert retag(new, tag, TAGS, position) == []
    return new


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (b"", b"good"),
        (b"\n", b"good\n"),
        (b"1girl, solo\n", b"good, 1girl, solo\n"),
        (b"1girl,solo", b"good,1girl,solo"),
        (b"A girl on a hill.", b"good, A girl on a hill."),
        (b"\xef\xbb\xbf1girl,  solo\r\n", b"\xef\xbb\xbfgood,  1girl,  solo\r\n"),
        ("少女, 😀\n".encode(), "good, 少女, 😀\n".encode()),
    ],
)
def test_a_caption_without_a_quality_tag_gets_it_first(caption, expected):
    assert tagged(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (b"1girl, solo\n", b"1girl, solo, good\n"),
        (b"1girl,solo", b"1girl,solo,good"),
        (b"1girl, solo,\n", b"1girl, solo, good\n"),
        (b"", b"good"),
    ],
)
def test_or_last_where_that_is_asked_for(caption, expected):
    assert tagged(caption, position="last") == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (b"1girl, best quality, solo", b"1girl, good, solo"),
        (b"1girl,  Best_Quality ,solo\r\n", b"1girl,  good ,solo\r\n"),
        (b"low quality, 1girl, worst_quality, solo, best quality", b"good, 1girl, solo"),
        (b"1girl\nbest quality, solo", b"1girl\ngood, solo"),
        (b"low quality\nbest quality, solo", b"good\nsolo"),
        (b"low quality\nbest quality\nsolo", b"good\nsolo"),
        (b"\xef\xbb\xbfworst quality", b"\xef\xbb\xbfgood"),
    ],
)
def test_the_first_quality_tag_is_replaced_and_others_go(caption, expected):
    assert tagged(caption) == expected


@pytest.mark.parametrize("caption", [b"1girl, Good, solo", b" good ", b"best qualities, good"])
def test_a_caption_that_has_the_tag_stays_as_it_is(caption):
    assert tagged(caption) == caption


def test_tags_that_only_contain_a_quality_tag_are_other_tags():
    assert tagged(b"good girl, (best quality:1.2)") == b"good, good girl, (best quality:1.2)"


@pytest.mark.parametrize("caption", [b"\xff\xfeg\0o\0", "gut, schön".encode("latin-1"), b"g\0o\0o\0d\0"])
def test_what_is_not_utf_8_is_refused(caption):
    with pytest.raises(ValueError, match="not a caption in UTF-8"):
        retag(caption, "good", TAGS)


@pytest.mark.parametrize("tags", [["a,b"], [""], [" a"], ["a\nb"], ["_"]])
def test_a_tag_that_a_caption_cannot_hold_is_refused(tags):
    with pytest.raises(ValueError, match="a tag is a word"):
        check_tags(tags)


def test_tags_that_a_caption_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="must differ"):
        check_tags(["best quality", "Best_Quality"])
    check_tags(TAGS)
