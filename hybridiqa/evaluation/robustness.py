"""How robust a scorer is, in numbers: does it see damage, and does it pass over what should not matter?

`DamagedPictures` makes the versions of clean pictures, a scorer scores them, and `ordering`, `stability` and
`mean_scores` measure the scores.
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
from hybridiqa.distortions.trained import (
    DISTORTIONS,
    LEVELS,
    apply_distortion,
    has_effect,
    recompress,
)
from hybridiqa.evaluation.scorers import ScorerOptions, load_scorers
from hybridiqa.evaluation.tables import _csv_rows, robustness_markdown, write_csv
from hybridiqa.utils.atomic import new_folder, write_json
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.files import as_text, content_hash, has_image_suffix, walk_files
from hybridiqa.utils.runs import describe_run

logger = logging.getLogger(__name__)

CLEAN = "clean"
ALL_FAMILIES = DISTORTIONS | HELD_OUT_DISTORTIONS
GROUPS_OF_FAMILIES = {"all": ALL_FAMILIES, "trained": DISTORTIONS, "unseen": HELD_OUT_DISTORTIONS}
INTERVAL_PERCENTILES = (2.5, 97.5)


def _jpeg95(image: Image.Image) -> Image.Image:
    """As JPEG of quality 95, which shows no damage."""
    return recompress(image, format="JPEG", quality=95)


def _shift(image: Image.Image) -> Image.Image:
    """Moved by one pixel to the right and down, the edge repeated; of the same size."""
    padded = np.pad(np.asarray(image), ((1, 0), (1, 0), (0, 0)), mode="edge")  # (height + 1, width + 1, 3)
    return Image.fromarray(padded[:-1, :-1])


def _resize(image: Image.Image) -> Image.Image:
    """Both sides times 0.98."""
    return image.resize([max(1, round(0.98 * side)) for side in image.size], Image.Resampling.LANCZOS)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg95": _jpeg95,
    "shift": _shift,
    "flip": ImageOps.mirror,
    "resize": _resize,
}


@dataclass(frozen=True)
class Version:
    """One version of a clean picture.

    Args:
        picture: path below the folder of clean pictures, with slashes.
        kind: `clean`, a family of damages, or a change that should not matter (`CHANGES`).
        severity: 1 (just visible) to 5 (ruined) of a damage; None for the others.
    """

    picture: str
    kind: str
    severity: int | None

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.picture, self.kind, self.severity) if part is not None)


def _versions_of(picture: str) -> list[Version]:
    damages = [Version(picture, family, severity) for family in ALL_FAMILIES for severity in LEVELS]
    return [Version(picture, CLEAN, None), *damages, *(Version(picture, change, None) for change in CHANGES)]


def _make(version: Version, clean: Image.Image, seed: int) -> Image.Image | None:
    """A version's picture; None where the damage found nothing to work on."""
    if version.kind == CLEAN:
        return clean
    if version.kind in CHANGES:
        return CHANGES[version.kind](clean)
    damaged = apply_distortion(ALL_FAMILIES[version.kind], clean, version.severity, seed)
    return damaged if has_effect(clean, damaged) else None


def _lossless_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="BMP")  # 24 bits a pixel; PNG takes longer than most damages
    return buffer.getvalue()


class DamagedPictures(Sequence):
    """The versions of clean pictures, made when they are asked for: each its name and a file's bytes.

    Versions of one picture stand together, the clean one first. No bytes (`b""`) stand for a damage without effect
    and for all versions of a picture that cannot be read, which is logged; a scorer has no score for them.

    Args:
        paths: clean pictures below `root`.
        seed: 0 or more, of the damages.
        max_size: limits the longer side, in pixels.

    Raises:
        ValueError: no pictures, one that is not below `root`, a number out of range, or a Pillow without JPEG 2000.
    """

    def __init__(self, paths: Sequence[Path], root: Path, seed: int = 0, max_size: int | None = None):
        if seed < 0 or (max_size is not None and max_size < 1):
            raise ValueError(f"got seed {seed}, max_size {max_size}; accepted: 0 or more, 1 or more")
        check_jpeg2000()  # else its versions would be missing, one by one, from what "unseen" says
        self.paths = {as_text(Path(path).relative_to(root).as_posix()): Path(path) for path in paths}
        if not self.paths:
            raise ValueError(f"got no pictures below {str(root)!r}; accepted: one or more")
        self.seed, self.max_size = seed, max_size
        self.versions = [version for picture in self.paths for version in _versions_of(picture)]
        self._last: tuple[str, Image.Image | None] | None = None

    def __len__(self) -> int:
        return len(self.versions)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_last": None}

    @property
    def names(self) -> list[str]:
        """What each version is called: `picture.png jpeg 3`."""
        return [str(version) for version in self.versions]

    def __getitem__(self, index: int | slice) -> tuple[str, bytes] | DamagedPictures:
        if isinstance(index, slice):
            share = object.__new__(DamagedPictures)
            share.__dict__.update(self.__getstate__(), versions=self.versions[index])
            return share
        version = self.versions[index]
        return str(version), self._bytes_of(version)

    def _clean(self, picture: str) -> Image.Image | None:
        """The clean picture, kept until another one is asked for; None where it cannot be read."""
        if self._last is None or self._last[0] != picture:
            path = self.paths[picture]
            try:
                self._last = picture, read_clean(path, self.max_size)
            except ValueError as error:
                logger.warning("no versions of %s: %s", picture, error)
                self._last = picture, None
        return self._last[1]

    def _bytes_of(self, version: Version) -> bytes:
        clean = self._clean(version.picture)
        if clean is None:
            return b""
        try:
            image = _make(version, clean, derive_seed(self.seed, version.picture))
        except (OSError, ValueError) as error:  # sides that a format does not have: 16384 pixels in WebP
            logger.warning("no %s: %s", version, error)
            return b""
        return b"" if image is None else _lossless_bytes(image)


