"""Export of a checkpoint to one ONNX file, in float32 or calibrated int8, compared with torch's scores."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from hybridiqa.inference.onnx_engine import (
    INPUT_NAME,
    METADATA_KEY,
    OUTPUT_NAMES,
    OnnxDescription,
    OnnxRuntimeEngine,
    OpenVinoEngine,
)
from hybridiqa.models.loading import find_head_type, model_fingerprint
from hybridiqa.utils.libraries import import_optional
from metrics.iqa.iqa import compute_metrics

logger = logging.getLogger(__name__)

MIN_IMAGES = 10
PATCHES_AN_IMAGE = 5  # to calibrate on, spread over those that are scored
BACKBONE_PREFIX = "/model/backbone/"  # of the names of its nodes
OPSET = 17  # the first with layer normalisation as one operation
PARITY_BATCH_SIZES = (1, 5, 7)


def choose_evenly(paths: Sequence[Path], limit: int) -> list[Path]:
    """Return at most `limit` of the paths, evenly spread."""
    every = max(1, len(paths) / limit)
    return [path for index, path in enumerate(paths) if index == 0 or index // every > (index - 1) // every]


def read_images(paths: Sequence[Path], image_processor: Any) -> torch.Tensor:
    """Read uint8 `(images, patches, 3, height, width)`; what cannot be read is reported and left out.

    Raises:
        ValueError: fewer than 10 images.
    """
    patches = []
    for path in paths:
        try:
            patches.append(image_processor.extract_patches(path))
        except ValueError as error:
            logger.warning("%s", error)
    if len(patches) < MIN_IMAGES:
        raise ValueError(f"at least {MIN_IMAGES} calibration images are needed, got {len(patches)} that can be read")
    return torch.stack(patches)


def quantize_backbone(network: Any, patches: torch.Tensor, image_processor: Any) -> Any:
    """Quantize the backbone of a network (an `onnx.ModelProto`) to int8; all else, 3 % of the work, stays float32.

    Args:
        patches: uint8 `(images, patches, 3, height, width)`, to calibrate on.
    """
    nncf = import_optional("nncf")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    chosen = torch.linspace(0, patches.shape[1] - 1, PATCHES_AN_IMAGE).round().long().unique()
    if getattr(image_processor, "whole_views", None):
        chosen = torch.arange(patches.shape[1])  # the network takes all patches of an image
    images = [image_processor.normalize_patches(image[chosen]).numpy() for image in patches]
    others = [node.name for node in network.graph.node if not node.name.startswith(BACKBONE_PREFIX)]
    return nncf.quantize(
        network,
        nncf.Dataset(images, lambda image: {INPUT_NAME: image}),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        # The layers that generate the target network, and its products, need more than 8 bits: else SRCC falls by 0.02.
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )


def describe_int8(description: OnnxDescription, network: Any) -> OnnxDescription:
    """Return what the int8 file says about itself: its scores are its own, so its fingerprint is, too."""
    digest = hashlib.blake2b(description.fingerprint.encode() + network.SerializeToString(), digest_size=8)
    return replace(description, dtype="int8", fingerprint=digest.hexdigest())


def measure_rank_correlation(float_network: bytes, int8_network: bytes, patches: torch.Tensor) -> float:
    """Return the SRCC of the images' scores in int8 with those in float32, both computed by OpenVINO.

    Args:
        float_network, int8_network: the content of .onnx files.
        patches: uint8 `(images, patches, 3, height, width)`.
    """
    scores = [
        OpenVinoEngine(network, dtype, "the network").score_patches(patches).scores.tolist()
        for network, dtype in ((float_network, "float32"), (int8_network, "int8"))
    ]
    return compute_metrics(scores[1], scores[0])["srcc"]


class ExportedNetwork(nn.Module):
    """Network that is exported: `pixel_values (patches, 3, height, width)` -> the model's `OUTPUT_NAMES`."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if find_head_type(self.model.config) == "hyper":
            return (self.model(pixel_values).patch_scores.flatten(),)
        output = self.model(pixel_values.unsqueeze(0))  # all patches are of one image
        return output.logits, output.patch_scores.flatten(), output.features.flatten()


def export_network(model: Any, path: str) -> None:
    """Write the bare network to a file, with a dynamic number of patches and batch norm folded."""
    names = OUTPUT_NAMES[find_head_type(model.config)]
    pixel_values = model.image_processor(Image.new("RGB", (9, 9)), num_patches=2)["pixel_values"][0]
    with warnings.catch_warnings():
        # It traces the checks of shapes, which is what is wanted. Its successor needs a further package.
        warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))
        torch.onnx.export(
            ExportedNetwork(model).eval(),
            (pixel_values,),
            path,
            input_names=[INPUT_NAME],
            output_names=list(names),
            dynamic_axes={INPUT_NAME: {0: "patches"}, "patch_scores": {0: "native patches"}},
            opset_version=OPSET,
            dynamo=False,
        )


def serialize(network: Any, description: OnnxDescription) -> bytes:
    """Return the content of the file: the network (an `onnx.ModelProto`) with what it says about itself."""
    import_optional("onnx").helper.set_model_props(network, {METADATA_KEY: description.to_json()})
    return network.SerializeToString()


def describe_float(model: Any) -> OnnxDescription:
    """Return what the file in float32 says about itself."""
    return OnnxDescription(model.config, model.image_processor, "float32", model_fingerprint(model))


def measure_difference(model: Any, network: bytes) -> float:
    """Return how far patch scores of torch and ONNX Runtime differ, of smooth and noisy patches in batches of 1, 5, 7.

    With the pooled head these are the numbers of native patches, beside those of the whole image, and images' scores
    are compared, too.

    Args:
        network: as `serialize` gives it.
    """
    session, side = OnnxRuntimeEngine(network, "float32", "the network").session, model.config.patch_size
    names = [name for name in OUTPUT_NAMES[find_head_type(model.config)] if name != "features"]
    exported = ExportedNetwork(model).eval()
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch_size in PARITY_BATCH_SIZES:
        num_patches = getattr(model.image_processor, "num_whole_patches", 0) + batch_size
        coarse = torch.rand(num_patches, 3, 7, 7, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
        grain = torch.rand(num_patches, 1, 1, 1, generator=generator) * torch.randn(smooth.shape, generator=generator)
        patches = (255 * (smooth + 0.3 * grain)).clamp(0, 255).to(torch.uint8)
        pixel_values = model.image_processor.normalize_patches(patches)  # (patches, 3, height, width)
        with torch.inference_mode():
            expected = exported(pixel_values)
        outputs = session.run(names, {INPUT_NAME: pixel_values.numpy()})
        differences += [np.abs(ours - theirs.numpy()).max() for ours, theirs in zip(outputs, expected, strict=False)]
    return float(max(differences))
