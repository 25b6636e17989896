"""What a visitor of the page brings, gets and leaves: uploads and scores; visitors among each other."""

import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from factories import make_tiny_model
from page_sessions import FIVE, NAMES, PICTURES, bring, make_visit, score_all, upload, zip_of
from trials.nasty_inputs import encode

from hybridiqa.inference.engine import load_engine
from hybridiqa.models.loading import load_model
from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.files import hash_of
from hybridiqa.webapp.model_pool import MAX_OTHER_MODELS, NUM_AHEAD, SharedModels
from hybridiqa.webapp.pending_uploads import NOT_UPLOADED, BusyError, Storage, Uploads
from hybridiqa.webapp.session import Filter, Visit
from hybridiqa.webapp.session_store import EMPTY_SECONDS, MAX_IDLE_SECONDS, MAX_SESSIONS_A_VISIT, Visitors
from hybridiqa.webapp.uploads import Limits


@pytest.fixture(scope="module")
def models(tiny_checkpoint) -> SharedModels:
    return SharedModels(tiny_checkpoint)


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory) -> str:
    """Another tiny model, which knows the percentiles of its scores."""
    folder = tmp_path_factory.mktemp("checkpoints") / "other"
    make_tiny_model(seed=1, score_quantiles=[-100.0, 100.0]).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def visit(models, tmp_path) -> Visit:
    return make_visit(tmp_path / "visit", models)


def with_directory_bytes(offset: int, data: bytes) -> bytes:
    """A zip of a picture whose entry in the directory says something else at a place."""
    whole = zip_of(("a.png", PICTURES[0]))
    start = whole.index(b"PK\1\2") + offset
    return whole[:start] + data + whole[start + len(data) :]


def broken_inside() -> bytes:
    """A zip whose directory is whole, while the packed bytes of its picture are not."""
    whole = zip_of(("a.png", PICTURES[0]))
    return whole[:38] + b"\xff" * 22 + whole[60:]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def test_pictures_come_alone_or_in_zips_whose_folders_stay_in_their_names(visit):
    jpeg = encode("JPEG")
    packed = zip_of(("day/one.png", PICTURES[1]), ("day\\two.PNG", PICTURES[2]), ("day/notes.txt", b"sunny"))
    bring(visit, [("a.png", PICTURES[0]), ("b.jpg", jpeg), ("c.ZIP", packed)])
    assert list(visit.pictures) == ["a.png", "b.jpg", "day/one.png", "day/two.PNG"] and not visit.refused
    brought = [PICTURES[0], jpeg, *PICTURES[1:3]]
    assert [picture.path.read_bytes() for picture in visit.pictures.values()] == brought
    assert visit.num_bytes == sum(map(len, brought))


