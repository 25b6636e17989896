"""Versions of clean images, and the measures of what a scorer makes of them."""

import io
import math
import pickle
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from factories import textured_picture
from PIL import Image, features

from hybridiqa.distortions.held_out import HELD_OUT_DISTORTIONS, swirl
from hybridiqa.distortions.synthesis import derive_seed
from hybridiqa.distortions.trained import DISTORTIONS, LEVELS, apply_distortion, noise
from hybridiqa.evaluation.robustness import (
    CHANGES,
    ImageVersions,
    Version,
    compute_mean_scores,
    measure_ordering,
    measure_stability,
)
from hybridiqa.inference.decoding import decode_images
from hybridiqa.models import hub_code

NAN = float("nan")
NUM_DISTORTIONS = len(DISTORTIONS) + len(HELD_OUT_DISTORTIONS)
NUM_VERSIONS = 1 + 5 * NUM_DISTORTIONS + len(CHANGES)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "clean"
    (folder / "sub").mkdir(parents=True)
    textured_picture(40, 30, seed=1).save(folder / "a.png")
    textured_picture(30, 40, seed=2).save(folder / "sub" / "b.png")
    return folder


@pytest.fixture
def versions(root):
    return ImageVersions([root / "a.png", root / "sub" / "b.png"], root)


def decode(versions: ImageVersions, kind: str, level: int | None = None, image: str = "a.png") -> Image.Image:
    """Decode the bytes of a version."""
    return hub_code.load_image(versions[versions.versions.index(Version(image, kind, level))][1])


def split_rows(*rows: tuple[str, str, int | None, float]) -> tuple[list[Version], list[float]]:
    """Return versions and scores of rows of image, kind, level and score."""
    return [Version(*row[:3]) for row in rows], [row[3] for row in rows]


def as_one_patch(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, height, width)


def find_row(rows: list[dict], distortions: str, level: int | None = None) -> dict:
    return next(row for row in rows if (row["families"], row["severity"]) == (distortions, level))


def make_rows(image: str, distortion: str, clean: float, *scores: float) -> list[tuple[str, str, int | None, float]]:
    distorted = [(image, distortion, level, score) for level, score in zip(LEVELS, scores, strict=True)]
    return [(image, "clean", None, clean), *distorted]


def test_versions_of_an_image_stand_together_and_have_names(versions):
    assert len(versions) == len(versions.versions) == len(versions.names) == 2 * NUM_VERSIONS
    assert versions.names[:7] == [
        *("a.png clean", "a.png jpeg 1", "a.png jpeg 2", "a.png jpeg 3", "a.png jpeg 4", "a.png jpeg 5", "a.png webp 1")
    ]
    assert versions.names[NUM_VERSIONS - 4 : NUM_VERSIONS + 1] == [
        *("a.png jpeg95", "a.png shift", "a.png flip", "a.png resize", "sub/b.png clean")
    ]
    assert len(set(versions.names)) == len(versions)
    assert versions[NUM_VERSIONS - 5][0] == "a.png colour_cast 5"


def test_bytes_decode_without_loss_and_to_the_right_size(root, versions):
    for version, (name, data) in zip(versions.versions, versions, strict=True):
        assert name == str(version)
        clean = Image.open(root / version.image)
        size = (39, 29) if version.image == "a.png" else (29, 39)
        image = hub_code.load_image(data)
        assert image.size == (size if version.kind == "resize" else clean.size)
        with Image.open(io.BytesIO(data)) as opened:
            assert (opened.format, opened.mode) == ("BMP", "RGB")
    assert decode(versions, "clean").tobytes() == Image.open(root / "a.png").tobytes()


def test_distortions_are_seeded_by_seed_and_path(root, versions):
    for name in ("a.png", "sub/b.png"):
        clean, seed = Image.open(root / name), derive_seed(0, name)
        for distortion in (noise, swirl):
            expected = apply_distortion(distortion, clean, 4, seed)
            assert decode(versions, distortion.__name__, 4, name).tobytes() == expected.tobytes()
    other = ImageVersions([root / "a.png"], root, seed=1)
    assert decode(other, "noise", 4).tobytes() != decode(versions, "noise", 4).tobytes()
    assert derive_seed(0, "a.png") != derive_seed(0, "sub/b.png")


