"""HTML of a session, whatever the images are called; what is labelled there, and taken away."""

import json
import os
import shutil
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from factories import make_picture
from page_sessions import FIVE, IMAGES, NAMES, bring, make_session, score_all, zip_of
from PIL import Image, ImageChops
from trials.nasty_inputs import encode

from hybridiqa.models.loading import load_model
from hybridiqa.scores.score_file import ScoreRow, read_scores
from hybridiqa.webapp.fragments import (
    KEYS,
    LADDERS,
    compare_html,
    detail_html,
    failures_html,
    gallery_html,
    label_html,
    status_html,
    url_of,
)
from hybridiqa.webapp.labelling import CHOICES, SKIPPED
from hybridiqa.webapp.model_pool import SharedModels
from hybridiqa.webapp.session import Filter, Session
from hybridiqa.webapp.session_labels import UNDO
from hybridiqa.webapp.session_scores import compare_pairs, describe_score

HOSTILE = [
    "<img src=x onerror=alert(1)>.png",
    "\"onclick='alert(1)' x=\"<script>.png",
    "two\nlines'.png",
    "\u202egnp.&lt;b&gt;.png",
    "day/</ul></dialog><b>.png",
]


class Page(HTMLParser):
    """Elements of some HTML, each with its attributes, and what can be read there."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, attribute: str) -> list[str]:
        """Return the values of an attribute of all elements of a kind."""
        return [attributes[attribute] for name, attributes in self.elements if name == tag and attribute in attributes]

    @property
    def structure(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def say(session: Session, name: str, **values) -> None:
    """Let the model have said other values of an image that is scored."""
    key = (session.scores.model.scorer_id, session.uploads.find_image(name).content_hash)
    result = session.scores.results[key]
    session.scores.results[key] = replace(result, row=replace(result.row, **values))


@pytest.fixture(scope="module")
def models(tiny_checkpoint) -> SharedModels:
    return SharedModels(tiny_checkpoint)


@pytest.fixture
def session(models, tmp_path) -> Session:
    return make_session(tmp_path / "session", models)


@pytest.fixture
def five(session) -> Session:
    """Give a session with five images; the scores of a, b, c, d, e are 5, 4, 3, 2, 1."""
    score_all(bring(session, FIVE))
    for number, name in enumerate(NAMES):
        say(session, name, score=5.0 - number)
    return session


def gallery_of(session: Session, num_shown: int) -> str:
    session.num_shown = num_shown
    return gallery_html(session, session.snapshot())


def pages_of(session: Session, names: list[str]) -> dict[str, Page]:
    """Return all that is shown of five images and of three files that are none."""
    score_all(bring(session, list(zip(names, IMAGES, strict=True))))
    bring(
        session, [(f"{names[0]}.zip", zip_of((f"../{names[1]}", b""))), (f"{names[2]}.zip", b"x"), (names[3], b"<b>")]
    )
    score_all(session)
    image = session.labels.list_next("random")[0].id
    pages = {
        "status": status_html(session.snapshot()),
        "failures": failures_html(session.snapshot()),
        "gallery": gallery_html(session, session.snapshot()),
        "detail": detail_html(session, session.snapshot().kept[1].path),
        "compare": compare_html(session, names),
        "label": label_html(session, "random", session.labels.choose("random", "Artifact/3", image)),
    }
    return {kind: Page(html) for kind, html in pages.items()}


def test_hostile_names_are_shown_and_change_nothing_else(models, tmp_path):
    plain = pages_of(make_session(tmp_path / "plain", models), NAMES)
    hostile = pages_of(make_session(tmp_path / "hostile", models), HOSTILE)
    for kind, page in hostile.items():
        assert page.structure == plain[kind].structure, kind
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert "\u202e" not in page.text
    for kind in ("gallery", "compare"):
        shown = ["<img src=x onerror=alert(1)>.png", r"two\nlines'.png", r"\u202egnp.&lt;b&gt;.png", "dialog><b>.png"]
        assert all(name in hostile[kind].text for name in shown)
        assert not any(name in plain[kind].text for name in shown)
    assert sorted(hostile["gallery"].all("button", "data-name")) == sorted(HOSTILE)  # what a click sends back
    assert set(hostile["detail"].all("button", "data-name")) < set(HOSTILE)
    assert "3 files have no score" in hostile["failures"].text and "'../\"onclick=" in hostile["failures"].text


def test_every_image_has_words_and_is_found_where_it_lies(session):
    pages = pages_of(session, NAMES)
    images = [image for page in pages.values() for tag, image in page.elements if tag == "img"]
    assert len(images) == 5 + 4 + 5 + 1  # gallery, detail, comparison, labelling
    for image in images:
        assert image["alt"].strip()
        assert Path(unquote(image["src"].removeprefix("gradio_api/file="))).is_file()
    assert {name for name in pages["gallery"].all("img", "alt")} == set(NAMES)


def test_the_status_tells_how_far_the_scoring_is(session):
    now = session.snapshot()
    assert "No pictures yet." in Page(status_html(now)).text and not failures_html(now).strip()
    scoring = bring(session, [*FIVE, ("none.zip", b"x")]).scores.run()
    assert " ".join(Page(status_html(session.snapshot())).text.split()) == "0 scored · 1 could not be read · 5 to go"
    next(scoring)
    [bar] = [attributes for tag, attributes in Page(status_html(session.snapshot())).elements if tag == "progress"]
    assert bar["max"] == "5" and int(bar["value"]) >= 1
    assert not list(scoring)[5:] and "progress" not in status_html(session.snapshot())
    assert " ".join(Page(status_html(session.snapshot())).text.split()) == "5 scored · 1 could not be read · 5 kept"


def test_a_gallery_is_best_first_and_grows_at_a_click(five):
    page = Page(gallery_of(five, 2))
    assert page.all("button", "data-name") == NAMES[:2] and "Show more (3 left)" in page.text
    assert len(page.all("button", "data-more")) == 1 and "5.00" in page.text and "3.00" not in page.text
    page = Page(gallery_of(five, 5))
    assert page.all("button", "data-name") == NAMES and not page.all("button", "data-more")


def test_a_gallery_says_why_it_is_empty(session):
    assert "Drop pictures" in gallery_of(session, 5)
    score_all(bring(session, FIVE))
    for filter_ in (Filter(lowest_score=1000.0), Filter(lowest_percentile=1)):
        session.filter = filter_
        assert "The sliders leave no picture" in gallery_of(session, 5)
    session.filter = Filter()
    assert len(Page(gallery_of(session, 5)).all("img", "src")) == 5


def test_what_the_filter_keeps_comes_best_first(five):
    bring(five, [("broken.png", b"x"), ("none.zip", b"x")])
    score_all(five)
    for name, score, percentile in zip(NAMES, (3.0, 8.0, 5.0, 5.0, 1.0), (20, 90, None, 50, 0), strict=True):
        say(five, name, score=score, percentile=percentile)
    assert len(five.snapshot().rows) == 7
    for values, kept in {(): "bcdae", (5.0,): "bcd", (None, 20): "bda", (5.1, 20): "b", (8.1,): ""}.items():
        five.filter = Filter(*values)
        assert [row.path for row in five.snapshot().kept] == [f"{letter}.png" for letter in kept]


def test_a_detail_leads_to_the_neighbours_that_are_kept(five):
    for name, neighbours in {"a.png": ["b.png"], "c.png": ["b.png", "d.png"], "e.png": ["d.png"]}.items():
        assert Page(detail_html(five, name)).all("button", "data-name") == neighbours
    five.filter = Filter(lowest_score=4.0)
    assert Page(detail_html(five, "b.png")).all("button", "data-name") == ["a.png"]
    assert not Page(detail_html(five, "e.png")).all("button", "data-name")


def test_the_worst_and_the_best_patch_are_pixels_of_the_image(session, tiny_checkpoint):
    images = {"large.png": make_picture(150, 100), "low.png": make_picture(40, 20, seed=1)}
    score_all(bring(session, [(name, encode("PNG", image)) for name, image in images.items()]))
    processor = load_model(tiny_checkpoint).image_processor
    for (name, image), side in zip(images.items(), (64, 20), strict=True):  # a low one is enlarged for the model
        detail, scores = session.show_detail(name), session.scores.find_patch_scores(name)
        for path, score in ((detail.worst_path, min(scores)), (detail.best_path, max(scores))):
            left, top, *_ = map(int, processor.patch_boxes(*image.size)[scores.index(score)])
            with Image.open(path) as patch:
                assert abs(patch.width - side) <= 1 and patch.height == side  # edges may lie between two pixels
                shown = image.crop((left, top, left + patch.width, top + side))
                assert not ImageChops.difference(patch, shown).getbbox()
        with Image.open(detail.map_path) as drawn:
            assert drawn.width / drawn.height == pytest.approx(image.width / image.height, abs=0.02)


def test_a_image_that_no_browser_shows_is_shown_as_png(session):
    tiff = make_picture(seed=7)
    bring(session, [("a.TIFF", encode("TIFF", tiff)), FIVE[1]])
    with Image.open(session.files.show_image(session.uploads.find_image("a.TIFF"))) as shown:
        assert shown.format == "PNG" and not ImageChops.difference(shown, tiff).getbbox()
    assert session.files.show_image(session.uploads.find_image("b.png")).read_bytes() == IMAGES[1]
    bring(session, [("called.png", encode("TIFF", make_picture(seed=8)))])
    with Image.open(session.files.show_image(session.uploads.find_image("called.png"))) as shown:
        assert shown.format == "PNG"


def test_a_detail_is_of_the_patches_that_the_model_cuts(session, tiny_checkpoint, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")  # the same weights
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(settings | {"num_patches": 9}))
    score_all(bring(session, FIVE[:1]))
    first = session.show_detail("a.png").map_path
    session.use(session.scores.models.load(str(other)))
    score_all(session)
    second = session.show_detail("a.png").map_path
    assert len(session.scores.find_patch_scores("a.png")) == 9 and second.read_bytes() != first.read_bytes()


def test_the_table_is_one_of_scores(session):
    score_all(bring(session, [('a,"1"\n.png', IMAGES[0]), ("broken.png", b"x"), ("none.zip", b"x")]))
    rows = read_scores(session.show_csv())
    assert rows == sorted(session.snapshot().rows, key=lambda row: row.path)
    assert [row.path for row in rows] == ['a,"1"\n.png', "broken.png", "none.zip"]


def test_kept_images_come_back_as_they_were_under_names_that_lead_nowhere_else(session):
    hostile = ["../../etc/passwd.png", "C:\\x.png", "/abs/y.png", "\\\\server\\z.png", "e.png"]
    score_all(bring(session, list(zip(hostile, IMAGES, strict=True))))
    say(session, "e.png", score=-1000.0)
    session.filter = Filter(lowest_score=-999.0)
    with zipfile.ZipFile(session.show_kept()) as kept:
        read = {name: kept.read(name) for name in kept.namelist()}
    assert read == dict(zip(["etc/passwd.png", "C_/x.png", "y.png", "server/z.png"], IMAGES, strict=False))
    session.filter = Filter(lowest_score=9000.0)
    with pytest.raises(ValueError, match="no picture is kept"):
        session.show_kept()


def test_kept_images_never_share_a_name_and_may_be_older_than_zip(session, tmp_path):
    score_all(bring(session, list(zip(["a.png", "../a.png", "a/b.png", "a\\b.png", ".."], IMAGES, strict=True))))
    for image in session.uploads.images.values():
        os.utime(image.path, (0, 0))
    with zipfile.ZipFile(session.show_kept()) as kept:
        assert sorted(kept.namelist()) == ["a.png", "a/b.png", "a/b_2.png", "a_2.png", "picture"]
        assert sorted(map(kept.read, kept.namelist())) == sorted(IMAGES)


def test_what_cannot_be_shown_is_labelled_without_naming_a_path_of_the_server(session):
    bring(session, [("notes.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")])
    shown = Page(label_html(session, "random"))
    assert "To be labelled: notes.svg: not an image that Pillow knows, but an SVG drawing" in shown.text
    assert str(session.folder.path) not in label_html(session, "random") and not shown.all("img", "src")


def test_a_record_of_labels_that_cannot_be_read_is_said_where_labels_are_given(five):
    five.labels.folder.record_path.parent.mkdir(parents=True)
    five.labels.folder.record_path.mkdir()
    assert "cannot read the record of labels" in Page(label_html(five, "random")).text


def test_a_comparison_needs_two_images_with_scores(five):
    assert "Choose two or more pictures" in compare_html(five, ["a.png"])
    page = Page(compare_html(five, ["c.png", "a.png"]))
    assert page.all("img", "alt") == ["a.png", "c.png"] and "2.00" in page.text
    bring(five, [("new.png", encode("PNG", make_picture(seed=9)))])
    with pytest.raises(ValueError, match=r"'new\.png' has no score$"):
        compare_html(five, ["a.png", "new.png"])


def test_pairs_hold_the_better_one_first_and_the_larger_score_std():
    low, middle, high = ScoreRow("l", 2.0, 0.25), ScoreRow("m", 3.0, 1.0), ScoreRow("h", 4.5, 0.5)
    pairs = [(pair.better, pair.worse, pair.difference, pair.score_std) for pair in compare_pairs([low, high, middle])]
    assert pairs == [(high, middle, 1.5, 1.0), (high, low, 2.5, 0.5), (middle, low, 1.0, 1.0)]
    assert [pair.exceeds_std for pair in compare_pairs([low, high, middle])] == [True, True, False]
    assert not compare_pairs([low])


@pytest.mark.parametrize(
    ("score_range", "words"),
    [
        ((1, 9), {-50.0: "poor", 1.0: "poor", 2.59: "poor", 2.61: "weak", 4.19: "weak", 5.0: "fair", 5.79: "fair"}),
        ((1, 9), {5.81: "good", 7.39: "good", 7.41: "excellent", 9.0: "excellent", 50.0: "excellent"}),
        ((0, 100), {19.9: "poor", 20.0: "weak", 80.0: "excellent"}),
    ],
)
def test_words_are_fifths_of_the_scale_and_hold_beyond_its_ends(score_range, words):
    assert {score: describe_score(ScoreRow("a.png", score=score), score_range) for score in words} == words


def test_an_address_quotes_what_would_end_or_change_it():
    path = '/tmp/a b/100%/#1?x="é部.png'
    address = url_of(Path(path))
    assert address == "gradio_api/file=/tmp/a%20b/100%25/%231%3Fx%3D%22%C3%A9%E9%83%A8.png"
    assert unquote(address.removeprefix("gradio_api/file=")) == path


def test_every_choice_has_a_button_and_a_key_of_its_own(session):
    choices = [choice for ladder in LADDERS.values() for choice, _ in ladder]
    assert sorted(choices) == sorted(KEYS) == sorted([*CHOICES, UNDO]) and len(set(KEYS.values())) == len(KEYS)
    page = Page(label_html(session, "random"))
    assert page.all("button", "data-choice") == choices
    assert page.all("button", "aria-keyshortcuts") == [KEYS[choice] for choice in choices]


def test_the_score_of_a_image_is_told_after_the_choice_alone(session):
    before = label_html(bring(session, FIVE), "random")
    score_all(session)
    assert label_html(session, "random") == before  # what the model says changes nothing
    image = session.labels.list_next("random")[0]
    say(session, image.name, score=6.54, score_std=0.32)
    assert label_html(session, "random") == before
    message = session.labels.choose("random", "Perfect/2", image.id)
    assert message == f"{image.name}: Perfect 2 (score 4). The model says 6.54 (good), spread 0.32."
    page = Page(label_html(session, "random", message))
    assert message in page.text and "1 labelled · 0 skipped · 4 to go" in page.text
    assert page.all("img", "alt") != [f"To be labelled: {image.name}"]


def test_labelling_tells_what_was_done_and_what_cannot_be(session):
    first, second = bring(session, FIVE[:2]).labels.list_next("random")
    assert session.labels.choose("random", UNDO, "") == "There is nothing to undo."
    not_scored = f"{first.name}: Artifact 1 (score 1). The model has not scored it yet."
    assert session.labels.choose("random", "Artifact/1", first.id) == not_scored
    assert session.labels.choose("random", SKIPPED, second.id).startswith(f"{second.name}: ")
    assert "All pictures are labelled." in label_html(session, "random")
    assert session.labels.choose("random", UNDO, "").startswith(f"Taken back: {second.name}, ")
    assert Page(label_html(session, "random")).all("div", "data-picture") == [second.id]
    with pytest.raises(ValueError, match="that picture is no longer here"):
        session.labels.choose("random", "8", "another picture")
