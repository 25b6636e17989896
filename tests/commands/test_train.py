"""Training through the command, on a tiny dataset: what it learns, writes, repeats and refuses."""

import csv
import json
import shutil
import statistics
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk
from datasets import Image as ImageColumn
from factories import BACKBONES, TINY_SIZES, make_picture, make_tiny_model
from huggingface_hub import ModelCard
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from transformers import AutoBackbone, AutoModel

from hybridiqa.commands import prepare_dataset, train
from hybridiqa.data.loading import ResidentImages
from hybridiqa.models import hub_code
from hybridiqa.models.backbones import load_backbone
from hybridiqa.training import trainer as training
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.training.model import build_model, build_optimizer, total_gradient_norm
from hybridiqa.training.patches import RandomPatches
from hybridiqa.training.trainer import format_metrics, rank_epoch
from hybridiqa.utils.atomic import without_nan
from metrics.iqa.iqa import bootstrap_intervals


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Prepare sharp images that score 7 and blurred ones that score 1: something that a tiny model can learn."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("Perfect/5", "Artifact/1"):
        (folder / "scored" / name).mkdir(parents=True)
    for index in range(16):
        rng = np.random.default_rng(index)
        sharp = Image.fromarray(rng.integers(0, 256, (72, 80, 3), dtype=np.uint8))
        sharp.save(folder / "scored" / "Perfect" / "5" / f"{index}__a.png")
        sharp.filter(ImageFilter.GaussianBlur(3)).save(folder / "scored" / "Artifact" / "1" / f"{index}__b.png")
    arguments = [str(folder / "scored"), "--output_dir", str(folder / "prepared"), "--group_pattern", "([^/]+)__"]
    assert prepare_dataset.main([*arguments, "--validation_fraction", "0.2", "--test_fraction", "0.2"]) == 0
    return folder / "prepared"


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    make_tiny_model().config.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    """Let accelerate forget its first precision, which it keeps for as long as a process lives."""
    AcceleratorState._reset_state(reset_partial_state=True)


def arguments(prepared: Path, output_dir: Path, *more: str) -> list[str]:
    fixed = ["--num_train_patches", "4", "--num_eval_patches", "1", "--batch_size", "16", "--num_epochs", "2"]
    fixed += ["--num_resamples", "20"]
    return ["--dataset", str(prepared), "--output_dir", str(output_dir), *fixed, *more]