def test_equal_names_get_numbers_and_equal_contents_are_one_picture(visit):
    bring(visit, [("x/a.png", data) for data in (*PICTURES[:3], PICTURES[1])])
    bring(visit, [("other.png", PICTURES[0]), ("z.zip", zip_of(("x/a.png", PICTURES[3]), ("x/b.png", PICTURES[2])))])
    assert list(visit.pictures) == ["x/a.png", "x/a_2.png", "x/a_3.png", "x/a_4.png"] and not visit.refused
    assert [picture.content_hash for picture in visit.pictures.values()] == [hash_of(data) for data in PICTURES[:4]]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cut.png", PICTURES[0][:900], "truncated"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing, which has no pixels"),
        ("page.jpg", b"<!DOCTYPE html><script>alert(1)</script>", "not an image that Pillow knows"),
        ("empty.png", b"", "empty"),
    ],
)
def test_a_file_that_is_no_picture_gets_a_reason_and_no_score(visit, name, data, reason):
    score_all(bring(visit, [(name, data), ("whole.png", PICTURES[1])]))
    broken, whole = visit.rows()
    assert broken.path == name and broken.score is None and reason in broken.error
    assert str(visit.folder.parent) not in broken.error and visit.model.scorer == broken.scorer
    assert whole.score is not None and visit.kept() == [whole]
    with pytest.raises(ValueError, match=f"'{name}' has no score: "):
        visit.detail(name)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zip_of(("a.png", bytes(2**20 + 1))), "it is refused: it unpacks to 1048577 bytes, 1048576 are accepted"),
        (with_directory_bytes(24, b"\xff\xff\xff\x7f"), "it is refused: it unpacks to 2147483647 bytes"),
        (with_directory_bytes(24, b"\x64\0\0\0"), "it is not a whole zip archive"),  # holds more than it says
        (with_directory_bytes(8, b"\1"), "it is refused: its entry 'a.png' is encrypted"),
        (zip_of(("good.png", PICTURES[0]), ("../x.png", PICTURES[1])), "'../x.png' leads out of the folder"),
        (zip_of(("C:\\x.png", PICTURES[1])), "'C:/x.png' leads out of the folder"),
        (with_directory_bytes(38, b"\0\0\xff\xa1"), "its entry 'a.png' is a link"),
        (zip_of(*((f"{index}.png", b"") for index in range(7))), "it holds 7 files, 6 are accepted"),
        (b"PK nothing of that kind", "it is not a whole zip archive"),
        (broken_inside(), "it is not a whole zip archive"),
        (zip_of((f"{'x' * 300}.png", PICTURES[0])), "it cannot be unpacked: File name too long"),
        (zip_of(("x", b""), ("x/y.png", PICTURES[0])), "it cannot be unpacked: "),
        (zip_of(("notes.txt", b"sunny"), ("inner.zip", zip_of(("a.png", PICTURES[0])))), "no pictures in this zip"),
        (zip_of(), "no pictures in this zip"),
    ],
)
def test_a_refused_zip_is_named_as_its_owner_names_it_and_leaves_nothing(models, tmp_path, data, reason):
    visit = make_visit(tmp_path / "visit", models, Limits(max_files=3, max_bytes=2**20))
    bring(visit, [("My holiday.zip", data)])
    [row] = visit.rows()
    assert row.path == "My holiday.zip" and row.score is None and reason in row.error
    assert str(tmp_path) not in row.error
    assert not files_in(tmp_path)  # neither the upload nor anything in the visit's folder
    bring(visit, [("a.png", PICTURES[0])])  # and the visit goes on
    visit.add_files([(tmp_path / "uploads/gone", "gone.zip"), (tmp_path / "uploads/gone", "gone.png")])
    assert list(visit.pictures) == ["a.png"] and str(tmp_path) not in str([row.error for row in visit.refused[1:]])


def test_no_more_pictures_are_taken_than_are_accepted(models, tmp_path):
    visit = bring(make_visit(tmp_path / "few", models, Limits(max_files=3)), FIVE)
    assert list(visit.pictures) == NAMES[:3] and [row.path for row in visit.refused] == NAMES[3:]
    assert {row.error for row in visit.refused} == {"at most 3 pictures are accepted at a time"}
    size = sum(map(len, PICTURES[:2]))
    visit = bring(make_visit(tmp_path / "small", models, Limits(max_bytes=size)), FIVE)
    assert list(visit.pictures) == NAMES[:2] and visit.num_bytes == size
    assert {row.error for row in visit.refused} == {f"at most {size // 2**20} MB are accepted in all"}


