"""Weights of published checkpoints (hyperIQA, hybridIQA-V1), whose names and order are not ours."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, ResNetConfig

from hybridiqa.models import hub_code
from hybridiqa.models.backbones import count_blocks, map_torchvision_keys

NUM_TARGET_LAYERS = 5
DEPTHS = {"r50": [3, 4, 6, 3], "r152": [3, 8, 36, 3]}  # what the published code builds, and what it describes


def key_table(depths: list[int]) -> dict[str, str]:
    """Map every key of the original layout to ours, for a bottleneck ResNet of these depths."""
    table = {f"res.{old}": f"backbone.{new}" for old, new in map_torchvision_keys(depths).items()}
    modules = {f"res.lda{stage + 1}_fc": f"distortion_features.stages.{stage}.linear" for stage in range(4)}
    modules |= {f"conv1.{index}": f"hyper_network.reduce.{index}" for index in (0, 2, 4)}
    for layer in range(NUM_TARGET_LAYERS):
        kind = "conv" if layer < NUM_TARGET_LAYERS - 1 else "fc"
        modules[f"fc{layer + 1}w_{kind}"] = f"hyper_network.weight_layers.{layer}"
        modules[f"fc{layer + 1}b_fc"] = f"hyper_network.bias_layers.{layer}"
    table |= {
        f"res.lda{stage + 1}_pool.0.weight": f"distortion_features.stages.{stage}.conv.weight" for stage in range(3)
    }
    return table | {f"{old}.{name}": f"{new}.{name}" for old, new in modules.items() for name in ("weight", "bias")}


def build_model(state_dict: dict[str, torch.Tensor], score_range: list[float]) -> PreTrainedModel:
    """Build the model that holds these weights.

    Raises:
        ValueError: keys or shapes that are not those of such a checkpoint; the first of them is named.
    """
    depths = [max(1, depth) for depth in count_blocks([key.removeprefix("res.") for key in state_dict])]
    table = key_table(depths)
    missing = [key for key in table if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in table]
    if missing or unexpected:
        raise ValueError(
            "not a hyperIQA or hybridIQA checkpoint: "
            f"first missing key {missing[0] if missing else 'none'} ({len(missing)} missing), "
            f"first unexpected key {unexpected[0] if unexpected else 'none'} ({len(unexpected)} unexpected)"
        )
    model_class = hub_code.HybridIQAModel
    config = model_class.config_class(backbone_config=ResNetConfig(depths=depths), score_range=score_range)
    model = model_class(config)
    expected = model.state_dict()
    for key, tensor in state_dict.items():
        if tensor.shape != expected[table[key]].shape:
            raise ValueError(f"{key} must be {tuple(expected[table[key]].shape)}, got {tuple(tensor.shape)}")
    model.load_state_dict(expected | {table[key]: tensor for key, tensor in state_dict.items()})
    return model
