"""Tiny models and pictures that the tests share. Everything runs on the CPU, without a network."""

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library of the Hub is imported

import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub
from PIL import Image
from transformers import ConvNextConfig, PreTrainedModel, ResNetConfig

from hybridiqa.models.hub_code import hub_class

torch.set_num_threads(2)

BACKBONES = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[16, 32, 64, 128], depths=[1, 2, 1, 1]),
    "convnext": ConvNextConfig(hidden_sizes=[8, 16, 32, 64], depths=[1, 2, 1, 1]),
}
TINY_SIZES = {
    "patch_size": 64,
    "num_patches": 4,
    "hyper_channels": 12,
    "target_input_size": 64,
    "target_widths": [16, 8],
}


def make_tiny_model(backbone: str = "resnet", seed: int = 0, **fields) -> PreTrainedModel:
    """A model of a few thousand parameters for 64-pixel patches, in evaluation mode."""
    torch.manual_seed(seed)
    model_class = hub_class("modeling_hybridiqa.HybridIQAModel")
    config = model_class.config_class(backbone_config=BACKBONES[backbone], **(TINY_SIZES | fields))
    return model_class(config).eval()


def make_picture(width: int = 150, height: int = 100, seed: int = 0) -> Image.Image:
    """Smooth coloured structure with a little grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """An empty Hub on loopback; a request that it does not know fails the test."""
    with LoopbackHub() as hub:
        yield hub
        assert hub.unknown == []


@pytest.fixture
def tiny_model() -> PreTrainedModel:
    return make_tiny_model()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> str:
    """A folder with a tiny model, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_tiny_model().save_pretrained(folder)
    return str(folder)
