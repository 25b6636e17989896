"""Score images: files and folders, or a dataset. `python score.py --help` tells how."""

import sys

from hybridiqa.commands.score import main

if __name__ == "__main__":
    sys.exit(main())