def test_the_changes_that_should_not_matter_do_what_they_say(root, versions):
    clean = np.asarray(Image.open(root / "a.png"), dtype=int)
    shifted, flipped, jpeg = (np.asarray(decode(versions, kind), dtype=int) for kind in ("shift", "flip", "jpeg95"))
    assert (shifted[1:, 1:] == clean[:-1, :-1]).all()
    assert (shifted[0, 1:] == clean[0, :-1]).all() and (shifted[1:, 0] == clean[:-1, 0]).all()
    assert (flipped == clean[:, ::-1]).all()
    assert 0 < np.abs(jpeg - clean).mean() < 8


def test_max_size_limits_the_longer_side(root):
    versions = ImageVersions([root / "sub" / "b.png"], root, max_size=20)
    assert hub_code.load_image(versions[0][1]).size == (15, 20)
    assert hub_code.load_image(versions[40][1]).size == (15, 20)


def test_indices_from_the_end_and_pickles_give_the_same_items(versions):
    assert versions[-1] == versions[len(versions) - 1]
    assert list(versions) == [versions[index] for index in range(len(versions))]
    copied = pickle.loads(pickle.dumps(versions))
    assert copied[7] == versions[7] and copied.versions == versions.versions
    assert len(pickle.dumps(versions)) < 40_000, "the image that was read last stays behind"
    with pytest.raises(IndexError):
        versions[len(versions)]


def test_an_image_is_read_once_for_consecutive_versions(root, versions):
    versions[0]
    (root / "a.png").unlink()
    assert versions[1][1] and versions[NUM_VERSIONS - 1][1]


def test_a_distortion_without_effect_has_no_bytes(root):
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (48, 1))).save(root / "grey.png")
    versions = ImageVersions([root / "grey.png"], root)
    data = dict(versions)
    assert [data[f"grey.png oversaturate {level}"] for level in LEVELS] == [b""] * 5
    assert data["grey.png noise 1"] and data["grey.png flip"] and data["grey.png clean"]


def test_a_broken_image_is_named_and_has_no_bytes(root, caplog):
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:200])
    versions = ImageVersions([root / "broken.png", root / "a.png"], root)
    assert [data for _, data in islice(versions, NUM_VERSIONS)] == [b""] * NUM_VERSIONS
    assert caplog.text.count("broken.png") == 1
    assert versions[NUM_VERSIONS][1]


def test_a_pillow_without_jpeg2000_is_refused_before_any_image_is_made(root, monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "jpg_2000")
    with pytest.raises(ValueError, match="OpenJPEG"):
        ImageVersions([root / "a.png"], root)


def test_images_that_cannot_be_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match="got no images"):
        ImageVersions([], root)
    with pytest.raises(ValueError, match="elsewhere"):
        ImageVersions([tmp_path / "elsewhere.png"], root)
    with pytest.raises(ValueError, match="max_size 0"):
        ImageVersions([root / "a.png"], root, max_size=0)


def test_ordering_of_hand_worked_scores():
    versions, scores = split_rows(
        *make_rows("a", "blur", 9, 8, 9, 7, 7, 5),  # clean ties with 2; 2 is above 1, 3 ties with 4
        *make_rows("b", "swirl", 5, 6, 4, NAN, 3, 2),
        ("a", "flip", None, 100.0),
    )
    rows = measure_ordering(versions, scores)
    blur, swirl, both = (find_row(rows, distortions) for distortions in ("blur", "swirl", "all"))
    assert (blur["clean_over_damaged"]["value"], blur["clean_over_damaged"]["num_pairs"]) == (4 / 5, 5)
    assert (blur["mild_over_strong"]["value"], blur["mild_over_strong"]["num_pairs"]) == (8 / 10, 10)
    assert (swirl["clean_over_damaged"]["value"], swirl["clean_over_damaged"]["num_pairs"]) == (3 / 4, 4)
    assert (swirl["mild_over_strong"]["value"], swirl["mild_over_strong"]["num_pairs"]) == (1, 6)
    assert (both["clean_over_damaged"]["value"], both["clean_over_damaged"]["num_pairs"]) == (7 / 9, 9)
    assert (both["mild_over_strong"]["value"], both["mild_over_strong"]["num_pairs"]) == (14 / 16, 16)
    assert str(find_row(rows, "trained")) == str(blur).replace("'blur'", "'trained'")  # as text: NaN is not NaN
    assert str(find_row(rows, "unseen")) == str(swirl).replace("'swirl'", "'unseen'")
    assert find_row(rows, "jpeg")["clean_over_damaged"]["num_pairs"] == 0
    assert math.isnan(find_row(rows, "jpeg")["clean_over_damaged"]["value"])


