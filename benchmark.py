"""Measure how well scorers judge and how fast they are. `python benchmark.py --help` tells how."""

import sys

from hybridiqa.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
