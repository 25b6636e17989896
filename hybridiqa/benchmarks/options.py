"""Choices and defaults of the benchmarks of speed, which `--help` shows without loading torch."""

DEPTHS = {"r50": [3, 4, 6, 3], "r152": [3, 8, 36, 3]}  # what the published code builds, and what it describes
DEFAULT_BATCH_SIZES = {"cpu": 8, "cuda": 300}  # of a training step; 300: the published one