def test_ordering_at_one_level():
    versions, scores = split_rows(
        *make_rows("a", "blur", 9, 8, 9, 7, 7, 5), *make_rows("b", "blur", 5, 6, 4, NAN, 3, 2)
    )
    rows = measure_ordering(versions, scores)
    shares = [find_row(rows, "blur", level)["clean_over_damaged"] for level in LEVELS]
    assert [share["value"] for share in shares] == [0.5, 0.5, 1, 1, 1]
    assert [share["num_pairs"] for share in shares] == [2, 2, 1, 2, 2]
    shares = [find_row(rows, "blur", level)["mild_over_strong"] for level in LEVELS]
    assert [share["value"] for share in shares[:4]] == [(3 + 3) / (4 + 3), 1, 1 / 2, 1]
    assert math.isnan(shares[4]["value"])
    assert [share["num_pairs"] for share in shares] == [4 + 3, 3 + 2, 2, 1 + 1, 0]


def test_ordering_lists_aggregates_then_distortions_each_over_all_levels_first():
    rows = measure_ordering(*split_rows(*make_rows("a", "blur", 9, 8, 9, 7, 7, 5)))
    names = ["all", "trained", "unseen", *DISTORTIONS, *HELD_OUT_DISTORTIONS]
    assert [(row["families"], row["severity"]) for row in rows] == [
        (name, level) for name in names for level in (None, 1, 2, 3, 4, 5)
    ]


def test_one_image_has_no_interval():
    rows = measure_ordering(*split_rows(*make_rows("a", "blur", 9, 8, 9, 7, 7, 5), ("b", "clean", None, 3.0)))
    assert find_row(rows, "all")["clean_over_damaged"]["value"] == 4 / 5
    assert all(math.isnan(bound) for bound in find_row(rows, "all")["clean_over_damaged"]["interval"])


def test_intervals_are_those_of_resampled_images():
    shares = [0, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    rows = [row for i, right in enumerate(shares) for row in make_rows(f"{i}", "blur", right, *[0.5] * 5)]
    found = find_row(measure_ordering(*split_rows(*rows), num_resamples=4000, seed=3), "blur")["clean_over_damaged"]
    draws = np.random.default_rng(0).choice(shares, (4000, 10)).mean(axis=1)
    assert found["value"] == 0.7
    assert found["interval"] == pytest.approx(np.percentile(draws, [2.5, 97.5]).tolist(), abs=0.051)
    assert found["interval"][0] < 0.7 < found["interval"][1]
    again = measure_ordering(*split_rows(*rows), num_resamples=4000, seed=3)
    assert find_row(again, "blur")["clean_over_damaged"] == found


def test_images_that_all_agree_have_an_interval_without_width():
    rows = [row for name in "abc" for row in make_rows(name, "blur", 9, 8, 7, 6, 5, 4)]
    assert find_row(measure_ordering(*split_rows(*rows)), "all")["mild_over_strong"] == {
        "value": 1.0,
        "interval": [1.0, 1.0],
        "num_pairs": 30,
    }


def test_stability_of_hand_worked_scores():
    versions, scores = split_rows(
        *[("a", "clean", None, 1.0), ("b", "clean", None, 3.0), ("c", "clean", None, NAN), ("a", "blur", 1, 5.0)],
        *[("a", "flip", None, 1.5), ("b", "flip", None, 2.0), ("c", "flip", None, 7.0)],
        *[("a", "shift", None, NAN), ("b", "shift", None, 3.0)],
    )
    rows = {row["change"]: row for row in measure_stability(versions, scores)}
    assert list(rows) == ["jpeg95", "shift", "flip", "resize"]
    assert (rows["flip"]["median"], rows["flip"]["num_pictures"]) == (0.75, 2)
    assert rows["flip"]["percentile_95"] == pytest.approx(0.975)
    assert rows["flip"]["relative_median"] == pytest.approx(0.75 / np.std([1, 3, 5]))
    assert (rows["shift"]["median"], rows["shift"]["relative_median"], rows["shift"]["num_pictures"]) == (0, 0, 1)
    assert rows["resize"]["num_pictures"] == 0 and math.isnan(rows["resize"]["median"])


def test_relative_stability_does_not_depend_on_the_scale_of_scores(versions):
    scores = np.random.default_rng(0).normal(size=len(versions))
    plain, scaled = measure_stability(versions.versions, scores), measure_stability(versions.versions, 100 * scores - 7)
    for row, other in zip(plain, scaled, strict=True):
        assert other["relative_median"] == pytest.approx(row["relative_median"])
        assert other["median"] == pytest.approx(100 * row["median"])


def test_a_scorer_that_gives_one_score_has_no_relative_stability():
    rows = measure_stability(*split_rows(("a", "clean", None, 2.0), ("a", "blur", 1, 2.0), ("a", "flip", None, 2.0)))
    assert rows[2]["median"] == 0 and math.isnan(rows[2]["relative_median"])


def test_mean_scores_of_hand_worked_scores():
    versions, scores = split_rows(
        *make_rows("a", "blur", 9, 8, 9, 7, NAN, NAN), *make_rows("b", "swirl", 5, 6, 4, NAN, 3, NAN)
    )
    means = compute_mean_scores([*versions, Version("a", "flip", None)], [*scores, 100.0])
    assert means[:5] == [7, 7, 6.5, 7, 3] and math.isnan(means[5])


def test_a_scorer_without_any_score_has_results_all_the_same(versions):
    scores = [NAN] * len(versions)
    assert all(math.isnan(row["clean_over_damaged"]["value"]) for row in measure_ordering(versions.versions, scores))
    assert all(math.isnan(row["median"]) for row in measure_stability(versions.versions, scores))
    assert all(math.isnan(mean) for mean in compute_mean_scores(versions.versions, scores))


@pytest.mark.parametrize("measure", [measure_ordering, measure_stability, compute_mean_scores])
def test_no_versions_or_other_numbers_of_scores_are_refused(measure):
    with pytest.raises(ValueError, match="got no images"):
        measure([], [])
    with pytest.raises(ValueError, match="got 1 versions and 2 scores"):
        measure([Version("a", "clean", None)], [1.0, 2.0])


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="got 0 resamples"):
        measure_ordering([Version("a", "clean", None)], [1.0], num_resamples=0)


