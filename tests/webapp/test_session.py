"""Sessions of the page: uploads, scores and files that they take, give and leave; sessions among each other."""

import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from factories import make_tiny_model
from page_sessions import FIVE, IMAGES, NAMES, bring, make_session, score_all, upload, zip_of
from trials.nasty_inputs import encode

from hybridiqa.inference.engine import load_engine
from hybridiqa.models.loading import load_model
from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.files import hash_of
from hybridiqa.webapp.model_pool import MAX_OTHER_MODELS, NUM_AHEAD, SharedModels
from hybridiqa.webapp.pending_uploads import NOT_UPLOADED, BusyError, PendingUploads, Storage
from hybridiqa.webapp.session import Filter, Session
from hybridiqa.webapp.session_store import EMPTY_SECONDS, MAX_IDLE_SECONDS, MAX_TABS_A_SESSION, SessionStore
from hybridiqa.webapp.uploads import Limits


@pytest.fixture(scope="module")
def models(tiny_checkpoint) -> SharedModels:
    return SharedModels(tiny_checkpoint)


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory) -> str:
    """Give another tiny model, which knows the percentiles of its scores."""
    folder = tmp_path_factory.mktemp("checkpoints") / "other"
    make_tiny_model(seed=1, score_quantiles=[-100.0, 100.0]).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def session(models, tmp_path) -> Session:
    return make_session(tmp_path / "session", models)


def with_directory_bytes(offset: int, data: bytes) -> bytes:
    """Return a zip of an image whose entry in the directory says something else at a place."""
    whole = zip_of(("a.png", IMAGES[0]))
    start = whole.index(b"PK\1\2") + offset
    return whole[:start] + data + whole[start + len(data) :]


def broken_inside() -> bytes:
    """Return a zip whose directory is whole, while the packed bytes of its image are not."""
    whole = zip_of(("a.png", IMAGES[0]))
    return whole[:38] + b"\xff" * 22 + whole[60:]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def test_images_come_alone_or_in_zips_whose_folders_stay_in_their_names(session):
    jpeg = encode("JPEG")
    packed = zip_of(("day/one.png", IMAGES[1]), ("day\\two.PNG", IMAGES[2]), ("day/notes.txt", b"sunny"))
    bring(session, [("a.png", IMAGES[0]), ("b.jpg", jpeg), ("c.ZIP", packed)])
    assert (
        list(session.uploads.images) == ["a.png", "b.jpg", "day/one.png", "day/two.PNG"] and not session.uploads.refused
    )
    brought = [IMAGES[0], jpeg, *IMAGES[1:3]]
    assert [image.path.read_bytes() for image in session.uploads.images.values()] == brought
    assert session.uploads.num_bytes == sum(map(len, brought))