def predictions(output_dir: Path) -> list[dict[str, str]]:
    with open(output_dir / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_to_tell_sharp_from_blurred_and_writes_a_folder_ready_for_the_hub(prepared, tiny_config, tmp_path):
    options = ["--config", str(tiny_config), "--from_scratch", "--learning_rate", "1e-3", "--num_epochs", "4"]
    assert train.main(arguments(prepared, tmp_path / "out", *options)) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["test"]["srcc"] > 0.7
    names = {"srcc", "plcc", "plcc_logistic", "plcc_logistic5", "krcc", "rmse", "rmse_logistic", "pairwise_accuracy"}
    assert set(metrics["test"]) == names == set(metrics["intervals"]["test"])
    low, high = metrics["intervals"]["test"]["rmse"]
    assert low <= metrics["test"]["rmse"] <= high
    assert metrics["num_images"] == {"train": 20, "validation": 6, "test": 6}
    assert [row["epoch"] for row in metrics["history"]] == [1, 2, 3, 4]
    best = max(metrics["history"], key=lambda row: rank_epoch(row["validation"]))
    assert metrics["best_epoch"] == best["epoch"]
    saved = json.loads((tmp_path / "out" / "training_arguments.json").read_text())
    assert saved["learning_rate"] == 1e-3 and saved["seed"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"training.png", "validation.png", "test.png"}
    assert ModelCard.load(tmp_path / "out" / "README.md").data.eval_results[0].metric_value == pytest.approx(
        metrics["test"]["srcc"], abs=1e-4
    )
    model = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert model.config.patch_size == TINY_SIZES["patch_size"]
    assert len(model.config.score_quantiles) == 21
    rows = predictions(tmp_path / "out")
    assert [row["split"] for row in rows] == ["validation"] * 6 + ["test"] * 6
    tested = [(float(row["prediction"]), float(row["score"])) for row in rows if row["split"] == "test"]
    groups = load_from_disk(prepared)["test"]["group"]
    assert metrics["intervals"]["test"] == bootstrap_intervals(*zip(*tested, strict=True), groups, num_resamples=20)
    sharp = make_picture(80, 72)
    assert model.score(sharp.effect_spread(3)) > model.score(sharp.filter(ImageFilter.GaussianBlur(3)))


def test_the_same_command_twice_gives_the_same_weights_and_metrics(prepared, tiny_config, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 100)  # what stood in the global generator before must not matter
        options = ["--config", str(tiny_config), "--from_scratch", "--num_epochs", "1"]
        assert train.main(arguments(prepared, tmp_path / name, *options)) == 0
    assert (tmp_path / "a" / "metrics.json").read_text() == (tmp_path / "b" / "metrics.json").read_text()
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_where_srcc_cannot_choose_the_smaller_error_does():
    undefined = {"srcc": float("nan"), "rmse": 0.5}
    assert rank_epoch(undefined | {"rmse": 0.1}) > rank_epoch(undefined)
    assert rank_epoch({"srcc": 0.2, "rmse": 3.0}) > rank_epoch(undefined)
    assert rank_epoch({"srcc": 0.5, "rmse": 1.0}) > rank_epoch({"srcc": 0.5, "rmse": 2.0})
    assert json.loads(json.dumps(without_nan({"a": [undefined]}))) == {"a": [{"srcc": None, "rmse": 0.5}]}


def test_a_line_of_the_log_is_no_longer_for_every_metric_there_is():
    metrics = {"srcc": 0.5, "plcc": 0.25, "plcc_logistic": 0.75, "rmse": None, "pairwise_accuracy": 0.5}
    assert format_metrics(metrics) == "SRCC 0.5000  PLCC 0.2500  RMSE nan"


def test_both_parameter_groups_follow_the_schedule(prepared, tiny_config, tmp_path):
    options = ["--config", str(tiny_config), "--from_scratch", "--lr_decay_epochs", "1", "--num_train_patches", "1"]
    assert train.main(arguments(prepared, tmp_path / "out", *options)) == 0
    history = json.loads((tmp_path / "out" / "metrics.json").read_text())["history"]
    assert history[0]["learning_rates"] == pytest.approx([4e-6, 4e-5])
    assert history[1]["learning_rates"] == pytest.approx([4e-7, 4e-6])


def test_the_defaults_are_the_published_recipe(tmp_path):
    args = TrainingArguments(dataset="data", output_dir=str(tmp_path / "out"))
    assert (args.learning_rate, args.hyper_learning_rate_factor, args.weight_decay) == (4e-6, 10, 2.5e-3)
    assert (args.beta1, args.beta2, args.batch_size, args.num_epochs) == (0.95, 0.98, 300, 9)
    assert (args.num_train_patches, args.num_eval_patches, args.lr_decay_epochs) == (400, 25, 6)
    optimizer = build_optimizer(model := make_tiny_model(), args)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([4e-6, 4e-5])
    assert all(group["weight_decay"] == 2.5e-3 and group["betas"] == (0.95, 0.98) for group in optimizer.param_groups)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert {id(p) for p in optimizer.param_groups[1]["params"]} == {id(p) for p in model.hyper_network.parameters()}


def test_a_frozen_backbone_comes_out_as_it_went_in(prepared, tiny_checkpoint, tmp_path):
    options = ["--init_from", tiny_checkpoint, "--freeze_backbone", "--num_epochs", "1"]
    assert train.main(arguments(prepared, tmp_path / "out", *options)) == 0
    before = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True).state_dict()
    after = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True).state_dict()
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"distortion_features", "hyper_network"}


