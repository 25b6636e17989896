"""Turn scored images into a dataset to train on. `python prepare_dataset.py --help` tells how."""

import sys

from hybridiqa.commands.prepare_dataset import main

if __name__ == "__main__":
    sys.exit(main())
