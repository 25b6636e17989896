"""What a run writes besides its scores: a list of errors, and maps of patches' scores; and whether all keep apart."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from hybridiqa.inference.engine import Engine
from hybridiqa.inference.patch_maps import draw_patch_map, save_patch_map
from hybridiqa.inference.scoring import PatchChoice, ScoredSource
from hybridiqa.models.hub_code import load_image, read_file
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.atomic import is_same_place, is_within, resolve_output, write_text_atomically
from hybridiqa.utils.files import as_text, hash_of

logger = logging.getLogger(__name__)

ERRORS_HEADER = ("path", "error")
MAX_HEADER = 100  # letters that are read of a file that may be anything
MAP = "--map"


def check_errors_path(path: Path) -> None:
    """Raise ValueError unless a list of errors can be written there: a free name, or that of such a list."""
    if not resolve_output(path, "--errors").exists():
        return
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        header = file.readline(MAX_HEADER).rstrip("\r\n")
    if header != ",".join(ERRORS_HEADER):
        raise ValueError(f"--errors: {path} is there already and no list of errors; nothing is overwritten")


def write_errors(path: Path, rows: Sequence[ScoreRow]) -> None:
    """A CSV of what could not be scored, and why."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([ERRORS_HEADER, *((row.path, row.error) for row in rows if row.error is not None)])
    write_text_atomically(path, text.getvalue())


def check_maps_dir(maps_dir: Path) -> None:
    """Raise ValueError unless maps can be written there: a folder, or a free name that can become one."""
    real = Path(os.path.realpath(maps_dir))
    place = next(place for place in (real, *real.parents) if os.path.lexists(place))
    if not place.is_dir():
        kind = "file" if place == real else "place below a file"
        raise ValueError(f"--map must be a folder, got the {kind} {maps_dir}")
    if not os.access(place, os.W_OK):
        raise ValueError(f"--map: {place} cannot be written to")


def _root_of(path: Path, folders: Sequence[Path]) -> Path:
    """Return the folder whose tree a picture's map repeats."""
    return next((folder for folder in folders if path.is_relative_to(folder)), path.parent)


def check_maps_apart(maps_dir: Path, inputs: Sequence[str], paths: Sequence[Path], progress_dir: Path | None) -> None:
    """Raise ValueError for maps that the next run would score, or that would lie among unfinished rows.

    Args:
        inputs: files and folders of the run.
        paths: of the pictures in them.
        progress_dir: of those rows, if there is such a folder.
    """
    folders = [Path(name) for name in inputs if Path(name).is_dir()]
    places = {Path(os.path.relpath(path.parent, _root_of(path, folders))) for path in paths}
    for place in sorted({maps_dir, *(maps_dir / place for place in places)}):
        for folder in folders:
            if is_within(place, folder):
                raise ValueError(
                    f"--map {maps_dir}: maps would lie in the scored folder {folder}, and be scored as pictures by the "
                    "next run; give a folder outside of it"
                )
        if progress_dir and is_within(place, progress_dir):
            raise ValueError(f"--map {maps_dir}: maps would lie in {progress_dir}, where --output keeps its rows")


def check_apart(outputs: dict[str, Path], inputs: Sequence[str], progress_dir: Path | None) -> None:
    """Raise ValueError where one output would take the place of another one, of an input, or of unfinished rows.

    Args:
        outputs: files and folders by option.
        inputs: files and folders of the run.
        progress_dir: the folder of unfinished rows, if there is one.
    """
    for (name, path), (other_name, other) in combinations(outputs.items(), 2):
        if is_same_place(path, other):
            raise ValueError(f"{other_name} {other} and {name} {path} are one file: each needs a place of its own")
        for inner, inner_name, outer, outer_name in ((path, name, other, other_name), (other, other_name, path, name)):
            if outer_name != MAP and is_within(inner, outer):
                raise ValueError(f"{inner_name} {inner} lies below {outer_name} {outer}, which is to be a file")
    for name, path in outputs.items():
        if progress_dir and is_within(path, progress_dir):
            raise ValueError(f"{name} {path} lies in {progress_dir}, where --output keeps its rows")
        if name != MAP and path.exists() and (given := [file for file in inputs if is_same_place(path, Path(file))]):
            raise ValueError(f"{name} {path} is the input {given[0]}; nothing is overwritten")


class PatchMaps:
    """Writes a map of its patches' scores for every picture scored.

    Args:
        maps_dir: made if it is not there.
        inputs: files and folders of the run; a folder's tree is kept below `maps_dir`.
        engine, choice: what scores, and which patches.
    """

    def __init__(self, maps_dir: Path, inputs: Sequence[str], engine: Engine, choice: PatchChoice):
        self.maps_dir, self.engine, self.choice = Path(os.path.realpath(maps_dir)), engine, choice
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
        save_patch_map(drawn, path, _root_of(path, self.folders), self.maps_dir)
