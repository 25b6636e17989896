"""The scored folder of damaged pictures that is made of clean ones.

The same bytes whatever the number of processes: every draw is seeded by the run's seed and the picture's name.
"""

import csv
import hashlib
import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from hybridiqa.data.folders import NOT_AN_IMAGE, Picture, read_picture
from hybridiqa.distortions.trained import FAMILIES, SEVERITIES, degrade, has_effect, shrink
from hybridiqa.utils.atomic import new_folder
from hybridiqa.utils.files import as_text, has_image_suffix, walk_files
from hybridiqa.utils.processes import map_in_processes

logger = logging.getLogger(__name__)

CODECS = ("jpeg", "webp")  # the last thing that happens to a picture
MAX_MIXES = 400  # of a picture; of the rarest severity, a fifth of them, there are 112
MAX_GROUP_BYTES = 180  # file systems allow 255 a name, and family, severity and suffix must still fit


@dataclass(frozen=True)
class Version:
    """One damage of a picture, or two of them one after the other: (family, severity) each."""

    damages: tuple[tuple[str, int], ...]

    @property
    def severity(self) -> int:
        """1 to 5; of two damages the root of the sum of squares, as errors add that know nothing of each other."""
        return min(max(SEVERITIES), round(math.hypot(*(severity for _, severity in self.damages))))

    @property
    def name(self) -> str:
        """`family_severity`, joined by `+` where there are two."""
        return "+".join(f"{family}_{severity}" for family, severity in self.damages)

    def apply(self, image: Image.Image, seed: int) -> Image.Image:
        """RGB in, RGB of the same size out."""
        for family, severity in self.damages:
            image = degrade(image, family, severity, seed)
        return image


@dataclass
class SynthesisReport:
    """What `synthesize` did: `unreadable` and `without_effect` hold (path, reason or version) of what it left out."""

    num_clean: int = 0
    num_damaged: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    without_effect: list[tuple[str, str]] = field(default_factory=list)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def picture_seed(seed: int, name: str) -> int:
    """The seed (0 to 2**64 - 1) of one picture among those of a run."""
    return int(_digest(f"{seed}/{name}".encode())[:16], 16)


def _group_names(relative_paths: list[str]) -> dict[str, str]:
    """A file name for each picture, by which its versions know each other; `a.png` and `a.jpg` become a and a-2."""
    plain = {}
    for path in sorted(relative_paths, key=lambda path: not has_image_suffix(path)):  # a.json must not rename a.png
        name = as_text(PurePosixPath(path).with_suffix("")).replace("/", "-").replace("\\", "-")
        if len(name.encode()) > MAX_GROUP_BYTES:  # pictures named by their prompt
            name = name.encode()[: MAX_GROUP_BYTES - 20].decode(errors="ignore") + "-" + _digest(path.encode())[:12]
        plain[path] = name
    groups, taken, plain_names = {}, set(), {name.casefold() for name in plain.values()}
    for path, name in plain.items():
        group, number = name, 1
        while group.casefold() in taken or (number > 1 and group.casefold() in plain_names):
            number += 1
            group = f"{name}-{number}"
        taken.add(group.casefold())  # some file systems do not tell A from a
        groups[path] = group
    return groups


def clean_image(picture: Picture, max_size: int | None) -> Image.Image:
    """A picture as RGB, fit to be called clean; `max_size` limits its longer side, in pixels, never enlarging.

    A palette picture is halved with antialiasing first: 256-colour pictures are usually dithered, and that grain,
    called clean, would teach a model to like noise. Averaging neighbours gives the colours back that it stands for.
    """
    factor, image = 2.0 if picture.mode == "P" else 1.0, picture.rgb
    if max_size is not None:
        factor = max(factor, max(image.size) / max_size)
    return shrink(image, factor, Image.Resampling.LANCZOS) if factor > 1 else image


