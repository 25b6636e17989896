"""Find pictures that are versions of one another, so that a split never has one of them on each side.

A picture's fingerprint is the perceptual hash of its grey image (`imagehash.phash`), and that of its mirror image. What
is compressed again, resized, recoloured, mirrored or slightly cropped keeps most of its bits; another picture shares
about half of them by chance. Plain areas take part in the hash without telling pictures apart: two figures on white may
share all but a few bits. So the distance that counts as near shrinks as the share of the picture with detail does, and
what is almost flat is near to its own pixels alone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import imagehash
import numpy as np
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hybridiqa.data.folders import ScoredImage
from hybridiqa.models import hub_code
from hybridiqa.utils.files import as_text

# Measured on 144 distinct photographs and AI-generated pictures, 23 versions of each, 792 recolourings of 12 scenes,
# and 3,600 tiles of the 144. Merged: no two of the 144, no two tiles of different pictures (6.4 million pairs), no two
# scenes, all 66 of each scene. Missed: none that was compressed to JPEG quality 30-95, halved or mirrored (or all
# three) or turned grey, 0-7 % of those recoloured, 3 % of crops by 2 % and 8-22 % of crops by 5 % of the sides.
HASH_SIZE = 12  # frequencies a side; with 8 the nearest two of the 144 share 78 % of the bits, 16 miss more crops
NUM_HASH_BITS = HASH_SIZE**2
MAX_DISTANCE = 36  # bits; of the tiles' pairs 1 is within 40 bits, 13 within 44, 180 within 48
# Of 257,400 pairs of unlike figures on white 5,514 would be near without this scale, and 0 are with it; where all
# figures have the same outline, 84,724 and 675.
FULL_DETAIL_SHARE = 0.8
MIN_CELL_DEVIATION = 4.0  # grey levels, 0-255; the grain of flat pictures stays below it once it is averaged
CELLS_PER_SIDE, CELL_SIZE = 8, 4  # pixels of the reduced grey image
MAX_PAIRS_AT_ONCE = 2**22  # bounds the memory of a comparison to about 300 MB, whatever the number of pictures


@dataclass(frozen=True)
class Fingerprint:
    """`bits` and `mirrored_bits` are (`NUM_HASH_BITS`,) bool, `detail_share` is 0-1, `digest` that of the pixels."""

    bits: np.ndarray
    mirrored_bits: np.ndarray
    detail_share: float
    digest: bytes


def _detail_share(grey: Image.Image) -> float:
    """The share of the picture's 8 x 8 cells that are not plain, 0-1."""
    side = CELLS_PER_SIDE * CELL_SIZE
    pixels = np.asarray(grey.resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    cells = pixels.reshape(CELLS_PER_SIDE, CELL_SIZE, CELLS_PER_SIDE, CELL_SIZE)  # (row, y, column, x)
    return float((cells.std(axis=(1, 3)) > MIN_CELL_DEVIATION).mean())


def _digest(image: Image.Image) -> bytes:
    """One digest for a picture's size and pixels and for those of its mirror image."""
    size = str(image.size).encode()
    return min(hashlib.blake2b(size + side.tobytes()).digest() for side in (image, ImageOps.mirror(image)))


def fingerprint(record: ScoredImage) -> Fingerprint:
    """What tells a picture from others. Raises ValueError for a file that is no picture, or another one by now."""
    try:
        image = hub_code.load_image(record.read())
    except OSError as error:
        raise ValueError(f"cannot read {as_text(record.path)}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"cannot read {as_text(record.path)}: {error}") from error
    grey = image.convert("L")
    bits, mirrored_bits = (imagehash.phash(side, HASH_SIZE).hash.ravel() for side in (grey, ImageOps.mirror(grey)))
    return Fingerprint(bits, mirrored_bits, _detail_share(grey), _digest(image))


def _join(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Labels after the pictures `left[i]` and `right[i]` were joined; joined labels are one, transitively."""
    apart = labels[left] != labels[right]
    edges = (labels[left[apart]], labels[right[apart]])
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(len(labels), len(labels)))
    return connected_components(graph, directed=False)[1][labels]


def _join_equal(labels: np.ndarray, values: Sequence) -> np.ndarray:
    first = {}
    right = [first.setdefault(value, index) for index, value in enumerate(values)]
    return _join(labels, np.arange(len(labels)), np.array(right, dtype=int))


def _near_pairs(fingerprints: list[Fingerprint], max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of pictures, and of those near each, as bits go: some millions of comparisons at a time."""
    shares = np.array([each.detail_share for each in fingerprints])
    # Squared: the bits that plain areas fix are shared by pairs, of which both pictures have to be told apart.
    reach = np.floor(max_distance * np.minimum(1, shares / FULL_DETAIL_SHARE) ** 2)
    (compared,) = np.nonzero(reach > 0)
    reach = reach[compared]
    signs = np.array([fingerprints[index].bits for index in compared], dtype=np.float32) * 2 - 1
    mirrored_signs = np.array([fingerprints[index].mirrored_bits for index in compared], dtype=np.float32) * 2 - 1
    num_rows = max(1, MAX_PAIRS_AT_ONCE // max(1, len(compared)))
    for start in range(0, len(compared), num_rows):
        rows = slice(start, start + num_rows)
        for others in (signs, mirrored_signs):
            distances = (NUM_HASH_BITS - signs[rows] @ others.T) / 2  # (rows, compared), whole numbers, exact
            row, column = np.nonzero((distances <= reach[rows, None]) & (distances <= reach))
            yield compared[start + row], compared[column]


def _merged_labels(groups: Sequence[str], fingerprints: list[Fingerprint], max_distance: int) -> np.ndarray:
    labels = _join_equal(np.arange(len(groups)), groups)
    labels = _join_equal(labels, [each.digest for each in fingerprints])
    for left, right in _near_pairs(fingerprints, max_distance):
        labels = _join(labels, left, right)
    return labels


def merge_near_duplicates(
    records: Sequence[ScoredImage], max_distance: int = MAX_DISTANCE, num_workers: int = 4
) -> tuple[list[ScoredImage], list[list[str]]]:
    """The records in their order, near-duplicates in one group, and the merged clusters as sorted relative paths.

    Pictures share a group if they shared one before, have the same pixels or are at most `max_distance` of 144 bits
    apart (fewer where less than 0.8 of either is detail), mirrored or not; and transitively so. A merged group takes
    the smallest of its names, so neither names nor members depend on the order. A cluster is listed if it joined groups
    that were apart. With distance 0 the same pixels alone are near.

    Memory: 2 kB a picture, `num_workers` decoded pictures, and at most about 300 MB to compare. All pairs are compared:
    20,000 pictures in 7-14 seconds on one core, which is little beside decoding them.

    Raises:
        ValueError: a distance that chance pairs reach, no worker, or a file that cannot be read as a picture.
    """
    if not 0 <= max_distance < NUM_HASH_BITS // 2:
        raise ValueError(f"got the distance {max_distance}; accepted: 0 to {NUM_HASH_BITS // 2 - 1} bits")
    if num_workers < 1:
        raise ValueError(f"got {num_workers} workers; accepted: 1 or more")
    with ThreadPoolExecutor(num_workers) as pool:
        fingerprints = list(pool.map(fingerprint, records))
    clusters = defaultdict(list)
    labels = _merged_labels([record.group for record in records], fingerprints, max_distance)
    for record, label in zip(records, labels, strict=True):
        clusters[label].append(record)
    names = {label: min(record.group for record in cluster) for label, cluster in clusters.items()}
    merged = [replace(record, group=names[label]) for record, label in zip(records, labels, strict=True)]
    joined = [cluster for cluster in clusters.values() if len({record.group for record in cluster}) > 1]
    return merged, sorted(sorted(record.relative_path for record in cluster) for cluster in joined)