def torchvision_state_dict() -> dict[str, torch.Tensor]:
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    network = ResNet(Bottleneck, [1, 2, 1, 1])
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return network.state_dict()


def test_torchvision_weights_give_the_features_of_torchvision(tmp_path):
    from torchvision.models.feature_extraction import create_feature_extractor
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.save(torchvision_state_dict(), tmp_path / "resnet.pth")
    backbone = load_backbone(str(tmp_path / "resnet.pth")).eval()
    network = ResNet(Bottleneck, [1, 2, 1, 1])
    network.load_state_dict(torchvision_state_dict())
    stages = [f"layer{number}" for number in range(1, 5)]
    pixel_values = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = create_feature_extractor(network.eval(), stages)(pixel_values)
        for ours, name in zip(backbone(pixel_values).feature_maps, stages, strict=True):
            assert torch.allclose(ours, theirs[name], atol=1e-5)


def test_a_backbone_folder_is_the_start_and_brings_its_architecture(tmp_path):
    backbone = AutoBackbone.from_config(BACKBONES["convnext"])
    backbone.save_pretrained(tmp_path / "backbone")
    args = TrainingArguments("data", str(tmp_path / "out"), pretrained_backbone=str(tmp_path / "backbone"))
    model = build_model(args)
    assert model.config.backbone_config.model_type == "convnext"
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor), name
    (tmp_path / "tiny").mkdir()
    make_tiny_model("resnet").backbone.config.save_pretrained(tmp_path / "tiny")
    save_file({"other": torch.zeros(1)}, tmp_path / "tiny" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds no resnet backbone: first missing key"):
        load_backbone(str(tmp_path / "tiny"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from_scratch", "--init_from", "x"], "one start at most"),
        (["--init_from", "x", "--config", "y"], "--config has no effect"),
        (["--init_from", "no/such/folder"], "the model must be a folder or a Hub id"),
        (["--init_from", "user/name"], "cannot load user/name: "),
        (["--pretrained_backbone", "nothing"], "must be a folder, a file or a Hub id"),
        (["--config", "nothing"], "--config must be a config.json or its folder, got nothing"),
        (["--score_range", "5"], "--score_range must be MIN MAX"),
        (["--compile", "--gradient_checkpointing"], "cannot be combined"),
        (["--num_eval_patches", "20000"], "--num_eval_patches must be at most 10000"),
        (["--beta1", "2"], "--beta1 must be at least 0 and below 1"),
        (["--lr_decay_factor", "-3"], "--lr_decay_factor must be at least 0"),
        (["--flip_probability", "7"], "--flip_probability must be 0 to 1"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
        (["--num_resamples", "0"], "--num_resamples must be at least 1"),
        (["--ranking_weight", "-1"], "--ranking_weight must be at least 0"),
        (["--ranking_pattern", "a"], "--ranking_pattern goes with --ranking_weight"),
        (["--ranking_weight", "1", "--ranking_pattern", "("], "--ranking_pattern '(' is no regular expression"),
        (["--learning_rate", "-1"], "--learning_rate must be above 0"),
        (["--from_scratch", "--train_crop", "whole"], "--train_crop must be resized or native"),
        (["--from_scratch", "--score_range", "2", "9"], r"scores 1 to 7, outside [2.0, 9.0]"),
        ([], "offline, choose --pretrained_backbone, --init_from or --from_scratch"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_leaves_nothing(prepared, tiny_config, tmp_path, capsys, options, message):
    more = ["--config", str(tiny_config)] if options[:1] == ["--from_scratch"] and len(options) == 3 else []
    assert train.main(arguments(prepared, tmp_path / "out", *options, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not (tmp_path / "out").exists()


def test_an_architecture_can_be_a_file_and_must_be_ours(prepared, tiny_config, tmp_path, capsys):
    args = TrainingArguments("data", str(tmp_path / "out"), config=str(tiny_config / "config.json"), from_scratch=True)
    assert build_model(args).config.patch_size == TINY_SIZES["patch_size"]
    BACKBONES["resnet"].save_pretrained(tmp_path / "resnet")
    options = ["--config", str(tmp_path / "resnet"), "--from_scratch"]
    assert train.main(arguments(prepared, tmp_path / "out", *options)) == 2
    assert "describes a model of type 'resnet'" in capsys.readouterr().err


def test_a_used_output_folder_and_a_folder_without_a_dataset_are_refused(prepared, tiny_config, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert train.main(arguments(prepared, tmp_path, "--from_scratch")) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert train.main(arguments(tmp_path, tmp_path / "out", "--config", str(tiny_config), "--from_scratch")) == 2
    assert "is not a prepared dataset" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(prepared, tiny_config, tmp_path, monkeypatch, capsys):
    model_class = hub_code.HybridIQAModel
    read_patches = model_class._read_patches
    monkeypatch.setattr(model_class, "_read_patches", lambda self, patches: read_patches(self, patches) * float("nan"))
    assert train.main(arguments(prepared, tmp_path / "out", "--config", str(tiny_config), "--from_scratch")) == 1
    assert "the loss or a gradient is not finite in step 1 (epoch 1, step 1)" in capsys.readouterr().err


def weights(output_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(output_dir / "model.safetensors")


def largest_difference(first: Path, second: Path) -> float:
    first, second = weights(first), weights(second)
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def small_run(prepared: Path, tiny_config: Path, output_dir: Path, *more: str) -> int:
    fixed = ["--config", str(tiny_config), "--from_scratch", "--num_epochs", "1", "--mixed_precision", "no"]
    return train.main(arguments(prepared, output_dir, *fixed, *more))


# Batch norm keeps its statistics, which would see smaller batches.
EXACT = {weight: ["--freeze_batch_norm", "--learning_rate", "1e-4", "--ranking_weight", weight] for weight in "01"}


@pytest.fixture(scope="module")
def plain_runs(prepared, tiny_config, tmp_path_factory) -> dict[str, Path]:
    """Do runs that save no memory, by their ranking weight."""
    folders = {}
    for weight, options in EXACT.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        folders[weight] = tmp_path_factory.mktemp("plain") / weight
        assert small_run(prepared, tiny_config, folders[weight], *options) == 0
    return folders


@pytest.mark.parametrize(
    "options", [["--gradient_accumulation_steps", "3"], ["--gradient_checkpointing"], ["--max_grad_norm", "1e9"]]
)
@pytest.mark.parametrize("ranking_weight", EXACT)
def test_what_saves_memory_does_not_change_the_result(
    prepared, tiny_config, plain_runs, tmp_path, options, ranking_weight
):
    AcceleratorState._reset_state(reset_partial_state=True)
    assert small_run(prepared, tiny_config, tmp_path / "other", *EXACT[ranking_weight], *options) == 0
    assert largest_difference(plain_runs[ranking_weight], tmp_path / "other") < 1e-6


def test_batch_norm_can_keep_its_statistics(prepared, tiny_config, tmp_path):
    assert small_run(prepared, tiny_config, tmp_path / "frozen", "--freeze_batch_norm") == 0
    assert small_run(prepared, tiny_config, tmp_path / "moving") == 0
    means = [name for name in weights(tmp_path / "frozen") if name.endswith("running_mean")]
    assert means and all(not weights(tmp_path / "frozen")[name].any() for name in means)
    assert all(weights(tmp_path / "moving")[name].any() for name in means)


def test_the_ranking_term_weighs_the_wrong_order_of_an_images_versions(prepared, tiny_config, tmp_path, capsys):
    """Look at the first step, in which the model still stands at its start."""
    options = ["--max_steps", "1", "--learning_rate", "1e-30", "--freeze_batch_norm"]
    losses = []
    for number, weight in enumerate(("1e-9", "1", "3")):
        more = ["--ranking_weight", weight, "--ranking_pattern", r"/(\d+)__"]
        assert small_run(prepared, tiny_config, tmp_path / str(number), *options, *more) == 0
        losses.append(json.loads((tmp_path / str(number) / "metrics.json").read_text())["history"][0]["loss"])
    l1, plain, triple = losses
    assert plain > l1 + 0.01
    assert triple - l1 == pytest.approx(3 * (plain - l1), rel=1e-4)
    more = ["--ranking_weight", "1", "--ranking_pattern", "no such name"]
    assert small_run(prepared, tiny_config, tmp_path / "none", *more) == 2
    assert "the group pattern 'no such name' finds no group in" in capsys.readouterr().err


def test_max_steps_ends_the_run(prepared, tiny_config, tmp_path):
    options = ["--max_steps", "7", "--num_epochs", "9", "--logging_steps", "1"]
    assert small_run(prepared, tiny_config, tmp_path / "out", *options) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_steps"] == 7 and [row["step"] for row in metrics["history"]] == [5, 7]
    losses = (tmp_path / "out" / "losses.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in losses] == ["step", *"1234567"]


def test_early_stopping_waits_as_long_as_it_is_told(prepared, tiny_config, tmp_path):
    frozen = ["--learning_rate", "1e-30", "--freeze_batch_norm"]  # nothing changes: no epoch is better than the first
    options = [*frozen, "--early_stopping_patience", "2", "--num_epochs", "9"]
    assert small_run(prepared, tiny_config, tmp_path / "out", *options) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["best_epoch"] == 1 and len(metrics["history"]) == 3


def test_only_the_newest_checkpoints_and_the_best_model_are_kept(prepared, tiny_config, tmp_path):
    options = ["--save_steps", "2", "--save_total_limit", "3", "--num_epochs", "3"]
    assert small_run(prepared, tiny_config, tmp_path / "out", *options) == 0
    names = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    best = json.loads((tmp_path / "out" / "metrics.json").read_text())["best_epoch"]
    # the kept ones may name two models: the best so far, and the one that was the best before
    assert [name for name in names if name.startswith("step")] == ["step-00000012", "step-00000014", "step-00000015"]
    assert f"best-{best:04d}" in names and len(names) <= 5


def test_a_run_goes_on_with_more_epochs_as_if_it_had_been_asked_for_them(prepared, tiny_config, tmp_path, capsys):
    assert small_run(prepared, tiny_config, tmp_path / "long", "--num_epochs", "2") == 0
    assert small_run(prepared, tiny_config, tmp_path / "out") == 0
    assert small_run(prepared, tiny_config, tmp_path / "out", "--num_epochs", "2") == 2  # not without --resume
    assert small_run(prepared, tiny_config, tmp_path / "out", "--num_epochs", "2", "--resume", "--seed", "1") == 2
    assert "--resume goes on with the same options, got --seed 0 -> 1" in capsys.readouterr().err
    path = tmp_path / "out" / "training_arguments.json"
    begun_with = json.loads(path.read_text())
    path.write_text(json.dumps({name: begun_with[name] for name in begun_with if name != "ranking_weight"}))  # older
    assert small_run(prepared, tiny_config, tmp_path / "out", "--num_epochs", "2", "--resume") == 0
    for name in ("metrics.json", "predictions.csv", "losses.csv"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "long" / name).read_text()
    assert largest_difference(tmp_path / "out", tmp_path / "long") == 0


def test_other_data_is_not_gone_on_with(prepared, tiny_config, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    assert small_run(data, tiny_config, tmp_path / "out") == 0
    splits = load_from_disk(prepared)
    shutil.rmtree(data)
    splits["train"] = splits["train"].select(range(1, len(splits["train"])))
    splits.save_to_disk(data)
    assert small_run(data, tiny_config, tmp_path / "out", "--resume", "--num_epochs", "2") == 2
    assert "was trained on other images" in capsys.readouterr().err


def test_a_loss_that_turns_nan_keeps_the_last_good_checkpoint_and_names_the_batch(
    prepared, tiny_config, tmp_path, monkeypatch, capsys
):
    model_class = hub_code.HybridIQAModel
    read_patches, calls = model_class._read_patches, []

    def turn_nan(self, patches):
        calls.append(self.training)
        return read_patches(self, patches) * (float("nan") if sum(calls) == 4 else 1.0)

    monkeypatch.setattr(model_class, "_read_patches", turn_nan)
    assert small_run(prepared, tiny_config, tmp_path / "out", "--save_steps", "2", "--logging_steps", "1") == 1
    error = capsys.readouterr().err
    assert (
        "the loss or a gradient is not finite in step 4 (epoch 1, step 4), at the learning rates 4e-06, 4e-05." in error
    )
    assert "The last good checkpoint is step-00000002." in error
    data = load_from_disk(prepared)["train"]
    args = TrainingArguments("data", str(tmp_path / "new"), num_train_patches=4, batch_size=16)
    order = RandomPatches(
        ResidentImages.from_tensors([torch.zeros(3, 1, 1, dtype=torch.uint8)] * 20),
        [0.0] * 20,
        4,
        args.patch_options(64),
        lambda patches: patches,
    )
    expected = sorted({data["path"][int(index)] for index in order.pair_images[order.blocks.order(0)[48:64]]})
    assert error.strip().endswith(f"look at the batch's images: {', '.join(expected)}")
    monkeypatch.setattr(model_class, "_read_patches", read_patches)
    assert small_run(prepared, tiny_config, tmp_path / "out", "--save_steps", "2", "--resume") == 0


def test_repeats_are_runs_on_random_splits_by_group(prepared, tiny_config, tmp_path):
    options = ["--num_repeats", "3", "--learning_rate", "1e-3"]
    assert small_run(prepared, tiny_config, tmp_path / "out", *options) == 0
    results = json.loads((tmp_path / "out" / "repeats.json").read_text())
    runs = [json.loads((tmp_path / "out" / f"repeat-0{n}" / "metrics.json").read_text()) for n in (1, 2, 3)]
    assert [run["test"] for run in runs] == results["repeats"]
    values = sorted(run["test"]["srcc"] for run in runs)
    assert results["test"]["srcc"]["median"] == values[1]
    assert results["test"]["srcc"]["standard_deviation"] == pytest.approx(statistics.stdev(values))
    tested = [{row["path"] for row in predictions(tmp_path / "out" / f"repeat-0{n}")} for n in (1, 2, 3)]
    assert tested[0] != tested[1] != tested[2]
    dataset = concatenate_datasets(list(load_from_disk(prepared).values()))
    splits = train.resplit(dataset, {"train": 0.6, "validation": 0.2, "test": 0.2}, seed=0)
    groups = [set(split["group"]) for split in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 16


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_trackers_are_told_without_a_network(prepared, tiny_config, tmp_path, monkeypatch, tracker):
    if find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which trackio reads when it is imported
    assert small_run(prepared, tiny_config, tmp_path / "out", "--report_to", tracker) == 0
    folder = tmp_path / ("trackio" if tracker == "trackio" else "out/hybridIQA")
    assert any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))


def test_a_tracker_that_is_not_there_is_refused(prepared, tiny_config, tmp_path, capsys):
    assert small_run(prepared, tiny_config, tmp_path / "out", "--report_to", "notebook") == 2
    assert "--report_to notebook is not known; accepted: " in capsys.readouterr().err


def test_what_is_measured_is_what_the_checkpoint_scores_by(prepared, tiny_config, tmp_path):
    options = ["--eval_sampling", "multiscale", "--num_eval_patches", "3"]
    assert small_run(prepared, tiny_config, tmp_path / "out", *options) == 0
    model = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert (model.image_processor.sampling, model.image_processor.num_patches) == ("multiscale", 3)
    row = predictions(tmp_path / "out")[0]
    image = load_from_disk(prepared)["validation"][0]["image"]
    assert float(model.score(image)) == pytest.approx(float(row["prediction"]), abs=1e-6)


def test_a_gradient_that_is_not_finite_stops_the_run(prepared, tiny_config, tmp_path, monkeypatch, capsys):
    calls = []

    def spoil(model):
        calls.append(model)
        if len(calls) == 3:
            next(model.parameters()).grad.fill_(float("nan"))
        return total_gradient_norm(model)

    monkeypatch.setattr(training, "total_gradient_norm", spoil)
    assert small_run(prepared, tiny_config, tmp_path / "out", "--logging_steps", "1") == 1
    assert "the loss or a gradient is not finite in step 3 (epoch 1, step 3)" in capsys.readouterr().err


def test_data_that_cannot_be_learned_from_is_refused(prepared, tiny_config, tmp_path, capsys):
    splits = load_from_disk(prepared)
    scores = [None if row == 4 else 2.0 for row in range(len(splits["train"]))]
    unscored = DatasetDict(splits | {"train": splits["train"].remove_columns("score").add_column("score", scores)})
    nothing = DatasetDict(splits | {"test": splits["test"].select([])})
    for name, data, message in (
        ("nothing", nothing, "has a split without rows"),
        ("unscored", unscored, "the train split has 1 rows without a finite score, the first is 4"),
    ):
        data.save_to_disk(tmp_path / name, num_shards=dict.fromkeys(data, 1))
        assert small_run(tmp_path / name, tiny_config, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broken_image_of_the_dataset_is_one_line(prepared, tiny_config, tmp_path, capsys):
    splits = load_from_disk(prepared)
    rows = splits["validation"].cast_column("image", ImageColumn(decode=False)).to_list()
    rows[2]["image"]["bytes"] = rows[2]["image"]["bytes"][:300]
    broken = Dataset.from_list(rows, features=splits["validation"].features)
    DatasetDict(splits | {"validation": broken}).save_to_disk(tmp_path / "data")
    assert small_run(tmp_path / "data", tiny_config, tmp_path / "out") == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if "train.py: " in line]
    path = splits["validation"]["path"][2]
    assert error.startswith(f"train.py: error: cannot read the image in row 2 of the validation split, {path}: ")


def test_a_backbone_that_is_only_there_as_a_pickle_is_refused(tmp_path):
    backbone = AutoBackbone.from_config(BACKBONES["resnet"])
    backbone.config.save_pretrained(tmp_path)
    torch.save(backbone.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_labels": 10**9}, "num_labels must be at most"),
        ({"depths": [1, 1, 1, 10**6]}, "depths must be at most"),
        ({"depths": "many"}, "cannot load the backbone"),
    ],
)
def test_a_backbone_beyond_all_bounds_is_refused_at_once(tmp_path, fields, message):
    AutoBackbone.from_config(BACKBONES["resnet"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(ValueError, match=message):
        load_backbone(str(tmp_path))


def test_where_a_model_goes_is_named_with_the_push(tmp_path):
    places = {"dataset": "d", "output_dir": str(tmp_path)}
    for options in ({"push_to_hub": True}, {"hub_model_id": "you/x"}, {"hub_private": True}):
        with pytest.raises(ValueError, match="--hub_model_id"):
            TrainingArguments(**places, **options)
    with pytest.raises(ValueError, match="--num_repeats"):
        TrainingArguments(**places, push_to_hub=True, hub_model_id="you/x", num_repeats=2)
