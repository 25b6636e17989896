"""Page in the browser: drop images, see their scores, sort, compare, label and download them.

    pip install gradio==6.31.0 -r requirements.txt && python app.py
    python app.py --model DIR_OR_REPO --labels my-labels --device cuda --dtype bf16

On one's own machine, folders of it can be named, and labelled images are copied to --labels. Where others reach the
page (--host, or as a Hugging Face Space), they see neither this machine's folders nor each other's images, and all
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
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.libraries import first_line, import_optional, silence_libraries
from hybridiqa.utils.root import ROOT
from hybridiqa.webapp.allowed_hosts import is_loopback, names_of_server
from hybridiqa.webapp.labelling import LabelFolder
from hybridiqa.webapp.pending_uploads import PendingUploads, Storage
from hybridiqa.webapp.uploads import Limits

if TYPE_CHECKING:  # these load torch and gradio, which takes seconds
    import gradio as gr

    from hybridiqa.webapp.session import Session
    from hybridiqa.webapp.session_store import SessionStore

SECONDS_BETWEEN_SWEEPS = 20.0
FOLDER_PREFIX = "hybridiqa-page-"  # of the folder of one server
LOCK_NAME = "in-use.lock"  # in it, held while that server runs
MB = 2**20


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
def open_server_folder() -> Iterator[Path]:
    """Make a folder for all uploads, which ends with the program; those of killed ones are removed first."""
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()).resolve()
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned_folders(parent)
    scratch = tempfile.TemporaryDirectory(dir=parent, prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    with scratch as folder, FileLock(Path(folder, LOCK_NAME)):
        yield Path(folder)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    from hybridiqa.inference.engine import DTYPES_OF_ENGINES, dtype_named

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
    parser.add_argument("--max_files", type=int, default=Limits.max_files, help="images of one session (default 2000)")
    parser.add_argument("--max_file_mb", type=int, default=256, help="of one uploaded file, a zip, too (default 256)")
    parser.add_argument("--max_mb", type=int, default=2048, help="that one session uploads (default 2048)")
    parser.add_argument("--max_total_mb", type=int, help="of all sessions together (default: four times --max_mb)")
    parser.add_argument("--max_visitors", type=int, default=1000, help="sessions at a time (default 1000)")
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


def make_store(args: argparse.Namespace, is_local: bool, folder: Path, pending: PendingUploads) -> SessionStore:
    """Return the sessions, below `folder`, with the model that scores.

    Raises:
        ValueError: the model, the device or the folder of labels cannot be used.
    """
    from hybridiqa.webapp.model_pool import SharedModels
    from hybridiqa.webapp.session import Session
    from hybridiqa.webapp.session_store import SessionStore

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

    def make_session(new: Path) -> Session:
        return Session(new, models, limits, pending, labels, is_hosted=not is_local)

    return SessionStore(folder / "visitors", make_session, 60 * args.keep_minutes, args.max_visitors)


def sweep(page: gr.Blocks, store: SessionStore, pending: PendingUploads, seconds: float) -> None:
    """Delete what sessions have left, every few seconds while the page is served."""
    while page.is_running:
        time.sleep(seconds)
        store.expire()
        pending.expire()


def launch(
    args: argparse.Namespace, folder: Path, seconds_between_sweeps: float = SECONDS_BETWEEN_SWEEPS
) -> tuple[gr.Blocks, str]:
    """Serve the page from other threads; return it, and its address. What is uploaded lies below `folder`.

    Raises:
        ValueError: something asked for cannot be used, gradio is missing, or the port is taken.
    """
    import_optional("gradio", "pip install gradio==6.31.0")
    from hybridiqa.webapp.page import Page, page_options
    from hybridiqa.webapp.routes import accept_uploads_alone, keep_uploads_apart, make_middleware, make_routes

    names = names_of_server(args.host, args.allowed_hosts)
    is_local = is_loopback(args.host) and "SPACE_ID" not in os.environ
    storage = Storage((args.max_total_mb or 4 * args.max_mb) * MB)
    pending = PendingUploads(folder / "uploads", storage, args.max_mb * MB)
    store = make_store(args, is_local, folder, pending)
    page = Page(store, is_local).build()
    accept_uploads_alone(page, pending)
    try:
        _, address, _ = page.launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size=args.max_file_mb * MB,
            app_kwargs={"middleware": make_middleware(names, pending), "routes": make_routes(store)},
            **page_options(),
        )
    except OSError as error:
        raise ValueError(f"cannot serve the page: {first_line(error)}") from error
    keep_uploads_apart(page, pending)
    threading.Thread(target=sweep, args=(page, store, pending, seconds_between_sweeps), daemon=True).start()
    return page, address


def run(args: argparse.Namespace) -> None:
    """Serve the page until the program is stopped, with a folder of its own for all that is uploaded."""
    silence_libraries()
    with open_server_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        page, address = launch(args, folder)
        print(f"the page is at {address}", flush=True)
        page.block_thread()


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, see score.py
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is
    args = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the folder is deleted then, too
    return exit_status("app.py", lambda: run(args))
