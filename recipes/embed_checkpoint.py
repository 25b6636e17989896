"""Make a trained model the checkpoint that this repository carries: weights as float16, loaded and scored as float32.

    python recipes/embed_checkpoint.py TRAINED_DIR

Replaces `config.json`, `preprocessor_config.json` and `model.safetensors` at the root; the code files there stay.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hybridiqa.loading import ROOT, load_model, silence_libraries

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def embed(trained_dir: Path, target_dir: Path) -> int:
    """Write the three files; returns the size of the weights in bytes."""
    model = load_model(trained_dir, dtype=torch.float32)  # config.json then says float32, whatever the file holds
    halved = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, state_dict=halved)
        for name in FILES:
            shutil.copyfile(Path(temporary, name), target_dir / name)
    return (target_dir / "model.safetensors").stat().st_size


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained_dir", type=Path, help="a folder that train.py wrote")
    args = parser.parse_args(argv)
    silence_libraries()
    try:
        num_bytes = embed(args.trained_dir, ROOT)
    except ValueError as error:
        print(f"embed_checkpoint.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{ROOT / 'model.safetensors'}: {num_bytes / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
