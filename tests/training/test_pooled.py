"""Training of the pooled head: losses and calibration by hand, and the command on tiny datasets of several kinds."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import load_from_disk
from factories import make_tiny_model
from PIL import Image, ImageFilter
from transformers import AutoModel

from hybridiqa.commands import prepare_dataset, train
from hybridiqa.training import pooled
from hybridiqa.training.pooled import RatedFeatures, Source, fit_calibration, pair_loss


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    """Let accelerate forget its first precision, which it keeps for as long as a process lives."""
    AcceleratorState._reset_state(reset_partial_state=True)


def make_sets(folder: Path, name: str, sharp: str, blurred: str, seed: int) -> Path:
    """Prepare sharp images and blurred versions of them, in folders of these names."""
    for bin_name in (sharp, blurred):
        (folder / name / bin_name).mkdir(parents=True)
    for index in range(16):
        rng = np.random.default_rng(seed + index)
        image = Image.fromarray(rng.integers(0, 256, (72, 80, 3), dtype=np.uint8))
        image.save(folder / name / sharp / f"{index}__a.png")
        image.filter(ImageFilter.GaussianBlur(3)).save(folder / name / blurred / f"{index}__b.png")
    prepared = folder / f"prepared-{name}"
    options = ["--output_dir", str(prepared), "--group_pattern", "([^/]+)__", "--validation_fraction", "0.25"]
    assert prepare_dataset.main(["build", str(folder / name), *options, "--test_fraction", "0.1"]) == 0
    return prepared


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return make_sets(tmp_path_factory.mktemp("people"), "people", "9", "2", seed=0)


@pytest.fixture(scope="module")
def levels(tmp_path_factory) -> Path:
    """Prepare versions whose scores lie within a narrow range, which says nothing of the other source's."""
    return make_sets(tmp_path_factory.mktemp("levels"), "levels", "Perfect/1", "Artifact/2", seed=100)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """Save a model with the hyper head, whose backbone is to be used."""
    folder = tmp_path_factory.mktemp("start")
    make_tiny_model().save_pretrained(folder)
    return folder


def run(dataset: Path, start: Path, output_dir: Path, *more: str) -> int:
    options = ["--dataset", str(dataset), "--output_dir", str(output_dir), "--init_from", str(start)]
    options += ["--head_type", "pooled", "--num_eval_patches", "2", "--pooled_steps", "30", "--pooled_batch_size", "8"]
    return train.main([*options, "--num_resamples", "20", "--mixed_precision", "no", *more])


def metrics_of(output_dir: Path) -> dict:
    return json.loads((output_dir / "metrics.json").read_text())


def test_the_loss_counts_pairs_beyond_the_margin_by_their_difference():
    unbounded, targets = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([2.0, 1.0, 2.05])
    # (0 over 1) and (2 over 1) differ enough, (2 over 0) does not.
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-6))) / 2
    assert pair_loss(unbounded, targets, margin=0.1).item() == pytest.approx(expected, rel=1e-5)
    assert pair_loss(unbounded, targets, 0.1, groups=torch.tensor([0, 0, 1])).item() == pytest.approx(
        math.log1p(math.exp(-2)), rel=1e-5
    )


def test_without_pairs_the_loss_is_0_and_has_a_gradient():
    unbounded = torch.ones(3, requires_grad=True)
    loss = pair_loss(unbounded, torch.ones(3), margin=0.1)
    loss.backward()
    assert loss.item() == 0 and torch.equal(unbounded.grad, torch.zeros(3))


def test_versions_are_the_groups_in_which_scores_differ():
    rated = RatedFeatures(torch.zeros(6, 1), torch.tensor([1.0, 2, 5, 3, 3, 4]), torch.tensor([7, 8, 7, 9, 9, 8]))
    assert sorted(indices.tolist() for indices in rated.find_versions()) == [[0, 2], [1, 5]]


def test_the_calibration_finds_the_scale_and_the_shift_that_scores_were_made_with():
    unbounded = torch.linspace(-3, 5, 200)
    scores = 1 + 8 * torch.sigmoid(0.7 * unbounded - 0.4)
    scale, shift = fit_calibration(unbounded, scores, [1, 9])
    assert (scale, shift) == (pytest.approx(0.7, abs=1e-2), pytest.approx(-0.4, abs=1e-2))


