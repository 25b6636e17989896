"""Pretrained weights for the backbone: a folder or Hub repository of transformers, or torchvision's ResNet file.

For the pooled head that may be an encoder of tokens, too: the vision part of SigLIP or CLIP, DINOv2, a ViT.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_MAPPING,
    AutoBackbone,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    ResNetConfig,
)

from hybridiqa.models import hub_code
from hybridiqa.utils.files import error_reason
from hybridiqa.utils.libraries import first_line

DEFAULT_BACKBONE = "microsoft/resnet-152"  # ImageNet
BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
TORCHVISION_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")


def count_blocks(keys: list[str]) -> list[int]:
    """Count the blocks in each of the four stages, as the keys of torchvision's bottleneck ResNet tell."""
    blocks = {(int(match[1]), int(match[2])) for key in keys if (match := TORCHVISION_BLOCK.match(key))}
    return [sum(stage == number for number, _ in blocks) for stage in range(1, 5)]


def map_torchvision_keys(depths: list[int]) -> dict[str, str]:
    """Map torchvision's keys of a bottleneck ResNet (without its classifier) to those of transformers' backbone."""
    pairs = [("conv1", "bn1", "embedder.embedder")]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            old, new = f"layer{stage + 1}.{block}", f"encoder.stages.{stage}.layers.{block}"
            pairs += [(f"{old}.conv{i + 1}", f"{old}.bn{i + 1}", f"{new}.layer.{i}") for i in range(3)]
            if block == 0:
                pairs.append((f"{old}.downsample.0", f"{old}.downsample.1", f"{new}.shortcut"))
    table = {f"{convolution}.weight": f"{new}.convolution.weight" for convolution, _, new in pairs}
    for _, normalization, new in pairs:
        table |= {f"{normalization}.{tensor}": f"{new}.normalization.{tensor}" for tensor in BATCH_NORM_TENSORS}
    return table


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a `.safetensors`, `.pth` or `.pkl`, without running code in it or keeping `module.` prefixes.

    Raises:
        ValueError: not a dictionary of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error_reason(error)}") from error
    except Exception as error:  # a broken file can raise nearly anything here
        raise ValueError(f"{path} is not a file of tensors that torch.load(weights_only=True) reads") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds {type(loaded).__name__}, accepted is a dictionary of tensors (a state dict)")
    return {str(key).removeprefix("module."): tensor for key, tensor in loaded.items()}


def load_backbone(
    name: str, backbone_config: PretrainedConfig | None = None, head_type: str = "hyper"
) -> PreTrainedModel:
    """Load a pretrained backbone that gives four stage maps or, for the pooled head, an encoder of tokens.

    Args:
        name: folder or Hub repository of transformers, or a file of torchvision's ResNet weights.
        backbone_config: the architecture that it must have; by default its own.
        head_type: which head it is for.

    Raises:
        ValueError: nothing that can be loaded as a backbone; the message says what was got.
    """
    if Path(name).is_file():
        return _from_torchvision(Path(name), backbone_config)
    if not Path(name).is_dir() and name.count("/") != 1:
        raise ValueError(f"--pretrained_backbone must be a folder, a file or a Hub id like user/name, got {name}")
    try:
        fields, _ = PretrainedConfig.get_config_dict(name)
        hub_code.check_bounds("config.json", fields)
        config = backbone_config or AutoConfig.from_pretrained(name, trust_remote_code=False)
        config = getattr(config, "vision_config", config)  # of a model of images and texts
        hub_code.find_weights(name)
        if head_type == "pooled" and is_encoder(config):
            backbone_class: Any = MODEL_MAPPING[type(config)]
        else:
            config.out_indices = [1, 2, 3, 4]
            # AutoBackbone.from_pretrained asks the network even for a folder.
            backbone_class = MODEL_FOR_BACKBONE_MAPPING[type(config)]
        backbone, loading_info = backbone_class.from_pretrained(
            name, config=config, output_loading_info=True, use_safetensors=True
        )
    except Exception as error:  # whatever is wrong in somebody's files, transformers finds it in its own way
        raise ValueError(f"cannot load the backbone {name}: {first_line(error)}") from error
    missing = loading_info["missing_keys"]  # a few are normal: a classifier's ConvNeXt has no norms for its stages
    if len(missing) > len(backbone.state_dict()) / 2:
        raise ValueError(f"{name} holds no {config.model_type} backbone: first missing key {min(missing)}")
    return backbone


def is_encoder(config: PretrainedConfig) -> bool:
    """Return whether a configuration describes an encoder of tokens, and no pyramid of four stages after a stem."""
    return len(getattr(config, "stage_names", None) or ()) != 5 or not hasattr(config, "depths")


def read_normalization(name: str) -> dict[str, list[float]]:
    """Return `image_mean` and `image_std` (RGB, of values 0-1) that an encoder's own processor has, if it says so.

    Args:
        name: folder or Hub repository of transformers.

    Raises:
        ValueError: a processor's file that is no JSON object.
    """
    path = hub_code.find_file(name, "preprocessor_config.json")
    if path is None:
        return {}
    try:
        fields = dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name}: preprocessor_config.json cannot be read: {first_line(error)}") from error
    return {key: fields[key] for key in ("image_mean", "image_std") if fields.get(key) is not None}


def _from_torchvision(path: Path, backbone_config: PretrainedConfig | None) -> PreTrainedModel:
    state_dict = read_state_dict(path)
    depths = count_blocks(list(state_dict))
    table = map_torchvision_keys(depths)
    missing = [key for key in table if key not in state_dict and not key.endswith("num_batches_tracked")]
    if missing or 0 in depths:
        raise ValueError(f"{path} is not a bottleneck ResNet as torchvision saves it: first missing key {missing[:1]}")
    if backbone_config is None:
        backbone_config = ResNetConfig(depths=depths)
        backbone_config.out_indices = [1, 2, 3, 4]
    backbone = AutoBackbone.from_config(backbone_config)
    renamed = {new: state_dict[old] for old, new in table.items() if old in state_dict}
    try:
        backbone.load_state_dict(backbone.state_dict() | renamed)
    except RuntimeError as error:
        raise ValueError(
            f"{path} has depths {depths}, which does not fit the architecture that --config names"
        ) from error
    return backbone
