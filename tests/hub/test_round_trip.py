"""Saved, loaded elsewhere, and the same score to the last bit."""

import os

import pytest
import torch
from factories import BACKBONES, make_picture, make_tiny_model
from fakes.fresh_python import run_fresh
from transformers import AutoConfig, AutoImageProcessor, AutoModel

SCORE_IN_A_NEW_PROCESS = """
import sys
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(model.score(sys.argv[2]).item().hex())
"""


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_same_score_in_a_new_process_from_another_folder(tmp_path, backbone):
    model = make_tiny_model(backbone)
    model.image_processor = type(model.image_processor)(patch_size=64, num_patches=6, size=(80, 96))
    make_picture().save(tmp_path / "a.png")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    command = ["-c", SCORE_IN_A_NEW_PROCESS, tmp_path / "moved", tmp_path / "a.png"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # on which the last bits depend
    done = run_fresh(command, environment, tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert float.fromhex(done.stdout.strip()) == model.score(tmp_path / "a.png").item()


def test_loaded_weights_lie_where_torch_would_have_put_them(tiny_checkpoint):
    model = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    assert not [name for name, weight in model.state_dict().items() if weight.data_ptr() % 64]


def test_a_saved_folder_holds_all_that_loading_needs(tmp_path):
    make_tiny_model().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "configuration_hybridiqa.py",
        "image_bounds_hybridiqa.py",
        "image_loading_hybridiqa.py",
        "image_processing_hybridiqa.py",
        "model.safetensors",
        "modeling_hybridiqa.py",
        "pipeline_hybridiqa.py",
        "preprocessor_config.json",
    }
    assert AutoConfig.from_pretrained(tmp_path, trust_remote_code=True).model_type == "hybridiqa"


def test_a_checkpoint_that_is_saved_over_takes_its_processor_along(tmp_path):
    model = make_tiny_model()
    model.save_pretrained(tmp_path)
    model.image_processor = type(model.image_processor)(patch_size=64, num_patches=9, size=(100, 90))
    model.save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=True).num_patches == 9
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert torch.equal(loaded.score(make_picture()), model.score(make_picture()))


def test_built_on_the_meta_device_and_then_loaded_the_score_is_the_same(tiny_checkpoint):
    reference = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    with torch.device("meta"):
        model = type(reference)(reference.config)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu").load_state_dict(reference.state_dict())
    assert torch.equal(model.eval().score(make_picture()), reference.score(make_picture()))


def test_weights_saved_as_float16_are_loaded_and_scored_in_float32(tmp_path):
    model = make_tiny_model()
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    model.save_pretrained(tmp_path, state_dict=dict(halved))  # it empties what it is given
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert loaded.dtype == torch.float32
    model.load_state_dict({name: tensor.float() for name, tensor in halved.items()})
    assert torch.equal(loaded.score(make_picture()), model.score(make_picture()))


def test_missing_weights_are_initialised_as_ours(tmp_path):
    model = make_tiny_model()
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("hyper_network")}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    weight = loaded.hyper_network.weight_layers[0].weight
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.1)
    assert torch.equal(
        loaded.distortion_features.stages[0].linear.weight, model.distortion_features.stages[0].linear.weight
    )
