"""Train a scorer on a prepared dataset. `python train.py --help` tells how."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the libraries are loaded

from hybridiqa.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