def test_equal_names_get_numbers_and_equal_contents_are_one_image(session):
    bring(session, [("x/a.png", data) for data in (*IMAGES[:3], IMAGES[1])])
    bring(session, [("other.png", IMAGES[0]), ("z.zip", zip_of(("x/a.png", IMAGES[3]), ("x/b.png", IMAGES[2])))])
    assert (
        list(session.uploads.images) == ["x/a.png", "x/a_2.png", "x/a_3.png", "x/a_4.png"]
        and not session.uploads.refused
    )
    assert [image.content_hash for image in session.uploads.images.values()] == [hash_of(data) for data in IMAGES[:4]]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cut.png", IMAGES[0][:900], "truncated"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing, which has no pixels"),
        ("page.jpg", b"<!DOCTYPE html><script>alert(1)</script>", "not an image that Pillow knows"),
        ("empty.png", b"", "empty"),
    ],
)
def test_a_file_that_is_no_image_gets_a_reason_and_no_score(session, name, data, reason):
    score_all(bring(session, [(name, data), ("whole.png", IMAGES[1])]))
    broken, whole = session.snapshot().rows
    assert broken.path == name and broken.score is None and reason in broken.error
    assert str(session.folder.path.parent) not in broken.error and session.scores.model.scorer_id == broken.scorer
    assert whole.score is not None and session.snapshot().kept == [whole]
    with pytest.raises(ValueError, match=f"'{name}' has no score: "):
        session.show_detail(name)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zip_of(("a.png", bytes(2**20 + 1))), "it is refused: it unpacks to 1048577 bytes, 1048576 are accepted"),
        (with_directory_bytes(24, b"\xff\xff\xff\x7f"), "it is refused: it unpacks to 2147483647 bytes"),
        (with_directory_bytes(24, b"\x64\0\0\0"), "it is not a whole zip archive"),  # holds more than it says
        (with_directory_bytes(8, b"\1"), "it is refused: its entry 'a.png' is encrypted"),
        (zip_of(("good.png", IMAGES[0]), ("../x.png", IMAGES[1])), "'../x.png' leads out of the folder"),
        (zip_of(("C:\\x.png", IMAGES[1])), "'C:/x.png' leads out of the folder"),
        (with_directory_bytes(38, b"\0\0\xff\xa1"), "its entry 'a.png' is a link"),
        (zip_of(*((f"{index}.png", b"") for index in range(7))), "it holds 7 files, 6 are accepted"),
        (b"PK nothing of that kind", "it is not a whole zip archive"),
        (broken_inside(), "it is not a whole zip archive"),
        (zip_of((f"{'x' * 300}.png", IMAGES[0])), "it cannot be unpacked: File name too long"),
        (zip_of(("x", b""), ("x/y.png", IMAGES[0])), "it cannot be unpacked: "),
        (zip_of(("notes.txt", b"sunny"), ("inner.zip", zip_of(("a.png", IMAGES[0])))), "no pictures in this zip"),
        (zip_of(), "no pictures in this zip"),
    ],
)
def test_a_refused_zip_is_named_as_its_owner_names_it_and_leaves_nothing(models, tmp_path, data, reason):
    session = make_session(tmp_path / "session", models, Limits(max_files=3, max_bytes=2**20))
    bring(session, [("My holiday.zip", data)])
    [row] = session.snapshot().rows
    assert row.path == "My holiday.zip" and row.score is None and reason in row.error
    assert str(tmp_path) not in row.error
    assert not files_in(tmp_path)  # neither the upload nor anything in the session's folder
    bring(session, [("a.png", IMAGES[0])])  # and the session goes on
    session.uploads.add_files([(tmp_path / "uploads/gone", "gone.zip"), (tmp_path / "uploads/gone", "gone.png")])
    assert list(session.uploads.images) == ["a.png"] and str(tmp_path) not in str(
        [row.error for row in session.uploads.refused[1:]]
    )


def test_no_more_images_are_taken_than_are_accepted(models, tmp_path):
    session = bring(make_session(tmp_path / "few", models, Limits(max_files=3)), FIVE)
    assert list(session.uploads.images) == NAMES[:3] and [row.path for row in session.uploads.refused] == NAMES[3:]
    assert {row.error for row in session.uploads.refused} == {"at most 3 pictures are accepted at a time"}
    size = sum(map(len, IMAGES[:2]))
    session = bring(make_session(tmp_path / "small", models, Limits(max_bytes=size)), FIVE)
    assert list(session.uploads.images) == NAMES[:2] and session.uploads.num_bytes == size
    assert {row.error for row in session.uploads.refused} == {f"at most {size // 2**20} MB are accepted in all"}


