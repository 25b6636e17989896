"""Scripts run beside a Hub on loopback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from factories import make_picture
from PIL import ImageFilter

from hybridiqa.utils.root import ROOT

PROGRESS = re.compile(r"\d+%\|")  # a bar


@pytest.fixture
def images(tmp_path) -> Path:
    """Write sharp images, which score 7, and blurred ones, which score 1."""
    for name in ("Perfect/5", "Artifact/1"):
        (tmp_path / "images" / name).mkdir(parents=True)
    for index in range(6):
        sharp = make_picture(80, 72, seed=index)
        sharp.save(tmp_path / "images/Perfect/5" / f"{index}.png")
        sharp.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "images/Artifact/1" / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def script(hub, tmp_path):
    """Return what runs a script in a process of its own, in an empty folder of its own."""
    (tmp_path / "work").mkdir()

    def run(name: str, *arguments: object, status: int = 0, **options: object) -> str:
        home = options.pop("home", tmp_path / "home")
        done = hub.run(ROOT / name, *arguments, home=home, cwd=tmp_path / "work", **options)
        assert done.returncode == status, done.stderr
        lines = done.stderr.splitlines() + done.stdout.splitlines()
        return "\n".join(line for line in lines if line and not PROGRESS.search(line))

    return run
