"""`benchmark.py ranking` and `robustness` from images to reports, with scorers whose numbers are known."""

import csv
import json
import math

import numpy as np
import pytest
from factories import make_picture, make_tiny_model
from PIL import Image
from scipy import stats

from hybridiqa.commands import benchmark, prepare_dataset
from hybridiqa.distortions.trained import DISTORTIONS
from hybridiqa.evaluation import ranking
from hybridiqa.evaluation.datasets import RatedImages, load_rated
from hybridiqa.evaluation.ranking import measure_ranking
from hybridiqa.evaluation.tables import format_measured, ranking_markdown
from hybridiqa.utils.root import ROOT
from metrics.iqa import iqa
from metrics.iqa.iqa import bootstrap_intervals, compute_metrics

NUM_IMAGES = 12


def write_table(path, rows: dict[str, float]) -> str:
    lines = [f"{name},{value}" for name, value in rows.items()]
    path.write_text("path,score\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def rated(tmp_path):
    """Prepare a dataset of 12 images in 3 groups, and their true scores by path."""
    folder, truth = tmp_path / "pictures", {}
    folder.mkdir()
    lines = ["file,score,group"]
    for index in range(NUM_IMAGES):
        make_picture(90, 80, seed=index).save(folder / f"{index:02}.png")
        truth[f"{index:02}.png"] = 1 + (index * 5 % NUM_IMAGES) / 2
        lines.append(f"{index:02}.png,{truth[f'{index:02}.png']},scene{index % 3}")
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    prepared = tmp_path / "prepared"
    options = ["--scores_csv", str(tmp_path / "truth.csv"), "--validation_fraction", "0", "--test_fraction", "0"]
    assert prepare_dataset.main([str(folder), *options, "--output_dir", str(prepared)]) == 0
    return prepared, truth


def run_ranking(tmp_path, *options: str) -> dict:
    output = tmp_path / "report"
    common = ["--num_resamples", "40", "--num_workers", "0", "--device", "cpu", "--output_dir", str(output)]
    assert benchmark.main(["ranking", *map(str, options), *common]) == 0
    return json.loads((output / "report.json").read_text())


@pytest.mark.filterwarnings("ignore")
def test_the_report_holds_the_metrics_of_every_model_and_group(rated, tmp_path, capsys):
    prepared, truth = rated
    generator = np.random.default_rng(0)
    noisy = {name: score + generator.normal(0, 1) for name, score in truth.items()}
    noisy_table, tiny = write_table(tmp_path / "noisy.csv", noisy), tmp_path / "tiny"
    make_tiny_model().save_pretrained(tiny)
    report = run_ranking(tmp_path, "--model", tiny, f"noisy={noisy_table}", "--dataset", f"mine={prepared}")
    result = report["datasets"]["mine"]
    assert report["kind"] == "ranking" and list(report["models"]) == ["tiny", "noisy"]
    assert report["models"]["tiny"].startswith("hybridIQA ") and "grid-4" in report["models"]["tiny"]
    assert report["command"].startswith("python benchmark.py ranking --model tiny noisy=noisy.csv")
    assert report["versions"]["torch"] and report["commit"] and len(result["data_hash"]) == 16
    assert result["description"] == "split train: 12 images in 3 groups" and result["left_out"] == []

    names, references = list(truth), list(truth.values())
    groups = [f"scene{index % 3}" for index in range(NUM_IMAGES)]
    predictions = [noisy[name] for name in names]
    expected = compute_metrics(predictions, references, groups)
    intervals = bootstrap_intervals(predictions, references, groups, 40)
    row = result["rows"][1]
    assert row["model"] == "noisy" and row["num_images"] == 12 and row["failed_fits"] == {}
    assert list(row["metrics"]) == list(expected)
    for name, measured in row["metrics"].items():
        assert measured["value"] == pytest.approx(expected[name], rel=1e-6)
        assert measured["interval"] == pytest.approx(intervals[name], rel=1e-4)

    assert [(row["model"], row["group"]) for row in result["groups"]] == [
        (model, f"scene{group}") for model in ("tiny", "noisy") for group in range(3)
    ]
    scene = result["groups"][4]
    of_scene = [predictions[1::3], references[1::3]]
    assert scene["num_images"] == 4
    assert scene["metrics"]["srcc"]["value"] == pytest.approx(stats.spearmanr(*of_scene)[0])
    assert "at least 5 images" in scene["failed_fits"]["plcc_logistic"]
    assert scene["metrics"]["plcc_logistic"]["value"] is None

    printed = capsys.readouterr().out
    assert (tmp_path / "report" / "report.md").read_text().strip() == printed[printed.index("# Ranking") :].strip()
    assert format_measured(row["metrics"]["srcc"]) in printed
    assert "noisy, group scene1: no PLCC, 4 parameters: a logistic is fitted to at least 5 images" in printed
    with Image.open(tmp_path / "report" / "mine.png") as plot:
        assert plot.format == "PNG" and plot.width > plot.height
    with open(tmp_path / "report" / "metrics.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    (line,) = [x for x in lines if (x["model"], x["group"], x["metric"]) == ("noisy", "", "krcc")]
    assert float(line["value"]) == row["metrics"]["krcc"]["value"] and float(line["low"]) < float(line["high"])
    with open(tmp_path / "report" / "scores.csv", newline="") as file:
        scores = list(csv.DictReader(file))
    assert [x["path"] for x in scores] == names and [float(x["noisy"]) for x in scores] == pytest.approx(predictions)
    assert [float(x["reference"]) for x in scores] == references


@pytest.mark.filterwarnings("ignore")
def test_a_report_says_which_models_differ(rated, tmp_path):
    prepared, truth = rated
    same = write_table(tmp_path / "same.csv", {name: 10 * score for name, score in truth.items()})
    right = write_table(tmp_path / "right.csv", truth)
    wrong = write_table(tmp_path / "wrong.csv", {name: -score for name, score in truth.items()})
    report = run_ranking(tmp_path, "--model", right, same, wrong, "--dataset", prepared)
    (result,) = report["datasets"].values()
    differences = {(pair["first"], pair["second"]): pair["metrics"] for pair in result["differences"]}
    assert list(differences) == [("right.csv", "same.csv"), ("right.csv", "wrong.csv"), ("same.csv", "wrong.csv")]
    assert differences["right.csv", "same.csv"]["srcc"] == {"value": 0, "interval": [0, 0], "differ": False}
    apart = differences["right.csv", "wrong.csv"]
    assert apart["srcc"] == {"value": pytest.approx(2), "interval": pytest.approx([2, 2]), "differ": True}
    assert apart["pairwise_accuracy"]["differ"] and "rmse" not in apart
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| right.csv less same.csv | 0.000 [0.000, 0.000], not told apart |" in text


def test_images_without_a_score_are_left_out_for_all_and_named(rated, tmp_path, caplog):
    prepared, truth = rated
    partial = write_table(tmp_path / "partial.csv", dict(list(truth.items())[2:]))
    report = run_ranking(tmp_path, "--model", partial, write_table(tmp_path / "all.csv", truth), "--dataset", prepared)
    (result,) = report["datasets"].values()
    assert result["left_out"] == ["00.png", "01.png"]
    assert [row["num_images"] for row in result["rows"]] == [10, 10]
    assert "00.png: not listed in" in caplog.text
    assert "Left out for all, since a model has no score for them: 00.png, 01.png." in (
        tmp_path / "report" / "report.md"
    ).read_text(encoding="utf-8")


def measured(predictions, references, groups=None, subsets=None) -> dict:
    names = [str(index) for index in range(len(references))]
    sources = [(name, b"") for name in names]
    data = RatedImages("test", names, sources, list(references), groups, "0" * 16, subsets=subsets)
    return measure_ranking(data, {"model": predictions}, num_resamples=20)


def test_a_fit_that_fails_is_reported_with_its_reason(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no convergence")

    monkeypatch.setattr(iqa.optimize, "curve_fit", fail)
    (row,) = measured(np.arange(20.0), np.arange(20.0))["rows"]
    assert list(row["failed_fits"]) == ["plcc_logistic", "plcc_logistic5"]
    assert "converged from none of" in row["failed_fits"]["plcc_logistic"]
    assert math.isnan(row["metrics"]["plcc_logistic"]["value"]) and row["metrics"]["srcc"]["value"] == pytest.approx(1)


def test_constant_predictions_and_two_images_have_no_more_than_they_can_have():
    (row,) = measured([2.0] * 8, np.arange(8.0))["rows"]
    assert math.isnan(row["metrics"]["srcc"]["value"]) and row["metrics"]["pairwise_accuracy"]["value"] == 0.5
    assert "spread of 0" in row["failed_fits"]["plcc_logistic"]
    (row,) = measured([1.0, 2.0], [5.0, 7.0])["rows"]
    assert row["metrics"]["srcc"]["value"] == pytest.approx(1) and row["num_images"] == 2
    with pytest.raises(ValueError, match="1 of 3 images have a score of every model; 2 are needed"):
        measured([math.nan, 1.0, math.nan], [1.0, 2.0, 3.0])


def test_each_subset_is_measured_by_itself():
    # Of subset b the last two of four are swapped: SRCC = 1 - 6 * 2 / (4 * 15). Of a all are; the last is in neither.
    predictions, references = [1, 2, 4, 3, 4, 3, 2, 1, 0], [1, 2, 3, 4, 1, 2, 3, 4, 9]
    result = measured(predictions, references, None, ["b"] * 4 + ["a"] * 4 + [None])
    assert [(row["model"], row["subset"], row["num_images"]) for row in result["subsets"]] == [
        ("model", "a", 4),
        ("model", "b", 4),
    ]
    values = [{name: x["value"] for name, x in row["metrics"].items()} for row in result["subsets"]]
    assert [x["srcc"] for x in values] == pytest.approx([-1, 0.8])
    assert [x["rmse"] for x in values] == pytest.approx([math.sqrt(5), math.sqrt(0.5)])
    intervals = bootstrap_intervals(predictions[:4], references[:4], None, 20)
    assert result["subsets"][1]["metrics"]["srcc"]["interval"] == pytest.approx(intervals["srcc"])
    assert "at least 5 images" in result["subsets"][0]["failed_fits"]["plcc_logistic"]
    assert result["rows"][0]["num_images"] == 9 and result["groups"] == []
    assert measured(predictions, references)["subsets"] == []


def test_a_subset_has_its_logistic_fitted_to_its_own_images():
    generator = np.random.default_rng(1)
    references = np.linspace(1, 9, 40)
    predictions = 1 / (1 + np.exp(5 - references)) + generator.normal(0, 0.05, 40)
    predictions[20:] *= -100  # another scale, and the other way round
    first, second = measured(predictions, references, None, ["a"] * 20 + ["b"] * 20)["subsets"]
    for row, part in ((first, slice(20)), (second, slice(20, 40))):
        expected = compute_metrics(predictions[part], references[part])
        assert row["metrics"]["plcc_logistic"]["value"] == pytest.approx(expected["plcc_logistic"])
        low, high = row["metrics"]["plcc_logistic"]["interval"]
        assert low < high
    assert first["metrics"]["plcc_logistic"]["value"] > 0 > second["metrics"]["plcc_logistic"]["value"]


def test_a_subset_is_resampled_by_groups_and_one_within_a_single_group_by_images():
    generator = np.random.default_rng(0)
    references, predictions = generator.normal(size=12), generator.normal(size=12)
    groups = ["x", "x", "y", "y", "z", "z", "w", "w", "w", "w", "w", "w"]
    of_three, of_one = measured(predictions, references, groups, ["a"] * 6 + ["b"] * 6)["subsets"]
    expected = bootstrap_intervals(predictions[:6], references[:6], groups[:6], 20)["srcc"]
    assert of_three["metrics"]["srcc"]["interval"] == pytest.approx(expected, nan_ok=True)
    expected = bootstrap_intervals(predictions[6:], references[6:], None, 20)["srcc"]
    assert of_one["metrics"]["srcc"]["interval"] == pytest.approx(expected)


def test_an_image_without_a_score_is_left_out_of_its_subset():
    result = measured([math.nan, 1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 2.0, 3.0, 4.0], None, ["a", "a", "b", "a", "b"])
    assert [(row["subset"], row["num_images"]) for row in result["subsets"]] == [("a", 2), ("b", 2)]
    assert [row["metrics"]["srcc"]["value"] for row in result["subsets"]] == pytest.approx([1, 1])


class CountingScorer:
    """Scorer that remembers what it was asked for."""

    description, needs_prompts = "counts", False

    def __init__(self):
        self.names: list[str] = []

    def score(self, sources, prompts=None):
        self.names += [sources[index][0] for index in range(len(sources))]
        return [float(index % 5) for index in range(len(sources))]


PUBLISHED = """dataset,model,srcc,plcc,source
mine,NIQE,0.2674,0.2981,their page
other,BRISQUE,0.6,0.7,another page
mine,DeepEns,0.792,,a paper
"""


@pytest.mark.filterwarnings("ignore")
def test_subsets_and_published_figures_stand_in_the_report(rated, tmp_path, monkeypatch):
    prepared, truth = rated
    scorer = CountingScorer()
    monkeypatch.setattr(ranking, "load_scorers", lambda models, options: {"counting": scorer})
    (tmp_path / "published.csv").write_text(PUBLISHED)
    options = ["--subsets", r"mine=^([01])\d*[0-57-9]\.png", "--published", tmp_path / "published.csv"]
    report = run_ranking(tmp_path, "--model", "counting", "--dataset", f"mine={prepared}", *options)
    assert scorer.names == list(truth)  # each once
    result = report["datasets"]["mine"]
    assert result["description"] == "split train: 12 images in 3 groups, 1 in no subset"
    assert [(row["subset"], row["num_images"]) for row in result["subsets"]] == [("0", 9), ("1", 2)]
    assert result["published"] == [
        {"model": "NIQE", "srcc": 0.2674, "plcc": 0.2981, "source": "their page"},
        {"model": "DeepEns", "srcc": 0.792, "plcc": None, "source": "a paper"},
    ]
    assert [row["model"] for row in result["rows"]] == ["counting"] and result["differences"] == []

    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| model | SRCC within group | SRCC | KRCC |"))
    assert header.endswith("| pairwise accuracy | source |")
    assert "| NIQE (published) |  | 0.267 |  | 0.298 |  |  |  |  |  | their page |" in text
    assert "| DeepEns (published) |  | 0.792 |  |  |  |  |  |  |  | a paper |" in text
    assert "BRISQUE" not in text and "It is not measured here" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| counting |")]
    assert line.endswith("| measured |")
    srcc, plcc = (format_measured(result["subsets"][0]["metrics"][name]) for name in ("srcc", "plcc_logistic"))
    assert "| subset | images | model | SRCC | PLCC, 4 parameters |" in text
    assert f"| 0 | 9 | counting | {srcc} | {plcc} |" in text
    assert "counting, subset 1: no PLCC, 4 parameters: a logistic is fitted to at least 5 images" in text

    with open(tmp_path / "report" / "metrics.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == "srcc"]
    assert [(line["group"], line["subset"], line["num"]) for line in lines if not line["group"]] == [
        ("", "", "12"),
        ("", "0", "9"),
        ("", "1", "2"),
    ]
    assert {line["model"] for line in lines} == {"counting"}


def test_no_published_figure_is_in_a_test_of_difference(rated, tmp_path):
    prepared, truth = rated
    (tmp_path / "published.csv").write_text(PUBLISHED)
    tables = [
        write_table(tmp_path / f"{name}.csv", {key: sign * x for key, x in truth.items()})
        for name, sign in (("right", 1), ("wrong", -1))
    ]
    options = ["--dataset", f"mine={prepared}", "--published", tmp_path / "published.csv"]
    result = run_ranking(tmp_path, "--model", *tables, *options)["datasets"]["mine"]
    assert [(pair["first"], pair["second"]) for pair in result["differences"]] == [("right.csv", "wrong.csv")]


def test_a_report_of_before_subsets_and_published_figures_still_makes_its_tables():
    report = json.loads((ROOT / "results" / "hecd.json").read_text(encoding="utf-8"))
    (result,) = report["datasets"].values()
    assert "subsets" not in result and "published" not in result
    text = ranking_markdown(report)
    assert f"| embedded | {format_measured(result['rows'][0]['metrics']['srcc_within_group'])} |" in text
    assert "published" not in text and "| subset |" not in text and "source" not in text


def test_a_limit_takes_images_from_the_whole_split_and_the_report_says_so(rated, tmp_path):
    prepared, truth = rated
    table = write_table(tmp_path / "a.csv", truth)
    report = run_ranking(tmp_path, "--model", table, "--dataset", f"mine={prepared}", "--limit", "5")
    result = report["datasets"]["mine"]
    assert result["description"].startswith("split train: 5 of 12 images")
    assert result["rows"][0]["num_images"] == 5 and result["rows"][0]["metrics"]["srcc"]["value"] == pytest.approx(1)
    with open(tmp_path / "report" / "scores.csv", newline="") as file:
        assert [line["path"] for line in csv.DictReader(file)] == ["00.png", "02.png", "04.png", "07.png", "09.png"]
    whole, limited = load_rated(str(prepared), limit=12), load_rated(str(prepared), limit=5)
    assert whole.num_in_split is None and whole.data_hash == load_rated(str(prepared)).data_hash
    assert limited.data_hash == result["data_hash"] != whole.data_hash
    assert len(limited.sources) == 5 and limited.sources[1] == whole.sources[2]


def test_a_dataset_is_loaded_without_decoding_an_image(rated, monkeypatch):
    prepared, truth = rated

    def refuse(*args, **kwargs):
        raise AssertionError("an image was decoded")

    with monkeypatch.context() as context:
        context.setattr(Image, "open", refuse)
        data = load_rated(str(prepared))
        sources = [data.sources[index] for index in range(len(data.sources))]
    assert [name for name, _ in sources] == list(truth) and data.references == list(truth.values())
    assert all(isinstance(source, bytes) for _, source in sources)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--subsets", "^(ss"], "--subsets '^(ss' is no regular expression"),
        (["--subsets", "^(ss..)"], "--subsets '^(ss..)' finds no subset in the paths of mine, such as '00.png'"),
        (["--subsets", "mine=1", "mine=2"], "--subsets has two regular expressions for mine"),
        (["--published", "other.csv"], "other.csv has figures of other, none of mine: name it so, NAME=DATASET"),
        (["--published", "nothing.csv"], "nothing.csv cannot be read as a .csv table"),
        (["--limit", "1"], "--limit must be at least 2, got 1"),
    ],
)
def test_subsets_and_published_figures_that_are_not_there_are_refused_before_scoring(
    rated, tmp_path, monkeypatch, capsys, options, message
):
    prepared, _ = rated
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ranking, "load_scorers", lambda models, options: pytest.fail("loaded"))
    (tmp_path / "other.csv").write_text("dataset,model,srcc,plcc,source\nother,NIQE,0.2,0.3,page\n")
    command = ["ranking", "--model", "a.csv", "--dataset", f"mine={prepared}", "--output_dir", "new"]
    assert benchmark.main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_subsets_a_limit_and_published_figures_are_refused_for_preferences(rated, tmp_path, capsys):
    _, truth = rated
    comparisons = [{"id": "a", "prompt": "a cat", "generations": ["00.png", "01.png"], "ranking": [1, 2]}]
    (tmp_path / "pictures" / "test.json").write_text(json.dumps(comparisons))
    (tmp_path / "published.csv").write_text(PUBLISHED)
    command = ["ranking", "--model", write_table(tmp_path / "a.csv", truth), "--output_dir", str(tmp_path / "new")]
    command += ["--dataset", f"mine={tmp_path / 'pictures' / 'test.json'}"]
    for options in (["--subsets", "(.)"], ["--limit", "5"], ["--published", str(tmp_path / "published.csv")]):
        assert benchmark.main([*command, *options]) == 2
        assert "mine holds preferences: --subsets, --limit and --published are for true" in capsys.readouterr().err


def test_preferences_and_scores_stand_in_one_report(rated, tmp_path):
    prepared, truth = rated
    comparisons = [
        {"id": "a", "prompt": "a cat", "generations": ["00.png", "01.png", "02.png"], "ranking": [1, 2, 2]},
        {"id": "b", "prompt": "a dog", "generations": ["03.png", "04.png"], "ranking": [2, 1]},
    ]
    (tmp_path / "pictures" / "test.json").write_text(json.dumps(comparisons))
    scores = dict.fromkeys(truth, 1.0) | {"00.png": 5.0, "01.png": 5.0, "03.png": 3.0, "04.png": 2.0}
    table = write_table(tmp_path / "scores.csv", scores)
    options = ["--dataset", prepared, f"people={tmp_path / 'pictures' / 'test.json'}"]
    report = run_ranking(tmp_path, "--model", f"mine={table}", *options)
    result = report["datasets"]["people"]
    assert result["description"] == "ImageReward: 5 images of 2 prompts"
    (row,) = result["rows"]
    # Of 00 over 01 (tied), 00 over 02 (right) and 04 over 03 (wrong); 01 and 02 share a rank.
    assert (row["num_pairs"], row["num_tied"], row["num_prompts"]) == (3, 1, 2)
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert row["metrics"]["accuracy_ties_half"]["value"] == pytest.approx(1.5 / 3)
    assert row["metrics"]["accuracy"]["interval"] == [0, 0.5]
    assert set(report["datasets"]) == {"prepared", "people"}
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| model | pairwise accuracy, ties wrong | pairwise accuracy, ties half |" in text


def test_wrong_usage_is_refused_and_leaves_nothing(rated, tmp_path, capsys):
    prepared, truth = rated
    table = write_table(tmp_path / "a.csv", truth)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    new = str(tmp_path / "new")
    for model, dataset, output, message in [
        (table, str(prepared), str(taken), "is there already and not an empty folder"),
        (str(tmp_path / "nothing"), str(prepared), new, "accepted: a checkpoint's folder or Hub id"),
        (table, str(tmp_path / "nothing"), new, "cannot load"),
        (table, str(tmp_path / "a.csv"), new, "is no list of comparisons"),
    ]:
        assert benchmark.main(["ranking", "--model", model, "--dataset", dataset, "--output_dir", output]) == 2
        assert message in capsys.readouterr().err
    twice = ["--model", table, f"a.csv={table}", "--dataset", str(prepared), "--output_dir", new]
    assert benchmark.main(["ranking", *twice]) == 2
    assert "--model has a.csv twice: name them apart, NAME=MODEL" in capsys.readouterr().err
    split = ["--model", table, "--dataset", str(prepared), "--split", "test", "--output_dir", new]
    assert benchmark.main(["ranking", *split]) == 2
    assert "--split must be one of train" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "pictures", "prepared", "taken", "truth.csv"]
    assert (taken / "mine.txt").read_text() == "mine"


def test_robustness_tells_a_scorer_that_sees_distortions_from_a_constant_one(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(2):
        make_picture(70, 60, seed=index).save(folder / f"{index}.png")
    tiny = tmp_path / "tiny"
    make_tiny_model().save_pretrained(tiny)
    kinds = [*DISTORTIONS, "motion_blur", "swirl", "impulse_noise", "jpeg2000", "colour_cast"]
    perfect = {f"{index}.png clean": 7.0 for index in range(2)}
    for index in range(2):
        perfect |= {f"{index}.png {kind} {severity}": 6.0 - severity for kind in kinds for severity in range(1, 6)}
        perfect |= {f"{index}.png {change}": 6.5 for change in ("jpeg95", "shift", "flip", "resize")}
    tables = [
        f"perfect={write_table(tmp_path / 'perfect.csv', perfect)}",
        f"constant={write_table(tmp_path / 'constant.csv', dict.fromkeys(perfect, 4.0))}",
    ]
    output = tmp_path / "report"
    common = ["--num_resamples", "20", "--num_workers", "0", "--device", "cpu", "--output_dir", str(output)]
    assert benchmark.main(["robustness", "--model", str(tiny), *tables, "--images", str(folder), *common]) == 0
    report = json.loads((output / "report.json").read_text())
    assert report["kind"] == "robustness" and report["num_pictures"] == 2 and len(report["data_hash"]) == 16
    for row in report["models"]["perfect"]["ordering"]:
        assert row["clean_over_damaged"]["value"] == 1
        assert row["mild_over_strong"]["value"] == (None if row["severity"] == 5 else 1)
    constant = report["models"]["constant"]
    assert {row["clean_over_damaged"]["value"] for row in constant["ordering"]} == {0}
    assert [row["median"] for row in constant["stability"]] == [0] * 4
    assert [row["median"] for row in report["models"]["perfect"]["stability"]] == [0.5] * 4
    assert report["models"]["perfect"]["mean_scores"] == [7, 5, 4, 3, 2, 1]
    assert {row["families"] for row in constant["ordering"]} == {"all", "trained", "unseen", *kinds}
    changes = {row["change"]: row["median"] for row in report["models"]["tiny"]["stability"]}
    assert all(median > 0 for median in changes.values())
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "| all | perfect | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in text
    assert "| swirl | 3 | constant | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] |" in text
    assert text.strip() in capsys.readouterr().out
    with open(output / "scores.csv", newline="") as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 2 * 90 and list(scores[0]) == ["version", "tiny", "perfect", "constant"]
    (line,) = [row for row in scores if row["version"] == "0.png clean"]
    model = make_tiny_model()
    assert float(line["tiny"]) == pytest.approx(model.score(folder / "0.png").item(), abs=1e-5)


def test_robustness_names_the_versions_that_it_leaves_out(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 40), (120, 120, 120)).save(tmp_path / "pictures" / "grey.png")
    make_picture(50, 40).save(tmp_path / "pictures" / "scene.png")
    make_tiny_model().save_pretrained(tmp_path / "tiny")
    output = tmp_path / "report"
    common = ["--num_resamples", "5", "--num_workers", "0", "--device", "cpu", "--output_dir", str(output)]
    images = ["--images", str(tmp_path / "pictures")]
    assert benchmark.main(["robustness", "--model", str(tmp_path / "tiny"), *images, *common]) == 0
    unscored = json.loads((output / "report.json").read_text())["models"]["tiny"]["unscored"]
    assert "grey.png oversaturate 3" in unscored and "grey.png blur 5" in unscored  # nothing there to work on
    assert all(name.startswith("grey.png ") for name in unscored) and "grey.png noise 1" not in unscored
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "left out: grey.png " in text and "grey.png blur 5 (tiny)" in text


def test_robustness_refuses_what_holds_no_images(tmp_path, capsys):
    table = write_table(tmp_path / "a.csv", {"x": 1.0})
    (tmp_path / "empty").mkdir()
    for images, message in (("empty", "no images in the folder"), ("a.csv", "--images must be a folder")):
        command = ["robustness", "--model", table, "--images", str(tmp_path / images)]
        assert benchmark.main([*command, "--output_dir", str(tmp_path / "new")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
