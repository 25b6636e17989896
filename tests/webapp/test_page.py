"""The real page in a headless browser: images in, scores, sliders, detail, downloads, comparison, labels."""

import csv
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from factories import make_picture, make_tiny_model
from page_server import open_browser, page_in_process, page_server

from hybridiqa.commands import prepare_dataset
from hybridiqa.commands import score as score_command
from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.root import ROOT

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
SLOW = 60_000  # milliseconds, for a page that starts or scores on a busy machine


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Make a folder of the eight examples, one cut short and a web page that is called an image; give its files."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted((ROOT / "examples").glob("*.png")):
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes((ROOT / "examples/lake_clean.png").read_bytes()[:5000])
    (folder / "web page.jpg").write_text("<!DOCTYPE html><html><script>alert(1)</script></html>")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def embedded(browser, embedded_page) -> str:
    """Give the address of the page with the embedded checkpoint."""
    return embedded_page


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """Give the folder to which the page with the tiny model copies labelled images."""
    return tmp_path_factory.mktemp("tiny") / "labels"


@pytest.fixture(scope="module")
def tiny(browser, tiny_checkpoint, labels):
    """Serve a page with a tiny model; give its address."""
    with page_in_process(labels.parent, "--model", tiny_checkpoint, "--labels", labels) as address:
        yield address


class User:
    """A tab, and what a person does there; an error in the browser fails the test."""

    def __init__(self, browser, address: str, viewport: dict = WIDE, **options):
        self.context = browser.new_context(viewport=viewport, **options)
        self.tab = self.context.new_page()
        self.errors, self.addresses = [], []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.addresses.append(request.url))
        self.tab.goto(address)
        self.status = self.tab.locator("#status [role=status]")
        self.status.wait_for(timeout=SLOW)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        assert kind or self.errors == []

    def upload(self, paths, until: str) -> None:
        self.tab.locator("input[type=file]").first.set_input_files([str(path) for path in paths])
        self.wait_for_status(until)

    def wait_for_status(self, text: str) -> None:
        self.status.filter(has_text=text).wait_for(timeout=SLOW)

    def gallery(self) -> list[str]:
        return [button.get_attribute("data-name") for button in self.tab.locator("#gallery .gallery button").all()]

    def scores(self) -> list[float]:
        return [float(text) for text in self.tab.locator("#gallery .caption b").all_inner_texts()]

    def slide(self, label: str, value: float | str) -> None:
        number = self.tab.get_by_label(f"number input for {label}")
        number.fill(str(value))
        number.press("Enter")

    def download(self, button: str, folder: Path) -> Path:
        with self.tab.expect_download(timeout=SLOW) as waiting:
            self.tab.get_by_role("button", name=button).click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def go_to(self, name: str) -> None:
        self.tab.get_by_role("tab", name=name).click()

    def image_id(self) -> str:
        """Return the id of the image that is to be labelled."""
        return self.tab.locator(".label").get_attribute("data-picture")

    def press(self, key: str) -> str:
        """Press a key on the label view, and wait for the next image; return what the page says."""
        before = self.image_id()
        self.tab.keyboard.press(key)
        self.tab.wait_for_function(
            "before => document.querySelector('.label').dataset.picture !== before", arg=before, timeout=SLOW
        )
        return self.tab.locator(".label [role=status]").inner_text()


