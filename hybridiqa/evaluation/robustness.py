"""Robustness of a scorer, in numbers: does it see distortions, and does it pass over what should not matter?

`ImageVersions` makes the versions of clean images, a scorer scores them, and `measure_ordering`, `measure_stability`
and `compute_mean_scores` measure the scores.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hybridiqa.data.loading import HASH_LENGTH
from hybridiqa.distortions.held_out import HELD_OUT_DISTORTIONS, check_jpeg2000
from hybridiqa.distortions.synthesis import derive_seed, read_clean
from hybridiqa.distortions.trained import DISTORTIONS, LEVELS, apply_distortion, has_effect, recompress
from hybridiqa.evaluation.images import LazyImages
from hybridiqa.evaluation.scorers import ScorerOptions, load_scorers
from hybridiqa.evaluation.tables import robustness_csv, robustness_markdown, write_csv
from hybridiqa.inference.scoring import find_images
from hybridiqa.utils.atomic import new_folder, write_json
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.files import as_text, content_hash
from hybridiqa.utils.runs import describe_run

logger = logging.getLogger(__name__)

CLEAN = "clean"
ALL_DISTORTIONS = DISTORTIONS | HELD_OUT_DISTORTIONS
GROUPS = {"all": ALL_DISTORTIONS, "trained": DISTORTIONS, "unseen": HELD_OUT_DISTORTIONS}
INTERVAL_PERCENTILES = (2.5, 97.5)


def _save_as_jpeg95(image: Image.Image) -> Image.Image:
    """Compress as JPEG of quality 95, which shows no distortion."""
    return recompress(image, format="JPEG", quality=95)


def _shift(image: Image.Image) -> Image.Image:
    """Move by one pixel to the right and down, the edge repeated; the size stays."""
    padded = np.pad(np.asarray(image), ((1, 0), (1, 0), (0, 0)), mode="edge")  # (height + 1, width + 1, 3)
    return Image.fromarray(padded[:-1, :-1])


def _resize(image: Image.Image) -> Image.Image:
    """Resize both sides to 0.98 of what they are."""
    width, height = (max(1, round(0.98 * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg95": _save_as_jpeg95,
    "shift": _shift,
    "flip": ImageOps.mirror,
    "resize": _resize,
}


@dataclass(frozen=True)
class Version:
    """One version of a clean image.

    Args:
        image: path below the folder of clean images, with slashes.
        kind: `clean`, a distortion type, or a change that should not matter (`CHANGES`).
        level: 1 (just visible) to 5 (ruined) of a distortion; None for the others.
    """

    image: str
    kind: str
    level: int | None = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.image, self.kind, self.level) if part is not None)


def _list_versions(image: str) -> list[Version]:
    distorted = [Version(image, distortion, level) for distortion in ALL_DISTORTIONS for level in LEVELS]
    return [Version(image, CLEAN), *distorted, *(Version(image, change) for change in CHANGES)]


def _make(version: Version, clean: Image.Image, seed: int) -> Image.Image | None:
    """Make a version of an image; None where the distortion found nothing to work on."""
    if version.kind == CLEAN:
        return clean
    if version.level is None:
        return CHANGES[version.kind](clean)
    distorted = apply_distortion(ALL_DISTORTIONS[version.kind], clean, version.level, seed)
    return distorted if has_effect(clean, distorted) else None


def _encode_losslessly(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="BMP")  # 24 bits a pixel; PNG takes longer than most distortions
    return buffer.getvalue()


class ImageVersions(LazyImages):
    """Versions of clean images, made when they are asked for: each its name (`a.png jpeg 3`) and a file's bytes.

    Versions of one image stand together, the clean one first. No bytes (`b""`) stand for a distortion without effect
    and for all versions of an image that cannot be read, which is logged; a scorer has no score for them.

    Args:
        paths: clean images below `root`.
        seed: 0 or more, of the distortions.
        max_size: limits the longer side, in pixels.

    Raises:
        ValueError: no images, one that is not below `root`, a number out of range, or a Pillow without JPEG 2000.
    """

    def __init__(self, paths: Sequence[Path], root: Path, seed: int = 0, max_size: int | None = None):
        if seed < 0 or (max_size is not None and max_size < 1):
            raise ValueError(f"got seed {seed}, max_size {max_size}; accepted: 0 or more, 1 or more")
        check_jpeg2000()  # else its versions would be missing, one by one, from what "unseen" says
        self.paths = {as_text(Path(path).relative_to(root).as_posix()): Path(path) for path in paths}
        if not self.paths:
            raise ValueError(f"got no images below {str(root)!r}; accepted: one or more")
        self.seed, self.max_size = seed, max_size
        self.versions = [version for image in self.paths for version in _list_versions(image)]
        super().__init__([str(version) for version in self.versions])
        self._last: tuple[str, Image.Image | None] = ("", None)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_last": ("", None)}

    def load(self, index: int) -> bytes:
        version = self.versions[index]
        clean = self._read_clean(version.image)
        if clean is None:
            return b""
        try:
            image = _make(version, clean, derive_seed(self.seed, version.image))
        except (OSError, ValueError) as error:  # sides that a format does not have: 16384 pixels in WebP
            logger.warning("no %s: %s", version, error)
            return b""
        return b"" if image is None else _encode_losslessly(image)

    def _read_clean(self, image: str) -> Image.Image | None:
        """Return the clean image, kept until another one is asked for; None where it cannot be read."""
        if self._last[0] != image:
            try:
                self._last = image, read_clean(self.paths[image], self.max_size)
            except ValueError as error:
                logger.warning("no versions of %s: %s", image, error)
                self._last = image, None
        return self._last[1]


def _check_lengths(versions: Sequence[Version], scores: Sequence[float]) -> None:
    if not versions:
        raise ValueError("got no images; accepted: versions of one or more")
    if len(versions) != len(scores):
        raise ValueError(f"got {len(versions)} versions and {len(scores)} scores; accepted: as many of both")


def _arrange(versions: Sequence[Version], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of the clean images, (images,), and of distorted ones, (images, types, 5); NaN for none."""
    rows = {image: row for row, image in enumerate(dict.fromkeys(version.image for version in versions))}
    columns = {distortion: column for column, distortion in enumerate(ALL_DISTORTIONS)}
    clean = np.full(len(rows), np.nan)
    distorted = np.full((len(rows), len(columns), len(LEVELS)), np.nan)
    for version, score in zip(versions, scores, strict=True):
        row = rows[version.image]
        if version.kind == CLEAN:
            clean[row] = score
        elif version.level is not None:
            distorted[row, columns[version.kind], LEVELS.index(version.level)] = score
    return clean, distorted


