"""The real page, in a process of its own or in this one, and a real browser, for the tests that drive them.

Where gradio, Playwright or a browser is missing, such a test is skipped with that reason; where the environment says
HYBRIDIQA_PAGE_TESTS=required, it fails.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hybridiqa.commands import app
from hybridiqa.utils.root import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# After which a page and its clients notice that the other has left: 15 seconds where nothing is said.
HEARTBEAT = {"GRADIO_HEARTBEAT_INTERVAL": "0.2"}
# Without the network that a browser looks for by itself.
BROWSER_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
BROWSER_OPTIONS += ("--disable-background-networking", "--disable-component-update")


def missing(reason: str) -> None:
    """Skip the test, or let it fail where it must not be skipped."""
    if os.environ.get("HYBRIDIQA_PAGE_TESTS") == "required":
        pytest.fail(f"{reason}, and HYBRIDIQA_PAGE_TESTS=required")
    pytest.skip(reason)


def need(*packages: str) -> None:
    """Go on only where these packages are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            missing(f"{package} is not installed")


@dataclass(frozen=True)
class Page:
    """A page that is being served: its address, and the process."""

    address: str
    process: subprocess.Popen


@contextmanager
def page_server(folder: Path, *arguments: object, environment: dict[str, str] | None = None) -> Iterator[Page]:
    """Let `app.py` serve a page while the block lasts; its log is `folder/page.log`."""
    need("gradio")
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "app.py"), *map(str, arguments)]
    ours = HEARTBEAT | {"HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(folder / "scratch")}
    with open(folder / "page.log", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | ours | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            line = process.stdout.readline()
            found = re.search(r"the page is at (\S+)", line)
            assert found, f"{line}\n{(folder / 'page.log').read_text()}"
            yield Page(found[1], process)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


@contextmanager
def page_in_process(
    folder: Path, *arguments: object, seconds_between_sweeps: float = app.SECONDS_BETWEEN_SWEEPS
) -> Iterator[str]:
    """Serve the page from threads of this process while the block lasts; yield its address.

    It is what `app.py` serves; no libraries are loaded anew.
    """
    need("gradio")
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (HEARTBEAT | {"GRADIO_ANALYTICS_ENABLED": "False"}).items():
            patch.setenv(name, value)
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "scratch"))
        with app.open_server_folder() as server_folder:
            patch.setenv("GRADIO_TEMP_DIR", str(server_folder))
            args = app.parse_arguments(list(map(str, arguments)))
            page, address = app.launch(args, server_folder, seconds_between_sweeps)
            try:
                yield address
            finally:
                page.close(verbose=False)


@contextmanager
def open_browser() -> Iterator:
    """Open a headless browser, as Playwright drives it."""
    need("gradio", "playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing(f"no browser is installed: none of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(BROWSER_OPTIONS))
        yield browser
        browser.close()