def test_a_folder_of_this_machine_is_linked_to_and_not_counted(models, tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for name, data in (("a.png", PICTURES[0]), ("deep/b.png", PICTURES[1]), (".c.png", PICTURES[2]), ("n.txt", b"")):
        (source / name).write_bytes(data)
    visit = make_visit(tmp_path / "visit", models, Limits(max_bytes=1))
    visit.folder.mkdir()
    for folder, reason in ((tmp_path / "nowhere", "there is no folder"), (visit.folder, "no pictures in the folder")):
        with pytest.raises(ValueError, match=f"{reason} {folder}"):
            visit.add_folder(folder)
    visit.add_folder(source)
    assert list(visit.pictures) == [str(source / "a.png"), str(source / "deep/b.png")]
    assert all(picture.path.is_symlink() for picture in visit.pictures.values())
    assert visit.num_bytes == visit.uploads.storage.num_bytes == 0
    score_all(visit)
    names = zipfile.ZipFile(visit.write_kept()).namelist()
    assert sorted(names) == ["a.png", "deep/b.png"]
    visit.remove()
    assert not visit.folder.exists() and len(files_in(source)) == 4
    visit = make_visit(tmp_path / "visit", models, Limits(max_files=1))
    visit.add_folder(source)
    [row] = visit.refused
    assert (row.path, len(visit.pictures)) == (str(source), 1) and "1 of its 2 pictures are left out" in row.error


def test_scores_are_those_of_the_checkpoint(visit, tiny_checkpoint):
    score_all(bring(visit, [("a.png", PICTURES[0]), ("b.jpg", encode("JPEG")), ("c.webp", encode("WEBP"))]))
    expected = load_model(tiny_checkpoint).score([picture.path for picture in visit.pictures.values()]).tolist()
    rows = visit.rows()
    assert [row.score for row in rows] == pytest.approx(expected, abs=1e-6) and len(set(expected)) == 3
    for row in rows:
        patch_scores = visit.patch_scores(row.path)
        assert (np.mean(patch_scores), np.std(patch_scores)) == pytest.approx((row.score, row.score_std), abs=1e-6)
        assert (row.width, row.height) == (150, 100) and row.content_hash == visit.picture(row.path).content_hash
        assert visit.thumbnail_path(visit.picture(row.path)).exists()


def test_scoring_ends_at_a_stop_and_goes_on_later(visit):
    scoring = bring(visit, FIVE).score()
    next(scoring)
    visit.stop()
    assert not list(scoring) and len(visit.unscored()) >= 2 and not visit.scoring.locked()
    score_all(visit)
    assert len(visit.rows()) == 5 and not list(visit.score())


def test_a_visit_is_scored_by_one_at_a_time_who_sees_what_is_added_meanwhile(visit):
    scoring = bring(visit, [("a.png", PICTURES[0])]).score()
    next(scoring)
    bring(visit, [("b.png", PICTURES[1])])
    assert not list(visit.score()) and [picture.name for picture in visit.unscored()] == ["b.png"]
    assert list(scoring) == [0] and not visit.unscored()


def test_another_model_scores_anew_and_the_first_ones_scores_are_kept(visit, models, other_checkpoint):
    scoring = bring(visit, FIVE).score()
    next(scoring)
    other, first = models.load(other_checkpoint), visit.model
    visit.filter = Filter(lowest_percentile=50)
    visit.use(other)
    assert visit.filter == Filter() and len(visit.unscored()) == 5
    list(scoring)  # goes on with the other model, but for pictures that are in hand
    assert sum(scorer == first.scorer for scorer, _ in visit.results) <= NUM_AHEAD
    assert not visit.unscored() and {row.scorer for row in visit.rows()} == {other.scorer}
    quantiles = [(row.score + 100) / 2 for row in visit.rows()]
    assert [row.percentile for row in visit.rows()] == pytest.approx(quantiles, abs=0.01)
    visit.use(first)
    rows = score_all(visit).rows()
    assert {row.scorer for row in rows} == {first.scorer} and {row.percentile for row in rows} == {None}
    visit.use(other)
    assert not visit.unscored() and {row.scorer for row in visit.rows()} == {other.scorer}


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Its `now`, in seconds, is when the visits think that things happen."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("hybridiqa.webapp.session_store.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def visitors(models, tmp_path, clock) -> Visitors:
    uploads = Uploads(tmp_path / "uploads", Storage(2**30), 2**30)
    return Visitors(tmp_path / "visits", lambda folder: Visit(folder, models, Limits(), uploads), keep_seconds=60)


def test_a_key_leads_back_to_its_visit_and_a_wrong_one_begins_another(visitors):
    key, visit = visitors.open("tab"), visitors.of("tab")
    assert visitors.open("tab") == visitors.open("tab", "wrong") == visitors.open("second tab", key) == key
    assert visitors.of("tab") is visitors.of("second tab") is visit
    assert visitors.open("stranger", "wrong") not in (key, "wrong") and visitors.of("stranger") is not visit
    assert visitors.open("stranger", key) == key and visitors.of("stranger") is visit


def test_a_visit_without_an_open_tab_is_kept_for_a_while(visitors, clock):
    key, visit = visitors.open("tab"), bring(visitors.of("tab"), FIVE)
    visitors.open("second tab", key)
    visitors.leave("tab")
    clock.now = 1000
    visitors.expire()
    scoring = visitors.of("second tab").score()
    next(scoring)
    visitors.leave("second tab")
    assert not list(scoring) and visit.unscored()  # the last tab that leaves ends the scoring
    clock.now += 60
    visitors.expire()
    assert visit.folder.exists() and visitors.open("tab", key) == key
    visitors.leave("tab")
    clock.now += 61
    visitors.expire()
    assert not files_in(visitors.folder) and not visit.folder.exists() and visitors.open("tab", key) != key


def test_a_tab_whose_connection_broke_finds_its_visit_again(visitors):
    visit = bring(visitors.of("tab"), FIVE)
    visitors.leave("tab")
    assert visitors.of("tab") is visit and visit.folder.exists()
    visitors.delete("tab")
    assert visitors.of("tab") is not visit and set(visitors.keys) == {"tab"}


def test_a_tab_that_never_says_that_it_leaves_is_forgotten_after_hours(visitors, clock):
    visit = bring(visitors.of("tab"), FIVE)
    for seconds, is_there in ((MAX_IDLE_SECONDS, True), (1, False)):
        clock.now += seconds
        visitors.expire()
        assert visit.folder.exists() == is_there
    assert visitors.of("tab") is not visit


def test_deleting_a_visit_leaves_what_another_uploaded_too(visitors, tmp_path):
    first = bring(visitors.of("first"), [("a.png", PICTURES[0]), ("b.png", PICTURES[1])])
    second = bring(visitors.of("second"), [("c.png", PICTURES[1])])
    visitors.delete("first")
    visitors.delete("nobody")
    assert not first.folder.exists() and files_in(tmp_path) == [second.picture("c.png").path]
    assert second.picture("c.png").path.read_bytes() == PICTURES[1] and visitors.of("first") is not first
    visitors.delete("second")
    assert not files_in(tmp_path) and second.uploads.storage.num_bytes == 0


def test_only_an_upload_is_taken_in_and_nothing_else_is_touched(visit, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURES[0])
    real = upload(visit.uploads, PICTURES[1])[0]
    link, folder = real.with_name("link"), real.with_name("folder")
    link.symlink_to(secret)
    folder.mkdir()
    unnamed = real.with_name("never named")
    unnamed.write_bytes(PICTURES[2])
    paths = [
        secret,
        Path("/etc/passwd"),
        link,
        folder,
        unnamed,
        real.parent / "../sha/name",
        Path("name"),
        Path("/dev/zero"),
    ]
    visit.add_files([(path, name) for path in paths for name in ("s.png", "s.zip")])
    assert not visit.pictures and {row.error for row in visit.refused} == {NOT_UPLOADED}
    visit.remove()
    assert secret.read_bytes() == PICTURES[0] and unnamed.exists() and real.exists() and link.is_symlink()


def test_equal_files_of_one_name_in_one_request_are_one_picture_and_no_error(visit):
    [path] = upload(visit.uploads, PICTURES[0])
    visit.add_files([(path, "a/x.png"), (path, "b/x.png")])
    assert list(visit.pictures) == ["a/x.png"] and not visit.refused


def test_an_upload_that_was_made_a_link_is_refused(visit, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURES[0])
    for make in (lambda path: path.symlink_to(secret), Path.mkdir):
        [path] = upload(visit.uploads, PICTURES[1])
        path.unlink()
        make(path)
        visit.add_files([(path, "a.png")])
    path = upload(visit.uploads, PICTURES[1])[0]
    real = path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(real)  # a link among its folders
    visit.add_files([(path, "a.png")])
    assert {row.error for row in visit.refused} == {
        "an upload must be a regular file in its own folder, without a link"
    }
    assert not visit.pictures and secret.exists() and (real / "name").exists()


def test_what_a_visit_deletes_is_its_own(visit, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(PICTURES[0])
    bring(visit, [("b.png", PICTURES[1]), ("c.zip", zip_of(("d.png", PICTURES[2])))])
    visit.add_folder(source)
    assert len(visit.pictures) == 3 and not files_in(visit.uploads.folder)
    score_all(visit)
    visit.remove()
    assert files_in(tmp_path) == [source / "a.png"] and visit.uploads.storage.num_bytes == 0
    with pytest.raises(ValueError, match="were deleted"):  # whatever is in hand makes no new file
        visit.write_csv()
    bring(visit, [("e.png", PICTURES[3])])
    assert "were deleted meanwhile" in visit.refused[-1].error and files_in(tmp_path) == [source / "a.png"]


def test_files_are_shown_one_by_one_and_only_those_of_a_visit(visitors):
    visit = score_all(bring(visitors.of("tab"), [*FIVE, ("f.tiff", encode("TIFF"))]))
    picture = visit.picture("a.png")
    assert visitors.shown_file(str(picture.path)) is None  # until the page shows it
    shown = [
        visit.thumbnail_path(picture),
        visit.shown_path(picture),
        visit.detail("a.png").map_path,
        visit.write_csv(),
    ]
    assert [visitors.shown_file(str(path)) for path in shown] == shown
    original = visit.picture("f.tiff").path
    assert visitors.shown_file(str(visit.shown_path(visit.picture("f.tiff")))) is not None
    others = [visit.picture("b.png").path, original, visit.folder, visitors.folder, Path("/etc/passwd"), Path("")]
    others += [Path(f"{visit.folder}/shown/../pictures/{picture.path.name}"), picture.path.relative_to("/")]
    assert {visitors.shown_file(str(path)) for path in others} == {None}
    visitors.delete("tab")
    assert {visitors.shown_file(str(path)) for path in shown} == {None}


def test_nothing_that_is_shown_tells_what_a_file_holds(models, tmp_path):
    for is_hosted in (True, False):
        visit = score_all(bring(make_visit(tmp_path / str(is_hosted), models, is_hosted=is_hosted), FIVE[:1]))
        digest = visit.picture("a.png").content_hash
        names = [path.name for path in [*visit.folder.rglob("*")]]
        assert not any(digest in name for name in names)
        [row] = read_scores(visit.write_csv())
        assert row.content_hash == (None if is_hosted else digest) and row.score == visit.rows()[0].score


def test_a_visit_forgets_its_oldest_sessions_and_none_that_went_to_another(visitors):
    key, other = visitors.open("first"), visitors.open("second")
    visit = visitors.of("second")
    visitors.open("first", other)
    for number in range(MAX_SESSIONS_A_VISIT + 5):
        visitors.open(f"tab {number}", key)
    assert visitors.of("first") is visit and visitors.of("tab 104") is visitors.entries[key].visit
    assert len(visitors.entries[key].sessions) == MAX_SESSIONS_A_VISIT


def test_a_call_without_a_session_has_no_visit(visitors):
    for session in (None, "", "x" * 101):
        with pytest.raises(ValueError, match="needs a session_hash of its own"):
            visitors.of(session)
    assert not visitors.entries


def test_visits_that_hold_nothing_make_no_folder_give_way_and_end_soon(models, tmp_path, clock):
    uploads = Uploads(tmp_path / "uploads", Storage(2**30), 2**30)
    visitors = Visitors(tmp_path / "visits", lambda new: Visit(new, models, Limits(), uploads), 3600, max_visits=10)
    full = bring(visitors.of("full"), FIVE)
    for number in range(1000):
        visitors.of(f"invented {number}")
    assert len(visitors.entries) == 10 and len(visitors.keys) + len(visitors.empty_keys) <= 20
    assert visitors.of("full") is full and list((tmp_path / "visits").iterdir()) == [full.folder]
    clock.now += EMPTY_SECONDS + 1
    visitors.expire()
    assert [entry.visit for entry in visitors.entries.values()] == [full]
    for number in range(9):
        bring(visitors.of(f"busy {number}"), FIVE[:1])
    with pytest.raises(ValueError, match="10 visitors are here already; try again"):
        visitors.of("one more")
    assert visitors.of("full") is full


def test_a_tab_that_was_left_open_before_anything_was_added_keeps_its_key(visitors, clock):
    key = visitors.open("tab")
    clock.now += EMPTY_SECONDS + 1
    visitors.expire()
    assert not visitors.entries
    visit = bring(visitors.of("tab"), FIVE)
    assert visitors.open("tab after a reload", key) == key and visitors.of("tab after a reload") is visit


def test_a_visit_with_another_model_is_not_empty(visitors, other_checkpoint, clock):
    visit = visitors.of("tab")
    visit.use(visit.models.load(other_checkpoint))
    clock.now += EMPTY_SECONDS + 1
    visitors.expire()
    assert visitors.of("tab") is visit


def test_what_lies_among_the_visits_and_belongs_to_none_is_deleted(visitors):
    visit = bring(visitors.of("tab"), FIVE)
    (visitors.folder / "stray/shown").mkdir(parents=True)
    visitors.expire()
    assert [path for path in visitors.folder.iterdir()] == [visit.folder]


def test_all_visits_together_have_a_bound(models, tmp_path):
    size = sum(map(len, PICTURES[:3]))
    uploads = Uploads(tmp_path / "uploads", Storage(size), size)
    first, second = (Visit(tmp_path / name, models, Limits(), uploads) for name in ("first", "second"))
    bring(first, FIVE[:2])
    bring(second, FIVE[2:3])
    with pytest.raises(BusyError, match="no room"):
        uploads.reserve(1)
    first.remove()
    bring(second, FIVE[3:4])
    packed = zip_of(("big.png", bytes(size)))
    bring(second, [("big.zip", packed)])
    assert "it unpacks to" in second.refused[-1].error and list(second.pictures) == ["c.png", "d.png"]


def test_who_loads_a_model_does_not_hinder_who_uses_another(models, other_checkpoint, monkeypatch):
    own = SharedModels(models.default.name)
    slow, began, go_on = "you/slow", threading.Event(), threading.Event()
    load = load_engine

    def load_slowly(name, **options):
        if name == slow:
            began.set()
            go_on.wait(60)
            raise ValueError("cannot load you/slow")
        return load(name, **options)

    monkeypatch.setattr("hybridiqa.webapp.model_pool.load_engine", load_slowly)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(own.load, slow)
        assert began.wait(60)
        other = own.load(other_checkpoint)
        assert own.load(other_checkpoint) is other and own.load("") is own.default and not waiting.done()
        go_on.set()
        with pytest.raises(ValueError, match="cannot load you/slow"):
            waiting.result()


def test_a_model_is_loaded_once_and_the_last_used_are_kept(tiny_checkpoint, other_checkpoint, tmp_path):
    models = SharedModels(tiny_checkpoint)
    assert models.load("") is models.load(" ", "") is models.default
    names = [str(shutil.copytree(other_checkpoint, tmp_path / letter)) for letter in "abc"]
    first, second = models.load(names[0]), models.load(names[1])
    assert models.load(f" {names[0]} ") is first and models.load(names[2]).name == names[2]
    assert len(models.others) == MAX_OTHER_MODELS == 2
    assert models.load(names[0]) is first and models.load(names[1]) is not second
    with pytest.raises(ValueError, match="at most 200 letters, got 302"):
        models.load("a" * 300 + "/b")


def test_models_of_strangers_come_from_the_hub_alone_and_bring_no_code(tiny_checkpoint, tmp_path, monkeypatch):
    models = SharedModels(tiny_checkpoint, are_paths_allowed=False, is_code_allowed=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user/folder").mkdir(parents=True)
    for name in (tiny_checkpoint, "/etc/passwd", "folder", "user/folder", "a/b/c"):
        with pytest.raises(ValueError, match=f"must be a Hub id like user/name here, got {name}"):
            models.load(name)
    with pytest.raises(ValueError, match="code from the Hub does not run here: user/name"):
        models.load("user/name", trust_remote_code=True)
    assert not models.others
