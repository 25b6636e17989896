"""Make a trained model the checkpoint that this repository carries: weights as float16, loaded and scored as float32.

    python recipes/embed_checkpoint.py TRAINED_DIR --dataset PREPARED_DIR

Replaces `config.json`, `preprocessor_config.json` and `model.safetensors` at the root; the code files there stay. The
checkpoint scores by 25 patches, whatever it was validated with in training. By its scores of the validation split of
PREPARED_DIR it is calibrated, and their `score_quantiles` go with it.
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
from hybridiqa.data.loading import DatasetImages, load_prepared
from hybridiqa.models.loading import load_model
from hybridiqa.models.percentiles import score_quantiles
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.libraries import silence_libraries
from hybridiqa.utils.root import ROOT

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
NUM_PATCHES = 25


def calibrate(model: PreTrainedModel, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Stretch the model's scores so that images of the lowest and of the highest label average just these labels.

    L1 draws what is uncertain to the middle of the scale. The target network's last layer is linear, and both its
    weights and its bias come out of linear layers: scaling these scales every score, and no order changes.

    Args:
        scores, labels: `(images,)`.

    Returns:
        The scores as the model gives them now.
    """
    (low, low_label), (high, high_label) = (
        (scores[labels == label].mean().item(), label.item()) for label in (labels.min(), labels.max())
    )
    factor = (high_label - low_label) / (high - low)
    offset = low_label - factor * low
    weight_layer, bias_layer = model.hyper_network.weight_layers[-1], model.hyper_network.bias_layers[-1]
    with torch.no_grad():
        for parameter in [*weight_layer.parameters(), *bias_layer.parameters()]:
            parameter.mul_(factor)
        bias_layer.bias.add_(offset)
    return factor * scores + offset


def embed(trained_dir: Path, dataset: Path, target_dir: Path) -> int:
    """Write the three files and return the size of the weights in bytes."""
    model = load_model(trained_dir, dtype=torch.float32)  # config.json then says float32, whatever the file holds
    model.config.num_patches = model.image_processor.num_patches = NUM_PATCHES
    validation = load_prepared(dataset, ["validation"])["validation"]
    scores = torch.cat([model.score(image) for image in DatasetImages(validation)])
    scores = calibrate(model, scores, torch.tensor(validation["score"][:]))
    model.config.score_quantiles = score_quantiles(scores.tolist())
    halved = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, state_dict=halved)
        for name in FILES:
            shutil.copyfile(Path(temporary, name), target_dir / name)
    return (target_dir / "model.safetensors").stat().st_size


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained_dir", type=Path, help="a folder that train.py wrote")
    parser.add_argument("--target_dir", type=Path, default=ROOT, help="where the files go (default: the root)")
    parser.add_argument("--dataset", type=Path, required=True, help="the prepared dataset that it was trained on")
    args = parser.parse_args(argv)
    silence_libraries()

    def run() -> None:
        num_bytes = embed(args.trained_dir, args.dataset, args.target_dir)
        print(f"{args.target_dir / 'model.safetensors'}: {num_bytes / 1e6:.1f} MB")

    return exit_status("embed_checkpoint.py", run)


if __name__ == "__main__":
    sys.exit(main())
