"""Scored folder of distorted images, made of clean ones.

The same bytes whatever the number of processes: every draw is seeded by the run's seed and the image's name.
"""

import csv
import hashlib
import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from hybridiqa.data.folders import NOT_AN_IMAGE, DecodedFile, read_image
from hybridiqa.distortions.generated import GENERATED
from hybridiqa.distortions.trained import DISTORTIONS, LEVELS, apply_distortion, has_effect, shrink
from hybridiqa.utils.atomic import new_folder
from hybridiqa.utils.files import as_text, has_image_suffix, walk_files
from hybridiqa.utils.processes import map_in_processes

logger = logging.getLogger(__name__)

CODECS = ("jpeg", "webp")  # the last thing that happens to an image
# A chain takes at most one type of each group, in the order in which they follow each other in the life of an image.
CHAIN_GROUPS = (
    tuple(GENERATED),
    ("elastic", "wrong_patches", "shuffled_blocks"),
    ("banding", "oversaturate", "exposure"),
    ("rescale", "blur"),
    ("noise",),
    ("oversharpen",),
    CODECS,
)
MAX_CHAIN_LENGTH = 4
TYPES = {"trained": DISTORTIONS, "generated": GENERATED}
ALL_TYPES = DISTORTIONS | GENERATED
MAX_MIXES = 400  # of an image; of the rarest level, a fifth of them, there are 112
MAX_CHAINS = 200  # of an image; of the rarest level, a fifth of them, there are 130 pairs, of which mixes can take 80
MAX_GROUP_BYTES = 180  # file systems allow 255 a name, and distortion type, level and suffix must still fit


@dataclass(frozen=True)
class Version:
    """One distortion of an image, or several of them one after the other: (distortion type, level) each."""

    distortions: tuple[tuple[str, int], ...]

    @property
    def level(self) -> int:
        """Return 1 to 5; of several the root of the sum of squares, as errors add that know nothing of each other."""
        return min(max(LEVELS), round(math.hypot(*(level for _, level in self.distortions))))

    @property
    def name(self) -> str:
        """Return `type_level`, joined by `+` where there are several."""
        return "+".join(f"{distortion_type}_{level}" for distortion_type, level in self.distortions)

    def apply(self, image: Image.Image, seed: int) -> Image.Image:
        """Distort an image: RGB in, RGB of the same size out."""
        for distortion_type, level in self.distortions:
            image = apply_distortion(ALL_TYPES[distortion_type], image, level, seed)
        return image

    @property
    def milder(self) -> "Version | None":
        """Return the same with each level one less, without those of level 1; None where that is the clean image.

        The level of a chain is less by one at least, as 1 off each of some numbers is 1 or more off the root of the sum
        of their squares.
        """
        distortions = tuple((name, level - 1) for name, level in self.distortions if level > 1)
        return Version(distortions) if distortions else None


@dataclass
class SynthesisReport:
    """Counts of what `synthesize` did; the lists hold (path, reason or version) of what it left out."""

    num_clean: int = 0
    num_distorted: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    without_effect: list[tuple[str, str]] = field(default_factory=list)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def derive_seed(seed: int, name: str) -> int:
    """Return the seed (0 to 2**64 - 1) of one image among those of a run."""
    return int(_digest(f"{seed}/{name}".encode())[:16], 16)


def _name_groups(relative_paths: list[str]) -> dict[str, str]:
    """Return a file name for each image, by which its versions know each other; `a.png`, `a.jpg` become a and a-2."""
    plain = {}
    for path in sorted(relative_paths, key=lambda path: not has_image_suffix(path)):  # a.json must not rename a.png
        name = as_text(PurePosixPath(path).with_suffix("")).replace("/", "-").replace("\\", "-")
        if len(name.encode()) > MAX_GROUP_BYTES:  # images named by their prompt
            name = name.encode()[: MAX_GROUP_BYTES - 20].decode(errors="ignore") + "-" + _digest(path.encode())[:12]
        plain[path] = name
    groups: dict[str, str] = {}
    taken: set[str] = set()
    plain_names = {name.casefold() for name in plain.values()}
    for path, name in plain.items():
        group, number = name, 1
        while group.casefold() in taken or (number > 1 and group.casefold() in plain_names):
            number += 1
            group = f"{name}-{number}"
        taken.add(group.casefold())  # some file systems do not tell A from a
        groups[path] = group
    return groups


