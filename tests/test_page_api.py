"""What programs call on the page, through the real client; and what the page refuses, whoever asks."""

import io
import json
import re
import shutil
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import page_clients
import pytest
from conftest import make_picture
from page_server import need, page_server
from test_readme import blocks

from hybridiqa.loading import ROOT, load_model
from hybridiqa.score_store import read_scores


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_checkpoint):
    """(address, folder) of a page with a tiny model, as others reach it: no folders, no foreign code."""
    folder = tmp_path_factory.mktemp("page")
    hosted = {"SPACE_ID": "you/space"}
    limits = ["--max_files", 60, "--max_mb", 64]
    with page_server(folder, "--model", tiny_checkpoint, *limits, environment=hosted) as served:
        yield served.address, folder


@pytest.fixture
def make_client(page):
    """Makes clients, each a visitor of its own."""
    from gradio_client import Client

    clients = []

    def make():
        clients.append(Client(page[0], verbose=False, download_files=str(page[1] / "downloads")))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def files(*paths: Path) -> list:
    from gradio_client import handle_file

    return [handle_file(str(path)) for path in paths]


def score(client, *paths: Path) -> dict[str, dict]:
    return {row["name"]: row for row in client.predict(files(*paths), api_name="/score")}


def error_of(client, *paths: Path) -> str:
    """Why the only file has no score."""
    [row] = score(client, *paths).values()
    assert row["score"] is None
    return row["error"]


def test_the_example_of_the_readme_runs(tmp_path):
    need("gradio")
    [example] = [code for code in blocks("python") if "gradio_client" in code]
    with page_server(tmp_path) as page:
        code = example.replace("http://127.0.0.1:7860", page.address)
        assert page.address in code
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *_ = done.stdout.splitlines()
    assert re.match(r"portrait_clean.png 6\.23\d+ 2\.2\d+ good", first), done.stdout


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


def test_visitors_do_not_see_each_other(make_client, tmp_path):
    make_picture(80, 72).save(tmp_path / "mine.png")
    mine, theirs = make_client(), make_client()
    score(mine, tmp_path / "mine.png")
    assert theirs.predict(api_name="/scores") == []


def zip_of(path: Path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def test_bombs_traversal_and_what_is_no_picture_are_refused_with_the_reason(make_client, page, tmp_path):
    picture = io.BytesIO()
    make_picture(80, 72).save(picture, "PNG")
    bomb = zip_of(tmp_path / "bomb.zip", *((f"{number}.png", bytes(20 * 2**20)) for number in range(5)))
    assert bomb.stat().st_size < 2**20
    assert re.fullmatch(
        r"it is refused: it unpacks to 104857600 bytes, \d+ are accepted here", error_of(make_client(), bomb)
    )
    evil = zip_of(tmp_path / "evil.zip", ("../../evil.png", picture.getvalue()))
    assert error_of(make_client(), evil) == "it is refused: its entry '../../evil.png' leads out of the folder"
    assert not list(page[1].rglob("evil.png")) and not list(tmp_path.parent.rglob("evil.png"))
    many = zip_of(tmp_path / "many.zip", *((f"{number}.png", b"") for number in range(200)))
    assert "it holds 200 files, 120 are accepted" in error_of(make_client(), many)
    for name, data, reason in (
        ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "an SVG drawing"),
        ("page.jpg", b"<!DOCTYPE html><html></html>", "but a web page"),
        ("empty.png", b"", "the file is empty"),
        ("cut.png", picture.getvalue()[:2000], "truncated|broken"),
        ("no.zip", b"PK\x03\x04nothing", "not a whole zip archive"),
    ):
        (tmp_path / name).write_bytes(data)
        error = error_of(make_client(), tmp_path / name)
        assert re.search(reason, error) and str(page[1]) not in error
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + picture.getvalue()[24:29]
    claims = picture.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + picture.getvalue()[33:]
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


def test_twenty_clients_at_once_get_the_scores_of_the_command_line(tiny_checkpoint, capsys):
    need("gradio")
    arguments = ["--num_clients", "20", "--num_images", "60", "--side", "80", "--model", tiny_checkpoint]
    assert page_clients.main(arguments) == 0
    assert "20 clients, 60 images of 80 px: 0 wrong answers" in capsys.readouterr().out


def run_app(*arguments: str, before: str = "pass") -> subprocess.CompletedProcess:
    code = f"import sys; {before}; import app; sys.exit(app.main({list(arguments)}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_without_gradio_it_says_how_to_install_it():
    done = run_app(before="sys.modules['gradio'] = None")
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"app.py: this needs gradio: pip install gradio==[\d.]+ \(.*\)\n", done.stderr)


def test_what_cannot_be_served_is_one_line_and_status_2(page, tmp_path):
    (tmp_path / "labels").write_text("a file")
    port = page[0].rstrip("/").rpartition(":")[2]
    for arguments, reason in (
        (["--model", str(tmp_path)], "cannot load"),
        (["--labels", str(tmp_path / "labels")], "labelled pictures go into a folder, got the file"),
        (["--port", port], "cannot serve the page: "),
    ):
        done = run_app(*arguments)
        assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"app.py: {reason}"), done.stderr


def test_a_hosted_page_has_no_way_to_the_folders_of_its_machine():
    need("gradio")
    from hybridiqa.page import Page

    names = [{function.name for function in Page(None, is_local).build().fns.values()} for is_local in (True, False)]
    assert names[0] - names[1] == {"_add_folder"}


@pytest.mark.parametrize("path", [str(ROOT / "README.md"), "/etc/passwd", "../../../etc/passwd"])
def test_files_of_the_server_cannot_be_named(make_client, page, path):
    make_client()
    call = f"{page[0]}gradio_api/call/score"
    body = json.dumps({"data": [[{"path": path, "meta": {"_type": "gradio.FileData"}}]]}).encode()
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request))["event_id"]
    answer = urllib.request.urlopen(f"{call}/{event}").read().decode()
    assert "event: error" in answer and "event: complete" not in answer
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{page[0]}gradio_api/file={path}")


def test_a_visit_ends_with_its_client(tiny_checkpoint, tmp_path):
    need("gradio")
    from gradio_client import Client

    make_picture(80, 72).save(tmp_path / "a.png")
    with page_server(tmp_path, "--model", tiny_checkpoint, "--keep_minutes", 0.001) as served:
        client = Client(served.address, verbose=False)
        score(client, tmp_path / "a.png")
        held = tmp_path / "scratch"
        assert list(held.rglob("*.png"))
        client.close()
        deadline = time.monotonic() + 90  # the page looks every 20 s
        while list(held.rglob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not list(held.rglob("*.png"))
    shutil.rmtree(held)