def _check_lengths(versions: Sequence[Version], scores: Sequence[float]) -> None:
    if not versions:
        raise ValueError("got no pictures; accepted: versions of one or more")
    if len(versions) != len(scores):
        raise ValueError(f"got {len(versions)} versions and {len(scores)} scores; accepted: as many of both")


def _clean_and_damaged_scores(versions: Sequence[Version], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the clean pictures, (pictures,), and of the damaged ones, (pictures, families, 5); NaN for none."""
    rows = {picture: row for row, picture in enumerate(dict.fromkeys(version.picture for version in versions))}
    columns = {family: column for column, family in enumerate(ALL_FAMILIES)}
    clean = np.full(len(rows), np.nan)
    damaged = np.full((len(rows), len(columns), len(LEVELS)), np.nan)
    for version, score in zip(versions, scores, strict=True):
        row = rows[version.picture]
        if version.kind == CLEAN:
            clean[row] = score
        elif version.kind in columns:
            damaged[row, columns[version.kind], LEVELS.index(version.severity)] = score
    return clean, damaged


def _comparisons(better: np.ndarray, worse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which scores are right (strictly higher), and which of them are comparisons at all (neither is NaN)."""
    return better > worse, ~(np.isnan(better) | np.isnan(worse))


class _Shares:
    """Shares of right comparisons with their intervals; the pictures, resampled, are the same for all of them."""

    def __init__(self, num_pictures: int, num_resamples: int, seed: int):
        rng = np.random.default_rng(seed)
        even = np.full(num_pictures, 1 / num_pictures)
        self.draws = rng.multinomial(num_pictures, even, num_resamples)  # (resamples, pictures): how often each

    def of(self, is_right: np.ndarray, is_compared: np.ndarray) -> dict:
        """Of the comparisons, (pictures, families, pairs): value, interval and number of pairs."""
        num_right = is_right.sum(axis=(1, 2))  # (pictures,)
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


def ordering(
    versions: Sequence[Version], scores: Sequence[float], num_resamples: int = 1000, seed: int = 0
) -> list[dict]:
    """How often a scorer puts the less damaged version of a picture strictly above the more damaged one.

    A row for each of "all", "trained" and "unseen" families and for each family by itself, at every severity and, with
    severity None, over all of them. `clean_over_damaged` compares the clean picture with the damaged one,
    `mild_over_strong` a severity with every stronger one of the same family and picture; each holds the share that is
    right (`value`, NaN without pairs), its 95 % `interval` by the bootstrap over pictures (NaN where fewer than two
    have pairs), and `num_pairs`. A tie is wrong.

    Args:
        scores: one a version, the higher the better; NaN where there is none, which leaves its pairs out.

    Raises:
        ValueError: no versions, not as many scores, or no resamples.
    """
    _check_lengths(versions, scores)
    if num_resamples < 1:
        raise ValueError(f"got {num_resamples} resamples; accepted: 1 or more")
    clean, damaged = _clean_and_damaged_scores(versions, scores)
    has_any = ~np.isnan(damaged).all(axis=(1, 2))
    clean, damaged = clean[has_any], damaged[has_any]
    pairs = list(itertools.combinations(range(len(LEVELS)), 2))
    mild, strong = np.array(pairs).T  # (10,) each: indices of severities
    over_damaged = _comparisons(clean[:, None, None], damaged)  # (pictures, families, 5)
    over_strong = _comparisons(damaged[..., mild], damaged[..., strong])  # (pictures, families, 10)
    shares = _Shares(max(1, len(clean)), num_resamples, seed)
    rows = []
    for name, members in (GROUPS_OF_FAMILIES | {family: (family,) for family in ALL_FAMILIES}).items():
        is_member = np.isin(list(ALL_FAMILIES), list(members))
        for severity in (None, *LEVELS):
            level = slice(None) if severity is None else [LEVELS.index(severity)]
            of_level = slice(None) if severity is None else np.flatnonzero(mild == level[0])
            rows.append(
                {
                    "families": name,
                    "severity": severity,
                    "clean_over_damaged": shares.of(*(part[:, is_member][..., level] for part in over_damaged)),
                    "mild_over_strong": shares.of(*(part[:, is_member][..., of_level] for part in over_strong)),
                }
            )
    return rows


def stability(versions: Sequence[Version], scores: Sequence[float]) -> list[dict]:
    """How far scores move under each change that should not matter.

    A row a change: `median` and `percentile_95` of the absolute differences to the clean picture's score,
    `relative_median` (the median by the standard deviation of all clean and damaged scores, to compare scorers of
    different scales) and `num_pictures` that have both scores. NaN where there is nothing to compute from.

    Args:
        scores: one a version; NaN where there is none.

    Raises:
        ValueError: no versions, or not as many scores.
    """
    _check_lengths(versions, scores)
    clean = {v.picture: score for v, score in zip(versions, scores, strict=True) if v.kind == CLEAN}
    spread_over = [score for v, score in zip(versions, scores, strict=True) if v.kind not in CHANGES]
    spread_over = np.array(spread_over, dtype=float)
    spread_over = spread_over[~np.isnan(spread_over)]
    spread = spread_over.std() if len(spread_over) else 0.0
    rows = []
    for change in CHANGES:
        changed = [(v, score) for v, score in zip(versions, scores, strict=True) if v.kind == change]
        moves = np.abs([score - clean.get(v.picture, np.nan) for v, score in changed])
        moves = moves[~np.isnan(moves)]
        median, percentile_95 = np.percentile(moves, [50, 95]).tolist() if len(moves) else (float("nan"),) * 2
        rows.append(
            {
                "change": change,
                "median": median,
                "percentile_95": percentile_95,
                "relative_median": float(median / spread) if spread > 0 else float("nan"),
                "num_pictures": len(moves),
            }
        )
    return rows


def mean_scores(versions: Sequence[Version], scores: Sequence[float]) -> list[float]:
    """Mean score of the clean pictures and of severities 1 to 5, over all families; NaN where nothing has a score.

    Args:
        scores: one a version; NaN where there is none, which is left out.

    Raises:
        ValueError: no versions, or not as many scores.
    """
    _check_lengths(versions, scores)
    clean, damaged = _clean_and_damaged_scores(versions, scores)
    levels = [clean, *np.moveaxis(damaged, -1, 0)]
    present = [level[~np.isnan(level)] for level in levels]
    return [float(level.mean()) if len(level) else float("nan") for level in present]


def hash_pictures(root: Path, paths: list[Path]) -> str:
    """16 hexadecimal digits over the pictures' names below the folder and their bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{as_text(path.relative_to(root).as_posix())} {content_hash(path)}\n".encode())
    return digest.hexdigest()[:HASH_LENGTH]


def run_robustness(args: Namespace) -> str:
    """Measure and write everything; returns the report in Markdown.

    Raises:
        ValueError: wrong usage, found before the long work as far as it can be, or nothing to measure.
    """
    root = Path(args.images)
    if not root.is_dir():
        raise ValueError(f"--images must be a folder, got {args.images}")
    paths = [path for path in walk_files(root) if has_image_suffix(path)]
    if not paths:
        raise ValueError(f"no images in the folder {args.images}")
    pictures = DamagedPictures(paths, root, args.seed, args.max_size)
    with new_folder(args.output_dir) as unfinished:
        options = ScorerOptions(
            args.device, args.num_patches, args.batch_size, args.num_workers, args.trust_remote_code
        )
        scorers, results, columns = load_scorers(args.model, options), {}, []
        if unable := [model for model, scorer in scorers.items() if scorer.needs_prompts]:
            raise ValueError(f"--images have no prompts, which {', '.join(unable)} needs")
        for model, scorer in scorers.items():
            scores = scorer.score(pictures)
            columns.append(scores)
            results[model] = {
                "description": scorer.description,
                "ordering": ordering(pictures.versions, scores, args.num_resamples, args.seed),
                "stability": stability(pictures.versions, scores),
                "mean_scores": mean_scores(pictures.versions, scores),
                "unscored": [pictures.names[index] for index in np.flatnonzero(np.isnan(scores))],
            }
        report = {
            "kind": "robustness",
            **describe_run(args.command_line, choose_device(args.device)),
            "num_pictures": len(paths),
            "data_hash": hash_pictures(root, paths),
            "seed": args.seed,
            "models": results,
        }
        write_json(unfinished / "report.json", report)
        (unfinished / "report.md").write_text(robustness_markdown(report) + "\n", encoding="utf-8")
        header = ["model", "damage or change", "severity", "measure", "value", "low", "high"]
        write_csv(unfinished / "metrics.csv", header, _csv_rows(report))
        write_csv(unfinished / "scores.csv", ["version", *scorers], zip(pictures.names, *columns, strict=True))
    return robustness_markdown(report)