def test_a_folder_of_this_machine_is_linked_to_and_not_counted(models, tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for name, data in (("a.png", IMAGES[0]), ("deep/b.png", IMAGES[1]), (".c.png", IMAGES[2]), ("n.txt", b"")):
        (source / name).write_bytes(data)
    session = make_session(tmp_path / "session", models, Limits(max_bytes=1))
    session.folder.path.mkdir()
    for folder, reason in (
        (tmp_path / "nowhere", "there is no folder"),
        (session.folder.path, "no pictures in the folder"),
    ):
        with pytest.raises(ValueError, match=f"{reason} {folder}"):
            session.uploads.add_folder(folder)
    session.uploads.add_folder(source)
    assert list(session.uploads.images) == [str(source / "a.png"), str(source / "deep/b.png")]
    assert all(image.path.is_symlink() for image in session.uploads.images.values())
    assert session.uploads.num_bytes == session.uploads.pending.storage.num_bytes == 0
    score_all(session)
    names = zipfile.ZipFile(session.show_kept()).namelist()
    assert sorted(names) == ["a.png", "deep/b.png"]
    session.remove()
    assert not session.folder.path.exists() and len(files_in(source)) == 4
    session = make_session(tmp_path / "session", models, Limits(max_files=1))
    session.uploads.add_folder(source)
    [row] = session.uploads.refused
    assert (row.path, len(session.uploads.images)) == (
        str(source),
        1,
    ) and "1 of its 2 pictures are left out" in row.error


def test_scores_are_those_of_the_checkpoint(session, tiny_checkpoint):
    score_all(bring(session, [("a.png", IMAGES[0]), ("b.jpg", encode("JPEG")), ("c.webp", encode("WEBP"))]))
    expected = load_model(tiny_checkpoint).score([image.path for image in session.uploads.images.values()]).tolist()
    rows = session.snapshot().rows
    assert [row.score for row in rows] == pytest.approx(expected, abs=1e-6) and len(set(expected)) == 3
    for row in rows:
        patch_scores = session.scores.find_patch_scores(row.path)
        assert (np.mean(patch_scores), np.std(patch_scores)) == pytest.approx((row.score, row.score_std), abs=1e-6)
        assert (row.width, row.height) == (150, 100) and row.content_hash == session.uploads.find_image(
            row.path
        ).content_hash
        assert session.files.show_thumbnail(session.uploads.find_image(row.path)).exists()


def test_a_linked_image_that_was_changed_before_it_is_scored_has_the_hash_of_what_was_scored(session, tmp_path):
    (tmp_path / "source").mkdir()
    path = tmp_path / "source/a.png"
    path.write_bytes(IMAGES[0])
    session.uploads.add_folder(path.parent)
    path.write_bytes(IMAGES[1])
    [row] = score_all(session).snapshot().rows
    assert row.content_hash == hash_of(IMAGES[1]) and row.score is not None


def test_scoring_ends_at_a_stop_and_goes_on_later(session):
    scoring = bring(session, FIVE).scores.run()
    next(scoring)
    session.scores.stop()
    assert not list(scoring) and len(session.scores.list_unscored()) >= 2 and not session.scores.is_running
    score_all(session)
    assert len(session.snapshot().rows) == 5 and not list(session.scores.run())


def test_a_session_is_scored_by_one_at_a_time_who_sees_what_is_added_meanwhile(session):
    scoring = bring(session, [("a.png", IMAGES[0])]).scores.run()
    next(scoring)
    bring(session, [("b.png", IMAGES[1])])
    assert not list(session.scores.run()) and [image.name for image in session.scores.list_unscored()] == ["b.png"]
    assert list(scoring) == [0] and not session.scores.list_unscored()


def test_another_model_scores_anew_and_the_first_ones_scores_are_kept(session, models, other_checkpoint):
    scoring = bring(session, FIVE).scores.run()
    next(scoring)
    other, first = models.load(other_checkpoint), session.scores.model
    session.filter = Filter(lowest_percentile=50)
    session.use(other)
    assert session.filter == Filter() and len(session.scores.list_unscored()) == 5
    list(scoring)  # goes on with the other model, but for images that are being scored
    assert sum(scorer == first.scorer_id for scorer, _ in session.scores.results) <= NUM_AHEAD
    assert not session.scores.list_unscored() and {row.scorer for row in session.snapshot().rows} == {other.scorer_id}
    quantiles = [(row.score + 100) / 2 for row in session.snapshot().rows]
    assert [row.percentile for row in session.snapshot().rows] == pytest.approx(quantiles, abs=0.01)
    session.use(first)
    rows = score_all(session).snapshot().rows
    assert {row.scorer for row in rows} == {first.scorer_id} and {row.percentile for row in rows} == {None}
    session.use(other)
    assert not session.scores.list_unscored() and {row.scorer for row in session.snapshot().rows} == {other.scorer_id}


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Give a clock, by whose `now`, in seconds, the sessions think that things happen."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("hybridiqa.webapp.session_store.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def store(models, tmp_path, clock) -> SessionStore:
    uploads = PendingUploads(tmp_path / "uploads", Storage(2**30), 2**30)
    return SessionStore(
        tmp_path / "sessions", lambda folder: Session(folder, models, Limits(), uploads), keep_seconds=60
    )


def test_a_key_leads_back_to_its_session_and_a_wrong_one_begins_another(store):
    key, session = store.open("tab"), store.find_session("tab")
    assert store.open("tab") == store.open("tab", "wrong") == store.open("second tab", key) == key
    assert store.find_session("tab") is store.find_session("second tab") is session
    assert store.open("stranger", "wrong") not in (key, "wrong") and store.find_session("stranger") is not session
    assert store.open("stranger", key) == key and store.find_session("stranger") is session


def test_a_session_without_an_open_tab_is_kept_for_a_while(store, clock):
    key, session = store.open("tab"), bring(store.find_session("tab"), FIVE)
    store.open("second tab", key)
    store.leave("tab")
    clock.now = 1000
    store.expire()
    scoring = store.find_session("second tab").scores.run()
    next(scoring)
    store.leave("second tab")
    assert not list(scoring) and session.scores.list_unscored()  # the last tab that leaves ends the scoring
    clock.now += 60
    store.expire()
    assert session.folder.path.exists() and store.open("tab", key) == key
    store.leave("tab")
    clock.now += 61
    store.expire()
    assert not files_in(store.folder) and not session.folder.path.exists() and store.open("tab", key) != key


def test_a_tab_whose_connection_broke_finds_its_session_again(store):
    session = bring(store.find_session("tab"), FIVE)
    store.leave("tab")
    assert store.find_session("tab") is session and session.folder.path.exists()
    store.delete("tab")
    assert store.find_session("tab") is not session and set(store.keys) == {"tab"}


def test_a_tab_that_never_says_that_it_leaves_is_forgotten_after_hours(store, clock):
    session = bring(store.find_session("tab"), FIVE)
    for seconds, is_there in ((MAX_IDLE_SECONDS, True), (1, False)):
        clock.now += seconds
        store.expire()
        assert session.folder.path.exists() == is_there
    assert store.find_session("tab") is not session


def test_deleting_a_session_leaves_what_another_uploaded_too(store, tmp_path):
    first = bring(store.find_session("first"), [("a.png", IMAGES[0]), ("b.png", IMAGES[1])])
    second = bring(store.find_session("second"), [("c.png", IMAGES[1])])
    store.delete("first")
    store.delete("nobody")
    assert not first.folder.path.exists() and files_in(tmp_path) == [second.uploads.find_image("c.png").path]
    assert (
        second.uploads.find_image("c.png").path.read_bytes() == IMAGES[1] and store.find_session("first") is not first
    )
    store.delete("second")
    assert not files_in(tmp_path) and second.uploads.pending.storage.num_bytes == 0


def test_only_an_upload_is_taken_in_and_nothing_else_is_touched(session, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(IMAGES[0])
    real = upload(session.uploads.pending, IMAGES[1])[0]
    link, folder = real.with_name("link"), real.with_name("folder")
    link.symlink_to(secret)
    folder.mkdir()
    unnamed = real.with_name("never named")
    unnamed.write_bytes(IMAGES[2])
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
    session.uploads.add_files([(path, name) for path in paths for name in ("s.png", "s.zip")])
    assert not session.uploads.images and {row.error for row in session.uploads.refused} == {NOT_UPLOADED}
    session.remove()
    assert secret.read_bytes() == IMAGES[0] and unnamed.exists() and real.exists() and link.is_symlink()


def test_equal_files_of_one_name_in_one_request_are_one_image_and_no_error(session):
    [path] = upload(session.uploads.pending, IMAGES[0])
    session.uploads.add_files([(path, "a/x.png"), (path, "b/x.png")])
    assert list(session.uploads.images) == ["a/x.png"] and not session.uploads.refused


def test_an_upload_that_was_made_a_link_is_refused(session, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(IMAGES[0])
    for make in (lambda path: path.symlink_to(secret), Path.mkdir):
        [path] = upload(session.uploads.pending, IMAGES[1])
        path.unlink()
        make(path)
        session.uploads.add_files([(path, "a.png")])
    path = upload(session.uploads.pending, IMAGES[1])[0]
    real = path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(real)  # a link among its folders
    session.uploads.add_files([(path, "a.png")])
    assert {row.error for row in session.uploads.refused} == {
        "an upload must be a regular file in its own folder, without a link"
    }
    assert not session.uploads.images and secret.exists() and (real / "name").exists()


def test_what_a_session_deletes_is_its_own(session, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(IMAGES[0])
    bring(session, [("b.png", IMAGES[1]), ("c.zip", zip_of(("d.png", IMAGES[2])))])
    session.uploads.add_folder(source)
    assert len(session.uploads.images) == 3 and not files_in(session.uploads.pending.folder)
    score_all(session)
    session.remove()
    assert files_in(tmp_path) == [source / "a.png"] and session.uploads.pending.storage.num_bytes == 0
    with pytest.raises(ValueError, match="were deleted"):  # whatever is being scored makes no new file
        session.show_csv()
    bring(session, [("e.png", IMAGES[3])])
    assert "were deleted meanwhile" in session.uploads.refused[-1].error and files_in(tmp_path) == [source / "a.png"]


def test_files_are_shown_one_by_one_and_only_those_of_a_session(store):
    session = score_all(bring(store.find_session("tab"), [*FIVE, ("f.tiff", encode("TIFF"))]))
    image = session.uploads.find_image("a.png")
    assert store.find_shown_file(str(image.path)) is None  # until the page shows it
    shown = [
        session.files.show_thumbnail(image),
        session.files.show_image(image),
        session.show_detail("a.png").map_path,
        session.show_csv(),
    ]
    assert [store.find_shown_file(str(path)) for path in shown] == shown
    original = session.uploads.find_image("f.tiff").path
    assert store.find_shown_file(str(session.files.show_image(session.uploads.find_image("f.tiff")))) is not None
    others = [
        session.uploads.find_image("b.png").path,
        original,
        session.folder.path,
        store.folder,
        Path("/etc/passwd"),
        Path(""),
    ]
    others += [Path(f"{session.folder.path}/shown/../pictures/{image.path.name}"), image.path.relative_to("/")]
    assert {store.find_shown_file(str(path)) for path in others} == {None}
    store.delete("tab")
    assert {store.find_shown_file(str(path)) for path in shown} == {None}


def test_nothing_that_is_shown_tells_what_a_file_holds(models, tmp_path):
    for is_hosted in (True, False):
        session = score_all(bring(make_session(tmp_path / str(is_hosted), models, is_hosted=is_hosted), FIVE[:1]))
        digest = session.uploads.find_image("a.png").content_hash
        names = [path.name for path in [*session.folder.path.rglob("*")]]
        assert not any(digest in name for name in names)
        [row] = read_scores(session.show_csv())
        assert row.content_hash == (None if is_hosted else digest) and row.score == session.snapshot().rows[0].score


def test_a_session_forgets_its_oldest_tabs_and_none_that_went_to_another(store):
    key, other = store.open("first"), store.open("second")
    session = store.find_session("second")
    store.open("first", other)
    for number in range(MAX_TABS_A_SESSION + 5):
        store.open(f"tab {number}", key)
    assert store.find_session("first") is session and store.find_session("tab 104") is store.entries[key].session
    assert len(store.entries[key].tabs) == MAX_TABS_A_SESSION


def test_a_call_without_a_tab_has_no_session(store):
    for session in (None, "", "x" * 101):
        with pytest.raises(ValueError, match="needs a session_hash of its own"):
            store.find_session(session)
    assert not store.entries


def test_sessions_that_hold_nothing_make_no_folder_give_way_and_end_soon(models, tmp_path, clock):
    uploads = PendingUploads(tmp_path / "uploads", Storage(2**30), 2**30)
    store = SessionStore(
        tmp_path / "sessions", lambda new: Session(new, models, Limits(), uploads), 3600, max_sessions=10
    )
    full = bring(store.find_session("full"), FIVE)
    for number in range(1000):
        store.find_session(f"invented {number}")
    assert len(store.entries) == 10 and len(store.keys) + len(store.empty_keys) <= 20
    assert store.find_session("full") is full and list((tmp_path / "sessions").iterdir()) == [full.folder.path]
    clock.now += EMPTY_SECONDS + 1
    store.expire()
    assert [entry.session for entry in store.entries.values()] == [full]
    for number in range(9):
        bring(store.find_session(f"busy {number}"), FIVE[:1])
    with pytest.raises(ValueError, match="10 sessions are open already; try again"):
        store.find_session("one more")
    assert store.find_session("full") is full


def test_a_tab_that_was_left_open_before_anything_was_added_keeps_its_key(store, clock):
    key = store.open("tab")
    clock.now += EMPTY_SECONDS + 1
    store.expire()
    assert not store.entries
    session = bring(store.find_session("tab"), FIVE)
    assert store.open("tab after a reload", key) == key and store.find_session("tab after a reload") is session


def test_a_session_with_another_model_is_not_empty(store, other_checkpoint, clock):
    session = store.find_session("tab")
    session.use(session.scores.models.load(other_checkpoint))
    clock.now += EMPTY_SECONDS + 1
    store.expire()
    assert store.find_session("tab") is session


def test_what_lies_among_the_sessions_and_belongs_to_none_is_deleted(store):
    session = bring(store.find_session("tab"), FIVE)
    (store.folder / "stray/shown").mkdir(parents=True)
    store.expire()
    assert [path for path in store.folder.iterdir()] == [session.folder.path]


def test_all_sessions_together_have_a_bound(models, tmp_path):
    size = sum(map(len, IMAGES[:3]))
    uploads = PendingUploads(tmp_path / "uploads", Storage(size), size)
    first, second = (Session(tmp_path / name, models, Limits(), uploads) for name in ("first", "second"))
    bring(first, FIVE[:2])
    bring(second, FIVE[2:3])
    with pytest.raises(BusyError, match="no room"):
        uploads.reserve(1)
    first.remove()
    bring(second, FIVE[3:4])
    packed = zip_of(("big.png", bytes(size)))
    bring(second, [("big.zip", packed)])
    assert "it unpacks to" in second.uploads.refused[-1].error and list(second.uploads.images) == ["c.png", "d.png"]


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
