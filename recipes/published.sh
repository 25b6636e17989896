#!/usr/bin/env bash
# The published recipe at its size: 1,263 images of the community's hybridIQA-V1 dataset, ResNet-152 from ImageNet, 400
# patches an image and epoch, batches of 300, 9 epochs (about 12,000 steps), on one GPU or on as many as `accelerate config`
# was told of. All of it is train.py's default; --resume makes the same command go on after a stop.
#
#     bash recipes/published.sh OUTPUT_DIR
#
# Duration and result: not known yet. It needs a GPU and the Hub, and has not been run at this size.
set -euo pipefail
cd "$(dirname "$0")/.."
output_dir=$1
[ -e "$output_dir/prepared" ] ||
  python prepare_dataset.py build Xerxemi/hybridIQA-V1 --deduplicate --output_dir "$output_dir/prepared"
accelerate launch train.py --dataset "$output_dir/prepared" --output_dir "$output_dir/scorer" --resume
