"""Checkpoints of strangers: what does not belong together is refused before anything is built, in one line."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import BACKBONES, make_picture, make_tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from hybridiqa.models import hub_code
from hybridiqa.models.loading import load_model
from hybridiqa.utils.hub import HUB_ID

HybridIQAImageProcessor = hub_code.HybridIQAImageProcessor
INDEX = "model.safetensors.index.json"


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def change(folder: Path, file: str, **fields) -> None:
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | fields))


def refusal(folder: Path) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(ValueError) as refused:
        load_model(folder)
    message = str(refused.value)
    assert message.startswith(f"cannot load {folder}: ") and "\n" not in message
    assert len(message.replace(str(folder), "")) < 400  # however long the folder's name is
    return message.removeprefix(f"cannot load {folder}: ")


def shard(folder: Path, **index) -> None:
    """Replace the weights by an index of them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = dict.fromkeys(weights, index.pop("name", "weights.bin"))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map} | index))
    torch.save(weights, folder / "weights.bin")


def test_weights_in_several_files_are_loaded_and_score_the_same(tmp_path):
    model = make_tiny_model()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    picture = make_picture()
    assert load_model(tmp_path / "sharded").score(picture).item() == model.score(picture).item()
    model.save_pretrained(tmp_path / "variant", variant="half", state_dict=None)
    loaded = hub_code.HybridIQAModel.from_pretrained(tmp_path / "variant", variant="half")
    assert loaded.score(picture).item() == model.score(picture).item()


@pytest.mark.parametrize(
    "name",
    [
        *("weights.bin", "weights.pt", "../weights.safetensors", "/etc/x.safetensors", "a/b.safetensors", ""),
        *(".safetensors", "weights.safetensors.bin", "weights.bin\n.safetensors", "C:\\x.safetensors"),
        *(5, None, ["weights.bin"]),
    ],
)
def test_an_index_of_weights_names_safetensors_beside_it_and_nothing_else(checkpoint, name):
    shard(checkpoint, name=name)
    message = refusal(checkpoint)
    assert "weights are read from safetensors only" in message or "is no index of weights" in message


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "is no index of weights"),
        ({}, "is no index of weights"),
        ({"weight_map": []}, "is no index of weights"),
        (
            {"weight_map": {str(n): f"{n}.safetensors" for n in range(100_000)}},
            "at most 1000 files are accepted, got 100000",
        ),
        ({"weight_map": {"a": "missing.safetensors"}}, "names a file that is not there"),
    ],
    ids=["list", "empty", "list inside", "many", "missing"],
)
def test_an_index_that_is_none_is_refused(checkpoint, index, message):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / INDEX).write_text(json.dumps(index))
    assert message in refusal(checkpoint)


def test_an_index_or_a_pickle_beside_the_weights_is_not_read(checkpoint, tiny_model):
    weights = load_file(checkpoint / "model.safetensors")
    shard(checkpoint)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    (checkpoint / "pytorch_model.bin").write_bytes(b"a pickle")
    assert load_model(checkpoint).score(make_picture()).item() == tiny_model.score(make_picture()).item()


@pytest.mark.parametrize("name", ["adapter_model.bin", "other.safetensors", "../model.safetensors", {}])
def test_a_configuration_names_no_other_weights(checkpoint, name):
    change(checkpoint, "config.json", transformers_weights=name)
    assert "names other weights than model.safetensors" in refusal(checkpoint)


