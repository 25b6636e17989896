"""Train on people's own scores (HECD: 792 recoloured photographs of 12 scenes), and test on scenes never seen.

    python recipes/hecd.py HECD_DIR --backbone BACKBONE_DIR --output_dir OUT --run frozen
    python recipes/hecd.py HECD_DIR --backbone BACKBONE_DIR --output_dir OUT --run fine_tuned
    python recipes/hecd.py HECD_DIR --output_dir OUT --run embedded

HECD_DIR holds `images/` and a table `scores.csv` with the columns file, scene and mos (mean of ratings 1-5; arXiv
2204.05200). BACKBONE_DIR is what `opennsfw_backbone.py` writes. The scenes are dealt into three thirds; each third is
the test split of one model, which learns from the others. Two random halves of the raters agree at an SRCC of 0.70.

Result (SRCC within scene, mean over the scenes; 95 % intervals over the scenes) and duration on two CPU cores:

| run | third 1 | third 2 | third 3 | all twelve scenes | minutes a third |
|---|---|---|---|---|---|
| frozen | 0.330 | 0.319 | 0.293 | 0.314 [0.236, 0.388] | 8 (on one core) |
| fine_tuned | 0.498 | 0.468 | 0.461 | 0.476 [0.400, 0.556] | 10 (14 on one core) |
| fine_tuned (Kodak) | 0.445 | 0.407 | 0.484 | 0.445 [0.376, 0.518] | 12 (on one core) |
| embedded | 0.569 | 0.499 | 0.301 | 0.456 [0.329, 0.567] | 3 |

For the row before the last, the backbone's batch norm statistics are of the 24 Kodak photographs (`opennsfw_backbone.py
--images`). Over the images of all scenes of a third: frozen 0.32, 0.35, 0.17; fine_tuned 0.38, 0.52, 0.31; with Kodak
0.46, 0.41, 0.32; embedded 0.45, 0.53, 0.14. A ridge regression on mean and standard deviation of the frozen backbone's
four stage maps over native patches, on the same thirds: 0.47 within scene and 0.32, 0.38, 0.41. Fine-tuned (its first
row) less ridge, scene by scene: +0.008 [-0.068, 0.090], which twelve scenes cannot tell from nothing.

The embedded checkpoint without any training on HECD reaches 0.382. Trained on native patches of its 128 pixels, with
`--ranking_weight 1` between the versions of a scene, it had 0.409, 0.375 and 0.256 (0.347 over all scenes): how an
image is coloured cannot be seen on a small part of it.

The predictions of all thirds go to OUT/RUN.csv. The table in docs/results.md (of its last row) is then made by

    python prepare_dataset.py build HECD_DIR/images --scores_csv HECD_DIR/scores.csv --score_column mos \
        --group_column scene --validation_fraction 0 --test_fraction 0 --output_dir prepared-hecd
    python benchmark.py ranking --model embedded=. trained=OUT/embedded.csv brisque --dataset hecd=prepared-hecd \
        --output_dir hecd_report
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hybridiqa.utils.root import ROOT
from metrics.iqa.iqa import bootstrap_intervals, compute_metrics

NUM_SPLITS = 3
SHOWN = ("srcc_within_group", "srcc")
OPTIONS = "--score_range 1 5 --grayscale_probability 0 --seed 0"
NATIVE = "--train_crop native --num_eval_patches 6 "
RUNS = {
    "frozen": NATIVE + "--freeze_backbone --num_train_patches 8 --batch_size 64 --num_epochs 4 --lr_decay_epochs 3 "
    "--learning_rate 4e-5",
    "fine_tuned": NATIVE + "--num_train_patches 4 --batch_size 32 --num_epochs 6 --lr_decay_epochs 4 "
    "--learning_rate 1e-5",
    # Colours are judged over the whole image, of which a native patch of 128 pixels shows little.
    "embedded": "--train_crop resized --crop_scale 0.3 1 --eval_sampling multiscale --num_eval_patches 9 "
    "--num_train_patches 8 --batch_size 32 --num_epochs 4 --lr_decay_epochs 3 --learning_rate 1e-5",
}


def deal_scenes(scores_path: Path) -> list[list[str]]:
    """Deal the scenes into thirds, always the same."""
    with open(scores_path, newline="", encoding="utf-8") as file:
        scenes = sorted({row["scene"] for row in csv.DictReader(file)})
    random.Random(0).shuffle(scenes)
    size = len(scenes) // NUM_SPLITS
    return [scenes[start : start + size] for start in range(0, len(scenes), size)]


def run(script: str, *options: str | Path) -> None:
    subprocess.run([sys.executable, str(ROOT / script), *map(str, options)], check=True)


def train_split(args: argparse.Namespace, number: int, test_scenes: list[str]) -> Path:
    """Prepare the data without the test scenes, train, and return the model's folder."""
    prepared, output_dir = args.output_dir / f"prepared-{number}", args.output_dir / f"{args.run}-{number}"
    if not prepared.exists():
        prepare = [args.hecd_dir / "images", "--scores_csv", args.hecd_dir / "scores.csv"]
        prepare += ["--score_column", "mos", "--group_column", "scene", "--test_groups", "|".join(test_scenes)]
        run("prepare_dataset.py", "build", *prepare, "--validation_fraction", "0.125", "--output_dir", prepared)
    start = ["--init_from", ROOT] if args.run == "embedded" else ["--pretrained_backbone", args.backbone]
    train = ["--dataset", prepared, "--output_dir", output_dir, *start]
    run("train.py", *train, *OPTIONS.split(), *RUNS[args.run].split(), "--resume")
    return output_dir


def read_test_predictions(output_dir: Path) -> list[dict[str, str]]:
    with open(output_dir / "predictions.csv", newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "test"]


def write_predictions(rows: list[dict[str, str]], path: Path) -> None:
    """Write a table of scores for `benchmark.py ranking --model`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "prediction"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def show(title: str, rows: list[dict[str, str]], scene_of: dict[str, str]) -> None:
    """Print SRCC within scene and overall, with 95 % bootstrap intervals over scenes."""
    predictions, scores = ([float(row[column]) for row in rows] for column in ("prediction", "score"))
    scenes = [scene_of[row["path"]] for row in rows]
    metrics = compute_metrics(predictions, scores, scenes)
    intervals = bootstrap_intervals(predictions, scores, scenes)
    cells = [f"{name} {metrics[name]:.3f} [{intervals[name][0]:.3f}, {intervals[name][1]:.3f}]" for name in SHOWN]
    print(f"{title}: {', '.join(cells)}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hecd_dir", type=Path)
    parser.add_argument("--backbone", type=Path, help="what all runs but `embedded` start from")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--run", choices=RUNS, required=True)
    args = parser.parse_args(argv)
    if (args.backbone is None) != (args.run == "embedded"):
        parser.error("--backbone is what all runs but `embedded` start from")
    with open(args.hecd_dir / "scores.csv", newline="", encoding="utf-8") as file:
        scene_of = {row["file"]: row["scene"] for row in csv.DictReader(file)}
    pooled = []
    for number, scenes in enumerate(deal_scenes(args.hecd_dir / "scores.csv")):
        rows = read_test_predictions(train_split(args, number, scenes))
        show(f"split {number}, scenes {' '.join(scenes)}", rows, scene_of)
        pooled += rows
    show("all twelve scenes, each by the model that never saw it", pooled, scene_of)
    write_predictions(pooled, args.output_dir / f"{args.run}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
