"""Metrics against numbers worked by hand, where they are not defined, their intervals, and the way by `evaluate`."""

import ast
import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.fresh_python import ONE_THREAD, run_fresh
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from scipy import optimize, stats
from scipy.optimize import curve_fit

from hybridiqa.models.percentiles import score_quantiles
from metrics.iqa import iqa
from metrics.iqa.iqa import (
    IQAMetric,
    LogisticFitError,
    bootstrap_intervals,
    bootstrap_samples,
    compute_metrics,
    difference_intervals,
    fit_logistic,
    fit_logistic5,
    is_defined,
    logistic,
    logistic5,
    within_group_srcc,
)

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "metrics" / "iqa"
CURVE = (8.5, 1.5, 40.0, 6.0)  # upper, lower, middle, width, of predictions 0-100


def scored_images(num_images: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make true scores of 1-9 and noisy predictions of them."""
    generator = np.random.default_rng(seed)
    references = generator.integers(1, 10, num_images).astype(float)
    return references + generator.normal(0, 2, num_images), references


def test_metrics_agree_with_numbers_worked_by_hand():
    metrics = compute_metrics([1, 2, 3, 5], [1, 3, 2, 4])
    assert metrics["srcc"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # two ranks differ by one
    assert metrics["krcc"] == pytest.approx((5 - 1) / 6)
    assert metrics["plcc"] == pytest.approx(5.5 / math.sqrt(8.75 * 5))
    assert metrics["rmse"] == pytest.approx(math.sqrt(3 / 4))


def test_perfect_reversed_and_tied_predictions():
    assert compute_metrics([1, 2, 3], [10, 20, 30])["srcc"] == pytest.approx(1)
    assert compute_metrics([3, 2, 1], [10, 20, 30])["krcc"] == pytest.approx(-1)
    assert compute_metrics([1, 1, 2], [1, 2, 3])["krcc"] == pytest.approx(2 / math.sqrt(2 * 3))  # tau-b


@pytest.mark.parametrize(
    ("predictions", "references"), [([2] * 6, range(6)), (range(6), [5] * 6), ([2, 2, 2], [1, 2, 3]), ([1], [4])]
)
def test_a_correlation_that_is_not_defined_is_nan(predictions, references):
    metrics = compute_metrics(predictions, references)
    assert all(math.isnan(metrics[name]) for name in ("srcc", "plcc", "plcc_logistic", "krcc"))
    assert math.isfinite(metrics["rmse"])


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([1, 2], [1]), ([1, math.nan], [1, 2])])
@pytest.mark.parametrize("measure", [compute_metrics, fit_logistic, bootstrap_intervals])
def test_unusable_input_is_refused(predictions, references, measure):
    with pytest.raises(ValueError, match="predictions and references must be"):
        measure(predictions, references)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_fit_finds_the_curve_that_the_references_were_made_by(sign):
    predictions = np.linspace(0, 100, 50)
    upper, lower, middle, width = CURVE if sign > 0 else (CURVE[1], CURVE[0], *CURVE[2:])
    references = logistic(predictions, upper, lower, middle, width)
    assert references[40] == pytest.approx((upper - lower) / (1 + math.exp(-(predictions[40] - 40) / 6)) + lower)
    assert fit_logistic(predictions, references) == pytest.approx((upper, lower, middle, width))
    metrics = compute_metrics(predictions, references)
    assert metrics["plcc_logistic"] == pytest.approx(sign)
    assert abs(metrics["plcc"]) < 0.97


@pytest.mark.parametrize("direction", [1, -1])
def test_plcc_after_the_fit_agrees_with_scipys_on_all_four_parameters(direction):
    generator = np.random.default_rng(2)
    predictions = direction * generator.uniform(0, 100, 200)
    references = logistic(direction * predictions, *CURVE) + generator.normal(0, 1, 200)

    def curve(x, b1, b2, b3, b4):
        return (b1 - b2) / (1 + np.exp(-(x - b3) / np.abs(b4))) + b2

    ends = [references.max(), references.min()][::direction]
    start = [*ends, predictions.mean(), predictions.std()]
    fitted = curve(predictions, *curve_fit(curve, predictions, references, start)[0])
    expected = direction * np.corrcoef(fitted, references)[0, 1]  # fitted by a falling curve, the sign is lost
    assert compute_metrics(predictions, references)["plcc_logistic"] == pytest.approx(expected, abs=1e-6)
    assert logistic(predictions, *fit_logistic(predictions, references)) == pytest.approx(fitted, abs=1e-3)


@pytest.mark.parametrize("scale", [1, -1, 1e-200, 1e6])
def test_a_straight_line_is_a_very_wide_curve(scale):
    references = np.random.default_rng(0).uniform(1, 9, 40)
    predictions = scale * references
    assert compute_metrics(predictions, references)["plcc_logistic"] == pytest.approx(math.copysign(1, scale))
    assert logistic(predictions, *fit_logistic(predictions, references)) == pytest.approx(references, abs=1e-5)


def test_the_fit_never_agrees_less_than_a_straight_line():
    for seed in range(50):
        generator = np.random.default_rng(seed)
        predictions = generator.normal(size=5 + seed)
        references = generator.uniform(-1, 1) * predictions + generator.normal(size=predictions.size)
        metrics = compute_metrics(predictions, references)
        assert abs(metrics["plcc"]) - 1e-4 < abs(metrics["plcc_logistic"]) <= 1 + 1e-12


def test_rounding_decides_nothing_where_an_exponential_fits_best():
    predictions, references = np.array([2.9, 4.2, 8.3, 5.6, 1.8, 6.1]), np.array([3.0, 5, 9, 6, 1, 6])
    start = fit_logistic(predictions, references)
    errors = []
    for seed in range(20):
        nudged = predictions * (1 + 1e-13 * np.random.default_rng(seed).standard_normal(6))
        for parameters in (fit_logistic(nudged, references), fit_logistic(nudged, references, start)):
            errors.append(np.sqrt(np.mean((logistic(nudged, *parameters) - references) ** 2)))
    assert np.ptp(errors) < 1e-4


def test_a_start_finds_the_same_curve():
    predictions, references = scored_images()
    parameters = fit_logistic(predictions, references)
    assert fit_logistic(predictions, references, start=parameters) == pytest.approx(parameters, rel=1e-3)
    assert fit_logistic(predictions, references, start=(0.0, 1.0, 99.0, -1e-3)) == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize(("predictions", "references"), [([1, 2], [1, 2]), ([3] * 9, range(9)), (range(9), [3] * 9)])
def test_a_curve_through_too_little_is_refused(predictions, references):
    with pytest.raises(ValueError, match="at least 5 images that differ"):
        fit_logistic(predictions, references)
    assert math.isnan(compute_metrics(predictions, references)["plcc_logistic"])


def test_a_fit_that_fails_raises_its_own_error_and_is_nan_among_the_metrics(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no convergence")

    monkeypatch.setattr(iqa.optimize, "curve_fit", fail)
    predictions, references = scored_images()
    with pytest.raises(LogisticFitError, match="60 images converged from none of 4 starts"):
        fit_logistic(predictions, references)
    metrics = compute_metrics(predictions, references)
    fitted = ["plcc_logistic", "plcc_logistic5", "rmse_logistic"]
    assert [name for name, value in metrics.items() if not is_defined(value)] == fitted
    intervals = bootstrap_intervals(predictions, references, num_resamples=20)
    assert [name for name, interval in intervals.items() if not is_defined(interval[0])] == fitted


@pytest.mark.parametrize(("num_images", "num_values"), [(2, 2), (7, 3), (30, 5), (60, 1000)])
def test_pairwise_accuracy_agrees_with_counting_all_pairs(num_images, num_values):
    generator = np.random.default_rng(num_images)
    predictions, references = generator.integers(num_values, size=(2, num_images)).astype(float)
    references[:2] = 0, 1  # never all the same
    points = []
    for first in range(num_images):
        for second in range(num_images):
            if references[first] < references[second]:
                difference = predictions[second] - predictions[first]
                points.append(0.5 if difference == 0 else float(difference > 0))
    assert compute_metrics(predictions, references)["pairwise_accuracy"] == pytest.approx(np.mean(points))


def test_pairwise_accuracy_of_constants():
    assert compute_metrics([4, 4, 4], [1, 2, 3])["pairwise_accuracy"] == 0.5
    for references in ([2, 2, 2], [2]):
        assert math.isnan(compute_metrics(range(len(references)), references)["pairwise_accuracy"])


def test_the_evaluate_metric_gives_the_same_numbers():
    predictions, references = scored_images()
    groups = [index // 5 for index in range(60)]
    metric = IQAMetric()
    inputs = {"predictions": predictions, "references": references}
    assert metric.compute(**inputs, num_resamples=0) == compute_metrics(**inputs)
    options = {"num_resamples": 20, "seed": 3, "confidence": 0.8}
    result = metric.compute(**inputs, groups=groups, **options)
    assert result.pop("intervals") == bootstrap_intervals(**inputs, groups=groups, **options)
    assert result == compute_metrics(**inputs, groups=groups)


def test_the_evaluate_metric_gives_95_percent_intervals_of_1000_resamples_unasked():
    predictions, references = scored_images(4)  # too few for a fit, of which 1000 take seconds
    result = IQAMetric().compute(predictions=predictions, references=references)
    options = {"num_resamples": 1000, "seed": 0, "confidence": 0.95}
    expected = bootstrap_intervals(predictions, references, **options)
    assert json.dumps(result.pop("intervals")) == json.dumps(expected)  # as text: NaN is not NaN
    assert json.dumps(result) == json.dumps(compute_metrics(predictions, references))
    assert all(map(is_defined, expected["srcc"]))


@pytest.fixture(scope="module")
def evaluate_home(tmp_path_factory) -> Path:
    """Return a folder for the Hub's libraries, one for all tests: processes of one environment begin sooner."""
    return tmp_path_factory.mktemp("evaluate") / "home"


@pytest.mark.parametrize(
    ("path", "at_root"), [("metrics/iqa", True), ("metrics/iqa/iqa.py", True), (str(ROOT / "metrics" / "iqa"), False)]
)
def test_evaluate_loads_the_folder_offline_and_without_the_project(path, at_root, tmp_path, evaluate_home):
    code = """
import json, sys, evaluate
path, inputs = sys.argv[1], json.loads(sys.argv[2])
metric = evaluate.load(path)
assert not [name for name in sys.modules if name.startswith(("metrics", "hybridiqa"))]
print(json.dumps(metric.compute(**inputs)))
"""
    predictions, references = scored_images(30)
    inputs = {"predictions": predictions.tolist(), "references": references.tolist(), "groups": list("abcdef") * 5}
    shutil.rmtree(evaluate_home, ignore_errors=True)  # nothing of an earlier load is found there
    environment = os.environ | ONE_THREAD | {"HF_HOME": str(evaluate_home), "HF_HUB_OFFLINE": "1"}
    command = ["-c", code, path, json.dumps(inputs | {"num_resamples": 10})]
    run = run_fresh(command, environment, ROOT if at_root else tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result.pop("intervals") == bootstrap_intervals(**inputs, num_resamples=10)
    assert result == compute_metrics(**inputs)


@pytest.fixture(scope="module")
def shown_example() -> tuple[dict, dict]:
    """Run the Python of the Space's card; return what it computes, and what the card shows."""
    code = re.search(r"```python\n(.*?)```", SpaceCard.load(SPACE / "README.md").text, re.DOTALL)[1]
    *statements, call = ast.parse(code).body
    shown = ast.literal_eval(re.search(r"^ \{.*\}$", code.replace("\n#", "\n"), re.DOTALL | re.MULTILINE)[0].strip())
    variables = {}
    with contextlib.chdir(ROOT):
        exec(compile(ast.Module(statements, []), "README.md", "exec"), variables)
        return eval(compile(ast.Expression(call.value), "README.md", "eval"), variables), shown


def test_the_card_of_the_space_describes_what_is_there(shown_example):
    card = SpaceCard.load(SPACE / "README.md")
    assert (card.data.sdk, card.data.license, card.data.tags) == ("gradio", "apache-2.0", ["evaluate", "metric"])
    assert (SPACE / card.data.app_file).is_file()
    assert f"gradio=={card.data.sdk_version} " in (SPACE / card.data.app_file).read_text(encoding="utf-8")
    result, shown = map(dict, shown_example)
    intervals = shown.pop("intervals")
    assert result.pop("intervals") == {name: pytest.approx(interval, abs=5e-4) for name, interval in intervals.items()}
    assert result == pytest.approx(shown, abs=5e-4)


def test_the_space_pins_versions_that_the_project_accepts():
    wanted, pinned = (
        {requirement.name: requirement.specifier for requirement in map(Requirement, path.read_text().splitlines())}
        for path in (ROOT / "requirements.txt", ROOT / "metrics" / "iqa" / "requirements.txt")
    )
    assert set(pinned) == {"evaluate", "datasets", "scipy", "numpy"}
    for name, specifier in pinned.items():
        (pin,) = specifier
        assert pin.operator == "=="
        assert name not in wanted or wanted[name].contains(pin.version)


@pytest.fixture
def space_page(monkeypatch):
    """Load the module metrics/iqa/app.py, which finds `iqa` beside itself where it runs."""
    monkeypatch.setitem(sys.modules, "iqa", iqa)
    spec = importlib.util.spec_from_file_location("space_page", ROOT / "metrics" / "iqa" / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_each_metric_with_its_interval(space_page, shown_example):
    result = dict(shown_example[0])  # of the same images
    intervals = result.pop("intervals")
    rows = space_page.measure_rows(space_page.EXAMPLE)
    assert rows[0] == ["srcc", "0.9701", "0.7800", "1.000"]
    assert [name for name, *_ in rows] == list(result)
    for name, *numbers in rows:
        assert [float(number) for number in numbers] == pytest.approx([result[name], *intervals[name]], rel=1e-3)
    assert space_page.measure_rows([[4, 1], [4, 2]])[0] == ["srcc"] + 3 * ["not defined"]


def test_the_page_reads_a_csv_file_and_a_table_of_text_alike(space_page, tmp_path):
    path = tmp_path / "scores.csv"
    lines = ["name,references,predictions", *(f"{p}.png,{r},{p}" for p, r in space_page.EXAMPLE), ",,"]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    expected = space_page.pair_scores(space_page.EXAMPLE)
    assert space_page.pair_scores(space_page.read_rows(path)) == expected
    table = [[f"{p} ", str(r)] for p, r in space_page.EXAMPLE] + [["", ""], [None, None]]
    assert space_page.pair_scores(table) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2], ["good", 3]], "row 2: got 'good'; finite numbers are accepted"),
        ([[1, 2], [3, "NaN"]], "row 2: got 'NaN'; finite numbers are accepted"),
        ([[1, 2], [math.inf, 3]], "row 2: got 'inf'; finite numbers are accepted"),
        ([[1, 2], [10**400, 3]], "row 2: got '1000.*'; finite numbers are accepted"),
        ([[1, 2], [3, 4], [5, None]], "row 3: got 1 score.*one in each of .*predictions.*references.* is accepted"),
        ([[1, 2], ["", ""]], "got 1 row.*2 to 10000 are accepted"),
        ([[]], "got 0 row.*2 to 10000 are accepted"),
        ([[1, 2]] * 10_001, "got 10001 row.*2 to 10000 are accepted"),
    ],
)
def test_the_page_refuses_a_table_in_one_sentence(rows, message, space_page):
    with pytest.raises(ValueError, match=message):
        space_page.measure_rows(rows)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n3,4\n", b"predictions\n1\n2\n", bytes(range(256))])
