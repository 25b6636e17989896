"""Functions of the page for programs, through the real client; and what the page refuses, whoever asks."""

import http.client
import io
import json
import os
import re
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from documents import blocks
from factories import make_picture
from page_server import need, page_in_process, page_server
from trials import page_clients

from hybridiqa.commands import app
from hybridiqa.commands import score as score_command
from hybridiqa.models.loading import load_model
from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.root import ROOT


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_checkpoint):
    """Serve a page with a tiny model as others reach it, without folders and foreign code; give (address, folder)."""
    folder = tmp_path_factory.mktemp("page")
    hosted = {"SPACE_ID": "you/space"}
    limits = ["--max_files", 60, "--max_mb", 64]
    with page_server(folder, "--model", tiny_checkpoint, *limits, environment=hosted) as served:
        yield served.address, folder


@pytest.fixture(scope="module")
def make_client(page):
    """Give a function that makes clients, each with a session of its own."""
    from gradio_client import Client

    clients = []

    def make():
        clients.append(Client(page[0], verbose=False, download_files=str(page[1] / "downloads")))
        return clients[-1]

    yield make
    with ThreadPoolExecutor(10) as pool:  # each waits a second for a thread of its own
        list(pool.map(Client.close, clients))


def files(*paths: Path) -> list:
    from gradio_client import handle_file

    return [handle_file(str(path)) for path in paths]


def score(client, *paths: Path) -> dict[str, dict]:
    return {row["name"]: row for row in client.predict(files(*paths), api_name="/score")}


def error_of(client, *paths: Path) -> str:
    """Return why the only file has no score."""
    [row] = score(client, *paths).values()
    assert row["score"] is None
    return row["error"]


def test_the_example_of_the_readme_runs(embedded_page, monkeypatch, capsys):
    [example] = [code for code in blocks("python") if "gradio_client" in code]
    code = example.replace("http://127.0.0.1:7860", embedded_page)
    assert embedded_page in code
    monkeypatch.chdir(ROOT)
    exec(code, {})
    output = capsys.readouterr().out
    assert any(re.match(r"portrait_clean.png 6\.23\d+ 2\.2\d+ good", line) for line in output.splitlines()), output


def test_a_client_scores_compares_filters_labels_and_downloads(make_client, tiny_checkpoint, tmp_path):
    client, model = make_client(), load_model(tiny_checkpoint)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        make_picture(90, 80, seed=number).save(path)
    rows = score(client, *paths)
    assert list(rows) == sorted(rows, key=lambda name: -rows[name]["score"])
    for path in paths:
        row = rows[path.name]
        assert row["score"] == pytest.approx(model.score(path), abs=1e-5)
        patch_scores = client.predict(path.name, api_name="/patch_scores")
        assert sum(patch_scores) / len(patch_scores) == pytest.approx(row["score"], abs=1e-5)
        assert (row["width"], row["height"], row["error"]) == (90, 80, None)
    assert client.predict(api_name="/scores") == list(rows.values())
    [pair] = client.predict(["0.png", "1.png"], api_name="/compare")
    assert pair["difference"] == pytest.approx(abs(rows["0.png"]["score"] - rows["1.png"]["score"]))
    assert pair["exceeds_spread"] == (pair["difference"] > pair["spread"])
    assert Path(client.predict("0.png", api_name="/patch_map")).read_bytes().startswith(b"\x89PNG")
    assert {row.path for row in read_scores(client.predict(api_name="/scores_csv"))} == set(rows)
    second = sorted(rows.values(), key=lambda row: -row["score"])[1]
    with zipfile.ZipFile(client.predict(lowest_score=second["score"], api_name="/kept_zip")) as archive:
        assert len(archive.namelist()) == 2 and second["name"] in archive.namelist()
        assert archive.read(second["name"]) == (tmp_path / second["name"]).read_bytes()
    assert "Perfect 4 (score 6). The model says" in client.predict("0.png", "Perfect/4", api_name="/label")
    client.predict("1.png", "9", api_name="/label")
    assert client.predict(api_name="/undo_label").startswith("Taken back: 1.png")
    with zipfile.ZipFile(client.predict(api_name="/labelled_zip")) as archive:
        assert archive.namelist() == ["Perfect/4/0.png"]