def _compare(better: np.ndarray, worse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where scores are right (strictly higher), and where they are comparisons at all (neither is NaN)."""
    return better > worse, ~(np.isnan(better) | np.isnan(worse))


class _Shares:
    """Shares of right comparisons with their intervals; the images, resampled, are the same for all of them."""

    def __init__(self, num_images: int, num_resamples: int, seed: int):
        rng = np.random.default_rng(seed)
        even = np.full(num_images, 1 / num_images)
        self.draws = rng.multinomial(num_images, even, num_resamples)  # (resamples, images): how often each

    def measure(self, is_right: np.ndarray, is_compared: np.ndarray) -> dict:
        """Return value, interval and number of pairs of comparisons, (images, types, pairs)."""
        num_right = is_right.sum(axis=(1, 2))  # (images,)
        num_pairs = is_compared.sum(axis=(1, 2))
        total = int(num_pairs.sum())
        row = {"value": float("nan"), "interval": [float("nan"), float("nan")], "num_pairs": total}
        if total:
            row["value"] = float(num_right.sum() / total)
        if np.count_nonzero(num_pairs) > 1:
            drawn = self.draws @ num_pairs
            samples = (self.draws @ num_right)[drawn > 0] / drawn[drawn > 0]
            row["interval"] = np.percentile(samples, INTERVAL_PERCENTILES).tolist()
        return row


def measure_ordering(
    versions: Sequence[Version], scores: Sequence[float], num_resamples: int = 1000, seed: int = 0
) -> list[dict]:
    """Measure how often a scorer puts the less distorted version of an image strictly above the more distorted one.

    A row for each group of distortion types (`GROUPS`) and for each type by itself (`families`), at every level
    (`severity`) and, with None, over all of them. `clean_over_damaged` compares the clean image with the distorted one,
    `mild_over_strong` a level with every stronger one of the same type and image; each holds the share that is right
    (`value`, NaN without pairs), its 95 % `interval` by the bootstrap over images (NaN where fewer than two have
    pairs), and `num_pairs`. A tie is wrong.

    Args:
        scores: one a version, the higher the better; NaN where there is none, which leaves its pairs out.

    Raises:
        ValueError: no versions, not as many scores, or no resamples.
    """
    _check_lengths(versions, scores)
    if num_resamples < 1:
        raise ValueError(f"got {num_resamples} resamples; accepted: 1 or more")
    clean, distorted = _arrange(versions, scores)
    has_any = ~np.isnan(distorted).all(axis=(1, 2))
    clean, distorted = clean[has_any], distorted[has_any]
    mild, strong = np.array(list(itertools.combinations(range(len(LEVELS)), 2))).T  # (10,) each: indices of levels
    over_distorted = _compare(clean[:, None, None], distorted)  # (images, types, 5)
    over_strong = _compare(distorted[..., mild], distorted[..., strong])  # (images, types, 10)
    shares = _Shares(max(1, len(clean)), num_resamples, seed)
    rows = []
    for name, members in (GROUPS | {distortion: (distortion,) for distortion in ALL_DISTORTIONS}).items():
        is_member = np.isin(list(ALL_DISTORTIONS), list(members))
        for level in (None, *LEVELS):
            of_level = np.array([level in (None, other) for other in LEVELS])
            clean_part = (part[:, is_member][..., of_level] for part in over_distorted)
            mild_part = (part[:, is_member][..., of_level[mild]] for part in over_strong)
            rows.append(
                {
                    "families": name,
                    "severity": level,
                    "clean_over_damaged": shares.measure(*clean_part),
                    "mild_over_strong": shares.measure(*mild_part),
                }
            )
    return rows


def measure_stability(versions: Sequence[Version], scores: Sequence[float]) -> list[dict]:
    """Measure how far scores move under each change that should not matter.

    A row a change: `median` and `percentile_95` of the absolute differences to the clean image's score,
    `relative_median` (the median by the standard deviation of all clean and distorted scores, to compare scorers of
    different scales) and `num_pictures`, the images that have both scores. NaN where there is nothing to compute from.

    Args:
        scores: one a version; NaN where there is none.

    Raises:
        ValueError: no versions, or not as many scores.
    """
    _check_lengths(versions, scores)
    scored = [(version, score) for version, score in zip(versions, scores, strict=True) if not np.isnan(score)]
    clean = {version.image: score for version, score in scored if version.kind == CLEAN}
    unchanged = [score for version, score in scored if version.kind not in CHANGES]
    score_std = float(np.std(unchanged)) if unchanged else 0.0
    rows = []
    for change in CHANGES:
        of_change = [(version.image, score) for version, score in scored if version.kind == change]
        moves = [abs(score - clean[image]) for image, score in of_change if image in clean]
        median, percentile_95 = np.percentile(moves, [50, 95]).tolist() if moves else (float("nan"),) * 2
        rows.append(
            {
                "change": change,
                "median": median,
                "percentile_95": percentile_95,
                "relative_median": median / score_std if score_std > 0 else float("nan"),
                "num_pictures": len(moves),
            }
        )
    return rows


def compute_mean_scores(versions: Sequence[Version], scores: Sequence[float]) -> list[float]:
    """Return the mean score of the clean images and of levels 1 to 5, over all types; NaN where nothing has a score.

    Args:
        scores: one a version; NaN where there is none, which is left out.

    Raises:
        ValueError: no versions, or not as many scores.
    """
    _check_lengths(versions, scores)
    clean, distorted = _arrange(versions, scores)
    present = [level[~np.isnan(level)] for level in (clean, *np.moveaxis(distorted, -1, 0))]
    return [float(level.mean()) if len(level) else float("nan") for level in present]


def hash_images(root: Path, paths: list[Path]) -> str:
    """Return 16 hexadecimal digits over the images' names below the folder and their bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{as_text(path.relative_to(root).as_posix())} {content_hash(path)}\n".encode())
    return digest.hexdigest()[:HASH_LENGTH]


def _measure(versions: ImageVersions, scores: Sequence[float], description: str, args: Namespace) -> dict:
    """Return one model's part of the report."""
    return {
        "description": description,
        "ordering": measure_ordering(versions.versions, scores, args.num_resamples, args.seed),
        "stability": measure_stability(versions.versions, scores),
        "mean_scores": compute_mean_scores(versions.versions, scores),
        "unscored": [name for name, score in zip(versions.names, scores, strict=True) if np.isnan(score)],
    }


def run_robustness(args: Namespace) -> str:
    """Measure and write everything; return the report in Markdown.

    Raises:
        ValueError: wrong usage, found before the long work as far as it can be, or nothing to measure.
    """
    root = Path(args.images)
    if not root.is_dir():
        raise ValueError(f"--images must be a folder, got {args.images}")
    paths = find_images([args.images])
    versions = ImageVersions(paths, root, args.seed, args.max_size)
    with new_folder(args.output_dir) as unfinished:
        scorers = load_scorers(args.model, ScorerOptions.from_arguments(args))
        if unable := [model for model, scorer in scorers.items() if scorer.needs_prompts]:
            raise ValueError(f"--images have no prompts, which {', '.join(unable)} needs")
        scores = {model: scorer.score(versions, None) for model, scorer in scorers.items()}
        report = {
            "kind": "robustness",
            **describe_run(args.command_line, choose_device(args.device)),
            "num_pictures": len(paths),
            "data_hash": hash_images(root, paths),
            "seed": args.seed,
            "models": {
                model: _measure(versions, scores[model], scorer.description, args) for model, scorer in scorers.items()
            },
        }
        write_json(unfinished / "report.json", report)
        (unfinished / "report.md").write_text(robustness_markdown(report) + "\n", encoding="utf-8")
        header = ["model", "damage or change", "severity", "measure", "value", "low", "high"]
        write_csv(unfinished / "metrics.csv", header, robustness_csv(report))
        lines = zip(versions.names, *scores.values(), strict=True)
        write_csv(unfinished / "scores.csv", ["version", *scorers], lines)
    return robustness_markdown(report)
