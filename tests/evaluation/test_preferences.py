"""People's preferences: miniature releases in their authors' layouts, and the counting of agreement with them."""

import io
import itertools
import json

import numpy as np
import pytest
from datasets import Dataset
from factories import make_picture

from hybridiqa.evaluation.datasets import load_dataset
from hybridiqa.evaluation.preferences import Comparison, count_pairs, measure_accuracy
from metrics.iqa.iqa import compute_intervals


def save(folder, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        make_picture(20, 16, seed=int("".join(filter(str.isdigit, name)))).save(folder / name)


def write_list(folder, rows: list[dict], name: str = "test.json") -> str:
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return str(folder / name)


@pytest.fixture
def image_reward(tmp_path):
    """Make ImageReward's `data/`: test.json, and test_images/ beside it."""
    save(tmp_path / "test_images", "1.webp", "2.webp", "3.webp", "4.webp")
    rows = [
        {"id": "001-001", "prompt": "a cat", "generations": ["1.webp", "2.webp", "3.webp"], "ranking": [2, 1, 2]},
        {"id": "001-002", "prompt": "a dog", "generations": ["4.webp", "2.webp"], "ranking": [1, 2]},
    ]
    return tmp_path, rows


@pytest.fixture
def hpd(tmp_path):
    """Make HPDv2's `HPD/`: test.json and train.json, the images of each in a folder of its name."""
    save(tmp_path / "test", "00001.jpg", "00002.jpg")
    save(tmp_path / "train", "00001.jpg", "00003.jpg")
    return tmp_path


def test_imagereward_is_read(image_reward):
    folder, rows = image_reward
    data = load_dataset(write_list(folder, rows))
    assert data.layout == "ImageReward" and data.missing == []
    expected = ["1.webp", "2.webp", "3.webp", "4.webp", "2.webp"]  # 2 once for each of its prompts
    assert data.names == [f"test_images/{name}" for name in expected]
    assert [path.read_bytes() for _, path in data.sources] == [
        (folder / "test_images" / name).read_bytes() for name in expected
    ]
    assert data.prompts == ["a cat"] * 3 + ["a dog"] * 2
    assert data.comparisons == [Comparison("a cat", (0, 1, 2), (2, 1, 2)), Comparison("a dog", (3, 4), (1, 2))]


def test_hpd_ranks_are_read(hpd):
    row = {"prompt": "a hat", "image_path": ["00001.jpg", "00002.jpg"], "rank": [1, 0], "raw_annotations": []}
    data = load_dataset(write_list(hpd, [row]))
    assert data.layout == "HPDv2" and data.names == ["test/00001.jpg", "test/00002.jpg"]
    assert data.comparisons == [Comparison("a hat", (0, 1), (1, 0))]
    accuracy, _ = measure_accuracy(data.comparisons, [3.0, 4.0])
    assert accuracy["metrics"]["accuracy"] == 1  # rank 0 is the best


@pytest.mark.parametrize("key", ["image_path", "file_path"])
def test_hpd_pairs_are_read_from_the_images_of_their_own_split(hpd, key):
    row = {"human_preference": [0, 1], "prompt": "a hat", key: ["train/00001.jpg", "00003.jpg"], "user_hash": "x"}
    data = load_dataset(write_list(hpd, [row], "train.json"))
    assert data.names == ["train/00001.jpg", "train/00003.jpg"]
    assert measure_accuracy(data.comparisons, [3.0, 4.0])[0]["metrics"]["accuracy"] == 1
    assert measure_accuracy(data.comparisons, [4.0, 3.0])[0]["metrics"]["accuracy"] == 0


def test_a_name_in_two_folders_is_the_one_of_the_list_s_split(hpd):
    rows = [{"human_preference": [0, 1], "prompt": "a hat", "image_path": ["00001.jpg", "00003.jpg"]}]
    assert load_dataset(write_list(hpd, rows, "train.json")).names == ["train/00001.jpg", "train/00003.jpg"]
    rows = [{"rank": [0, 1], "prompt": "a hat", "image_path": ["00001.jpg", "00002.jpg"]}]
    assert load_dataset(write_list(hpd, rows, "test.json")).names == ["test/00001.jpg", "test/00002.jpg"]


def jpeg_bytes(seed: int) -> bytes:
    buffer = io.BytesIO()
    make_picture(20, 16, seed).save(buffer, "JPEG")
    return buffer.getvalue()


def write_pickapic(folder, labels: dict[str, list[tuple[float, float, bool]]], **changed: list) -> str:
    """Write splits of Pick-a-Pic as Parquet files; a row's labels and whether it has any."""
    (folder / "data").mkdir(parents=True)
    for split, rows in labels.items():
        columns = {
            "are_different": [True] * len(rows),
            "best_image_uid": ["u"] * len(rows),
            "caption": [f"prompt {index // 2}" for index in range(len(rows))],
            "has_label": [has_label for _, _, has_label in rows],
            "image_0_uid": [f"u{2 * index}" for index in range(len(rows))],
            "image_1_uid": [f"u{2 * index + 1}" for index in range(len(rows))],
            "jpg_0": [jpeg_bytes(2 * index) for index in range(len(rows))],
            "jpg_1": [jpeg_bytes(2 * index + 1) for index in range(len(rows))],
            "label_0": [first for first, _, _ in rows],
            "label_1": [second for _, second, _ in rows],
            "ranking_id": list(range(len(rows))),
            "num_example_per_prompt": [1] * len(rows),
        }
        Dataset.from_dict(columns | changed).to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return str(folder)


def test_pickapic_is_read(tmp_path):
    rows = [(1.0, 0.0, True), (0.0, 0.0, False), (0.5, 0.5, True), (0.0, 1.0, True)]
    name = write_pickapic(tmp_path, {"validation_unique": rows[:1], "test_unique": rows})
    data = load_dataset(name)
    assert data.layout == "Pick-a-Pic" and data.missing == []
    assert data.prompts == ["prompt 0"] * 2 + ["prompt 1"] * 4  # a row without a label is left out
    assert [comparison.images for comparison in data.comparisons] == [(0, 1), (2, 3), (4, 5)]
    assert [data.sources[index][1] for index in range(6)] == [jpeg_bytes(seed) for seed in (0, 1, 4, 5, 6, 7)]
    assert [name for name, _ in data.sources] == data.names and len(set(data.names)) == 6
    row, _ = measure_accuracy(data.comparisons, [2.0, 1.0, 5.0, 1.0, 1.0, 2.0])
    assert (row["num_pairs"], row["num_prompts"], row["metrics"]["accuracy"]) == (2, 2, 1)  # the tie is skipped
    assert len(load_dataset(name, "validation_unique").comparisons) == 1
    with pytest.raises(ValueError, match=r"--split must be one of .*test_unique.*, got train"):
        load_dataset(name, "train")


def test_a_split_of_pickapic_without_any_label_is_refused(tmp_path):
    name = write_pickapic(tmp_path, {"test_unique": [(0.0, 0.0, False)] * 2})
    with pytest.raises(ValueError, match="no pair of the split has a label"):
        load_dataset(name)


def test_the_hash_of_pickapic_changes_with_every_part_of_the_data(tmp_path):
    rows = {"test_unique": [(1.0, 0.0, True), (0.0, 1.0, True)]}
    versions = {
        "first": {},
        "again": {},
        "label": {"label_0": [0.5, 0.0], "label_1": [0.5, 1.0]},
        "caption": {"caption": ["prompt 0", "another"]},
        "byte": {"jpg_1": [jpeg_bytes(1), jpeg_bytes(3) + b"\0"]},
        "sides": {"jpg_0": [jpeg_bytes(1), jpeg_bytes(2)], "jpg_1": [jpeg_bytes(0), jpeg_bytes(3)]},
    }
    hashes = {
        version: load_dataset(write_pickapic(tmp_path / version, rows, **changed)).data_hash
        for version, changed in versions.items()
    }
    assert hashes.pop("again") == hashes["first"]
    assert len(set(hashes.values())) == len(hashes)


def test_the_hash_changes_with_every_part_of_the_data(image_reward):
    folder, rows = image_reward
    first = load_dataset(write_list(folder, rows)).data_hash
    assert load_dataset(write_list(folder, rows)).data_hash == first and len(first) == 16
    changed = [dict(rows[0], ranking=[1, 2, 2]), rows[1]]
    assert load_dataset(write_list(folder, changed)).data_hash != first
    changed = [dict(rows[0], prompt="a cow"), rows[1]]
    assert load_dataset(write_list(folder, changed)).data_hash != first
    with open(folder / "test_images" / "1.webp", "ab") as image:
        image.write(b"\0")
    assert load_dataset(write_list(folder, rows)).data_hash != first


def test_images_that_are_not_there_are_listed(image_reward):
    folder, rows = image_reward
    (folder / "test_images" / "1.webp").unlink()
    data = load_dataset(write_list(folder, rows))
    assert data.missing == ["1.webp"] and data.comparisons[0] == Comparison("a cat", (0, 1), (1, 2))
    for name in ("2.webp", "3.webp", "4.webp"):
        (folder / "test_images" / name).unlink()
    with pytest.raises(ValueError, match=r"lists no two images of a prompt that are there; missing: .*1\.webp"):
        load_dataset(write_list(folder, rows))


@pytest.mark.parametrize("name", ["nothing", "nothing.json", "empty"])
def test_where_nothing_is_one_line_says_so(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"cannot load .*{name}") as caught:
        load_dataset(str(tmp_path / name))
    assert "\n" not in str(caught.value)


NO_COMPARISONS = [
    '["a\\ncat"]',
    "[[1, 2]]",
    '[{"prompt": "a cat", "generations": ["1.webp", "2.webp"]}]',
    '[{"prompt": "a cat", "ranking": [1, 2]}]',
    '[{"prompt": "a cat", "generations": ["1.webp", "2.webp"], "ranking": [1]}]',
    '[{"prompt": "a cat", "generations": ["1.webp", "2.webp"], "ranking": null}]',
    '[{"prompt": "a cat", "generations": ["1.webp", "2.webp"], "ranking": [1, NaN]}]',
    '[{"prompt": "a cat", "generations": ["1.webp", "2.webp"], "ranking": ["first", "second"]}]',
    '[{"prompt": "a cat", "generations": [1, 2], "ranking": [1, 2]}]',
    '[{"prompt": "a cat", "generations": "12", "ranking": [1, 2]}]',
    '[{"prompt": ["a cat"], "generations": ["1.webp", "2.webp"], "ranking": [1, 2]}]',
    '[{"generations": ["1.webp", "2.webp"], "ranking": [1, 2]}]',
]


@pytest.mark.parametrize("content", NO_COMPARISONS)
def test_a_row_that_is_no_comparison_is_refused_with_what_one_has(image_reward, content):
    folder, _ = image_reward
    (folder / "test.json").write_text(content)
    expected = r"test.json is no list of comparisons: a comparison has a prompt, one of generations, .*; got [\[{']"
    with pytest.raises(ValueError, match=expected) as caught:
        load_dataset(str(folder / "test.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        '{"prompt": "a"}',
        "{}",
        "null",
        "5",
        "[]",
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(ValueError, match=r"test.json (is no list of comparisons|lists no two images)") as caught:
        load_dataset(str(tmp_path / "test.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ranks", "scores", "counts"),
    [
        ([1, 2], [5, 3], (1, 0, 1)),
        ([2, 1], [5, 3], (0, 0, 1)),
        ([1, 1], [5, 3], (0, 0, 0)),  # people saw no difference
        ([1, 2], [4, 4], (0, 1, 1)),  # the scorer sees none
        # 1-2 and 1-3 right, 2-3 skipped, 4 is tied with 1 and wrongly over 2 and 3
        ([1, 2, 2, 3], [9, 5, 6, 9], (2, 1, 5)),
        ([1, 2, 3], [np.nan, 5, 3], (1, 0, 1)),
    ],
)
def test_pairs_are_counted_as_by_hand(ranks, scores, counts):
    assert count_pairs(ranks, scores) == counts


def test_a_tie_is_wrong_or_half():
    row, _ = measure_accuracy([Comparison("a", (0, 1, 2, 3), (1, 2, 2, 3))], [9.0, 5.0, 6.0, 9.0])
    assert row["metrics"] == {"accuracy": 2 / 5, "accuracy_ties_half": 2.5 / 5}


def test_an_image_without_a_score_takes_its_pairs_out_and_no_others():
    comparisons = [
        Comparison("a", (0, 1, 2), (1, 2, 3)),
        Comparison("b", (3, 4), (1, 2)),
        Comparison("c", (5, 6), (1, 2)),
    ]
    row, samples = measure_accuracy(comparisons, [3.0, np.nan, 1.0, np.nan, 9.0, 1.0, 2.0], num_resamples=50)
    assert (row["num_pairs"], row["num_prompts"], row["metrics"]["accuracy"]) == (2, 2, 1 / 2)  # b has no pair left
    assert set(samples["accuracy"]) <= {0, 0.5, 1}


def published_accuracy(rankings: list[list[int]], all_scores: list[list[float]]) -> float:
    """Apply the published rule once more, pair by pair."""
    num_right = num_counted = 0
    for ranking, scores in zip(rankings, all_scores, strict=True):
        for i, j in itertools.combinations(range(len(ranking)), 2):
            if ranking[i] > ranking[j]:
                num_counted += 1
                num_right += scores[i] < scores[j]
            elif ranking[i] < ranking[j]:
                num_counted += 1
                num_right += scores[i] > scores[j]
    return num_right / num_counted


def test_counting_equals_a_second_implementation_on_random_rankings():
    generator = np.random.default_rng(0)
    for _ in range(50):
        sizes = generator.integers(2, 10, size=20)
        rankings = [generator.integers(1, 6, size=size).tolist() for size in sizes]
        all_scores = [generator.integers(0, 5, size=size).astype(float).tolist() for size in sizes]
        ends = np.cumsum(sizes)
        comparisons = [
            Comparison(f"prompt {index // 2}", tuple(range(end - size, end)), tuple(ranking))
            for index, (end, size, ranking) in enumerate(zip(ends.tolist(), sizes.tolist(), rankings, strict=True))
        ]
        scores = list(itertools.chain.from_iterable(all_scores))
        row, _ = measure_accuracy(comparisons, scores, num_resamples=1)
        assert row["metrics"]["accuracy"] == published_accuracy(rankings, all_scores)
        squeezed, _ = measure_accuracy(comparisons, [np.exp(score) - 7 for score in scores], num_resamples=1)
        assert squeezed == row


def random_comparisons(num_prompts: int) -> tuple[list[Comparison], list[float]]:
    generator = np.random.default_rng(1)
    comparisons = [
        Comparison(f"prompt {index}", tuple(range(4 * index, 4 * index + 4)), tuple(generator.permutation(4).tolist()))
        for index in range(num_prompts)
    ]
    return comparisons, generator.normal(size=4 * num_prompts).tolist()


def test_whole_prompts_are_resampled():
    comparisons, scores = random_comparisons(30)
    width = {}
    for name, copies in {
        "once": comparisons,
        "same prompts": comparisons * 10,
        "other prompts": [
            Comparison(f"{comparison.prompt} {number}", comparison.images, comparison.ranks)
            for comparison in comparisons
            for number in range(10)
        ],
    }.items():
        _, samples = measure_accuracy(copies, scores, num_resamples=500)
        width[name] = np.ptp(compute_intervals(samples)["accuracy"])
    assert width["same prompts"] == width["once"] > 0
    assert width["other prompts"] < 0.5 * width["once"]  # 1 / sqrt(10) is expected


def test_samples_depend_on_the_seed_alone_and_one_prompt_has_none():
    comparisons, scores = random_comparisons(10)
    first, second, other = (measure_accuracy(comparisons, scores, 20, seed)[1] for seed in (0, 0, 1))
    assert (first["accuracy"] == second["accuracy"]).all() and (first["accuracy"] != other["accuracy"]).any()
    _, samples = measure_accuracy(comparisons[:1], scores, 20)
    assert all(np.isnan(values).all() and values.shape == (20,) for values in samples.values())
    with pytest.raises(ValueError, match="no two images of a prompt"):
        measure_accuracy(comparisons, [np.nan] * len(scores))
