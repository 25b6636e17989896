"""Arguments of scripts that train and prepare for the Hub."""

from __future__ import annotations

QUICK = ["--num_epochs", 1, "--num_train_patches", 4, "--num_eval_patches", 2, "--batch_size", 16]
QUICK += ["--num_resamples", 20]


def prepare(script, images, *arguments, **options) -> str:
    """Make a dataset of images by `prepare_dataset.py`; return what it prints."""
    fractions = ["--validation_fraction", 0.34, "--test_fraction", 0]
    return script("prepare_dataset.py", images, "--output_dir", "prepared", *fractions, *arguments, **options)
