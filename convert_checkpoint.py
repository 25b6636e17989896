"""A published hyperIQA or hybridIQA checkpoint -> a folder that `AutoModel.from_pretrained` loads.

    python convert_checkpoint.py CHECKPOINT.pth --output_dir DIR
    python convert_checkpoint.py USER/REPO --filename CHECKPOINT.pth --output_dir DIR

hyperIQA's KonIQ-10k checkpoint speaks in 0-100 and wants every image squeezed first:

    python convert_checkpoint.py koniq_pretrained.pkl --output_dir DIR --score_range 0 100 --size 512 384
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, list_repo_files
from transformers import PreTrainedModel, ResNetConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module

ROOT = Path(__file__).resolve().parent
SUFFIXES = (".pth", ".pkl")
NUM_TARGET_LAYERS = 5
BLOCK = re.compile(r"res\.layer([1-4])\.(\d+)\.")


def key_table(depths: list[int]) -> dict[str, str]:
    """Every key of the original layout -> ours, for a bottleneck ResNet of these depths."""
    modules = _backbone_modules(depths)
    for stage in range(4):
        modules[f"res.lda{stage + 1}_fc"] = (f"distortion_features.stages.{stage}.linear", "weight bias")
    for stage in range(3):
        modules[f"res.lda{stage + 1}_pool.0"] = (f"distortion_features.stages.{stage}.conv", "weight")
    for index in (0, 2, 4):
        modules[f"conv1.{index}"] = (f"hyper_network.reduce.{index}", "weight bias")
    for layer in range(NUM_TARGET_LAYERS):
        kind = "conv" if layer < NUM_TARGET_LAYERS - 1 else "fc"
        modules[f"fc{layer + 1}w_{kind}"] = (f"hyper_network.weight_layers.{layer}", "weight bias")
        modules[f"fc{layer + 1}b_fc"] = (f"hyper_network.bias_layers.{layer}", "weight bias")
    return {
        f"{old}.{tensor}": f"{new}.{tensor}" for old, (new, tensors) in modules.items() for tensor in tensors.split()
    }


def _backbone_modules(depths: list[int]) -> dict[str, tuple[str, str]]:
    norm = "weight bias running_mean running_var num_batches_tracked"
    pairs = [("res.conv1", "res.bn1", "backbone.embedder.embedder")]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            old, new = f"res.layer{stage + 1}.{block}", f"backbone.encoder.stages.{stage}.layers.{block}"
            pairs += [(f"{old}.conv{i + 1}", f"{old}.bn{i + 1}", f"{new}.layer.{i}") for i in range(3)]
            if block == 0:
                pairs.append((f"{old}.downsample.0", f"{old}.downsample.1", f"{new}.shortcut"))
    modules = {convolution: (f"{new}.convolution", "weight") for convolution, _, new in pairs}
    return modules | {normalization: (f"{new}.normalization", norm) for _, normalization, new in pairs}


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.pth` / `.pkl`, without running any code in it; a `module.` prefix is taken off.

    Raises:
        ValueError: not a dictionary of tensors.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a file of tensors that torch.load(weights_only=True) reads") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds {type(loaded).__name__}, accepted is a dictionary of tensors (a state dict)")
    return {str(key).removeprefix("module."): tensor for key, tensor in loaded.items()}


def read_depths(keys: list[str]) -> list[int]:
    """Blocks in each of the four stages."""
    blocks = {(int(match[1]), int(match[2])) for key in keys if (match := BLOCK.match(key))}
    return [max(1, sum(stage == number for number, _ in blocks)) for stage in range(1, 5)]


def build_model(
    state_dict: dict[str, torch.Tensor], score_range: list[float], size: list[int] | None
) -> PreTrainedModel:
    """The model that holds these weights, with its image processor.

    Raises:
        ValueError: keys or shapes that are not those of such a checkpoint; the first of them is named.
    """
    depths = read_depths(list(state_dict))
    table = key_table(depths)
    missing = [key for key in table if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in table]
    if missing or unexpected:
        raise ValueError(
            "not a hyperIQA or hybridIQA checkpoint: "
            f"first missing key {missing[0] if missing else 'none'} ({len(missing)} missing), "
            f"first unexpected key {unexpected[0] if unexpected else 'none'} ({len(unexpected)} unexpected)"
        )
    model_class = get_class_from_dynamic_module("modeling_hybridiqa.HybridIQAModel", str(ROOT))
    config = model_class.config_class(backbone_config=ResNetConfig(depths=depths), score_range=score_range)
    model = model_class(config)
    expected = model.state_dict()
    for key, tensor in state_dict.items():
        if tensor.shape != expected[table[key]].shape:
            raise ValueError(f"{key} must be {tuple(expected[table[key]].shape)}, got {tuple(tensor.shape)}")
    model.load_state_dict(expected | {table[key]: tensor for key, tensor in state_dict.items()})
    model.image_processor = type(model.image_processor)(size=size)
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
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot fetch {checkpoint} from the Hub: {reason}") from error


def save_new(model: PreTrainedModel, output_dir: Path) -> None:
    """Write the folder whole or not at all."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}-") as temporary:
        model.save_pretrained(Path(temporary) / "model")
        (Path(temporary) / "model").replace(output_dir)


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
    try:
        if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
            raise ValueError(f"--output_dir must be a new or empty folder, {args.output_dir} is not")
        state_dict = read_state_dict(find_checkpoint(args.checkpoint, args.filename))
        model = build_model(state_dict, args.score_range, args.size)
        save_new(model, args.output_dir)
    except ValueError as error:
        print(f"convert_checkpoint.py: error: {error}", file=sys.stderr)
        return 2
    depths = model.config.backbone_config.depths
    print(f"{args.output_dir}: backbone depths {depths}, {model.num_parameters() / 1e6:.1f} M parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
