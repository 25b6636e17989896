"""Model card of a run: it parses back, carries the measured values and nothing of the user's machine."""

import json
import math
from dataclasses import asdict

import pytest
from huggingface_hub import ModelCard

from hybridiqa.models import model_card
from hybridiqa.models.model_card import RunFacts, SplitFacts, library_versions, write_model_card
from hybridiqa.models.percentiles import score_quantiles
from hybridiqa.utils.tables import METRIC_TITLES
from metrics.iqa.iqa import bootstrap_intervals, compute_metrics

PREDICTIONS, REFERENCES, GROUPS = [1.0, 2.5, 2.0, 5.0, 4.0, 6.5], [1, 2, 3, 4, 5, 6], list("aaabbb")


def measured_split(predictions: list[float]) -> SplitFacts:
    metrics = compute_metrics(predictions, REFERENCES, GROUPS)
    return SplitFacts(6, 2, metrics, bootstrap_intervals(predictions, REFERENCES, GROUPS, num_resamples=20))


def make_facts(with_test: bool = True, **fields) -> RunFacts:
    splits = {"train": SplitFacts(40, 12), "validation": measured_split(PREDICTIONS)}
    if with_test:
        splits["test"] = measured_split(PREDICTIONS[::-1])
    defaults = {
        "dataset": "/home/somebody/secret/my pictures",
        "dataset_hash": "0123456789abcdef",
        "splits": splits,
        "score_range": [1, 9],
        "score_quantiles": score_quantiles(PREDICTIONS),
        "num_epochs": 9,
        "best_epoch": 4,
        "num_steps": 1234,
        "num_eval_patches": 25,
        "seed": 7,
        "command": ["/home/somebody/train.py", "--dataset", "/home/somebody/secret/my pictures", "--seed", "7"],
        "device": "cpu, 1 process",
        "precision": "bf16",
    }
    return RunFacts(**(defaults | fields))


def write_and_load(tmp_path, facts: RunFacts) -> ModelCard:
    return ModelCard.load(write_model_card(tmp_path / "my-scorer", facts))


@pytest.mark.parametrize(("with_test", "split_name"), [(True, "test"), (False, "validation")])
def test_the_metadata_carries_the_metrics_of_the_test_split_or_else_of_validation(tmp_path, with_test, split_name):
    facts = make_facts(with_test)
    card = write_and_load(tmp_path, facts)
    assert card.data.model_name == "my-scorer"
    assert {result.dataset_split for result in card.data.eval_results} == {split_name}
    assert {result.dataset_name for result in card.data.eval_results} == {"my pictures"}
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        METRIC_TITLES[name]: round(value, 4)
        for name, value in facts.splits[split_name].metrics.items()
        if name in model_card.HUB_NAMES
    }
    assert ("There was no test split." in card.text) is not with_test


def test_the_metadata_says_what_the_model_is_and_claims_nothing_else(tmp_path):
    data = write_and_load(tmp_path, make_facts()).data
    assert (data.pipeline_tag, data.library_name) == ("image-classification", "transformers")
    assert data.tags == model_card.TAGS
    assert data.metrics == ["spearmanr", "pearsonr", "kendalltau", "rmse", "pairwise_accuracy"]
    assert data.license is None and data.datasets is None
    assert "license" not in data.to_dict()


def test_ids_of_the_hub_and_a_licence_are_told_where_they_are_given(tmp_path):
    facts = make_facts(hub_dataset_id="me/pictures", hub_model_id="me/scorer", license="mit")
    card = write_and_load(tmp_path, facts)
    assert (card.data.datasets, card.data.license, card.data.model_name) == (["me/pictures"], "mit", "scorer")
    assert card.data.eval_results[0].dataset_type == "me/pictures"
    assert 'from_pretrained("me/scorer", trust_remote_code=True)' in card.text
    assert "score.py PICTURES/ --model me/scorer --output" in card.text


