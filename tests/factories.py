"""Tiny models, images and files that the tests share."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from scipy.ndimage import gaussian_filter
from transformers import ConvNextConfig, PreTrainedModel, ResNetConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from hybridiqa.models import hub_code
from hybridiqa.models.hyperiqa_weights import key_table
from hybridiqa.utils.root import ROOT

NAMES = ("configuration", "image_processing", "image_loading", "image_bounds", "modeling", "pipeline")
CODE = {f"{name}_hybridiqa.py" for name in NAMES}

CHECKPOINT = {"config.json", "model.safetensors", "preprocessor_config.json", *CODE}

RECORDED = Path(__file__).parent / "recorded"
NUMBERS = json.loads((RECORDED / "numbers.json").read_text())

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


def hub_object(name: str) -> Any:
    """Return an object of the Hub files that only tests ask for, such as `image_bounds_hybridiqa.MAX_SCANS`."""
    return get_class_from_dynamic_module(name, str(ROOT))


def make_tiny_model(backbone: str = "resnet", seed: int = 0, **fields) -> PreTrainedModel:
    """Build a model of a few thousand parameters for 64-pixel patches, in evaluation mode."""
    torch.manual_seed(seed)
    model_class = hub_code.HybridIQAModel
    config = model_class.config_class(backbone_config=BACKBONES[backbone], **(TINY_SIZES | fields))
    return model_class(config).eval()


def make_pooled_model(backbone: str = "resnet", seed: int = 0, **fields) -> PreTrainedModel:
    """Build a tiny model with the pooled head, which standardises by a few images and whose scores differ."""
    model = make_tiny_model(backbone, seed, head_type="pooled", **({"pooled_width": 16} | fields))
    images = [make_picture(100, 80, seed=number) for number in range(6)]
    model.pooled_head.fit_statistics(model.read_views(model.image_processor(images)["pixel_values"]))
    return model


def make_picture(width: int = 150, height: int = 100, seed: int = 0) -> Image.Image:
    """Draw smooth coloured structure with a little grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def textured_picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """Draw smooth colours with fine grain on top, neither grey nor flat."""
    grain = np.random.default_rng(seed).standard_normal((height, width, 3))
    layers = sum(gaussian_filter(grain, (sigma, sigma, 0)) * (40 * sigma) for sigma in (0.7, 3, 10))
    return Image.fromarray(np.clip(128 + layers, 0, 255).astype(np.uint8))


def difference(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean())


def write_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return path


def make_split(first: int, count: int) -> Dataset:
    """Make rows of images, the second of them broken."""
    images = [as_png(first + index) for index in range(count)]
    images[1] = {"bytes": b"no picture", "path": None}
    columns = {"picture": images, "name": [str(first + index) for index in range(count)]}
    return Dataset.from_dict(columns, features=Features({"picture": ImageFeature(), "name": Value("string")}))


def original_state_dict(depths: list[int], prefix: str = "") -> dict[str, torch.Tensor]:
    """Make a checkpoint of the original layout with seeded weights; `prefix` as DataParallel leaves it."""
    model_class = hub_code.HybridIQAModel
    config = model_class.config_class(backbone_config={"model_type": "resnet", "depths": depths})
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model_class(config).state_dict().items()}
    return {prefix + old: seeded_tensor(old, shapes[new]) for old, new in key_table(depths).items()}


def as_png(seed: int) -> dict:
    buffer = io.BytesIO()
    make_picture(70 + seed, 80, seed=seed).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{seed}.png"}


def seeded_tensor(key: str, shape: torch.Size) -> torch.Tensor:
    """Make the recorded run's weights: from the key's checksum, so that no checkpoint has to be stored."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        return torch.from_numpy(rng.uniform(0.5, 1.5, shape).astype(np.float32))
    values = rng.standard_normal(shape)
    gain = 0.25 if ".bn3." in key else 0.15 if key.startswith("fc") else 1.0
    if key.endswith(("running_mean", "bias")):
        values = 0.1 * values
    elif len(shape) == 1:
        values = gain * (1 + 0.1 * values)
    else:
        values = gain * values * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, np.float32))
