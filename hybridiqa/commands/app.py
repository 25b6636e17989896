"""The page: drop pictures in a browser, see their scores, sort, compare, label and download them.

    pip install gradio==6.31.0 -r requirements.txt && python app.py
    python app.py --model DIR_OR_REPO --labels my-labels --device cuda --dtype bf16

On one's own machine, folders of it can be named, and labelled pictures are copied to --labels. Where others reach the
page (--host, or as a Hugging Face Space), they see neither this machine's folders nor each other's pictures, and all
that they bring is deleted after they leave. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, see score.py
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is

from hybridiqa.inference.engine import DTYPES_OF_ENGINES, dtype_named
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.libraries import first_line, import_optional, silence_libraries
from hybridiqa.utils.root import ROOT
from hybridiqa.webapp.allowed_hosts import is_loopback, names_of_server
from hybridiqa.webapp.labelling import LabelFolder
from hybridiqa.webapp.model_pool import SharedModels
from hybridiqa.webapp.pending_uploads import Storage, Uploads
from hybridiqa.webapp.session import Visit
from hybridiqa.webapp.session_store import Visitors
from hybridiqa.webapp.uploads import Limits

SECONDS_BETWEEN_SWEEPS = 20
FOLDER_PREFIX = "hybridiqa-page-"  # of the folder of one server
LOCK_NAME = "in-use.lock"  # in it, held while that server runs
MB = 2**20


def sweep(visitors: Visitors, uploads: Uploads) -> None:
    """Delete what visitors have left, for ever."""
    while True:
        time.sleep(SECONDS_BETWEEN_SWEEPS)
        visitors.expire()
        uploads.expire()


def remove_abandoned_folders(parent: Path) -> None:
    """Remove the folders of servers that were killed; those that run hold their locks."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        is_ours = folder.is_dir() and not folder.is_symlink() and (folder / LOCK_NAME).is_file()
        if not is_ours or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
            continue
        try:
            with FileLock(folder / LOCK_NAME, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            continue


@contextmanager
def folder_of_server() -> Iterator[Path]:
    """A folder for all that visitors bring, which ends with the program; those of killed ones are removed first."""
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()).resolve()
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned_folders(parent)
    scratch = tempfile.TemporaryDirectory(dir=parent, prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    with scratch as folder, FileLock(Path(folder, LOCK_NAME)):
        yield Path(folder)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT), help="folder or Hub id (default: the embedded checkpoint)")
    parser.add_argument("--model_revision", help="of a Hub checkpoint: branch, tag or commit")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that this checkpoint brings")
    parser.add_argument(
        "--labels", type=Path, default=Path("labels"), help="folder of labelled copies (default labels)"
    )
    parser.add_argument("--device", help="default: cuda, then mps, then cpu")
    parser.add_argument(
        "--dtype",
        type=dtype_named,
        choices=DTYPES_OF_ENGINES["torch"],
        default="float32",
        help="bf16 is faster where the processor has it, and moves scores a little (default float32)",
    )
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="default 127.0.0.1")
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    parser.add_argument("--max_files", type=int, default=Limits.max_files, help="pictures a visitor (default 2000)")
    parser.add_argument("--max_file_mb", type=int, default=256, help="of one uploaded file, a zip, too (default 256)")
    parser.add_argument("--max_mb", type=int, default=2048, help="that one visitor uploads (default 2048)")
    parser.add_argument("--max_total_mb", type=int, help="of all visitors together (default: four times --max_mb)")
    parser.add_argument("--max_visitors", type=int, default=1000, help="at a time (default 1000)")
    parser.add_argument(
        "--allowed_hosts",
        nargs="+",
        default=(),
        metavar="NAME",
        help="further names under which the page is reached, of a proxy, say (default: those of this machine)",
    )
    parser.add_argument(
        "--keep_minutes", type=float, default=60, help="for which a closed page can be opened again (default 60)"
    )
    return parser.parse_args(argv)


def make_visitors(args: argparse.Namespace, is_local: bool, folder: Path, uploads: Uploads) -> Visitors:
    """The visitors' room, below `folder`, with the model that scores.

    Raises:
        ValueError: the model, the device or the folder of labels cannot be used.
    """
    models = SharedModels(
        args.model,
        are_paths_allowed=is_local,
        is_code_allowed=is_local,
        device=args.device,
        dtype=args.dtype,
        revision=args.model_revision,
        trust_remote_code=args.trust_remote_code,
    )
    limits = Limits(args.max_files, args.max_mb * MB)
    labels = LabelFolder(args.labels) if is_local else None

    def make_visit(new: Path) -> Visit:
        return Visit(new, models, limits, uploads, labels, is_hosted=not is_local)

    return Visitors(folder / "visitors", make_visit, 60 * args.keep_minutes, args.max_visitors)


def serve(args: argparse.Namespace, folder: Path) -> None:
    """Show the page until the program is stopped; what visitors bring lies below `folder`.

    Raises:
        ValueError: something asked for cannot be used, gradio is missing, or the port is taken.
    """
    import_optional("gradio", "pip install gradio==6.31.0")
    from hybridiqa.webapp.page import Page, page_options
    from hybridiqa.webapp.routes import accept_uploads_alone, keep_uploads_apart, middleware, routes

    names = names_of_server(args.host, args.allowed_hosts)
    is_local = is_loopback(args.host) and "SPACE_ID" not in os.environ
    storage = Storage((args.max_total_mb or 4 * args.max_mb) * MB)
    uploads = Uploads(folder / "uploads", storage, args.max_mb * MB)
    visitors = make_visitors(args, is_local, folder, uploads)
    threading.Thread(target=sweep, args=(visitors, uploads), daemon=True).start()
    page = Page(visitors, is_local).build()
    accept_uploads_alone(page, uploads)
    try:
        _, address, _ = page.launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size=args.max_file_mb * MB,
            app_kwargs={"middleware": middleware(names, uploads), "routes": routes(visitors)},
            **page_options(),
        )
    except OSError as error:
        raise ValueError(f"cannot serve the page: {first_line(error)}") from error
    keep_uploads_apart(page, uploads)
    print(f"the page is at {address}", flush=True)
    page.block_thread()


def run(args: argparse.Namespace) -> None:
    """Serve the page, with a folder of its own for all that is uploaded, which ends with this program."""
    with folder_of_server() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        serve(args, folder)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the folder is deleted then, too
    return exit_status("app.py", lambda: run(args))