def make_clean(decoded: DecodedFile, max_size: int | None) -> Image.Image:
    """Return an image as RGB, fit to be called clean; `max_size` limits its longer side, in pixels, never enlarging.

    A palette image is halved with antialiasing first: 256-colour images are usually dithered, and that grain,
    called clean, would teach a model to like noise. Averaging neighbours gives the colours back that it stands for.
    """
    factor, image = 2.0 if decoded.mode == "P" else 1.0, decoded.rgb
    if max_size is not None:
        factor = max(factor, max(image.size) / max_size)
    return shrink(image, factor, Image.Resampling.LANCZOS) if factor > 1 else image


def read_clean(path: Path, max_size: int | None) -> Image.Image:
    """Read a file and `make_clean` it. Raises ValueError where it cannot be read."""
    return make_clean(read_image(path), max_size)


def _draw_versions(types: list[str], num_versions: int | None, rng: np.random.Generator) -> list[Version]:
    """Draw distinct single distortions: all, or a number of them with the levels spread evenly."""
    if num_versions is None:
        return [Version(((name, level),)) for name in types for level in LEVELS]
    quotient, remainder = divmod(num_versions, len(LEVELS))
    versions = []
    for position, level in enumerate(rng.permutation(LEVELS)):
        num_types = quotient + (position < remainder)
        names = rng.choice(types, num_types, replace=False)
        versions += [Version(((str(name), int(level)),)) for name in names]
    return versions


def _draw_mixes(num_mixes: int, rng: np.random.Generator) -> list[Version]:
    """Draw distinct mixes of two distortions, their levels spread evenly."""
    by_level = defaultdict(list)
    for first, second in itertools.permutations(DISTORTIONS, 2):
        if first in CODECS and second not in CODECS:
            continue
        for levels in itertools.product(LEVELS, repeat=2):
            mix = Version(tuple(zip((first, second), levels, strict=True)))
            by_level[mix.level].append(mix)
    for mixes in by_level.values():
        rng.shuffle(mixes)
    order = itertools.cycle(int(level) for level in rng.permutation(LEVELS))
    return [by_level[level].pop() for level in itertools.islice(order, num_mixes)]


@cache
def _levels_by_length(level: int) -> list[list[tuple[int, ...]]]:
    """Return, for each length that a chain of a level can have, what the levels of its distortions can be.

    They come to no more than 5 (of which `Version.level` would make 5): beyond that, all chains look alike.
    """
    by_length = (
        [levels for levels in itertools.product(LEVELS, repeat=length) if round(math.hypot(*levels)) == level]
        for length in range(1, MAX_CHAIN_LENGTH + 1)
    )
    return [choices for choices in by_length if choices]  # of level 1, there are no chains of three or four


def _draw_chain(level: int, rng: np.random.Generator) -> Version:
    """Draw a chain of a level: its length, the levels of its distortions, their groups, a type of each."""
    by_length = _levels_by_length(level)
    choices = by_length[rng.integers(len(by_length))]
    levels = choices[rng.integers(len(choices))]
    groups = sorted(rng.choice(len(CHAIN_GROUPS), len(levels), replace=False))
    types = [CHAIN_GROUPS[group][rng.integers(len(CHAIN_GROUPS[group]))] for group in groups]
    return Version(tuple(zip(types, levels, strict=True)))


