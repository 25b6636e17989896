"""Make a trained model the checkpoint that this repository carries: weights as float16, loaded and scored as float32.

    python recipes/embed_checkpoint.py TRAINED_DIR --dataset PREPARED_DIR

Replaces `config.json`, `preprocessor_config.json` and `model.safetensors` at the root; the code files there stay. The
checkpoint scores by 25 patches, whatever it was validated with in training; its `score_quantiles` are those of its own
scores, by these 25, on the validation split of PREPARED_DIR.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hybridiqa.dataset_loading import load_prepared
from hybridiqa.loading import ROOT, load_model, silence_libraries
from hybridiqa.percentiles import score_quantiles

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
NUM_PATCHES = 25


def round_to_half(model: PreTrainedModel) -> None:
    """What the file will hold, so that the quantiles are those of the scores that users get."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().to(tensor.dtype)


def embed(trained_dir: Path, dataset: Path, target_dir: Path) -> int:
    """Write the three files; returns the size of the weights in bytes."""
    model = load_model(trained_dir, dtype=torch.float32)  # config.json then says float32, whatever the file holds
    round_to_half(model)
    model.config.num_patches = model.image_processor.num_patches = NUM_PATCHES
    scores = [model.score(row["image"]).item() for row in load_prepared(dataset)["validation"]]
    model.config.score_quantiles = score_quantiles(scores)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, state_dict=halved)
        for name in FILES:
            shutil.copyfile(Path(temporary, name), target_dir / name)
    return (target_dir / "model.safetensors").stat().st_size


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained_dir", type=Path, help="a folder that train.py wrote")
    parser.add_argument("--dataset", type=Path, required=True, help="the prepared dataset that it was trained on")
    args = parser.parse_args(argv)
    silence_libraries()
    try:
        num_bytes = embed(args.trained_dir, args.dataset, ROOT)
    except ValueError as error:
        print(f"embed_checkpoint.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{ROOT / 'model.safetensors'}: {num_bytes / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
