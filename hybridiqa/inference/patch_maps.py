"""Patch maps: PNG files that show an image, its patches' scores laid over it, and its worst and best patch."""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import math
import os
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin

from hybridiqa.inference.engine import Engine
from hybridiqa.inference.scoring import PatchChoice, ScoredSource
from hybridiqa.models import hub_code
from hybridiqa.utils.atomic import is_within, open_atomically
from hybridiqa.utils.files import as_text, error_reason, hash_of

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

LONG_SIDE = 1024  # pixels of the image in a map
SHORT_SIDE = 320  # at least so many, where that leaves the other side below MAX_SIDE
MAX_SIDE = 8192
TILE_SIZE = 256  # a patch of up to this many pixels is shown as it is
FRAME_WIDTH = 5
BLOCK_WIDTH = TILE_SIZE + 2 * FRAME_WIDTH
BAR_HEIGHT = 18
LABEL_PADDING, LABEL_OFFSET = 5, 8
GAP = 24
COLOURS = colormaps["RdYlBu"]  # low is red and high is blue, which colour-blind eyes tell apart, too
OPACITY = 0.5  # of the colours over the image
WORST, BEST = (165, 0, 38), (49, 54, 149)  # the two ends of the colours
PAPER, INK = (255, 255, 255), (30, 30, 30)
NUMBER_SIZE, TEXT_SIZE = 24, 18  # pixels
LINE_HEIGHT = 26
LINE_LETTERS = 24  # of text that fit a tile's width
SUFFIX = ".map.png"
MAX_NAME_BYTES = 255  # of a file, on all common file systems
OWNER_KEY = "hybridIQA map of"  # of the PNG text that tells which image a map belongs to