def test_an_adapter_of_another_repositorys_weights_is_refused(checkpoint, monkeypatch):
    (checkpoint / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/weights"}))
    load_model(checkpoint)  # nobody would read it
    module = sys.modules[hub_code.HybridIQAModel.__module__]
    monkeypatch.setattr(module, "is_peft_available", lambda: True)
    assert "has an adapter_config.json, which leads to another repository's weights" in refusal(checkpoint)


def test_a_configuration_that_the_weights_do_not_match_is_refused_before_memory_is_taken(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    backbone = config["backbone_config"]
    change(checkpoint, "config.json", hyper_channels=24)
    assert "config.json describes hyper_network." in refusal(checkpoint) and "[24, 32, 1, 1]" in refusal(checkpoint)
    huge = backbone | {"hidden_sizes": [16, 32, 64, 100_000]}  # 40 GB in the last stage alone
    change(checkpoint, "config.json", **config | {"backbone_config": huge})
    assert "config.json describes backbone.encoder.stages.3" in refusal(checkpoint)
    deep = backbone | {"depths": [1, 2, 1, 90]}  # what the weights hold fits, and then there is more
    change(checkpoint, "config.json", **config | {"backbone_config": deep})
    assert "million numbers, the weights hold 0.1 million" in refusal(checkpoint)


@pytest.mark.parametrize("backbone", ["swin", "convnextv2"])
def test_backbones_whose_weights_are_stored_under_other_names_are_compared_as_well(tmp_path, monkeypatch, backbone):
    sizes = {"swin": {"embed_dim": 8, "num_heads": [1] * 4, "window_size": 2}, "convnextv2": {"hidden_sizes": [8] * 4}}
    config = AutoConfig.for_model(backbone, depths=[1] * 4, **sizes[backbone])
    monkeypatch.setitem(BACKBONES, backbone, config)
    model, picture = make_tiny_model(backbone), make_picture()
    model.save_pretrained(tmp_path / "model")
    assert load_model(tmp_path / "model").score(picture).item() == pytest.approx(model.score(picture).item(), abs=1e-5)
    change(tmp_path / "model", "config.json", backbone_config=config.to_dict() | {"depths": [90, 90, 90, 90]})
    with pytest.raises(ValueError, match=r"million numbers, the weights hold|lacks \d+ weights, the first of them"):
        load_model(tmp_path / "model")


def test_a_checkpoint_is_built_once_and_other_sizes_are_loaded_where_the_caller_says_so(checkpoint, monkeypatch):
    model_class, built = hub_code.HybridIQAModel, []
    build = model_class.__init__
    monkeypatch.setattr(model_class, "__init__", lambda *args, **kwargs: built.append(build(*args, **kwargs)))
    load_model(checkpoint)
    assert len(built) == 1
    change(checkpoint, "config.json", hyper_channels=24)
    model = model_class.from_pretrained(checkpoint, ignore_mismatched_sizes=True)
    assert model.config.hyper_channels == 24 and model.score(make_picture()).isfinite().all()


def test_single_weights_that_are_missing_are_named(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["hyper_network.reduce.0.bias"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, the first of them hyper_network\.reduce\.0\.bias"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 96}, "cuts patches of 96 pixels, the model takes 64"),
        ({"num_patches": 10_000, "patch_size": 2048}, "at most 128 megapixels in all"),
        ({"num_patches": 10_001}, "num_patches must be a whole number, 1 to 10000"),
        ({"patch_size": 4096}, "patch_size must be a whole number, 1 to 2048"),
        ({"size": [10**9, 64]}, "size must be a whole number, 1 to 32768"),
        ({"image_std": [0.2, 0, 0.2]}, "image_std must be three numbers"),
        ({"image_std": [0.2, 0.2, -0.2]}, "image_std must be three numbers"),
        ({"image_mean": [0.5, 0.5, 0.5, 0.5]}, "image_mean must be three numbers"),
        ({"image_mean": 0.5}, "image_mean must be three numbers"),
        ({"image_mean": ["0.5", 0.5, 0.5]}, "image_mean must be three numbers"),
        ({"image_mean": [float("nan"), 0.5, 0.5]}, "image_mean must be three numbers"),
        ({"image_mean": [10**400, 0.5, 0.5]}, "image_mean must be three numbers"),
        ({"sampling": ["grid"]}, "sampling must be one of"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"extract_patches": 5}, "an image processor has no option 'extract_patches'"),
        ({"normalize_patches": None}, "an image processor has no option 'normalize_patches'"),
        ({"__class__": "x"}, "an image processor has no option '__class__'"),
    ],
)
def test_an_image_processor_beyond_its_bounds_is_refused(checkpoint, fields, message):
    change(checkpoint, "preprocessor_config.json", **fields)
    assert message in refusal(checkpoint)


def test_the_bounds_of_a_processor_hold_in_a_call_too_and_admit_what_is_published():
    for patch_size, num_patches in ((224, 400), (224, 2500), (1024, 25), (2048, 25), (64, 10_000)):
        HybridIQAImageProcessor(patch_size=patch_size, num_patches=num_patches)
    processor = HybridIQAImageProcessor(patch_size=224)
    with pytest.raises(ValueError, match="at most 128 megapixels in all, got num_patches 10000 x patch_size 224 x 224"):
        processor(make_picture(), num_patches=10_000)
    processor.num_patches = 10_000
    with pytest.raises(ValueError, match="at most 128 megapixels in all"):
        processor.patch_boxes(1000, 1000)


def test_means_may_come_as_an_array():
    processor = HybridIQAImageProcessor(image_mean=np.array([0.5, 0.5, 0.5]), image_std=np.array([0.2, 0.2, 0.25]))
    assert (processor.image_mean, processor.image_std) == ([0.5, 0.5, 0.5], [0.2, 0.2, 0.25])


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["[]", "5", "null", "", "{", '"text"', "[" * 5000, '{"patch_size": 1e400}', "\xff"])
def test_a_file_that_is_no_configuration_is_one_line(checkpoint, file, text):
    (checkpoint / file).write_text(text, encoding="latin-1")
    assert refusal(checkpoint)


@pytest.mark.parametrize(
    "fields",
    [
        {"patch_size": None},
        {"backbone_config": []},
        {"backbone_config": {"model_type": "no such"}},
        {"backbone_config": {"model_type": "bert", "stage_names": ["stem", "1", "2", "3", "4"]}},
        {"score_range": {}},
        {"custom_pipelines": {"x": {}}},
        {"feature_map_size": 5},
        {"id2label": 5},
        {"id2label": {"a": "b"}},
        {"dtype": "no such"},
        {"architectures": 5},
        {"model_type": "bert"},
    ],
)
def test_a_field_that_makes_no_sense_is_one_line_or_harmless(checkpoint, fields, tiny_model):
    change(checkpoint, "config.json", **fields)
    try:
        score = load_model(checkpoint).score(make_picture()).item()
    except ValueError as error:
        assert "\n" not in str(error) and str(checkpoint) in str(error)
    else:
        assert score == tiny_model.score(make_picture()).item()


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x04\0\0\0\0\0\0\0null", b"\x80\x04pickle..."]
)
def test_a_file_of_weights_that_is_none_is_one_line(checkpoint, data):
    (checkpoint / "model.safetensors").write_bytes(data)
    assert refusal(checkpoint)


def test_the_name_of_a_model_on_the_hub_leads_to_no_folder():
    for name in ("you/scorer", "y.o-u/s_c.1", "_a/_b"):
        assert HUB_ID.fullmatch(name)
    for name in (
        "../scorer",
        "you/..",
        "./x",
        "you/",
        "/scorer",
        "a/b/c",
        "you/.scorer",
        "you\\scorer",
        "-x/y",
        "you/x\n",
    ):
        assert not HUB_ID.fullmatch(name)
        with pytest.raises(ValueError, match=r"must be a folder or a Hub id|cannot load"):
            load_model(name)
