"""Near-duplicates: images that are versions of one another, which no split may have on each side of it.

Plain areas take part in a fingerprint without telling images apart: two figures on white may share all but a few bits.
So the distance that counts as near shrinks as the share of the image with detail does, and what is almost flat is near
to its own pixels alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hybridiqa.data.fingerprints import NUM_HASH_BITS, Fingerprint
from hybridiqa.data.folders import ScoredImage
from hybridiqa.utils.files import as_text

# Measured on 144 distinct photographs and AI-generated images, 23 versions of each, 792 recolourings of 12 scenes,
# and 3,600 tiles of the 144. Merged: no two of the 144, no two tiles of different images (6.4 million pairs), no two
# scenes, all 66 of each scene. Missed: none that was compressed to JPEG quality 30-95, halved or mirrored (or all
# three) or turned grey, 0-7 % of those recoloured, 3 % of crops by 2 % and 8-22 % of crops by 5 % of the sides.
MAX_DISTANCE = 36  # bits; of the tiles' pairs 1 is within 40 bits, 13 within 44, 180 within 48
# Of 257,400 pairs of unlike figures on white 5,514 would be near without this scale, and 0 are with it; where all
# figures have the same outline, 84,724 and 675.
FULL_DETAIL_SHARE = 0.8
MAX_PAIRS_AT_ONCE = 2**22  # bounds the memory of a comparison to about 300 MB, whatever the number of images


def _join(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the labels after the images `left[i]` and `right[i]` were joined; joined labels are one, transitively."""
    apart = labels[left] != labels[right]
    edges = (labels[left[apart]], labels[right[apart]])
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(len(labels), len(labels)))
    return connected_components(graph, directed=False)[1][labels]


def _join_equal(labels: np.ndarray, values: Sequence[Hashable]) -> np.ndarray:
    """Return the labels after images of equal values were joined."""
    first: dict[Hashable, int] = {}
    right = [first.setdefault(value, index) for index, value in enumerate(values)]
    return _join(labels, np.arange(len(labels)), np.array(right, dtype=int))


def _near_pairs(fingerprints: list[Fingerprint], max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of images, and of those near each, as bits go: some millions of comparisons at a time."""
    shares = np.array([each.detail_share for each in fingerprints])
    # Squared: the bits that plain areas fix are shared by pairs, of which both images have to be told apart.
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
    """Return one number an image, equal where images belong together."""
    labels = _join_equal(np.arange(len(groups)), groups)
    labels = _join_equal(labels, [each.digest for each in fingerprints])
    for left, right in _near_pairs(fingerprints, max_distance):
        labels = _join(labels, left, right)
    return labels


def _fingerprint(record: ScoredImage) -> Fingerprint:
    if record.fingerprint is None:
        raise RuntimeError(f"{as_text(record.path)} has no fingerprint: read its folder by `make_fingerprint`")
    return record.fingerprint


def merge_near_duplicates(
    records: Sequence[ScoredImage], max_distance: int = MAX_DISTANCE
) -> tuple[list[ScoredImage], list[list[str]]]:
    """Return the records with near-duplicates in one group, and the merged clusters as sorted relative paths.

    Images share a group if they shared one before, have the same pixels or are at most `max_distance` of 144 bits
    apart (fewer where less than 0.8 of either is detail), mirrored or not; and transitively so. A merged group takes
    the smallest of its names, so neither names nor members depend on the order, which is kept. A cluster is listed if
    it joined groups that were apart. With distance 0 the same pixels alone are near.

    Memory: 2 kB an image, and at most about 300 MB to compare. All pairs are compared: 20,000 images in 7-14 seconds
    on one core, which is little beside decoding them.

    Raises:
        ValueError: a distance that chance pairs reach.
        RuntimeError: a record that was read without its fingerprint.
    """
    if not 0 <= max_distance < NUM_HASH_BITS // 2:
        raise ValueError(f"got the distance {max_distance}; accepted: 0 to {NUM_HASH_BITS // 2 - 1} bits")
    fingerprints = [_fingerprint(record) for record in records]
    clusters = defaultdict(list)
    labels = _merged_labels([record.group for record in records], fingerprints, max_distance)
    for record, label in zip(records, labels, strict=True):
        clusters[label].append(record)
    names = {label: min(record.group for record in cluster) for label, cluster in clusters.items()}
    merged = [replace(record, group=names[label]) for record, label in zip(records, labels, strict=True)]
    joined = [cluster for cluster in clusters.values() if len({record.group for record in cluster}) > 1]
    return merged, sorted(sorted(record.relative_path for record in cluster) for cluster in joined)