def test_the_page_refuses_a_file_without_the_columns(content, space_page, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"got a file whose first line is .*predictions.*references.* are wanted"):
        space_page.read_rows(path)


def test_the_page_shows_what_was_wrong_as_text_not_as_html(space_page):
    gradio = pytest.importorskip("gradio")
    (button,) = space_page.build_page().fns.values()
    with pytest.raises(gradio.Error, match="got '&lt;b&gt;'; finite numbers"):
        button.fn([["<b>", 1], [2, 3]], None)


def test_the_file_that_evaluate_runs_only_defines():
    statements = ast.parse((ROOT / "metrics" / "iqa" / "iqa.py").read_text(encoding="utf-8")).body
    assert isinstance(statements[0].value, ast.Constant)  # its docstring
    definitions = (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef, ast.ClassDef)
    assert all(isinstance(statement, definitions) for statement in statements[1:])
    modules = [node.module for node in statements if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    libraries = {"datasets", "evaluate", "numpy", "scipy"}
    assert {module.split(".")[0] for module in modules} <= libraries | sys.stdlib_module_names


def test_srcc_within_groups_is_the_mean_over_groups_of_three_and_more():
    groups = ["a", "b", "a", "b", "a", "b", "c", "c", "d", "d", "d"]
    references = [1, 7, 2, 8, 3, 9, 1, 2, 4, 5, 6]
    predictions = [5, 3, 6, 1, 7, 2, 9, 1, 3, 3, 3]  # a: 1, b: -0.5, c: too small, d: not defined
    assert within_group_srcc(predictions, references, groups) == pytest.approx((1 - 0.5) / 2)
    assert compute_metrics(predictions, references, groups)["srcc_within_group"] == pytest.approx(0.25)
    assert math.isnan(within_group_srcc([3, 3, 3], [1, 2, 3], ["d", "d", "d"]))


def test_srcc_within_groups_is_left_out_where_no_group_has_three_images():
    predictions, references = scored_images(6)
    expected = {"srcc", "plcc", "plcc_logistic", "plcc_logistic5", "krcc", "rmse", "rmse_logistic", "pairwise_accuracy"}
    assert set(compute_metrics(predictions, references, list("aabbcc"))) == expected
    assert set(bootstrap_intervals(predictions, references, list("aabbcc"), num_resamples=20)) == expected


def test_one_label_an_image_is_wanted():
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        compute_metrics([1, 2, 3], [1, 2, 3], ["a", "b"])


@pytest.mark.parametrize("groups", [None, [index // 5 for index in range(60)]])
def test_intervals_hold_the_metrics_and_depend_on_the_seed_alone(groups):
    predictions, references = scored_images()
    state = np.random.get_state()[1].copy()
    intervals = bootstrap_intervals(predictions, references, groups, num_resamples=200)
    metrics = compute_metrics(predictions, references, groups)
    assert list(intervals) == list(metrics)
    assert all(intervals[name][0] < value < intervals[name][1] for name, value in metrics.items())
    assert intervals == bootstrap_intervals(predictions, references, groups, num_resamples=200)
    assert intervals != bootstrap_intervals(predictions, references, groups, num_resamples=200, seed=1)
    assert (np.random.get_state()[1] == state).all()


def test_intervals_are_the_quantiles_of_resampled_groups():
    predictions, references = scored_images()
    groups = np.arange(60) % 12
    generator, values = np.random.default_rng(3), []
    for _ in range(50):
        drawn = generator.integers(12, size=12)
        index = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        new_groups = np.repeat(np.arange(12), 5)  # a group drawn twice is two groups
        values.append(compute_metrics(predictions[index], references[index], new_groups))
    intervals = bootstrap_intervals(predictions, references, groups, num_resamples=50, seed=3, confidence=0.8)
    for name, interval in intervals.items():
        tolerance = 0.01 if name == "plcc_logistic5" else 1e-6  # its search begins from fewer starts in a resample
        assert interval == pytest.approx(np.quantile([value[name] for value in values], [0.1, 0.9]), rel=tolerance)


def test_groups_of_one_image_are_images():
    predictions, references = scored_images()
    names = [f"{index}.png" for index in range(60)]
    assert bootstrap_intervals(predictions, references, names, 50) == bootstrap_intervals(
        predictions, references, num_resamples=50
    )


def test_copies_of_images_do_not_narrow_the_intervals_of_groups():
    predictions, references = (np.repeat(values, 6) for values in scored_images())
    groups = np.repeat(np.arange(60), 6)
    width = {
        name: np.ptp(bootstrap_intervals(predictions, references, labels, 200)["plcc"])
        for name, labels in (("images", None), ("groups", groups))
    }
    assert width["groups"] > 1.8 * width["images"]  # sqrt(6) is expected


@pytest.mark.parametrize(
    ("predictions", "references", "has_interval"),
    [
        ([2] * 8, range(8), False),
        ([1], [1], False),
        ([1, 0, 0, 0, 0, 0, 0, 0], range(8), True),  # the 1 is in 66 % of the resamples
        ([1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], False),  # both 1s are in 41 %
    ],
)
def test_an_interval_wants_half_of_the_resamples_to_be_defined(predictions, references, has_interval):
    interval = bootstrap_intervals(predictions, references)["srcc"]
    assert [is_defined(bound) for bound in interval] == [has_interval] * 2


def test_a_single_group_has_no_interval():
    intervals = bootstrap_intervals(*scored_images(), groups=["a"] * 60, num_resamples=10)
    assert not any(is_defined(bound) for interval in intervals.values() for bound in interval)


def test_resamples_and_confidence_are_checked():
    for options in ({"num_resamples": 0}, {"confidence": 1.0}, {"confidence": 95}):
        with pytest.raises(ValueError, match="are accepted"):
            bootstrap_intervals([1, 2], [1, 2], **options)


def test_score_quantiles_are_21_rounded_steps_of_five_percent():
    assert score_quantiles(np.arange(101) / 3) == [round(5 * step / 3, 4) for step in range(21)]
    assert score_quantiles([4.00004]) == [4.0] * 21
    for scores in ([], [1, math.nan]):
        with pytest.raises(ValueError, match="at least one finite number"):
            score_quantiles(scores)


def test_nan_and_none_are_not_defined():
    assert [is_defined(value) for value in (0.0, -1, math.nan, None)] == [True, True, False, False]


def brute_force_error(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return the least squared error of all five parameters at once, from many starts."""
    scores = (predictions - predictions.mean()) / predictions.std()
    errors = []
    for steepness in (0.5, 2.0, 8.0):
        for middle in (-1.0, 0.0, 1.0):
            start = [np.ptp(references), steepness, middle, 0.0, references.mean()]
            try:
                found = optimize.curve_fit(logistic5, scores, references, start, maxfev=20_000)[0]
            except RuntimeError:
                continue
            errors.append(np.sum((logistic5(scores, *found) - references) ** 2))
    return min(errors)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", ["noise", "s", "line", "falling", "hump", "tied"])
def test_the_five_parameter_fit_is_as_good_as_a_brute_force_search(shape):
    generator = np.random.default_rng(5)
    predictions = generator.normal(3, 2, 80)
    shapes = {
        "noise": generator.normal(size=80),
        "s": np.tanh(predictions - 3) + 0.1 * generator.normal(size=80),
        "line": 2 * predictions - 1 + 0.1 * generator.normal(size=80),
        "falling": -np.tanh((predictions - 2) / 2) - 0.1 * predictions + 0.05 * generator.normal(size=80),
        "hump": np.tanh(3 * (predictions - 3)) - 0.4 * predictions,
        "tied": np.round(predictions / 2) + 0.1 * generator.normal(size=80),
    }
    predictions = np.round(predictions / 2) if shape == "tied" else predictions
    references = shapes[shape]
    parameters = fit_logistic5(predictions, references)
    error = np.sum((logistic5(predictions, *parameters) - references) ** 2)
    assert error <= brute_force_error(predictions, references) * (1 + 1e-6) + 1e-12
    mapped = logistic5(predictions, *parameters)
    sign = math.copysign(1, stats.pearsonr(mapped, predictions)[0])
    expected = sign * stats.pearsonr(mapped, references)[0]
    assert compute_metrics(predictions, references)["plcc_logistic5"] == pytest.approx(expected)


def test_five_parameters_are_the_curve_of_the_paper():
    b1, b2, b3, b4, b5 = parameters = (2.0, 1.5, 0.5, -0.25, 3.0)
    for score in (-4.0, 0.5, 3.0):
        expected = b1 * (1 / 2 - 1 / (1 + math.exp(b2 * (score - b3)))) + b4 * score + b5
        assert logistic5(np.array([score]), *parameters)[0] == pytest.approx(expected)
    predictions = np.linspace(-3, 4, 60)
    found = fit_logistic5(predictions, logistic5(predictions, *parameters))
    assert logistic5(predictions, *found) == pytest.approx(logistic5(predictions, *parameters), abs=1e-4)


@pytest.mark.parametrize("num_images", [2, 4, 5, 6])
def test_few_images_have_the_metrics_that_they_can_have(num_images):
    predictions, references = np.array([1.0, 3, 2, 5, 4, 7])[:num_images], np.array([2.0, 4, 3, 9, 1, 6])[:num_images]
    metrics = compute_metrics(predictions, references)
    assert metrics["srcc"] == pytest.approx(stats.spearmanr(predictions, references)[0])
    assert is_defined(metrics["plcc_logistic"]) == is_defined(metrics["rmse_logistic"]) == (num_images >= 5)
    assert is_defined(metrics["plcc_logistic5"]) == (num_images >= 6)
    if num_images < 6:
        with pytest.raises(ValueError, match=f"at least 6 images .* got {num_images} images"):
            fit_logistic5(predictions, references)


def test_the_error_after_the_fit_does_not_depend_on_the_scale_of_predictions():
    predictions, references = scored_images()
    expected = np.sqrt(np.mean((logistic(predictions, *fit_logistic(predictions, references)) - references) ** 2))
    for scale in (1, 100, -1):
        metrics = compute_metrics(scale * predictions + 7, references)
        assert metrics["rmse_logistic"] == pytest.approx(expected, rel=1e-4) and metrics["rmse"] > expected


def test_paired_samples_tell_a_better_scorer_from_a_worse_one_and_equals_not():
    generator = np.random.default_rng(11)
    references = generator.normal(size=150)
    noise = generator.normal(size=150)
    good, poor, twin = references + 0.3 * noise, references + 1.5 * noise, references - 0.3 * noise
    samples = {
        name: bootstrap_samples(values, references, num_resamples=200)
        for name, values in (("good", good), ("poor", poor), ("twin", twin))
    }
    assert all(values.shape == (200,) for values in samples["good"].values())
    itself = difference_intervals(samples["good"], samples["good"])
    assert list(itself) == list(compute_metrics(good, references))
    assert all(interval == [0, 0] for interval in itself.values())
    better = difference_intervals(samples["good"], samples["poor"])
    equal = difference_intervals(samples["good"], samples["twin"])
    for name in ("srcc", "krcc", "plcc", "pairwise_accuracy"):
        assert better[name][0] > 0
        assert equal[name][0] < 0 < equal[name][1]
    assert better["rmse"][1] < 0


def test_samples_of_two_scorers_are_drawn_alike_whatever_they_predict():
    references = np.arange(20.0)
    groups = [index // 4 for index in range(20)]
    first, second = (bootstrap_samples(values, references, groups, 30) for values in (references + 1, references + 3))
    assert first["rmse"] == pytest.approx(1) and second["rmse"] == pytest.approx(3)
    shifted = bootstrap_samples(references + (references > 9), references, groups, 30)["rmse"]
    generator = np.random.default_rng(0)
    draws = [np.bincount(generator.integers(5, size=5), minlength=5) for _ in range(30)]
    # Of the 20 images, groups 3 and 4 and half of group 2 are off by one.
    expected = [math.sqrt((4 * draw[3] + 4 * draw[4] + 2 * draw[2]) / 20) for draw in draws]
    assert shifted == pytest.approx(expected)