def test_a_scorer_that_knows_the_clean_image_orders_all_and_its_opposite_none(root, versions):
    clean = {name: np.asarray(Image.open(root / name), dtype=float) for name in ("a.png", "sub/b.png")}
    scores = []
    for version, (_, data) in zip(versions.versions, versions, strict=True):
        image = np.asarray(hub_code.load_image(data).resize(clean[version.image].shape[1::-1]), dtype=float)
        scores.append(-np.abs(image - clean[version.image]).mean())
    rows = measure_ordering(versions.versions, scores)
    assert find_row(rows, "all")["clean_over_damaged"]["value"] == 1
    assert find_row(rows, "all")["clean_over_damaged"]["num_pairs"] == 2 * 5 * NUM_DISTORTIONS
    assert find_row(rows, "unseen")["clean_over_damaged"]["num_pairs"] == 2 * 5 * len(HELD_OUT_DISTORTIONS)
    assert find_row(rows, "all")["mild_over_strong"]["value"] > 0.95
    assert find_row(rows, "noise")["mild_over_strong"] == {"value": 1.0, "interval": [1.0, 1.0], "num_pairs": 20}
    opposite = measure_ordering(versions.versions, [-score for score in scores])
    assert find_row(opposite, "all")["clean_over_damaged"]["value"] == 0
    means = compute_mean_scores(versions.versions, scores)
    assert means[0] == 0 and all(first > second for first, second in pairwise(means))


def test_a_scorer_of_mean_brightness_does_not_see_a_flip(versions):
    scores = [float(np.asarray(hub_code.load_image(data)).mean()) for _, data in versions]
    rows = {row["change"]: row for row in measure_stability(versions.versions, scores)}
    assert (rows["flip"]["median"], rows["flip"]["relative_median"], rows["flip"]["num_pictures"]) == (0, 0, 2)
    assert 0 < rows["jpeg95"]["relative_median"] < 0.1


def test_decoding_processes_make_the_versions(versions):
    for decoded in islice(decode_images(versions, as_one_patch, num_workers=2), 6):
        name, data = versions[decoded.index]
        assert (decoded.row.path, decoded.row.error) == (name, None)
        assert (decoded.patches[0] == np.array(hub_code.load_image(data)).transpose(2, 0, 1)).all()