def test_ten_images_of_which_two_are_broken_are_scored_sorted_filtered_and_downloaded(
    browser, embedded, images, tmp_path
):
    with User(browser, embedded) as user:
        user.upload(images, until="8 scored · 2 could not be read · 8 kept")
        shown = dict(zip(user.gallery(), user.scores(), strict=True))
        assert len(shown) == 8 and list(shown.values()) == sorted(shown.values(), reverse=True)
        assert shown["portrait_clean.png"] == 6.23 and shown["lake_noise.png"] == 2.54  # as the README has them
        reasons = user.tab.locator("#failures li").all_inner_texts()
        assert reasons == [
            "broken.png: image file is truncated",
            "web page.jpg: not an image that Pillow knows, but a web page",
        ]

        user.slide("Keep scores from", 3.2)
        user.wait_for_status("4 kept")
        kept = user.gallery()
        assert kept == list(shown)[:4]
        user.slide("Keep percentiles from", 80)
        user.wait_for_status("2 kept")
        assert user.gallery() == kept[:2]
        user.slide("Keep percentiles from", "")
        user.wait_for_status("4 kept")
        user.tab.get_by_label("range slider for Keep scores from").press("ArrowLeft")  # 0.05 a step
        user.slide("Keep scores from", "")
        user.wait_for_status("8 kept")
        user.slide("Keep scores from", 3.2)
        user.wait_for_status("4 kept")

        user.tab.locator("#gallery .gallery button").first.click()
        dialog = user.tab.get_by_role("dialog", name="portrait_clean.png")
        dialog.wait_for(timeout=SLOW)
        assert "6.23 good · spread 2.26 · percentile 88 · 512 × 512" in dialog.locator("header").inner_text()
        captions = dialog.locator("figcaption").all_inner_texts()
        assert captions == [
            *("The picture", "Scores of its patches, red for 1, blue for 9", "Scores of 25 patches"),
            *("Best patch 10.18", "Worst patch 1.59"),
        ]
        sizes = dialog.locator("img").evaluate_all(
            "images => Promise.all(images.map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
        )
        assert sizes == [[512, 512], [1024, 1024], [128, 128], [128, 128]]
        counts = [text.split(": ")[1] for text in dialog.locator(".histogram li").all_text_contents()]
        assert sum(map(int, counts)) == 25
        user.tab.keyboard.press("ArrowRight")
        user.tab.get_by_role("dialog", name=kept[1]).wait_for(timeout=SLOW)
        user.tab.keyboard.press("Escape")

        table = user.download("Download all scores (CSV)", tmp_path)
        rows = {row.path: row for row in read_scores(table)}
        assert len(rows) == 10 and {path for path, row in rows.items() if row.error} == {"broken.png", "web page.jpg"}
        assert {path: round(rows[path].score, 2) for path in shown} == shown
        with zipfile.ZipFile(user.download("Download what is kept (zip)", tmp_path)) as archive:
            assert sorted(archive.namelist()) == sorted(kept)
            for name in kept:
                assert archive.read(name) == (ROOT / "examples" / name).read_bytes()
        assert {re.match(r"\w+://[^/]+", url)[0] for url in user.addresses if url.startswith("http")} == {
            embedded.rstrip("/")
        }  # nothing leaves the machine


def test_the_page_gives_the_scores_of_the_command_line(browser, embedded, images, tmp_path):
    # The last bit depends on the number of threads; pytest has the page's.
    options = ["--num_workers", "0", "--output", str(tmp_path / "scored.csv")]
    assert score_command.main([str(images[0].parent), *options]) == 1  # two are broken
    with User(browser, embedded) as user:
        user.upload(images, until="8 kept")
        rows = read_scores(user.download("Download all scores (CSV)", tmp_path))
    by_script = {Path(row.path).name: row for row in read_scores(tmp_path / "scored.csv")}
    for row in rows:
        theirs = by_script[row.path]
        assert (row.score, row.score_std, row.percentile) == (theirs.score, theirs.score_std, theirs.percentile)
        assert (row.width, row.error, row.scorer) == (theirs.width, theirs.error, theirs.scorer)