@cache
def _font(size: int, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _scale_for(width: int, height: int) -> float:
    """Return the factor that enlarges to a long side of 1024, or more where the short one would be illegible."""
    long_side, short_side = max(width, height), min(width, height)
    return min(max(LONG_SIDE / long_side, SHORT_SIDE / short_side), max(MAX_SIDE / long_side, LONG_SIDE / long_side))


def mean_scores(width: int, height: int, boxes: Sequence[Box], patch_scores: Sequence[float]) -> np.ndarray:
    """Return `(height, width)`: of each pixel the mean score of the patches that cover it, NaN where there is none."""
    totals, counts = np.zeros((height, width)), np.zeros((height, width))
    for box, score in zip(boxes, patch_scores, strict=True):
        left, top, right, bottom = map(round, box)
        totals[top : max(bottom, top + 1), left : max(right, left + 1)] += score
        counts[top : max(bottom, top + 1), left : max(right, left + 1)] += 1
    return np.divide(totals, counts, out=np.full((height, width), np.nan), where=counts > 0)


def _paint(scores: np.ndarray, score_range: Sequence[float]) -> np.ndarray:
    """Return the colours of scores, `(..., 3)`, 0-255; those outside of the range have the colour of its end."""
    low, high = score_range
    return COLOURS((np.asarray(scores) - low) / (high - low))[..., :3] * 255


def _lay_over(image: Image.Image, scores: np.ndarray, score_range: Sequence[float]) -> Image.Image:
    """Return the image in grey under the colours of its scores `(height, width)`, and itself where there is none."""
    pixels = np.asarray(image, dtype=np.float32)  # (height, width, 3)
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    coloured = (1 - OPACITY) * grey + OPACITY * _paint(scores, score_range)
    return Image.fromarray(np.where(np.isnan(scores)[..., None], pixels, coloured).round().astype(np.uint8))


class _Labels:
    """Labels on an image, each on its own ground; one that would cover an earlier one is left out."""

    def __init__(self, image: Image.Image):
        self.image, self.draw = image, ImageDraw.Draw(image)
        self.font = _font(NUMBER_SIZE, is_bold=True)
        self.taken: list[Box] = []

    def write(self, text: str, x: float, y: float, align: float, ground: tuple[int, int, int]) -> None:
        """Write a label; (x, y), in pixels, is its upper left corner (align 0), middle (0.5) or lower right corner (1).

        It is moved where it would stick out of the image.
        """
        _, _, *size = self.font.getbbox(text, anchor="lt")
        width, height = (side + 2 * LABEL_PADDING for side in size)
        left = max(0, min(x - align * width, self.image.width - width))
        top = max(0, min(y - align * height, self.image.height - height))
        box = (left, top, left + width, top + height)
        if any(_intersect(box, other) for other in self.taken):
            return
        self.taken.append(box)
        self.draw.rounded_rectangle(box, radius=6, fill=ground)
        self.draw.text((left + LABEL_PADDING, top + LABEL_PADDING), text, PAPER, self.font, "lt")


def _intersect(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _draw_frame(image: Image.Image, box: Box, colour: tuple[int, int, int]) -> None:
    """Draw a coloured frame with a white edge, which shows on any image, inside the box."""
    left, top, right, bottom = map(round, box)
    rectangle = (left, top, max(right - 1, left), max(bottom - 1, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle(rectangle, outline=PAPER, width=FRAME_WIDTH + 3)
    draw.rectangle(rectangle, outline=colour, width=FRAME_WIDTH)


def _draw_numbers(image: Image.Image, boxes: Sequence[Box], patch_scores: Sequence[float]) -> None:
    """Draw frames and labels on the worst and the best patch, and each score in the middle of its patch, if it fits.

    Of patches of several sizes only the smallest are numbered: the middles of all would not tell whose they are.
    """
    extremes = _find_extremes(patch_scores)
    for _, index, colour in extremes:
        _draw_frame(image, boxes[index], colour)
    labels = _Labels(image)
    for align, (name, index, colour) in enumerate(extremes):  # in corners of their own, as the two may overlap
        left, top, right, bottom = boxes[index]
        corner = (right - LABEL_OFFSET, bottom - LABEL_OFFSET) if align else (left + LABEL_OFFSET, top + LABEL_OFFSET)
        labels.write(f"{name} {patch_scores[index]:.2f}", *corner, align, colour)
    smallest = min(map(_longer_side, boxes))
    scores_by_box: dict[tuple[int, ...], list[float]] = {}  # a small image has the same patch more than once
    for box, score in zip(boxes, patch_scores, strict=True):
        if _longer_side(box) == smallest:
            scores_by_box.setdefault(tuple(map(round, box)), []).append(score)
    for (left, top, right, bottom), scores in scores_by_box.items():
        labels.write(f"{sum(scores) / len(scores):.1f}", (left + right) / 2, (top + bottom) / 2, 0.5, INK)


def _longer_side(box: Box) -> int:
    return round(max(box[2] - box[0], box[3] - box[1]))


def _find_extremes(patch_scores: Sequence[float]) -> list[tuple[str, int, tuple[int, int, int]]]:
    """Return (name, index, colour) of the worst and the best patch; of a single one there is neither."""
    if len(patch_scores) == 1:
        return []
    worst, best = int(np.argmin(patch_scores)), int(np.argmax(patch_scores))
    return [("worst", worst, WORST), ("best", best, BEST)]


def crop_patch(image: Image.Image, box: Box) -> Image.Image:
    """Return the part of the image that a patch shows, in its own pixels."""
    left, top = math.floor(box[0]), math.floor(box[1])
    return image.crop((left, top, max(round(box[2]), left + 1), max(round(box[3]), top + 1)))


def _crop_to_tile(image: Image.Image, box: Box) -> Image.Image:
    """Return the patch as it is; shrunk where it exceeds a tile, enlarged by a whole factor where it is tiny."""
    patch = crop_patch(image, box)
    if max(patch.size) > TILE_SIZE:
        return ImageOps.contain(patch, (TILE_SIZE, TILE_SIZE), Image.Resampling.LANCZOS)
    return ImageOps.scale(patch, TILE_SIZE // max(patch.size), Image.Resampling.NEAREST)


def _draw_patch_block(image: Image.Image, box: Box, title: str, colour: tuple[int, int, int]) -> Image.Image:
    """Draw the patch in the frame that it has in the image, under its title."""
    tile = ImageOps.expand(_crop_to_tile(image, box), FRAME_WIDTH, colour)
    block = Image.new("RGB", (BLOCK_WIDTH, LINE_HEIGHT + tile.height), PAPER)
    ImageDraw.Draw(block).text((0, 0), title, colour, _font(TEXT_SIZE, is_bold=True))
    block.paste(tile, (0, LINE_HEIGHT))
    return block


def _list_larger_patches(boxes: Sequence[Box], patch_scores: Sequence[float]) -> list[str]:
    """Return lines with the scores of the patches that have no number in the image, a paragraph a size."""
    lefts, tops, rights, bottoms = zip(*(map(round, box) for box in boxes), strict=True)
    whole = (min(lefts), min(tops), max(rights), max(bottoms))
    smallest = min(map(_longer_side, boxes))
    scores_by_name: dict[str, list[str]] = {}
    for box, score in zip(boxes, patch_scores, strict=True):
        if _longer_side(box) > smallest:
            name = "whole image" if tuple(map(round, box)) == whole else f"patches of {_longer_side(box)} px"
            scores_by_name.setdefault(name, []).append(f"{score:.1f}")
    paragraphs = [f"{name}: {'  '.join(scores)}" for name, scores in scores_by_name.items()]
    return [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, LINE_LETTERS)]


def _draw_colour_bar(block: Image.Image, top: int, score: float, score_range: Sequence[float]) -> None:
    """Draw the colours of the whole range with its ends below, and a mark at the image's score."""
    low, high = score_range
    bar = Image.fromarray(_paint(np.linspace(low, high, BLOCK_WIDTH)[None], score_range).round().astype(np.uint8))
    block.paste(bar.resize((BLOCK_WIDTH, BAR_HEIGHT)), (0, top))
    draw, font, bottom = ImageDraw.Draw(block), _font(TEXT_SIZE), top + BAR_HEIGHT
    x = min(max((score - low) / (high - low), 0), 1) * (BLOCK_WIDTH - 1)
    draw.line((x, top - 5, x, bottom + 4), INK, width=3)
    draw.text((0, bottom + 6), f"{low:g}", INK, font, "la")
    draw.text((BLOCK_WIDTH, bottom + 6), f"{high:g}", INK, font, "ra")


def _draw_summary_block(
    boxes: Sequence[Box], patch_scores: Sequence[float], score: float, score_range: Sequence[float]
) -> Image.Image:
    """Draw the image's score, what the colours mean, and the scores that are not in the image."""
    number = "1 patch" if len(boxes) == 1 else f"{len(boxes)} patches"
    lines = [number, *_list_larger_patches(boxes, patch_scores)]
    bar_top = 2 * LINE_HEIGHT
    text_top = bar_top + BAR_HEIGHT + 2 * LINE_HEIGHT
    block = Image.new("RGB", (BLOCK_WIDTH, text_top + len(lines) * LINE_HEIGHT), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((0, 0), f"score {score:.2f}", INK, _font(NUMBER_SIZE, is_bold=True))
    _draw_colour_bar(block, bar_top, score, score_range)
    for index, line in enumerate(lines):
        draw.text((0, text_top + index * LINE_HEIGHT), line, INK, _font(TEXT_SIZE))
    return block


def _arrange(image: Image.Image, blocks: Sequence[Image.Image]) -> Image.Image:
    """Place the blocks in a row below an image that is wider than high, and in a column beside any other."""
    is_below = image.width > image.height
    width, height = image.width + GAP + BLOCK_WIDTH, sum(block.height + GAP for block in blocks) - GAP
    if is_below:
        width, height = image.width, image.height + GAP + max(block.height for block in blocks)
    page = Image.new("RGB", (width + 2 * GAP, max(height, image.height) + 2 * GAP), PAPER)
    page.paste(image, (GAP, GAP))
    x, y = (GAP, image.height + 2 * GAP) if is_below else (image.width + 2 * GAP, GAP)
    for block in blocks:
        page.paste(block, (x, y))
        x, y = (x + BLOCK_WIDTH + GAP, y) if is_below else (x, y + block.height + GAP)
    return page


def draw_over_picture(
    image: Image.Image, boxes: Sequence[Box], patch_scores: Sequence[float], score_range: Sequence[float]
) -> Image.Image:
    """Draw the part of `draw_patch_map`, whose arguments these are, that is the image itself.

    Raises:
        ValueError: no patch, or not one score a box.
    """
    if not boxes or len(boxes) != len(patch_scores):
        raise ValueError(f"a map needs one score a patch, got {len(boxes)} boxes and {len(patch_scores)} scores")
    scale = _scale_for(*image.size)
    resized = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    scaled_boxes = [(scale * left, scale * top, scale * right, scale * bottom) for left, top, right, bottom in boxes]
    drawn = _lay_over(resized, mean_scores(*resized.size, scaled_boxes, patch_scores), score_range)
    _draw_numbers(drawn, scaled_boxes, patch_scores)
    return drawn


def draw_patch_map(
    image: Image.Image,
    boxes: Sequence[Box],
    patch_scores: Sequence[float],
    score: float,
    score_range: Sequence[float],
) -> Image.Image:
    """Draw an image in grey, each pixel under the colour of the mean score of its patches, red for low, blue for high.

    Beside it stand the score and the worst and the best patch, the latter two framed as they are in the image.

    Args:
        image: RGB, upright.
        boxes: (left, top, right, bottom) of each patch in pixels of `image`, as the processor's `patch_boxes` gives.
        patch_scores: of the same patches, in the same order.
        score: the image's.
        score_range: (low, high), the scores that have the ends of the colours, as in the model's configuration.

    Returns:
        RGB; the image's longer side is about 1024 px in it, or more where its shorter one would be illegible.

    Raises:
        ValueError: no patch, or not one score a box.
    """
    drawn = draw_over_picture(image, boxes, patch_scores, score_range)
    blocks = [_draw_summary_block(boxes, patch_scores, score, score_range)]
    for name, index, colour in _find_extremes(patch_scores):
        blocks.append(_draw_patch_block(image, boxes[index], f"{name} patch {patch_scores[index]:.2f}", colour))
    return _arrange(drawn, blocks)


def _hash_owner(image_path: Path) -> str:
    """Return what tells one image's map from another's, and gives no path away to those who get the map."""
    return hashlib.blake2b(os.fsencode(os.path.abspath(image_path)), digest_size=16).hexdigest()


def _is_free(path: Path, owner: str) -> bool:
    """Return whether nothing has this name, or a map of the same image, which a new one may replace."""
    if not os.path.lexists(path):
        return True
    try:
        return hub_code.open_image(io.BytesIO(hub_code.read_file(path))).info.get(OWNER_KEY) == owner
    except (OSError, ValueError):
        return False


def find_map_path(image_path: Path, root: Path, maps_dir: Path) -> Path:
    """Return where an image's map goes: the tree below `root` again below `maps_dir`, `NAME.map.png` for each image.

    What has that name already stays, unless it is a map of the same image: another one is called `NAME.1.map.png`.

    Raises:
        ValueError: the image is not below `root`.
    """
    relative = Path(os.path.abspath(image_path)).relative_to(os.path.abspath(root))
    owner = _hash_owner(image_path)

    def add_ending(ending: str) -> Path:
        stem = relative.name
        while len(os.fsencode(stem + ending)) > MAX_NAME_BYTES:  # whole prompts are made file names
            stem = stem[:-1]
        return Path(maps_dir, relative.parent, stem + ending)

    endings = itertools.chain([SUFFIX], (f".{number}{SUFFIX}" for number in itertools.count(1)))
    return next(path for path in map(add_ending, endings) if _is_free(path, owner))


def save_patch_map(drawn: Image.Image, image_path: Path, root: Path, maps_dir: Path) -> Path:
    """Write an image's map to its `find_map_path`, which is returned; it is there whole, as before, or not at all.

    Raises:
        OSError: it cannot be written.
        ValueError: the image is not below `root`.
    """
    path = find_map_path(image_path, root, maps_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = _hash_owner(image_path)
    text = PngImagePlugin.PngInfo()
    text.add_text(OWNER_KEY, owner)
    with open_atomically(path) as file:
        drawn.save(file, "PNG", pnginfo=text)
    return path


class PatchMaps:
    """Folder that gets a map of its patches' scores for every image scored.

    Args:
        maps_dir: made if it is not there.
        inputs: files and folders of the run; a folder's tree is kept below `maps_dir`.
        engine, choice: what scores, and which patches.
    """

    def __init__(self, maps_dir: Path, inputs: Sequence[str], engine: Engine, choice: PatchChoice):
        self.maps_dir, self.engine, self.choice = Path(os.path.realpath(maps_dir)), engine, choice
        self.folders = [Path(name) for name in inputs if Path(name).is_dir()]

    def write(self, path: Path, result: ScoredSource) -> None:
        """Write the map of one image, if it was scored now; one that has changed since gets none, which is logged."""
        if result.patch_scores is None or result.row.score is None:
            return
        try:
            data = hub_code.read_file(path)
        except (OSError, ValueError) as error:
            logger.warning("no map of %s: %s", as_text(path), error_reason(error))
            return
        if hash_of(data) != result.row.content_hash:
            logger.warning("no map of %s: it was changed after it was scored", as_text(path))
            return
        image = hub_code.load_image(data)
        boxes = self.engine.image_processor.patch_boxes(
            *image.size, sampling=self.choice.sampling, num_patches=self.choice.num_patches
        )
        drawn = draw_patch_map(image, boxes, result.patch_scores, result.row.score, self.engine.config.score_range)
        save_patch_map(drawn, path, _find_root(path, self.folders), self.maps_dir)


def check_maps_dir(maps_dir: Path) -> None:
    """Raise ValueError unless maps can be written there: a folder, or a free name that can become one."""
    real = Path(os.path.realpath(maps_dir))
    place = next(place for place in (real, *real.parents) if os.path.lexists(place))
    if not place.is_dir():
        kind = "file" if place == real else "place below a file"
        raise ValueError(f"--map must be a folder, got the {kind} {maps_dir}")
    if not os.access(place, os.W_OK):
        raise ValueError(f"--map: {place} cannot be written to")


def _find_root(path: Path, folders: Sequence[Path]) -> Path:
    """Return the folder whose tree an image's map repeats."""
    return next((folder for folder in folders if path.is_relative_to(folder)), path.parent)


def check_maps_apart(maps_dir: Path, inputs: Sequence[str], paths: Sequence[Path], progress_dir: Path | None) -> None:
    """Raise ValueError for maps that the next run would score, or that would lie among unfinished rows.

    Args:
        inputs: files and folders of the run.
        paths: of the images in them.
        progress_dir: of those rows, if there is such a folder.
    """
    folders = [Path(name) for name in inputs if Path(name).is_dir()]
    places = {Path(os.path.relpath(path.parent, _find_root(path, folders))) for path in paths}
    for place in sorted({maps_dir, *(maps_dir / place for place in places)}):
        for folder in folders:
            if is_within(place, folder):
                raise ValueError(
                    f"--map {maps_dir}: maps would lie in the scored folder {folder}, and be scored as images by the "
                    "next run; give a folder outside of it"
                )
        if progress_dir and is_within(place, progress_dir):
            raise ValueError(f"--map {maps_dir}: maps would lie in {progress_dir}, where --output keeps its rows")