def test_the_body_tells_what_was_measured(tmp_path):
    facts = make_facts()
    facts.splits["validation"].metrics = {"srcc": 0.8125, "rmse": 0.5}
    facts.splits["validation"].intervals = {"srcc": [0.7, 0.9], "rmse": [math.nan, math.nan]}
    text = write_and_load(tmp_path, facts).text
    columns = "SRCC | PLCC | PLCC, 4 parameters | KRCC | RMSE | pairwise accuracy | SRCC within group"
    cells = "0.812 [0.700, 0.900] | not defined | not defined | not defined | 0.500 (no interval) | not defined |"
    assert f"| split | images | {columns} |" in text and f"| validation | 6 | {cells}" in text
    assert "| train | 40 | 12 |" in text
    assert "| 0 % | 1.000 | 35 % | " in text and "| 100 % | 6.500 |" in text
    for fact in ("0123456789abcdef", "1234", "cpu, 1 process", "bf16", "mean over 25 patches", "1-9 scale"):
        assert fact in text
    for name, version in library_versions().items():
        assert f"| {name} | {version} |" in text


def test_metrics_that_are_not_defined_are_said_so_and_left_out_of_the_metadata(tmp_path):
    metrics = compute_metrics([2.0] * 6, REFERENCES)
    facts = make_facts(splits={"validation": SplitFacts(6, None, {**metrics, "krcc": None})})
    card = write_and_load(tmp_path, facts)
    assert [result.metric_name for result in card.data.eval_results] == ["RMSE", "pairwise accuracy"]
    assert "| not defined | not defined | not defined |" in card.text
    assert "nan" not in card.content.lower().split("how to load")[0]


def test_a_card_without_a_single_defined_metric_has_no_model_index(tmp_path):
    card = write_and_load(tmp_path, make_facts(splits={"validation": SplitFacts(1, None, {"srcc": math.nan})}))
    assert card.data.eval_results is None and card.data.model_name is None


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("/home/somebody/x/", "x"),
        ("--dataset=/home/somebody/x", "--dataset=x"),
        ("~/somebody/x", "x"),
        ("../../somebody/x", "x"),
        (r"C:\Users\somebody\x", "x"),
        (r"\\server\somebody\x", "x"),
        ("prepared/hecd", "prepared/hecd"),
        ("microsoft/resnet-152", "microsoft/resnet-152"),
        ("4e-5", "4e-5"),
    ],
)
def test_the_command_line_keeps_only_the_name_of_a_path_on_the_users_machine(tmp_path, argument, shown):
    text = write_and_load(tmp_path, make_facts(command=["train.py", argument])).text
    assert f"\ntrain.py {shown}\n" in text
    assert "somebody" not in text


def test_no_path_of_the_users_machine_is_in_the_card(tmp_path):
    content = write_and_load(tmp_path, make_facts()).content
    assert "somebody" not in content and "secret" not in content and str(tmp_path) not in content
    assert "train.py --dataset 'my pictures' --seed 7" in content


def test_the_card_is_written_without_the_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    write_and_load(tmp_path, make_facts())


def test_facts_are_ready_for_json():
    facts = make_facts()
    fields = json.loads(json.dumps(asdict(facts)))
    splits = {name: SplitFacts(**split) for name, split in fields.pop("splits").items()}
    assert RunFacts(**fields, splits=splits) == facts


def test_unusable_facts_are_refused():
    with pytest.raises(ValueError, match="hub_dataset_id must be a Hub id"):
        make_facts(hub_dataset_id="prepared")
    with pytest.raises(ValueError, match="hub_model_id must be a Hub id"):
        make_facts(hub_model_id="/home/somebody/scorer")
    with pytest.raises(ValueError, match="must hold the metrics of validation"):
        make_facts(splits={"train": SplitFacts(3)})


def test_library_versions_name_the_libraries_and_python():
    versions = library_versions()
    assert {"torch", "transformers", "datasets", "huggingface_hub", "accelerate", "python"} <= set(versions)
    assert all(version[0].isdigit() for version in versions.values())
