"""A checkpoint -> an ONNX network that scores patches, in one piece, and how far its scores are from torch's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hybridiqa.inference.onnx_description import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, OnnxDescription
from hybridiqa.inference.onnx_engine import OnnxRuntimeEngine
from hybridiqa.models.loading import model_fingerprint
from hybridiqa.utils.runtime import import_optional

OPSET = 17  # the first with layer normalisation as one operation
PARITY_BATCH_SIZES = (1, 5, 7)


class PatchScorer(nn.Module):
    """The network that is exported: `pixel_values (patches, 3, height, width)` -> `patch_scores (patches,)`."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).patch_scores.flatten()


def export_network(model: PreTrainedModel, path: str) -> None:
    """Write the bare network to a file, with a dynamic number of patches and batch norm folded."""
    side = model.config.patch_size
    with warnings.catch_warnings():
        # It traces the checks of shapes, which is what is wanted. Its successor needs a further package.
        warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))
        torch.onnx.export(
            PatchScorer(model).eval(),
            (torch.zeros(2, 3, side, side),),
            path,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "patches"}, OUTPUT_NAME: {0: "patches"}},
            opset_version=OPSET,
            dynamo=False,
        )


def describe(network: Any, description: OnnxDescription) -> bytes:
    """The content of the file: the network (an `onnx.ModelProto`) with what it says about itself."""
    import_optional("onnx").helper.set_model_props(network, {METADATA_KEY: description.to_json()})
    return network.SerializeToString()


def description_of(model: PreTrainedModel) -> OnnxDescription:
    """What the file in float32 says about itself."""
    return OnnxDescription(model.config, model.image_processor, "float32", model_fingerprint(model))


def largest_difference(model: PreTrainedModel, network: bytes) -> float:
    """Between the patch scores of torch and ONNX Runtime, over smooth and noisy patches in batches of 1, 5 and 7.

    Args:
        network: as `describe` gives it.
    """
    session, side = OnnxRuntimeEngine(network, "float32", "the network").session, model.config.patch_size
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch_size in PARITY_BATCH_SIZES:
        coarse = torch.rand(batch_size, 3, 7, 7, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
        grain = torch.rand(batch_size, 1, 1, 1, generator=generator) * torch.randn(smooth.shape, generator=generator)
        patches = (255 * (smooth + 0.3 * grain)).clamp(0, 255).to(torch.uint8)
        pixel_values = model.image_processor.normalize_patches(patches)  # (patches, 3, height, width)
        with torch.inference_mode():
            expected = model(pixel_values).patch_scores.flatten().numpy()
        differences.append(np.abs(session.run(None, {INPUT_NAME: pixel_values.numpy()})[0] - expected).max())
    return float(max(differences))