def read_clean(path: Path, max_size: int | None) -> Image.Image:
    """The `clean_image` of a file. Raises ValueError where it cannot be read."""
    return clean_image(read_picture(path), max_size)


def _draw_versions(num_versions: int | None, rng: np.random.Generator) -> list[Version]:
    """Distinct single damages: all, or a number of them with the severities spread evenly."""
    if num_versions is None:
        return [Version(((family, severity),)) for family in FAMILIES for severity in SEVERITIES]
    quotient, remainder = divmod(num_versions, len(SEVERITIES))
    versions = []
    for position, severity in enumerate(rng.permutation(SEVERITIES)):
        num_families = quotient + (position < remainder)
        families = rng.choice(list(FAMILIES), num_families, replace=False)
        versions += [Version(((str(family), int(severity)),)) for family in families]
    return versions


def _draw_mixes(num_mixes: int, rng: np.random.Generator) -> list[Version]:
    """Distinct mixes of two damages, their severities spread evenly."""
    by_severity = defaultdict(list)
    for first, second in itertools.permutations(FAMILIES, 2):
        if first in CODECS and second not in CODECS:
            continue
        for severities in itertools.product(SEVERITIES, repeat=2):
            mix = Version(tuple(zip((first, second), severities, strict=True)))
            by_severity[mix.severity].append(mix)
    for mixes in by_severity.values():
        rng.shuffle(mixes)
    order = itertools.cycle(int(severity) for severity in rng.permutation(SEVERITIES))
    return [by_severity[severity].pop() for severity in itertools.islice(order, num_mixes)]


