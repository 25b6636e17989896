"""Convert a published hyperIQA or hybridIQA checkpoint. `python convert_checkpoint.py --help` tells how."""

import sys

from hybridiqa.commands.convert_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