def test_ten_images_are_labelled_by_keyboard_two_undone_the_page_reloaded_and_the_folder_read(
    browser, tiny, labels, tmp_path, capsys
):
    sources = {}
    for number in range(10):
        path = tmp_path / f"image {number}.png"
        make_picture(80, 72, seed=number).save(path)
        sources[path.name] = path.read_bytes()
    with User(browser, tiny) as user:
        user.go_to("Label")
        user.upload([tmp_path / name for name in sources], until="10 scored")
        user.tab.locator(".label img").wait_for(timeout=SLOW)
        assert not re.search(r"\d\.\d\d", user.tab.locator("#label").inner_text())  # no score before the choice
        said = [user.press(key) for key in ("1", "5", "q", "t", "8", "9")]
        assert "Artifact 1 (score 1). The model says" in said[0] and "Perfect 5 (score 7)" in said[3]
        assert re.search(r"The model says -?\d+\.\d\d \(\w+\), spread", said[5])
        undone = [user.press("u"), user.press("u")]
        assert "4 labelled" in undone[1] and "Taken back" in undone[1]
        on_screen = user.image_id()
        user.tab.reload()
        user.wait_for_status("10 scored")
        user.go_to("Label")
        user.tab.locator(".label img").wait_for(timeout=SLOW)
        assert user.image_id() == on_screen
        said = [user.press(key) for key in ("2", "s", "w", "e", "3")]
        assert "skipped" in said[1] and "8 labelled · 1 skipped · 1 to go" in said[-1]
        assert "All pictures are labelled" in (user.press("9"), user.tab.locator(".label").inner_text())[1]

    copies = {path.relative_to(labels).as_posix() for path in labels.rglob("*.png")}
    bins = sorted(str(Path(copy).parent) for copy in copies)
    assert bins == [
        *(f"{n}" for n in (9,)),
        *(f"Artifact/{n}" for n in (1, 2, 3, 5)),
        *(f"Perfect/{n}" for n in (1, 2, 3, 5)),
    ]
    assert all((labels / copy).read_bytes() == sources[Path(copy).name] for copy in copies)
    assert all((tmp_path / name).read_bytes() == data for name, data in sources.items())
    capsys.readouterr()
    assert prepare_dataset.main([str(labels), "--output_dir", str(tmp_path / "prepared")]) == 0
    output = capsys.readouterr().out
    assert "Perfect/5: 1" in output and "without a score: 0" in output and "other files: 0" in output


def test_images_are_compared_by_keyboard(browser, tiny, tmp_path):
    for number in range(3):
        make_picture(80, 72, seed=number).save(tmp_path / f"{number}.png")
    with User(browser, tiny) as user:
        user.upload([tmp_path / f"{number}.png" for number in range(3)], until="3 scored")
        order = user.gallery()
        user.go_to("Compare")
        user.tab.locator("#compared input").click()
        for name in ("0.png", "2.png"):
            user.tab.keyboard.type(name)
            user.tab.get_by_role("option", name=name).wait_for(timeout=SLOW)
            user.tab.keyboard.press("Enter")
        table = user.tab.locator("#comparison tbody tr")
        table.wait_for(timeout=SLOW)
        better, worse, difference, spread, exceeds = table.locator("td").all_inner_texts()
        assert [better, worse] == [name for name in order if name != "1.png"]
        scores = [float(text.split()[0]) for text in user.tab.locator(".compare figcaption").all_inner_texts()]
        assert float(difference) == pytest.approx(scores[0] - scores[1], abs=0.011)
        assert exceeds == ("yes" if float(difference) > float(spread) else "no")


def test_scoring_is_cancelled_and_goes_on(browser, embedded, tmp_path):
    for number in range(12):
        make_picture(300, 300, seed=number).save(tmp_path / f"{number}.png")
    with User(browser, embedded) as user:
        user.upload(tmp_path.glob("*.png"), until="to go")
        user.tab.get_by_role("button", name="Cancel").click()
        go_on = user.tab.get_by_role("button", name=re.compile(r"Score the \d+ that are left"))
        go_on.wait_for(timeout=SLOW)
        num_left = int(re.search(r"(\d+) to go", user.status.inner_text())[1])
        assert 0 < num_left < 12 and len(user.gallery()) == 12 - num_left
        go_on.click()
        user.wait_for_status("12 scored · 12 kept")


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_fits_wide_and_phone_and_all_is_named_for_those_who_do_not_see(browser, tiny, tmp_path, viewport, colours):
    for number in range(4):
        make_picture(80, 72, seed=number).save(tmp_path / f"{number}.png")
    with User(browser, tiny, viewport, color_scheme=colours) as user:
        user.upload(tmp_path.glob("*.png"), until="4 scored")
        for name in ("Gallery", "Compare", "Label", "Model"):
            user.go_to(name)
            user.tab.wait_for_timeout(300)
            overflow = user.tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert overflow <= 0, name
        assert user.tab.locator("body.dark").count() == (colours == "dark")
        nameless = user.tab.evaluate(
            """() => [...document.querySelectorAll('button, input, img')].filter(e => e.checkVisibility()
                && !(e.alt || e.ariaLabel || e.innerText?.trim() || e.title || e.labels?.length || e.placeholder))
                .map(e => e.outerHTML)"""
        )
        assert nameless == []
        user.go_to("Gallery")
        user.tab.locator("#gallery .gallery button").nth(1).focus()
        user.tab.keyboard.press("Enter")  # the keyboard alone opens and closes a detail
        user.tab.locator("dialog[open]").wait_for(timeout=SLOW)
        user.tab.keyboard.press("Escape")
        assert user.tab.locator("dialog[open]").count() == 0