def test_wrong_use_is_one_clear_error(make_client, tmp_path):
    from gradio_client.exceptions import AppError

    client = make_client()
    make_picture(80, 72).save(tmp_path / "a.png")
    score(client, tmp_path / "a.png")
    for arguments, name, message in (
        (["b.png"], "/patch_map", "there is no picture 'b.png' here"),
        (["a.png", "Perfect/6"], "/label", "a label must be one of Artifact/1"),
        ([], "/labelled_zip", "no picture is labelled yet"),
        ([99.0], "/kept_zip", "no picture is kept"),
        (["/etc"], "/use_model", "the model must be a Hub id like user/name here, got /etc"),
        (["you/scorer", "", True], "/use_model", "code from the Hub does not run here"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(*arguments, api_name=name)


def test_sessions_do_not_see_each_other(make_client, tmp_path):
    make_picture(80, 72).save(tmp_path / "mine.png")
    mine, theirs = make_client(), make_client()
    score(mine, tmp_path / "mine.png")
    assert theirs.predict(api_name="/scores") == []


def zip_of(path: Path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def test_bombs_traversal_and_what_is_no_image_are_refused_with_the_reason(make_client, page, tmp_path):
    image = io.BytesIO()
    make_picture(80, 72).save(image, "PNG")
    bomb = zip_of(tmp_path / "bomb.zip", *((f"{number}.png", bytes(20 * 2**20)) for number in range(5)))
    assert bomb.stat().st_size < 2**20
    assert re.fullmatch(
        r"it is refused: it unpacks to 104857600 bytes, \d+ are accepted here", error_of(make_client(), bomb)
    )
    evil = zip_of(tmp_path / "evil.zip", ("../../evil.png", image.getvalue()))
    assert error_of(make_client(), evil) == "it is refused: its entry '../../evil.png' leads out of the folder"
    assert not list(page[1].rglob("evil.png")) and not list(tmp_path.parent.rglob("evil.png"))
    many = zip_of(tmp_path / "many.zip", *((f"{number}.png", b"") for number in range(200)))
    assert "it holds 200 files, 120 are accepted" in error_of(make_client(), many)
    for name, data, reason in (
        ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "an SVG drawing"),
        ("page.jpg", b"<!DOCTYPE html><html></html>", "but a web page"),
        ("empty.png", b"", "the file is empty"),
        ("cut.png", image.getvalue()[:2000], "truncated|broken"),
        ("no.zip", b"PK\x03\x04nothing", "not a whole zip archive"),
    ):
        (tmp_path / name).write_bytes(data)
        error = error_of(make_client(), tmp_path / name)
        assert re.search(reason, error) and str(page[1]) not in error
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + image.getvalue()[24:29]
    claims = image.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + image.getvalue()[33:]
    (tmp_path / "huge.png").write_bytes(claims)
    expected = "at most 64 megapixels are accepted, got 50000 x 50000"
    assert error_of(make_client(), tmp_path / "huge.png") == expected


def test_more_than_the_limit_is_left_out_and_said(make_client, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(62)]
    for number, path in enumerate(paths):
        make_picture(70, 66, seed=number).save(path)
    rows = score(make_client(), *paths)
    left_out = [row["error"] for row in rows.values() if row["error"]]
    assert left_out == ["at most 60 pictures are accepted at a time"] * 2 and len(rows) == 62


def test_500_mb_are_refused_by_the_client_and_by_the_server(make_client, page, tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(500 * 2**20)
    with pytest.raises(ValueError, match=r"large.png exceeds the maximum file size of 268435456 bytes"):
        score(make_client(), tmp_path / "large.png")
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="large.png"\r\n\r\n'

    def body():
        yield head
        for _ in range(500):
            yield bytes(2**20)
        yield b"\r\n--x--\r\n"

    request = urllib.request.Request(f"{page[0]}gradio_api/upload", data=body(), method="POST")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with pytest.raises(OSError) as refused:  # an HTTP error, or the connection that the server closed
        urllib.request.urlopen(request)
    assert getattr(refused.value, "code", 413) == 413
    assert not [path for path in page[1].rglob("*") if path.is_file() and path.stat().st_size > 2**28]


def test_twenty_clients_at_once_get_the_scores_of_the_command_line(page, tiny_checkpoint, tmp_path):
    paths = page_clients.make_images(tmp_path / "images", 60, side=80)
    shares = [paths[index::20] for index in range(20)]
    answers, _ = page_clients.score_by_clients(page[0], shares)
    options = ["--model", tiny_checkpoint, "--num_workers", "0", "--output", str(tmp_path / "scores.csv")]
    assert score_command.main([str(tmp_path / "images"), *options]) == 0
    expected = {Path(row.path).name: row.score for row in read_scores(tmp_path / "scores.csv")}
    assert len(expected) == 60 and page_clients.count_wrong(answers, shares, expected) == 0


@pytest.mark.slow
def test_the_trial_of_many_clients_compares_them_with_the_script(tiny_checkpoint, capsys):
    need("gradio")
    arguments = ["--num_clients", "20", "--num_images", "60", "--side", "80", "--model", tiny_checkpoint]
    assert page_clients.main(arguments) == 0
    assert "20 clients, 60 images of 80 px: 0 wrong answers" in capsys.readouterr().out


@pytest.fixture
def run_app(monkeypatch, tmp_path, capsys):
    """Give a function that runs `app.py` in this process; it returns the status and what was printed."""
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which are put back afterwards
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = app.main(list(arguments))
        return status, *capsys.readouterr()

    return run


def test_without_gradio_it_says_how_to_install_it(run_app, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    status, output, error = run_app()
    assert status == 2 and output == ""
    assert re.fullmatch(r"app.py: error: this needs gradio: pip install gradio==[\d.]+ \(.*\)\n", error)


def test_what_cannot_be_served_is_one_line_and_status_2(page, run_app, tiny_checkpoint, tmp_path):
    (tmp_path / "labels").write_text("a file")
    port = page[0].rstrip("/").rpartition(":")[2]
    for arguments, reason in (
        (["--model", str(tmp_path)], "cannot load"),
        (["--model", tiny_checkpoint, "--labels", str(tmp_path / "labels")], "labelled images go into a folder, got "),
        (["--model", tiny_checkpoint, "--port", port], "cannot serve the page: "),
    ):
        status, _, error = run_app(*arguments)
        assert status == 2 and error.splitlines()[-1].startswith(f"app.py: error: {reason}"), error


def test_a_hosted_page_has_no_way_to_the_folders_of_its_machine():
    need("gradio")
    from hybridiqa.webapp.page import Page

    names = [{function.name for function in Page(None, is_local).build().fns.values()} for is_local in (True, False)]
    assert names[0] - names[1] == {"_add_folder"}


def ask(address: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Return the status and the body of an answer to a request with these headers, written with `_` for `-`."""
    server = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(server.hostname, server.port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": "application/json"} | names)
    answer = connection.getresponse()
    return answer.status, answer.read()


def run(address: str, name: str, data: list, session: str | None = "a stranger", **headers: str) -> tuple[int, bytes]:
    """Call a function of the page without Gradio's client."""
    body = {"data": data} | ({} if session is None else {"session_hash": session})
    return ask(address, "POST", f"/gradio_api/run/{name}", json.dumps(body).encode(), **headers)


def upload_raw(address: str, name: str, content: bytes) -> tuple[int, bytes]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"Content_Type": "multipart/form-data; boundary=x"}
    return ask(address, "POST", "/gradio_api/upload", head + content + b"\r\n--x--\r\n", **kind)


META = {"_type": "gradio.FileData"}


@pytest.mark.parametrize(
    "more", [{"meta": META}, {"meta": {"_type": "other"}}, {"orig_name": "s.png"}, {}, {"url": "x"}]
)
@pytest.mark.parametrize("name", ["s.png", "s.zip"])
def test_files_of_the_server_cannot_be_named(page, tmp_path, more, name):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (tmp_path / "link.png").symlink_to(secret)
    held = page[1] / "scratch"
    inside = [path for path in held.rglob("*") if path.is_file()]
    paths = [secret, ROOT / "README.md", "/etc/passwd", "../../../etc/passwd", "/proc/self/environ", "/dev/zero"]
    paths += [tmp_path, tmp_path / "link.png", "file:///etc/passwd", "http://127.0.0.1:1/a.png", "", *inside[:3]]
    for path in map(str, paths):
        file = {"path": path} | more | ({"orig_name": name} if "orig_name" in more else {})
        status, answer = run(page[0], "score", [[file]])
        assert status == 500 and b"this file was not uploaded here" in answer, (path, answer)
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(f"{page[0]}gradio_api/file={urllib.parse.quote(path)}")
    assert secret.read_bytes() == b"secret" and [path for path in held.rglob("*") if path.is_file()] == inside


@pytest.mark.parametrize(
    "files", [[1], ["a"], [{}], [{"path": None}], [{"path": ["a"]}], [[{"path": "/etc/passwd"}]], 5]
)
def test_what_is_no_file_is_an_error_and_no_more(page, files):
    assert run(page[0], "score", [files])[0] == 500
    assert run(page[0], "scores", [])[1].startswith(b'{"data":[[]]')


def test_the_functions_behind_the_page_take_no_other_files_either(page, tmp_path):
    victim = tmp_path / "precious.png"
    victim.write_bytes(b"precious")
    dependencies = json.loads(ask(page[0], "GET", "/config")[1])["dependencies"]
    numbers = {each["api_name"]: each["id"] for each in dependencies}
    for name in ("_add", "_add_1", "_delete"):
        if name in numbers:
            file = {"path": str(victim), "orig_name": "a.png", "meta": META}
            body = {"data": [[file] if name != "_delete" else "random"], "session_hash": "s", "fn_index": numbers[name]}
            ask(page[0], "POST", "/gradio_api/run/predict", json.dumps(body).encode())
    assert "_add" in numbers and "_delete" in numbers and victim.read_bytes() == b"precious"
    assert b"precious" not in run(page[0], "scores", [], session="s")[1]


def test_a_image_is_fetched_by_its_visitor_and_by_nobody_from_its_folder(make_client, page, tmp_path):
    make_picture(80, 72).save(tmp_path / "mine.png")
    score(make_client(), tmp_path / "mine.png")
    [kept] = [path for path in (page[1] / "scratch").rglob("pictures/*.png") if path.stat().st_size > 0][-1:]
    for way in ("file=", "file/"):
        assert ask(page[0], "GET", f"/gradio_api/{way}{kept}")[0] in (403, 404)
    _, answer = run(page[0], "scores_csv", [], session="another")
    assert str(kept.parent.parent) not in answer.decode()


def test_a_hosted_page_tells_no_hash_of_a_file(make_client, tmp_path):
    client = make_client()
    make_picture(80, 72).save(tmp_path / "a.png")
    score(client, tmp_path / "a.png")
    assert [row.content_hash for row in read_scores(client.predict(api_name="/scores_csv"))] == [None]


@pytest.mark.parametrize(
    "path",
    ["gradio_api/deep_link?session_hash=x", "gradio_api/proxy=http://127.0.0.1/", "monitoring", "gradio_api/vibe-code"],
)
def test_what_gradio_offers_besides_is_closed(page, path):
    assert ask(page[0], "GET", f"/{path}") == (404, b"this page does not offer that")


def call(address: str, name: str, data: list) -> bytes:
    """Return what the queue gives to a call that names no session."""
    way = f"/gradio_api/call/{name}"
    event = json.loads(ask(address, "POST", way, json.dumps({"data": data}).encode())[1])["event_id"]
    return ask(address, "GET", f"{way}/{event}")[1]


def test_a_call_without_a_session_shares_nothing_with_another(page):
    image = io.BytesIO()
    make_picture(80, 72).save(image, "PNG")
    [path] = json.loads(upload_raw(page[0], "private.png", image.getvalue())[1])
    assert b"private.png" in call(page[0], "score", [[{"path": path, "orig_name": "private.png", "meta": META}]])
    assert call(page[0], "scores", []) == b"event: complete\ndata: [[]]\n\n"
    for name, data in (("scores", []), ("score", [[]]), ("kept_zip", [None, 0])):
        status, answer = run(page[0], name, data, session=None)
        assert status == 500 and b"needs a session_hash of its own" in answer


def test_another_name_and_another_web_page_are_refused(page):
    own = page[0].rstrip("/")
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/upload"), ("HEAD", "/")):
            status, text = ask(page[0], method, path, **headers)
            assert status == 403 and (method == "HEAD" or b"--allowed_hosts NAME" in text)
        assert run(page[0], "scores", [], **headers)[0] == 403
    assert run(page[0], "scores", [], Origin=own)[0] == run(page[0], "scores", [])[0] == 200
    port = own.rpartition(":")[2]
    assert all(ask(page[0], "GET", "/config", Host=f"{name}:{port}")[0] == 200 for name in ("localhost", "[::1]"))


def test_the_whole_page_has_bounds_and_a_killed_one_leaves_nothing_for_long(tiny_checkpoint, tmp_path):
    held = tmp_path / "scratch"
    options = ["--model", tiny_checkpoint, "--max_mb", 1, "--max_total_mb", 2, "--max_visitors", 20]
    options += ["--allowed_hosts", "pictures.example.org"]
    with page_server(tmp_path, *options) as served:
        address = served.address
        answers = [upload_raw(address, f"{number}.png", bytes(300_000)) for number in range(10)]
        assert [status for status, _ in answers] == [200] * 3 + [413] * 7
        assert b"at most 1 MB are accepted before they are scored; try again later" in answers[-1][1]
        assert sum(path.stat().st_size for path in held.rglob("*") if path.is_file()) < 2**20
        assert {run(address, "scores", [], session=f"invented {number}")[0] for number in range(100)} == {200}
        [folder] = held.iterdir()
        assert not (folder / "visitors").exists()  # nobody has an image
        assert ask(address, "GET", "/config", Host="pictures.example.org")[0] == 200
        served.process.kill()
        served.process.wait()
    assert folder.exists()
    (held / "hybridiqa-page-of-somebody").mkdir()  # without a lock: not known to be one of ours
    with page_in_process(tmp_path, "--model", tiny_checkpoint) as address:
        assert not folder.exists() and (held / "hybridiqa-page-of-somebody").exists()
        with page_in_process(tmp_path, "--model", tiny_checkpoint):
            assert run(address, "scores", [])[0] == 200 and len(list(held.iterdir())) == 3
    assert [path.name for path in held.iterdir()] == ["hybridiqa-page-of-somebody"]


def test_a_session_ends_with_its_client(tiny_checkpoint, tmp_path):
    need("gradio")
    from gradio_client import Client

    make_picture(80, 72).save(tmp_path / "a.png")
    options = ["--model", tiny_checkpoint, "--keep_minutes", 0.001]
    with page_in_process(tmp_path, *options, seconds_between_sweeps=0.05) as address:
        client = Client(address, verbose=False)
        score(client, tmp_path / "a.png")
        held = tmp_path / "scratch"
        assert list(held.rglob("*.png"))
        client.close()
        deadline = time.monotonic() + 90
        while list(held.rglob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not list(held.rglob("*.png"))