def test_a_pooled_head_learns_on_the_backbone_of_another_checkpoint(people, start, tmp_path, monkeypatch):
    assert run(people, start, tmp_path / "out") == 0
    results = metrics_of(tmp_path / "out")
    assert results["validation"]["srcc"] > 0.8 and results["test"]["pairwise_accuracy"] > 0.9
    model = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert model.config.head_type == "pooled" and model.image_processor.num_patches == 2
    before = AutoModel.from_pretrained(start, trust_remote_code=True).backbone.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())
    test = load_from_disk(str(people))["test"]
    scores = [model.score(image).item() for image in test["image"]]
    by_label = {label: [s for s, of in zip(scores, test["score"], strict=True) if of == label] for label in (9, 2)}
    assert min(by_label[9]) > 6.5 and max(by_label[2]) < 4.5  # calibrated on the scores of --dataset


def test_the_same_command_twice_gives_the_same_weights(people, start, tmp_path):
    for name in ("one", "two"):
        assert run(people, start, tmp_path / name) == 0
        AcceleratorState._reset_state(reset_partial_state=True)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_statistics_of_a_backbone_are_computed_once(people, start, tmp_path, monkeypatch):
    assert run(people, start, tmp_path / "one", "--statistics_dir", str(tmp_path / "statistics")) == 0
    monkeypatch.setattr(pooled, "_read_images", lambda *_: pytest.fail("computed again"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(people, start, tmp_path / "two", "--statistics_dir", str(tmp_path / "statistics")) == 0
    assert metrics_of(tmp_path / "one")["validation"] == metrics_of(tmp_path / "two")["validation"]


def test_ranks_are_compared_within_the_groups_or_over_all():
    rated = RatedFeatures(torch.zeros(4, 1), torch.tensor([1.0, 2, 3, 4]), torch.tensor([0, 0, 1, 1]))
    unbounded = torch.tensor([5.0, 6, 2, 1])  # right in the first group, wrong in the second
    assert Source("people", rated, rated).measure(unbounded) == pytest.approx(-0.8)
    assert Source("versions", rated, rated, within_groups=True).measure(unbounded) == pytest.approx(0)


def test_other_views_have_other_statistics(people, start, tmp_path):
    statistics = tmp_path / "statistics"
    assert run(people, start, tmp_path / "one", "--statistics_dir", str(statistics)) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(people, start, tmp_path / "two", "--statistics_dir", str(statistics), "--num_eval_patches", "3") == 0
    assert len(list(statistics.iterdir())) == 4  # of train and validation, each twice


def test_several_datasets_are_learned_from_each_within_itself(people, levels, start, tmp_path):
    options = ["--more_datasets", str(levels), "--calibrate_on", str(levels), "--compare_within", str(levels)]
    assert run(people, start, tmp_path / "out", *options) == 0
    best = max(metrics_of(tmp_path / "out")["history"], key=lambda row: sum(row["rank_correlations"].values()))
    assert set(best["rank_correlations"]) == {str(people), str(levels)}
    assert min(best["rank_correlations"].values()) > 0.8
    model = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    validation = load_from_disk(str(levels))["validation"]
    scores = torch.tensor([model.score(image).item() for image in validation["image"]])
    assert (scores - torch.tensor(validation["score"])).abs().mean() < 0.6  # 3 and 2: not the other source's 9 and 2


def test_a_run_that_was_stopped_goes_on_with_what_was_computed(people, start, tmp_path, monkeypatch, capsys):
    read_images, calls = pooled._read_images, []

    def stop_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read_images(*args)

    monkeypatch.setattr(pooled, "_read_images", stop_at_the_second)
    assert run(people, start, tmp_path / "out") == 130
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(people, start, tmp_path / "out", "--resume") == 0
    assert len(calls) == 3  # train, then validation once more
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(people, start, tmp_path / "out", "--resume") == 2
    assert "holds a run that is complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--more_datasets", "DATASET"], "each once, got"),
        (["--compare_within", "other=x"], "--compare_within must be among the datasets"),
        (["--compare_within", "DATASET=("], "--compare_within '(' is no regular expression"),
        (["--compare_within", "DATASET=no such name"], "finds no group in"),
        (["--compare_within", "DATASET=__(.)"], "no two images of one group have different scores"),
        (["--calibrate_on", "other"], "--calibrate_on must be among the datasets"),
        (["--pooled_steps", "0"], "--pooled_steps must be at least 1, got 0"),
        (["--pair_margin", "-1"], "--pair_margin must be at least 0"),
        (["--head_type", "other"], "--head_type must be hyper or pooled, got other"),
        (["--head_type", "hyper", "--more_datasets", "LEVELS"], "--more_datasets are for the pooled head"),
    ],
)
def test_options_that_cannot_be_are_refused(people, levels, start, tmp_path, capsys, options: list[str], message: str):
    options = [option.replace("DATASET", str(people)).replace("LEVELS", str(levels)) for option in options]
    assert run(people, start, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out" / "model.safetensors").exists()
