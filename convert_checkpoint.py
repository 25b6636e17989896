"""A published hyperIQA or hybridIQA checkpoint -> a folder that `AutoModel.from_pretrained` loads.

    python convert_checkpoint.py CHECKPOINT.pth --output_dir DIR
    python convert_checkpoint.py USER/REPO --filename CHECKPOINT.pth --output_dir DIR

hyperIQA's KonIQ-10k checkpoint speaks in 0-100 and wants every image squeezed first:

    python convert_checkpoint.py koniq_pretrained.pkl --output_dir DIR --score_range 0 100 --size 512 384
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, list_repo_files
from transformers import PreTrainedModel, ResNetConfig

from hybridiqa.backbones import read_state_dict, torchvision_depths, torchvision_key_table
from hybridiqa.files import check_new_folder, new_folder
from hybridiqa.loading import first_line, hub_class, silence_libraries

SUFFIXES = (".pth", ".pkl")
NUM_TARGET_LAYERS = 5


def key_table(depths: list[int]) -> dict[str, str]:
    """Every key of the original layout -> ours, for a bottleneck ResNet of these depths."""
    table = {f"res.{old}": f"backbone.{new}" for old, new in torchvision_key_table(depths).items()}
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
    """The model that holds these weights.

    Raises:
        ValueError: keys or shapes that are not those of such a checkpoint; the first of them is named.
    """
    depths = [max(1, depth) for depth in torchvision_depths([key.removeprefix("res.") for key in state_dict])]
    table = key_table(depths)
    missing = [key for key in table if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in table]
    if missing or unexpected:
        raise ValueError(
            "not a hyperIQA or hybridIQA checkpoint: "
            f"first missing key {missing[0] if missing else 'none'} ({len(missing)} missing), "
            f"first unexpected key {unexpected[0] if unexpected else 'none'} ({len(unexpected)} unexpected)"
        )
    model_class = hub_class("modeling_hybridiqa.HybridIQAModel")
    config = model_class.config_class(backbone_config=ResNetConfig(depths=depths), score_range=score_range)
    model = model_class(config)
    expected = model.state_dict()
    for key, tensor in state_dict.items():
        if tensor.shape != expected[table[key]].shape:
            raise ValueError(f"{key} must be {tuple(expected[table[key]].shape)}, got {tuple(tensor.shape)}")
    model.load_state_dict(expected | {table[key]: tensor for key, tensor in state_dict.items()})
    return model


def find_checkpoint(checkpoint: str, filename: str | None) -> Path:
    """The file itself, or the one in a Hub repository.

    Raises:
        ValueError: no such file, or more than one to choose from.
    """
    if Path(checkpoint).is_file():
        return Path(checkpoint)
    if Path(checkpoint).exists() or checkpoint.count("/") != 1 or checkpoint.endswith(SUFFIXES):
        raise ValueError(f"{checkpoint} is neither a file nor a Hub id like user/name")
    try:
        if filename is None:
            found = [name for name in list_repo_files(checkpoint) if name.endswith(SUFFIXES)]
            if len(found) != 1:
                raise ValueError(f"{checkpoint} holds {', '.join(found) or 'no .pth or .pkl'}: choose with --filename")
            filename = found[0]
        return Path(hf_hub_download(checkpoint, filename))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot fetch {checkpoint} from the Hub: {first_line(error)}") from error


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a local .pth / .pkl, or a Hub id")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--filename", help="which file of the Hub repository (default: its only .pth or .pkl)")
    parser.add_argument("--score_range", type=float, nargs=2, default=[1.0, 9.0], metavar=("MIN", "MAX"))
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="squeeze each image to it, in pixels"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    try:
        check_new_folder(args.output_dir)
        processor = hub_class("image_processing_hybridiqa.HybridIQAImageProcessor")(size=args.size)
        if not args.score_range[0] < args.score_range[1]:
            raise ValueError(f"--score_range must be MIN MAX with MIN < MAX, got {args.score_range}")
        state_dict = read_state_dict(find_checkpoint(args.checkpoint, args.filename))
        model = build_model(state_dict, args.score_range)
        model.image_processor = processor
        with new_folder(args.output_dir) as unfinished:
            model.save_pretrained(unfinished)
    except (ValueError, OSError) as error:
        print(f"convert_checkpoint.py: error: {error}", file=sys.stderr)
        return 2
    depths = model.config.backbone_config.depths
    print(f"{args.output_dir}: backbone depths {depths}, {model.num_parameters() / 1e6:.1f} M parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