def test_a_file_of_500_mb_is_refused_with_the_limit(browser, tiny, tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(500 * 2**20)
    with User(browser, tiny) as user:
        user.tab.locator("input[type=file]").first.set_input_files(str(tmp_path / "large.png"))
        message = user.tab.get_by_text("exceed the maximum allowed size of 256")
        message.wait_for(timeout=SLOW)
        assert "large.png" in message.inner_text()
        assert "No pictures yet" in user.status.inner_text()


def test_foreign_code_is_asked_for_before_it_runs(browser, hub, tiny_checkpoint, tmp_path):
    make_tiny_model(seed=1).save_pretrained(tmp_path / "default")
    files = {path.name: path.read_bytes() for path in Path(tiny_checkpoint).iterdir()}
    foreign = f"\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n".encode()
    commit = hub.add("somebody/scorer", files | {"modeling_hybridiqa.py": files["modeling_hybridiqa.py"] + foreign})
    environment = hub.environment(tmp_path / "home") | {"HF_HUB_OFFLINE": "0"}
    make_picture(80, 72).save(tmp_path / "a.png")
    default = ["--model", tmp_path / "default"]
    with page_server(tmp_path, *default, environment=environment) as page, User(browser, page.address) as user:
        user.upload([tmp_path / "a.png"], until="1 scored")
        before = user.scores()
        user.go_to("Model")
        user.tab.get_by_label("A folder or a Hub id").fill("somebody/scorer")
        user.tab.get_by_role("button", name="Score with it").click()
        question = user.tab.get_by_text("brings code that is not this project's")
        question.wait_for(timeout=SLOW)
        assert f"/somebody/scorer/tree/{commit}" in user.tab.locator("body").inner_text()
        assert not (tmp_path / "ran").exists()
        user.tab.get_by_role("button", name="I have read it").click()
        user.tab.get_by_text("Scores are by somebody/scorer").wait_for(timeout=SLOW)
        user.wait_for_status("1 scored")
        assert (tmp_path / "ran").exists()
        user.go_to("Gallery")
        assert user.scores() != before


def test_what_was_brought_is_deleted_and_ends_with_the_page(browser, tiny_checkpoint, tmp_path):
    make_picture(80, 72).save(tmp_path / "a.png")
    scratch = tmp_path / "scratch"
    with page_server(tmp_path, "--model", tiny_checkpoint) as page, User(browser, page.address) as user:
        user.upload([tmp_path / "a.png"], until="1 scored")
        assert list(scratch.rglob("*.png")) and list(scratch.rglob("*.webp"))
        user.go_to("Model")
        user.tab.get_by_role("button", name="Delete all my pictures").click()
        user.wait_for_status("No pictures yet")
        assert not list(scratch.rglob("*.png")) and not list(scratch.rglob("*.webp"))
        user.upload([tmp_path / "a.png"], until="1 scored")
    assert list(scratch.iterdir()) == []
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["作品 #1 <b>&amp; 100%.png", "${1+1} {{value}} {{#if value}}.png"])
def test_a_file_may_be_called_anything(browser, tiny, tmp_path, name):
    make_picture(80, 72).save(tmp_path / name)
    with User(browser, tiny) as user:
        user.upload([tmp_path / name], until="1 scored")
        assert user.gallery() == [name]
        with open(user.download("Download all scores (CSV)", tmp_path), newline="", encoding="utf-8") as file:
            assert [row["path"] for row in csv.DictReader(file)] == [name]
        user.tab.locator("#gallery .gallery button").click()
        dialog = user.tab.get_by_role("dialog", name=name)
        dialog.wait_for(timeout=SLOW)
        assert dialog.locator("b", has_text="&").count() == 0  # the name is text, no markup
        assert dialog.locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 80