def _draw_chains(num_chains: int, taken: Collection[Version], rng: np.random.Generator) -> list[Version]:
    """Draw distinct chains of one to four distortions that are not taken, their levels spread evenly."""
    chains: dict[Version, None] = {}
    order = itertools.cycle(int(level) for level in rng.permutation(LEVELS))
    for level in itertools.islice(order, num_chains):
        chain = _draw_chain(level, rng)
        while chain in taken or chain in chains:
            chain = _draw_chain(level, rng)
        chains[chain] = None
    return list(chains)


def cut_at_random(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Return a square of `size` pixels from somewhere in the image, which is shrunk first, as far as that allows.

    Of an image smaller than that, what there is.
    """
    least = min(1.0, size / min(image.size))
    image = shrink(image, 1 / rng.uniform(least, 1), Image.Resampling.LANCZOS)
    width, height = (min(size, side) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class SynthesisOptions:
    """Options of what `synthesize` makes of a clean image.

    Args:
        seed: of all draws, 0 or more.
        versions_per_image: how many of the pairs of distortion type and level (60, 30 or 90); None takes all.
        mixes_per_image: how many mixes of two trained distortions besides.
        max_size: limits the longer side of the image, in pixels; None leaves it.
        crops_per_image: clean squares cut out of the image in its place, at random sizes of it; None takes it whole.
        crop_size: their side, in pixels.
        types: whose distortions single versions are made of, `trained` (12 types), `generated` (6) or both.
        chains_per_image: how many chains of one to four distortions besides, of both tables, as in `CHAIN_GROUPS`.
        milder_chains: whether each chain comes with its milder version, as in `Version.milder`.

    Raises:
        ValueError: numbers out of range, unknown types, crops without their size, or milder chains without chains.
    """

    seed: int = 0
    versions_per_image: int | None = None
    mixes_per_image: int = 0
    max_size: int | None = None
    crops_per_image: int | None = None
    crop_size: int | None = None
    types: Sequence[str] = ("trained",)
    chains_per_image: int = 0
    milder_chains: bool = False

    def __post_init__(self) -> None:
        if not self.types or not set(self.types) <= set(TYPES):
            raise ValueError(f"got the types {', '.join(self.types) or 'none'}; accepted: {', '.join(TYPES)}")
        num_pairs = len(self.type_names) * len(LEVELS)
        if self.versions_per_image is not None and not 0 <= self.versions_per_image <= num_pairs:
            raise ValueError(f"got {self.versions_per_image} versions per image; accepted: 0 to {num_pairs}")
        if not 0 <= self.mixes_per_image <= MAX_MIXES:
            raise ValueError(f"got {self.mixes_per_image} mixes per image; accepted: 0 to {MAX_MIXES}")
        if not 0 <= self.chains_per_image <= MAX_CHAINS:
            raise ValueError(f"got {self.chains_per_image} chains per image; accepted: 0 to {MAX_CHAINS}")
        if self.milder_chains and not self.chains_per_image:
            raise ValueError("got milder chains and no chains per image; accepted: 1 or more of them")
        if (self.crops_per_image is None) != (self.crop_size is None):
            raise ValueError("crops per image and their size go together, got only one of them")
        counts = (self.max_size, self.crops_per_image, self.crop_size)
        if self.seed < 0 or any(count is not None and count < 1 for count in counts):
            raise ValueError(
                f"got seed {self.seed}, max_size {self.max_size}, {self.crops_per_image} crops of {self.crop_size}; "
                "accepted: a seed of 0 or more, the others 1 or more"
            )

    @property
    def type_names(self) -> list[str]:
        """Return the distortion types of single versions."""
        return [name for table, distortions in TYPES.items() if table in self.types for name in distortions]

    def draw_versions(self, rng: np.random.Generator) -> list[Version]:
        """Draw the distinct versions of one clean image: single distortions, mixes, chains and their milder versions.

        Each kind is drawn after those before it, so that more of it, or none, does not change them.
        """
        versions = _draw_versions(self.type_names, self.versions_per_image, rng)
        versions += _draw_mixes(self.mixes_per_image, rng)
        chains = _draw_chains(self.chains_per_image, set(versions), rng)
        milder = [chain.milder for chain in chains] if self.milder_chains else []
        return list(dict.fromkeys([*versions, *chains, *filter(None, milder)]))

    def cut_clean(self, decoded: DecodedFile, group: str) -> Iterator[tuple[str, Image.Image]]:
        """Yield the clean images that are made of one file, and the name of each."""
        image = make_clean(decoded, self.max_size)
        if self.crops_per_image is None or self.crop_size is None:
            yield group, image
            return
        rng = np.random.default_rng(derive_seed(self.seed, group))
        for number in range(self.crops_per_image):
            yield f"{group}@{number + 1}", cut_at_random(image, self.crop_size, rng)


def _write_versions(
    named: tuple[str, str], clean_dir: Path, output_dir: Path, options: SynthesisOptions
) -> tuple[list[dict], list[tuple[str, str]]] | str:
    """Write the clean images of one file and their distorted versions.

    Returns their rows of the manifest, and (name, version) of what had no effect; for a file that is no whole image,
    the reason instead.
    """
    relative_path, group = named
    try:
        decoded = read_image(clean_dir / relative_path)
    except ValueError as error:
        return str(error)
    source = {"source": as_text(relative_path), "sha256": _digest(decoded.data)}
    rows: list[dict] = []
    without_effect: list[tuple[str, str]] = []
    for name, clean in options.cut_clean(decoded, group):
        clean.save(output_dir / "Perfect" / "5" / f"{name}__clean.png")
        rows.append({"group": name} | source | {"width": clean.width, "height": clean.height})
        seed = derive_seed(options.seed, name)
        rng = np.random.default_rng(seed)
        for version in options.draw_versions(rng):
            distorted = version.apply(clean, seed)
            if not has_effect(clean, distorted):
                without_effect.append((relative_path, version.name))
                continue
            distorted.save(output_dir / "Artifact" / str(6 - version.level) / f"{name}__{version.name}.png")
    return rows, without_effect


def _write_manifest(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["group", "source", "sha256", "width", "height"])
        writer.writeheader()
        writer.writerows(rows)


def synthesize(
    clean_dir: str | Path, output_dir: str | Path, options: SynthesisOptions = SynthesisOptions(), num_workers: int = 1
) -> SynthesisReport:
    """Write a scored folder of distorted versions of clean images; the same bytes for any number of processes.

    A clean image goes to `Perfect/5/<group>__clean.png`, level n to `Artifact/<6-n>/<group>__<type>_<n>.png`, where
    the group names the source image, with `@<number>` behind it for a crop; `manifest.csv` lists group, source file
    with its sha256, and the clean image's width and height in pixels. A mix of two distortions is called
    `<group>__<type>_<n>+<type>_<n>.png`; a codec is its last one, and the levels add as in `Version`. Chains are called
    alike. A distortion that changes nothing (colour on a grey image) is left out and reported, as are broken images.

    Raises ValueError for no image in `clean_dir`, or an `output_dir` that holds anything; a run that fails leaves
    nothing behind.
    """
    if num_workers < 1:
        raise ValueError(f"got num_workers {num_workers}; accepted: 1 or more")
    clean_dir, report = Path(clean_dir), SynthesisReport()
    rows: list[dict] = []
    groups = _name_groups([path.relative_to(clean_dir).as_posix() for path in walk_files(clean_dir)])
    with new_folder(Path(output_dir)) as unfinished:
        for folder in ["Perfect/5", *(f"Artifact/{6 - level}" for level in LEVELS)]:
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
            raise ValueError(f"no clean image in {str(clean_dir)!r}")
        _write_manifest(unfinished / "manifest.csv", rows)
        report.num_clean = len(rows)
        report.num_distorted = len(list((unfinished / "Artifact").rglob("*.png")))
    return report