def cut_at_random(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A square of `size` pixels from somewhere in the picture, which is shrunk first, but no more than that needs.

    Of a picture smaller than that, what there is.
    """
    least = min(1.0, size / min(image.size))
    image = shrink(image, 1 / rng.uniform(least, 1), Image.Resampling.LANCZOS)
    width, height = (min(size, side) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class SynthesisOptions:
    """What `synthesize` makes of a clean picture.

    Args:
        seed: of all draws, 0 or more.
        versions_per_image: how many of the 60 pairs of family and severity; None takes all.
        mixes_per_image: how many mixes of two damages besides.
        max_size: limits the longer side of the picture, in pixels; None leaves it.
        crops_per_image: clean squares cut out of the picture in its place, at random sizes of it; None takes it whole.
        crop_size: their side, in pixels.

    Raises:
        ValueError: numbers out of range, or crops without their size.
    """

    seed: int = 0
    versions_per_image: int | None = None
    mixes_per_image: int = 0
    max_size: int | None = None
    crops_per_image: int | None = None
    crop_size: int | None = None

    def __post_init__(self) -> None:
        num_pairs = len(FAMILIES) * len(SEVERITIES)
        if self.versions_per_image is not None and not 1 <= self.versions_per_image <= num_pairs:
            raise ValueError(f"got {self.versions_per_image} versions per image; accepted: 1 to {num_pairs}")
        if not 0 <= self.mixes_per_image <= MAX_MIXES:
            raise ValueError(f"got {self.mixes_per_image} mixes per image; accepted: 0 to {MAX_MIXES}")
        if (self.crops_per_image is None) != (self.crop_size is None):
            raise ValueError("crops per image and their size go together, got only one of them")
        counts = (self.max_size, self.crops_per_image, self.crop_size)
        if self.seed < 0 or any(count is not None and count < 1 for count in counts):
            raise ValueError(
                f"got seed {self.seed}, max_size {self.max_size}, {self.crops_per_image} crops of {self.crop_size}; "
                "accepted: a seed of 0 or more, the others 1 or more"
            )

    def clean_pictures(self, picture: Picture, group: str) -> Iterator[tuple[str, Image.Image]]:
        """The clean pictures that are made of one file, and the name of each."""
        image = clean_image(picture, self.max_size)
        if self.crops_per_image is None or self.crop_size is None:
            yield group, image
            return
        rng = np.random.default_rng(picture_seed(self.seed, group))
        for number in range(self.crops_per_image):
            yield f"{group}@{number + 1}", cut_at_random(image, self.crop_size, rng)


def _write_versions(
    named: tuple[str, str], clean_dir: Path, output_dir: Path, options: SynthesisOptions
) -> tuple[list[dict], list[tuple[str, str]]] | str:
    """Write the clean pictures of one file and their damaged versions.

    Returns their rows of the manifest, and (name, version) of what had no effect; for a file that is no whole picture,
    the reason instead.
    """
    relative_path, group = named
    try:
        picture = read_picture(clean_dir / relative_path)
    except ValueError as error:
        return str(error)
    source = {"source": as_text(relative_path), "sha256": _digest(picture.data)}
    rows, without_effect = [], []
    for name, clean in options.clean_pictures(picture, group):
        clean.save(output_dir / "Perfect" / "5" / f"{name}__clean.png")
        rows.append({"group": name} | source | {"width": clean.width, "height": clean.height})
        seed = picture_seed(options.seed, name)
        rng = np.random.default_rng(seed)
        versions = _draw_versions(options.versions_per_image, rng) + _draw_mixes(options.mixes_per_image, rng)
        for version in versions:
            damaged = version.apply(clean, seed)
            if not has_effect(clean, damaged):
                without_effect.append((relative_path, version.name))
                continue
            damaged.save(output_dir / "Artifact" / str(6 - version.severity) / f"{name}__{version.name}.png")
    return rows, without_effect


def _write_manifest(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["group", "source", "sha256", "width", "height"])
        writer.writeheader()
        writer.writerows(rows)


def synthesize(
    clean_dir: str | Path, output_dir: str | Path, options: SynthesisOptions = SynthesisOptions(), num_workers: int = 1
) -> SynthesisReport:
    """Write a scored folder of damaged versions of clean pictures; the same bytes for any number of processes.

    A clean picture goes to `Perfect/5/<group>__clean.png`, severity s to `Artifact/<6-s>/<group>__<family>_<s>.png`,
    where the group names the source picture, with `@<number>` behind it for a crop; `manifest.csv` lists group, source
    file with its sha256, and the clean picture's width and height in pixels. A mix of two damages is called
    `<group>__<family>_<s>+<family>_<s>.png`; a codec is its last damage, and the severities add as in `Version`. A
    damage that changes nothing (colour on a grey picture) is left out and reported, as are broken pictures.

    Raises ValueError for no picture in `clean_dir`, or an `output_dir` that holds anything; a run that fails leaves
    nothing behind.
    """
    if num_workers < 1:
        raise ValueError(f"got num_workers {num_workers}; accepted: 1 or more")
    clean_dir, report, rows = Path(clean_dir), SynthesisReport(), []
    groups = _group_names([path.relative_to(clean_dir).as_posix() for path in walk_files(clean_dir)])
    with new_folder(Path(output_dir)) as unfinished:
        for folder in ["Perfect/5", *(f"Artifact/{6 - severity}" for severity in SEVERITIES)]:
            (unfinished / folder).mkdir(parents=True)
        write = partial(_write_versions, clean_dir=clean_dir, output_dir=unfinished, options=options)
        results = map_in_processes(write, sorted(groups.items()), num_workers)
        for name, result in zip(sorted(groups), results, strict=True):
            if isinstance(result, str):
                if result != NOT_AN_IMAGE:
                    logger.warning("skipped %s: %s", as_text(name), result)
                    report.unreadable.append((as_text(name), result))
                continue
            rows += result[0]
            report.without_effect += result[1]
        if not rows:
            raise ValueError(f"no clean picture in {str(clean_dir)!r}")
        _write_manifest(unfinished / "manifest.csv", rows)
        report.num_clean = len(rows)
        report.num_damaged = len(list((unfinished / "Artifact").rglob("*.png")))
    return report
