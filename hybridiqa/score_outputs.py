"""What a run writes besides its scores: a list of errors, and maps of patches' scores."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hybridiqa.engines import Engine
from hybridiqa.files import as_text, hash_of, write_text_atomically
from hybridiqa.patch_maps import draw_patch_map, save_patch_map
from hybridiqa.rgb import load_image, read_file
from hybridiqa.score_store import ScoreRow
from hybridiqa.scoring import PatchChoice, ScoredSource

logger = logging.getLogger(__name__)

ERRORS_HEADER = ("path", "error")


def check_errors_path(path: Path) -> None:
    """Raise ValueError unless a list of errors can be written there: a free name, or that of such a list."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--errors: there is no folder {path.parent}")
    if not os.path.lexists(path):
        return
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        if next(csv.reader(file), None) != list(ERRORS_HEADER):
            raise ValueError(f"--errors: {path} is there already and no list of errors; nothing is overwritten")


def write_errors(path: Path, rows: Sequence[ScoreRow]) -> None:
    """A CSV of what could not be scored, and why."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([ERRORS_HEADER, *((row.path, row.error) for row in rows if row.error is not None)])
    write_text_atomically(path, text.getvalue())


class PatchMaps:
    """Writes a map of its patches' scores for every picture scored.

    Args:
        maps_dir: made if it is not there.
        inputs: files and folders of the run; a folder's tree is kept below `maps_dir`.
        engine, choice: what scores, and which patches.
    """

    def __init__(self, maps_dir: Path, inputs: Sequence[str], engine: Engine, choice: PatchChoice):
        self.maps_dir, self.engine, self.choice = maps_dir, engine, choice
        self.folders = [Path(name) for name in inputs if Path(name).is_dir()]

    def write(self, path: Path, result: ScoredSource) -> None:
        """Write the map of one picture that was scored now; one that has changed since gets none, which is logged."""
        try:
            data = read_file(path)
        except (OSError, ValueError) as error:
            logger.warning("no map of %s: %s", as_text(path), getattr(error, "strerror", None) or error)
            return
        if hash_of(data) != result.row.content_hash:
            logger.warning("no map of %s: it was changed after it was scored", as_text(path))
            return
        image = load_image(data)
        boxes = self.engine.image_processor.patch_boxes(
            *image.size, sampling=self.choice.sampling, num_patches=self.choice.num_patches
        )
        drawn = draw_patch_map(image, boxes, result.patch_scores, result.row.score, self.engine.config.score_range)
        root = next((folder for folder in self.folders if path.is_relative_to(folder)), path.parent)
        save_patch_map(drawn, path, root, self.maps_dir)
