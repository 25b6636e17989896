"""Training through the door, on a tiny dataset: what it learns, writes, repeats and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BACKBONES, TINY_SIZES, make_picture, make_tiny_model
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from transformers import AutoBackbone, AutoModel

import prepare_dataset
import train
from hybridiqa.backbones import load_backbone
from hybridiqa.loading import hub_class
from hybridiqa.model_building import build_model, build_optimizer
from hybridiqa.run_report import without_nan
from hybridiqa.training import merit
from hybridiqa.training_arguments import TrainingArguments


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Sharp pictures score 7, blurred ones 1: something that a tiny model can learn."""
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


def arguments(prepared: Path, output_dir: Path, *more: str) -> list[str]:
    fixed = ["--num_train_patches", "4", "--num_eval_patches", "1", "--batch_size", "16", "--num_epochs", "2"]
    return ["--dataset", str(prepared), "--output_dir", str(output_dir), *fixed, *more]


def test_it_learns_to_tell_sharp_from_blurred_and_writes_a_folder_ready_for_the_hub(prepared, tiny_config, tmp_path):
    options = ["--config", str(tiny_config), "--from_scratch", "--learning_rate", "1e-3", "--num_epochs", "4"]
    assert train.main(arguments(prepared, tmp_path / "out", *options)) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["test"]["srcc"] > 0.7
    assert set(metrics["test"]) == {"srcc", "plcc", "krcc", "rmse"}
    assert metrics["num_images"] == {"train": 20, "validation": 6, "test": 6}
    assert [row["epoch"] for row in metrics["history"]] == [1, 2, 3, 4]
    best = max(metrics["history"], key=lambda row: merit(row["validation"]))
    assert metrics["best_epoch"] == best["epoch"]
    saved = json.loads((tmp_path / "out" / "training_arguments.json").read_text())
    assert saved["learning_rate"] == 1e-3 and saved["seed"] == 0
    model = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert model.config.patch_size == TINY_SIZES["patch_size"]
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
    assert merit(undefined | {"rmse": 0.1}) > merit(undefined)
    assert merit({"srcc": 0.2, "rmse": 3.0}) > merit(undefined)
    assert merit({"srcc": 0.5, "rmse": 1.0}) > merit({"srcc": 0.5, "rmse": 2.0})
    assert json.loads(json.dumps(without_nan({"a": [undefined]}))) == {"a": [{"srcc": None, "rmse": 0.5}]}


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
        (["--init_from", "user/name"], "--trust_remote_code"),
        (["--pretrained_backbone", "nothing"], "must be a folder, a file or a Hub id"),
        (["--config", "nothing"], "--config must be a config.json or its folder, got nothing"),
        (["--score_range", "5"], "--score_range must be MIN MAX"),
        (["--beta1", "2"], "--beta1 must be at least 0 and below 1"),
        (["--lr_decay_factor", "-3"], "--lr_decay_factor must be at least 0"),
        (["--flip_probability", "7"], "--flip_probability must be 0 to 1"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
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
    args = TrainingArguments(
        "data", str(tmp_path / "out"), config=str(tiny_config / "config.json"), from_scratch=True
    )
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
    model_class = hub_class("modeling_hybridiqa.HybridIQAModel")
    score_patches = model_class._score_patches
    monkeypatch.setattr(
        model_class, "_score_patches", lambda self, patches: score_patches(self, patches) * float("nan")
    )
    assert train.main(arguments(prepared, tmp_path / "out", "--config", str(tiny_config), "--from_scratch")) == 1
    assert "the loss is not finite in step 1 (epoch 1, step 1)" in capsys.readouterr().err
